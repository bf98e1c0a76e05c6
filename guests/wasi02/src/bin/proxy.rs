//! The component `proxy`: a guest that makes requests itself, and passes on what comes of them.
//!
//! `…/proxy/hello` fetches `/hello` of the very host that serves it, and so does `…/proxy`;
//! `…/proxy?url=http://127.0.0.1:8080/fib/20` fetches a URL. Method and body are passed on. `wstd`
//! gives a response only once all of the request's body is sent, so a server that answers while it
//! reads gets no more than fits on the way. A host has to allow it:
//! `--allow-outbound proxy=http://127.0.0.1:8080`.

use wstd::http::{Body, Client, Error, HeaderMap, HeaderName, Request, Response, StatusCode, Uri};

/// Where it is mounted, on a host that does not say so.
const BASE: &str = "/proxy";
/// What is fetched where nothing is asked for.
const DEFAULT: &str = "/hello";
/// Fields that are passed on, both ways. The others are between each two of those who talk.
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

/// What is to be fetched.
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
