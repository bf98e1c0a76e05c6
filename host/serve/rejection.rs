//! Requests that are refused: when they are told so, and what the log says.
//!
//! Owns that clients which ask again at once do not take the time of those that are served: whoever
//! gets no place waits a moment for the answer, wherever the place was missing.

use std::time::{Duration, Instant};

use super::respond::{Conditions, RequestMeta};
use super::worker::Worker;
use crate::message::Reject;

/// A request that is refused waits for half of this at least, and until the next of the moments
/// that lie so far apart: many are answered in one go.
const REFUSED_EVERY: Duration = Duration::from_millis(25);

/// Waits as long as is due before a request is told of a reject.
pub async fn wait(worker: &Worker, reject: Reject, conditions: &Conditions) {
    match reject {
        Reject::NoInstance | Reject::Paused => {
            wait_together(worker, REFUSED_EVERY / 2, conditions.deadline).await;
        }
        Reject::NoMemory => until_dropped(worker, conditions).await,
        _ => {}
    }
}

/// Waits for so long, and on until the next of the moments for which all wait; not past a request's
/// deadline.
async fn wait_together(worker: &Worker, least: Duration, deadline: Instant) {
    let earliest = worker.began.elapsed() + least;
    let moments = earliest.as_millis() / REFUSED_EVERY.as_millis() + 1;
    let moment = worker.began + REFUSED_EVERY * u32::try_from(moments).unwrap_or(u32::MAX);
    let moment = moment.min(deadline);
    tokio::time::sleep_until(moment.into()).await;
}

/// Waits until the instances are gone that are on their way out, and calls of the guest are over
/// that have answered. A client that was told that there is no memory may ask again at once, and
/// what its guest had is to be there by then.
async fn until_dropped(worker: &Worker, conditions: &Conditions) {
    let deadline = conditions.deadline;
    let pending = worker.schedule.pending_drops();
    // An instance whose call ends meanwhile is dropped behind that.
    for _ in 0..2 {
        let so_far = pending.barrier(conditions.handler.as_ref().map(|(id, _)| *id));
        while !pending.are_gone(so_far) && Instant::now() < deadline {
            wait_together(worker, Duration::ZERO, deadline).await;
        }
    }
}

/// Says in the log why the host has answered itself, unless that has been said where it was known
/// better. `is_made` says that there was a response, which could not be sent.
pub fn log(worker: &Worker, asked: &RequestMeta, reject: Reject, is_made: bool) {
    let why = match reject {
        Reject::InvalidResponse if is_made => "the response's head is one that cannot be sent",
        Reject::NotLoaded => "its handler could not be loaded",
        Reject::Loading => "its handler is not loaded, or too many wait for that",
        Reject::NoInstance => "every place is taken, or it has waited for one for too long",
        Reject::NoMemory => "the handlers have all memory that they may have (--memory-total)",
        Reject::Paused => "its handler's start-up has failed time and again",
        Reject::UpstreamBusy => "too many requests are on their way to the upstream",
        Reject::UpstreamDeadline => "the upstream did not answer before the deadline",
        Reject::Panic => "the host itself has failed",
        Reject::Loop => "it has come back to its handler time and again",
        _ => return tracing::debug!(request = %asked.id, %reject, "{}", asked.method),
    };
    let Some(dropped) = worker.rejects_quota.take(why.len()) else { return };
    if dropped > 0 {
        tracing::info!("{dropped} more requests were refused, too fast to be listed");
    }
    tracing::info!(request = %asked.id, %reject, "{why}");
}
