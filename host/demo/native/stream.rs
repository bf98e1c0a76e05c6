//! The twin of `stream`: bodies that are made while they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use guesthouse_guests::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame};
use tokio::time::Sleep;

use crate::message::{Reject, Request, RequestBody, Response, ResponseBody};

const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Answers at once, with a body that is still to be made. `headers` is an empty map to build the
/// response in.
pub fn respond(request: &mut Request, mut headers: HeaderMap) -> Response {
    let (path, method) = (request.uri.path(), &request.method);
    let (status, kind, body) = if path.ends_with("/sse") && method == Method::GET {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let clock = EventBody { next: 0, end: stream::events(request.uri.query()), pause: None };
        (StatusCode::OK, stream::EVENTS_TYPE, ResponseBody::Stream(Box::pin(clock)))
    } else if path.ends_with("/upper") && method == Method::POST {
        let body = UpperCaseBody(std::mem::take(&mut request.body));
        (StatusCode::OK, stream::UPPER_TYPE, ResponseBody::Stream(Box::pin(body)))
    } else {
        let usage = Bytes::from_static(stream::USAGE.as_bytes());
        (StatusCode::NOT_FOUND, stream::USAGE_TYPE, ResponseBody::Full(usage))
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Response { status, headers, body }
}

/// Streams the request's body back in upper case.
struct UpperCaseBody(RequestBody);

impl Body for UpperCaseBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|data| Bytes::from(stream::upper(&data))))
    }
}

/// Streams one event at once, and then one each second.
struct EventBody {
    next: u32,
    end: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Reject;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reject>>> {
        if self.next == self.end {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
        }
        let event = stream::event(self.next);
        self.next += 1;
        self.pause = Some(Box::pin(tokio::time::sleep(EVENT_EVERY)));
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}
