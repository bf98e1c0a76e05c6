//! Handles a failed load: what the log says, and when the handler is tried again.
//!
//! Owns the retry delays. Part of the reload loop. Knows the cause of a failure and nothing more.

use std::time::{Duration, Instant};

use super::entries::LoadState;
use super::reload::Reload;
use crate::guest::engine::load_failure::{FailureCause, LoadFailure};
use crate::log::escape;
use crate::registry::HandlerState;

/// The first retry delay after a failure that is not the file's fault. It doubles with each
/// failure, at most [`RETRY_DOUBLINGS`] times.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_DOUBLINGS: u32 = 6;
/// The same delay while requests wait for the handler.
const RETRY_WANTED: Duration = Duration::from_millis(250);
const RETRY_WANTED_DOUBLINGS: u32 = 7;
/// If retries have no end, they take at most one part in this many of the time, and at most half of
/// it while requests wait.
const RETRY_PART: u32 = 10;
/// How often to try after failures of unclear cause. After that the file counts as the cause.
const UNCLEAR_MAX: u32 = 8;

/// After how long a handler is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RetryDelays {
    after: Duration,
    /// The delay if requests wait for the handler.
    if_wanted: Duration,
}

/// The retry delays after `failures` earlier failures, if the last try `took` this long. `None`
/// means not before there is another version.
fn retry_delays(cause: FailureCause, failures: u32, took: Duration) -> Option<RetryDelays> {
    let longest = RETRY * (1 << RETRY_DOUBLINGS);
    let least = (took * RETRY_PART).min(longest);
    let after = RETRY * (1 << failures.min(RETRY_DOUBLINGS));
    let (after, if_wanted) = match cause {
        FailureCause::File => return None,
        FailureCause::Unclear if failures + 1 >= UNCLEAR_MAX => return None,
        FailureCause::Unclear => (after, after),
        FailureCause::Access => (after.max(least), after.max(least)),
        FailureCause::Shortage => {
            let sooner = RETRY_WANTED * (1 << failures.min(RETRY_WANTED_DOUBLINGS));
            (after.max(least), sooner.max(took.min(longest)))
        }
    };
    Some(RetryDelays { after, if_wanted })
}

impl Reload {
    /// Handles a failed load of a handler, which `took` this long.
    pub fn failed(&mut self, id: usize, failure: LoadFailure, took: Duration, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let source = &self.sources[entry.source].source;
        if let Some(until) = source.doubtful_until(&entry.item, now)
            && !entry.has_failed_early
        {
            entry.has_failed_early = true;
            return self.try_at(id, until);
        }
        let again = retry_delays(failure.cause, entry.transient_failures, took);
        if entry.is_awaited && again.is_none() {
            if failure.cause == FailureCause::File || !entry.is_routed {
                return self.give_up(id, &failure);
            }
            // A long shortage on this machine is no reason to end the host.
            entry.is_awaited = false;
        }
        let then = match (failure.cause, again) {
            (FailureCause::File, _) => "",
            (_, None) => ", and it is not tried again until its file changes",
            (_, Some(_)) => ", and it is tried again",
        };
        let waits = failure.cause == FailureCause::Shortage;
        entry.is_stale = entry.served.is_some();
        let served = match (entry.is_stale, waits) {
            (true, _) => "the version before it is still served",
            _ if entry.is_awaited && !entry.is_routed => "the set before it is still served",
            (false, true) => "its requests wait",
            (false, false) => "its route answers 503",
        };
        if !entry.is_stale {
            if !waits {
                entry.handler.set(HandlerState::Failed);
            } else if !entry.handler.is_waited_for() {
                // The next request will report again that it wants the handler.
                entry.handler.set(HandlerState::Cold);
            }
        }
        let said = format!("{}; {served}{then}", failure.reason);
        if entry.last_error.as_ref() != Some(&said) {
            let file = escape(entry.item.label.as_bytes(), 512);
            tracing::error!("{file}: {said}");
            entry.last_error = Some(said);
        }
        let Some(again) = again else { return };
        entry.transient_failures += 1;
        entry.retry_if_wanted = Some(now + again.if_wanted);
        let is_wanted = waits && entry.handler.is_wanted();
        self.try_at(id, now + if is_wanted { again.if_wanted } else { again.after });
    }

    /// Tries a failed handler as soon as allowed, because requests wait for it.
    pub fn try_sooner(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id) else { return };
        if let (LoadState::Settling(at), Some(sooner)) = (entry.load_state, entry.retry_if_wanted)
            && sooner < at
        {
            self.try_at(id, sooner);
        }
    }

    fn try_at(&mut self, id: usize, at: Instant) {
        if let Some(entry) = self.entries.get(id) {
            entry.load_state = LoadState::Settling(at);
            self.pending.push((at, id));
        }
    }
}

#[cfg(test)]
mod tests;
