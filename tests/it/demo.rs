//! The demo guests: what each answers, and that its native twin answers with the same bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::client::{Response, message};
use crate::component::raw_connection::unchunked;
use crate::host::{HELLO, Host};
use crate::patience::patience;

/// A request to a guest and to its twin. `path` follows `/<guest>` and `/native/<guest>`.
struct Case {
    method: &'static str,
    guest: &'static str,
    path: String,
    headers: Vec<&'static str>,
    body: Vec<u8>,
}

impl Case {
    fn new(method: &'static str, guest: &'static str, path: &str) -> Case {
        Case { method, guest, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    fn headers(mut self, headers: &[&'static str]) -> Case {
        self.headers = headers.to_vec();
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Case {
        self.body = body.into();
        self
    }

    /// The answer to the request under this prefix.
    fn ask(&self, host: &Host, prefix: &str) -> Response {
        let path = format!("{prefix}/{}{}", self.guest, self.path);
        let mut connection = host.connect();
        connection.send(message(self.method, &path, &self.headers, &self.body));
        connection.read_to(self.method)
    }

    fn check(&self, host: &Host) {
        let what = format!("{} /{}{}", self.method, self.guest, self.path);
        let (guest, twin) = (self.ask(host, ""), self.ask(host, "/native"));
        assert_ne!(guest.status, 404, "{what}: {guest:?}");
        assert_eq!(guest.status, twin.status, "{what}: {guest:?} and {twin:?}");
        assert_eq!(self.head(&guest), self.head(&twin), "{what}");
        assert_eq!(guest.version, twin.version, "{what}");
        assert!(
            self.bytes(&guest) == self.bytes(&twin),
            "{what}: {} and {}",
            guest.text(),
            twin.text()
        );
        for answer in [guest, twin] {
            let length = answer.header("content-length").unwrap_or_default();
            if self.method != "HEAD" {
                assert_eq!(length, answer.body.len().to_string(), "{what}: {answer:?}");
            }
            assert!(answer.header("date").is_some(), "{what}: {answer:?}");
        }
    }

    /// The head without the fields that differ from moment to moment. `echo` sends its own path
    /// back, so its lengths differ.
    fn head(&self, answer: &Response) -> Vec<(String, String)> {
        let mut head = answer.headers.clone();
        head.retain(|(name, _)| {
            let is_length = name == "content-length" && self.guest == "echo";
            !is_length && !matches!(name.as_str(), "date" | "x-request-id")
        });
        head
    }

    /// The body, with the twin's path replaced by the guest's.
    fn bytes(&self, answer: &Response) -> Vec<u8> {
        let mut body = answer.body.clone();
        let twin = format!("/native/{}", self.guest).into_bytes();
        while let Some(at) = body.windows(twin.len()).position(|it| it == twin) {
            body.drain(at..at + "/native".len());
        }
        body
    }
}

fn plain() -> Vec<Case> {
    let mut cases = Vec::new();
    for guest in ["hello", "plaintext", "json", "render"] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            cases.push(Case::new(method, guest, ""));
        }
        cases.push(Case::new("GET", guest, "/"));
        cases.push(Case::new("GET", guest, "/below/it?a=b"));
        cases.push(Case::new("POST", guest, "").body("not read by anyone"));
    }
    cases
}

fn fib() -> Vec<Case> {
    let good = ["/0", "/1", "/2", "/10", "/20", "/25", "/20?n=3"];
    let bad = [
        "",
        "/",
        "/41",
        "/-1",
        "/+5",
        "/007",
        "/x",
        "/3/",
        "/3/4",
        "/%33",
        "/0x3",
        "?n=3",
        "/99999999999999999999",
    ];
    let paths = good.iter().chain(&bad);
    let methods = ["GET", "HEAD"];
    methods
        .iter()
        .flat_map(|method| paths.clone().map(|path| Case::new(method, "fib", path)))
        .collect()
}

fn echo() -> Vec<Case> {
    let kib: Vec<u8> = (0..100 * 1024).map(|at: usize| (at * 7 % 251) as u8).collect();
    let mut chunked = Vec::new();
    for chunk in kib.chunks(7000) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let many = ["X-Many: one", "x-other: 2", "x-MANY: three", "cookie: a=b", "Cookie: c=d"];
    vec![
        Case::new("GET", "echo", ""),
        Case::new("HEAD", "echo", ""),
        Case::new("GET", "echo", "/a/b%20c?d=e%2Ff&g"),
        Case::new("GET", "echo", "/").headers(&many),
        Case::new("GET", "echo", "/").headers(&["x-empty:", "x-spaces:   a  b  "]),
        Case::new("GET", "echo", "/").headers(&["x-latin: caf\u{e9}"]),
        Case::new("OPTIONS", "echo", "/"),
        Case::new("PATCH", "echo", "/x").body("p"),
        Case::new("BREW", "echo", "/pot").body("coffee"),
        Case::new("POST", "echo", "").headers(&["content-length: 0"]),
        Case::new("POST", "echo", "").body("1"),
        Case::new("PUT", "echo", "").body(&b"\0\r\n\xff"[..]),
        Case::new("POST", "echo", "").body(kib),
        Case::new("POST", "echo", "").headers(&["transfer-encoding: chunked"]).body(chunked),
        Case::new("POST", "echo", "")
            .headers(&["transfer-encoding: chunked"])
            .body(&b"0\r\n\r\n"[..]),
    ]
}

fn check_twins(isolation: &str) {
    let host = Host::demo().args(["--isolation", isolation]).start_settled();
    // Twice: under reuse, an instance that has answered must give the same answer again.
    for _ in 0..2 {
        for case in plain().iter().chain(&fib()).chain(&echo()) {
            case.check(&host);
        }
    }
    host.at_rest();
}

#[test]
fn twins_give_the_same_bytes_when_fresh() {
    check_twins("fresh");
}

#[test]
fn twins_give_the_same_bytes_when_reused() {
    check_twins("reuse");
}

#[test]
fn a_bundled_handler_that_does_not_load_is_an_error() {
    let (code, text) = Host::demo().args(["--memory-max", "hello=64KiB"]).fails();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("error: hello.wasm (built in): "), "{text}");
    assert!(text.contains("it is served with all of its set or not at all"), "{text}");
}

#[test]
fn every_demo_guest_answers() {
    let host = Host::demo().start_settled();
    for prefix in ["", "/native"] {
        let get = |path: &str| {
            let answer = host.get(&format!("{prefix}{path}"));
            let kind = answer.header("content-type").unwrap_or_default().to_owned();
            (answer.status, kind, answer.text())
        };
        let text = |status: u16, body: &str| (status, "text/plain".to_owned(), body.to_owned());
        assert_eq!(get("/hello"), text(200, "Hello, World!"));
        assert_eq!(get("/plaintext"), text(200, "Hello, World!"));
        assert_eq!(get("/fib/32"), text(200, "2178309\n"));
        assert_eq!(get("/fib/0"), text(200, "0\n"));
        assert_eq!(get("/fib/41").0, 400);
        assert_eq!(get("/fib").0, 400);
        let json = r#"{"message":"Hello, World!"}"#.to_owned();
        assert_eq!(get("/json"), (200, "application/json".into(), json));
        let (status, kind, page) = get("/render");
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
        assert!(page.contains("<h1>") && page.contains("<table>"), "{page}");
        let (_, _, echoed) = get("/echo/x?y=z");
        let first = echoed.lines().next().unwrap_or_default();
        assert_eq!(first, format!("GET {prefix}/echo/x?y=z"));
        assert!(echoed.contains("host: guest.test\n"), "{echoed}");
        // TechEmpower requires both headers.
        for path in ["/plaintext", "/json"] {
            let answer = host.get(&format!("{prefix}{path}"));
            assert!(answer.header("server").is_some(), "{answer:?}");
        }
    }
    for path in ["/", "/nothing", "/native/nothing", "/native"] {
        let answer = host.get(path);
        assert!(answer.status != 500 && answer.status != 503, "{path}: {answer:?}");
    }
    host.get("/nothing").assert_problem(404);
    host.get("/native/nothing").assert_problem(404);
}

#[test]
fn the_proxy_reaches_the_demo_and_nothing_else() {
    let host = Host::demo().start_settled();
    let get = |path: &str| {
        let answer = host.get(path);
        (answer.status, answer.text())
    };
    let hello = (200, "Hello, World!".to_owned());
    for path in ["/proxy", "/proxy/hello", "/proxy/native/hello", "/proxy/proxy/wasi02/hello"] {
        // The host's own name is the one that the client used.
        let name = format!("host: {}", host.addr());
        let answer = host.request("GET", path, &[&name], b"");
        assert_eq!((answer.status, answer.text()), hello, "{path}");
    }
    let own = host.addr();
    assert_eq!(get(&format!("/proxy?url=http://{own}/fib/20")), (200, "6765\n".into()));
    let name = format!("host: localhost:{}", own.port());
    let answer = host.request("POST", "/proxy/stream/upper", &[&name], b"both ways");
    assert_eq!((answer.status, answer.text()), (200, "BOTH WAYS".into()));
    for url in ["http://127.0.0.1:1/", "https://example.com/", "http://169.254.169.254/"] {
        let (status, text) = get(&format!("/proxy?url={url}"));
        assert!(status == 502 && text.contains("HttpRequestDenied"), "{status} {text}");
    }
    assert_eq!(get("/proxy?url=nowhere").0, 400);
    let name = format!("host: {own}");
    let round = "/proxy".repeat(20);
    let answer = host.request("GET", &round, &[&name], b"");
    assert_eq!(answer.status, 508, "{}", answer.text());
    host.at_rest();
}

#[test]
fn a_body_of_many_megabytes_comes_back() {
    let host =
        Host::demo().args(["--body-max", "32MiB", "--response-max", "32MiB"]).start_settled();
    // More than the 16 MiB at which the guest's library would stop.
    let body: Vec<u8> = (0..17 << 20).map(|at: usize| (at % 253) as u8).collect();
    for path in ["/echo", "/native/echo"] {
        let mut connection = host.connect();
        connection.send(message("POST", path, &[], &body));
        let answer = connection.read();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.ends_with(&body), "{path}: {} bytes", answer.body.len());
    }
    host.at_rest();
}

/// Guests that stream accept bodies of any size.
#[test]
fn streams_go_through_guest_and_twin() {
    let host = Host::demo().start_settled();
    let body: Vec<u8> = (0..20 << 20).map(|at: usize| (at % 253) as u8).collect();
    for prefix in ["", "/native"] {
        let mut raw = TcpStream::connect(host.addr()).expect("a connection");
        raw.set_read_timeout(Some(patience())).expect("a socket");
        let mut sender = raw.try_clone().expect("a socket");
        let path = format!("{prefix}/stream/upper");
        let came = std::thread::scope(|scope| {
            let request = message("POST", &path, &["connection: close"], &body);
            scope.spawn(move || sender.write_all(&request).expect("the host takes it"));
            let mut came = Vec::new();
            raw.read_to_end(&mut came).map(|_| came).expect("the whole answer")
        });
        let (came, is_whole) = unchunked(&came);
        assert!(is_whole && came == body.to_ascii_uppercase(), "{path}: {} bytes", came.len());
        let clock = host.get(&format!("{prefix}/stream/sse?events=2"));
        assert_eq!(clock.header("content-type"), Some("text/event-stream"));
        assert_eq!(clock.header("cache-control"), Some("no-store"));
        assert_eq!(clock.text(), "event: tick\ndata: 0\n\nevent: tick\ndata: 1\n\n");
        let usage = host.get(&format!("{prefix}/stream/upper"));
        assert_eq!(usage.status, 404);
        assert!(usage.text().starts_with("GET …/sse"), "{}", usage.text());
        // Other guests do not accept as much.
        let length = format!("content-length: {}", body.len());
        host.request("POST", &format!("{prefix}/echo"), &[&length], b"").assert_problem(413);
    }
    host.at_rest();
}

/// A size that the user sets holds for streams as well.
#[test]
fn a_stream_of_the_demo_can_be_limited() {
    let host = Host::demo().args(["--body-max", "stream=10"]).start_settled();
    for prefix in ["", "/native"] {
        let post =
            |bytes: &[u8]| host.request("POST", &format!("{prefix}/stream/upper"), &[], bytes);
        assert_eq!(post(b"ten bytes!").text(), "TEN BYTES!");
        post(b"eleven byte").assert_problem(413);
    }
    host.at_rest();
}

#[test]
fn twins_are_served_only_when_asked_for() {
    let host = Host::with("hello.wat", HELLO).start();
    host.assert_serves("/hello");
    host.get("/native/hello").assert_problem(404);
    let host = Host::with("hello.wat", HELLO).arg("--native").start();
    host.assert_serves("/hello");
    assert_eq!(host.get("/native/hello").text(), "Hello, World!");
    assert_eq!(host.get("/native/fib/20").text(), "6765\n");
}
