//! The component `proxy`: makes outbound requests, and passes on the responses.
//!
//! `…/proxy/hello` fetches `/hello` of the host that serves it, and so does `…/proxy`.
//! `…/proxy?url=http://127.0.0.1:8080/fib/20` fetches a URL. Method and body are passed on. `wstd`
//! returns a response only once the request's body is sent, so a server that answers while it reads
//! gets no more of the body than fits into the buffers on the way. The host has to allow the
//! requests: `--allow-outbound proxy=http://127.0.0.1:8080`.

use wstd::http::{Body, Client, Error, HeaderMap, HeaderName, Request, Response, StatusCode, Uri};

/// The mount path, on a host that does not set it.
const BASE: &str = "/proxy";
/// The path that is fetched if the request names none.
const DEFAULT: &str = "/hello";
/// The header fields that are passed on, both ways. All others belong to one connection.
const PASSED: [&str; 6] =
    ["accept", "cache-control", "content-length", "content-type", "range", "x-request-id"];

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let Some(url) = target(&request) else {
        return refuse(StatusCode::BAD_REQUEST, "…/proxy/PATH or …/proxy?url=URL fetches that");
    };
    let (head, body) = request.into_parts();
    let mut asked = Request::new(body);
    *asked.method_mut() = head.method;
    *asked.uri_mut() = url.clone();
    *asked.headers_mut() = passed(&head.headers);
    match Client::new().send(asked).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let mut answer = Response::new(body);
            *answer.status_mut() = head.status;
            *answer.headers_mut() = passed(&head.headers);
            Ok(answer)
        }
        Err(error) => refuse(StatusCode::BAD_GATEWAY, &format!("{url}: {error:#}")),
    }
}

/// The URL to fetch.
fn target(request: &Request<Body>) -> Option<Uri> {
    if let Some(query) = request.uri().query()
        && let Some(url) = query.strip_prefix("url=")
    {
        return url.parse().ok().filter(|url: &Uri| url.scheme().is_some());
    }
    let base = request.headers().get("guesthouse-base-path");
    let base = base.and_then(|base| base.to_str().ok()).unwrap_or(BASE);
    let path = request.uri().path_and_query()?.as_str();
    let path = path.strip_prefix(base).filter(|path| path.len() > 1).unwrap_or(DEFAULT);
    let authority = request.uri().authority()?.clone();
    Uri::builder().scheme("http").authority(authority).path_and_query(path).build().ok()
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED.map(HeaderName::from_static) {
        for value in headers.get_all(&name) {
            passed.append(&name, value.clone());
        }
    }
    passed
}

fn refuse(status: StatusCode, why: &str) -> Result<Response<Body>, Error> {
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/plain; charset=utf-8")
        .body(Body::from(format!("{why}\n")))?)
}
