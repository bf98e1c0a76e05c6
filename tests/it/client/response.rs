//! One response, and assertions about it.

/// One response. Header names are in lower case.
#[derive(Clone, Debug)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Statuses of the interim (1xx) responses that came before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The value of a header that must not occur twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {self:?}", all.len());
        all.first().copied()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text, with invalid UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// Whether the server announced that it closes the connection after this response.
    pub fn closes(&self) -> bool {
        let asked = |word: &str| {
            let values = self.all("connection").join(",").to_ascii_lowercase();
            values.split(',').any(|it| it.trim() == word)
        };
        asked("close") || (self.version == "HTTP/1.0" && !asked("keep-alive"))
    }

    /// Asserts that the host itself made this answer: a complete problem document with `status` in
    /// it.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}: {}", self.text());
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], "about:blank", "{problem}");
        for key in ["title", "detail"] {
            let text = problem[key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "no {key} in {problem}");
            let told = ["wasm backtrace", "stack backtrace", ".rs:", "panicked"];
            assert!(!told.iter().any(|it| text.contains(it)), "tells too much: {problem}");
        }
        let id = problem["request_id"].as_str().unwrap_or_default();
        assert!(!id.is_empty(), "no request_id in {problem}");
        assert_eq!(self.header("x-request-id"), Some(id), "{self:?}");
        assert_eq!(self.header("retry-after").is_some(), status == 503, "{self:?}");
    }
}
