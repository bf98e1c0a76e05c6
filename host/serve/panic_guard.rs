//! Contains panics of the host's own code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use crate::message::Reject;

/// Turns a panic in `future` into [`Reject::Panic`], so that it ends one request and no other.
pub fn catch_panic<T>(
    mut future: Pin<&mut impl Future<Output = Result<T, Reject>>>,
) -> impl Future<Output = Result<T, Reject>> {
    std::future::poll_fn(move |cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(Err(Reject::Panic)))
    })
}

#[cfg(test)]
mod tests;
