//! Requests that are refused: when the client gets the answer, and what the log says.
//!
//! Delays refusals, so that clients that retry at once do not use up the CPU time that others need.
//! Owns how long that takes.

use std::time::{Duration, Instant};

use super::respond::{Conditions, RequestMeta};
use super::worker::Worker;
use crate::message::Reject;

/// Refusals are sent in batches, this far apart. Each waits for at least half of this time.
const REFUSED_EVERY: Duration = Duration::from_millis(25);

/// Waits as long as this reject requires before it is sent.
pub async fn wait(worker: &Worker, reject: Reject, conditions: &Conditions) {
    match reject {
        Reject::NoInstance | Reject::Paused => {
            wait_together(worker, REFUSED_EVERY / 2, conditions.deadline).await;
        }
        Reject::NoMemory => until_dropped(worker, conditions).await,
        _ => {}
    }
}

/// Waits for `least`, then until the next batch of refusals; never past the request's deadline.
async fn wait_together(worker: &Worker, least: Duration, deadline: Instant) {
    let earliest = worker.began.elapsed() + least;
    let moments = earliest.as_millis() / REFUSED_EVERY.as_millis() + 1;
    let moment = worker.began + REFUSED_EVERY * u32::try_from(moments).unwrap_or(u32::MAX);
    let moment = moment.min(deadline);
    tokio::time::sleep_until(moment.into()).await;
}

/// Waits until pending instances are dropped, and until the guest's calls that have already
/// answered are over. A client that hears of too little memory may retry at once, so the memory of
/// these instances should be free by then.
async fn until_dropped(worker: &Worker, conditions: &Conditions) {
    let deadline = conditions.deadline;
    let pending = worker.schedule.pending_drops();
    // The second round covers instances whose calls end during the first.
    for _ in 0..2 {
        let so_far = pending.barrier(conditions.handler.as_ref().map(|(id, _)| *id));
        while !pending.are_gone(so_far) && Instant::now() < deadline {
            wait_together(worker, Duration::ZERO, deadline).await;
        }
    }
}

/// Logs why the host has answered a request itself, unless a place that knows more has done so.
/// `is_made` says that there was a response, but it could not be sent.
pub fn log(worker: &Worker, meta: &RequestMeta, reject: Reject, is_made: bool) {
    let why = match reject {
        Reject::InvalidResponse if is_made => "the response's head is one that cannot be sent",
        Reject::NotLoaded => "its handler could not be loaded",
        Reject::Loading => "its handler is not loaded, or too many wait for that",
        Reject::NoInstance => "every permit or instance is taken, or it waited too long for one",
        Reject::NoMemory => "the handlers have all memory that they may have (--memory-total)",
        Reject::Paused => "its handler's start-up has failed time and again",
        Reject::UpstreamBusy => "too many requests are on their way to the upstream",
        Reject::UpstreamDeadline => "the upstream did not answer before the deadline",
        Reject::Panic => "the host itself has failed",
        Reject::Loop => "it has come back to its handler time and again",
        _ => return tracing::debug!(request = %meta.id, %reject, "{}", meta.method),
    };
    let Some(dropped) = worker.rejects_quota.take(why.len()) else { return };
    if dropped > 0 {
        tracing::info!("{dropped} more requests were refused, too fast to be listed");
    }
    tracing::info!(request = %meta.id, %reject, "{why}");
}
