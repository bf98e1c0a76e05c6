//! The response of a request that the host answers itself. Clients see fixed texts; the log has the
//! details under the request's id.

use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};

use super::reject::Reject;
use super::{RequestId, Response};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Response {
    /// A reject as a problem document (RFC 9457).
    pub fn problem(reject: Reject, id: RequestId) -> Response {
        let status = reject.status();
        let document = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": reject.text(),
            "request_id": id.to_string(),
        });
        let mut response = Response::new(status, format!("{document}\n"));
        let json = HeaderValue::from_static("application/problem+json");
        response.headers.insert(CONTENT_TYPE, json);
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            response.headers.insert(REQUEST_ID, id);
        }
        if let Some(seconds) = reject.retry_after() {
            response.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
