//! The component `stream`: sends bodies while it makes them, and never holds a whole one.
//!
//! `GET …/sse` is a clock: one event at once and then one each second, ten events or as many as
//! `?events=` asks for. `POST …/upper` sends the body back in upper case, piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::stream::unfold;
use guesthouse_guests::stream;
use wstd::http::body::util::combinators::UnsyncBoxBody;
use wstd::http::body::{Bytes, Frame, HttpBody};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};
use wstd::time::Duration;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path();
    if path.ends_with("/sse") && request.method() == Method::GET {
        return sse(stream::events(request.uri().query()));
    }
    if path.ends_with("/upper") && request.method() == Method::POST {
        let body = Upper(request.into_body().into_boxed_body());
        return Ok(Response::builder()
            .header("content-type", stream::UPPER_TYPE)
            .body(Body::from_http_body(body))?);
    }
    Ok(Response::builder()
        .status(StatusCode::NOT_FOUND)
        .header("content-type", stream::USAGE_TYPE)
        .body(Body::from(stream::USAGE))?)
}

fn sse(events: u32) -> Result<Response<Body>, Error> {
    let clock = unfold(0, move |number| async move {
        if number == events {
            return None;
        }
        if number > 0 {
            wstd::task::sleep(Duration::from_secs(1)).await;
        }
        Some((Ok::<_, Infallible>(Bytes::from(stream::event(number))), number + 1))
    });
    Ok(Response::builder()
        .header("content-type", stream::EVENTS_TYPE)
        .header("cache-control", "no-store")
        .body(Body::from_try_stream(clock))?)
}

/// Sends a body back in upper case.
struct Upper(UnsyncBoxBody<Bytes, Error>);

impl HttpBody for Upper {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|data| Bytes::from(stream::upper(&data))))
    }
}
