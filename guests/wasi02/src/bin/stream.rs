//! The component `stream`: bodies that are sent as they are made, and never kept.
//!
//! `GET …/sse` is a clock: an event at once and then one each second, ten of them or as many as
//! `?events=` asks for. `POST …/upper` gives the body back in upper case, piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::stream::unfold;
use wstd::http::body::util::combinators::UnsyncBoxBody;
use wstd::http::body::{Bytes, Frame, HttpBody};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};
use wstd::time::Duration;

/// Events of the clock where nobody asks for another number.
const EVENTS: u32 = 10;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    if path.ends_with("/sse") && request.method() == Method::GET {
        return sse(events(request.uri().query()));
    }
    if path.ends_with("/upper") && request.method() == Method::POST {
        let body = Upper(request.into_body().into_boxed_body());
        return Ok(Response::builder()
            .header("content-type", "text/plain")
            .body(Body::from_http_body(body))?);
    }
    let usage = "GET …/sse[?events=N] is a clock, POST …/upper gives a body back in upper case\n";
    Ok(Response::builder()
        .status(StatusCode::NOT_FOUND)
        .header("content-type", "text/plain; charset=utf-8")
        .body(Body::from(usage))?)
}

fn events(query: Option<&str>) -> u32 {
    let asked = query.and_then(|query| query.strip_prefix("events="));
    asked.and_then(|number| number.parse().ok()).unwrap_or(EVENTS)
}

fn sse(events: u32) -> Result<Response<Body>, Error> {
    let clock = unfold(0, move |number| async move {
        if number == events {
            return None;
        }
        if number > 0 {
            wstd::task::sleep(Duration::from_secs(1)).await;
        }
        let event = format!("event: tick\ndata: {number}\n\n");
        Some((Ok::<_, Infallible>(Bytes::from(event)), number + 1))
    });
    Ok(Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store")
        .body(Body::from_try_stream(clock))?)
}

/// A body in upper case.
struct Upper(UnsyncBoxBody<Bytes, Error>);

impl HttpBody for Upper {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|data| Bytes::from(data.to_ascii_uppercase())))
    }
}
