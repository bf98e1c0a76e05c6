//! A panic of the host's own code, and what it costs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use crate::message::Reject;

/// A panic of the host's own code costs the request in which it happens, and no other: it becomes
/// [`Reject::Panic`].
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
