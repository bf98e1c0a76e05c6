//! What becomes of a handler that could not be loaded: what is said of it, and when it is tried
//! again.
//!
//! Owns these times. A part of the reload loop. Knows nothing of why a load fails but its cause.

use std::time::{Duration, Instant};

use super::entries::LoadState;
use super::reload::Reload;
use crate::guest::engine::load_failure::{FailureCause, LoadFailure};
use crate::log::escape;
use crate::registry::HandlerState;

/// What failed for a reason that is not the file's is tried again after this long, then after twice
/// as long, and so on.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_DOUBLINGS: u32 = 6;
/// The same where requests wait for it.
const RETRY_WANTED: Duration = Duration::from_millis(250);
const RETRY_WANTED_DOUBLINGS: u32 = 7;
/// Where tries have no end, they take one part in so many of the time at most, and no more than
/// a half while requests wait.
const RETRY_PART: u32 = 10;
/// What may be a file's fault or not is tried so often. After that it is taken for the file's.
const UNCLEAR_MAX: u32 = 8;

/// When a file is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RetryDelays {
    after: Duration,
    /// If requests wait for it.
    if_wanted: Duration,
}

/// When to try again what has failed so often before, and has taken this long now. `None` is not
/// before there is another version.
fn retry_delays(cause: FailureCause, mishaps: u32, took: Duration) -> Option<RetryDelays> {
    let longest = RETRY * (1 << RETRY_DOUBLINGS);
    let least = (took * RETRY_PART).min(longest);
    let after = RETRY * (1 << mishaps.min(RETRY_DOUBLINGS));
    let (after, if_wanted) = match cause {
        FailureCause::File => return None,
        FailureCause::Unclear if mishaps + 1 >= UNCLEAR_MAX => return None,
        FailureCause::Unclear => (after, after),
        FailureCause::Access => (after.max(least), after.max(least)),
        FailureCause::Shortage => {
            let sooner = RETRY_WANTED * (1 << mishaps.min(RETRY_WANTED_DOUBLINGS));
            (after.max(least), sooner.max(took.min(longest)))
        }
    };
    Some(RetryDelays { after, if_wanted })
}

impl Reload {
    /// Takes note that a load has failed, which took this long.
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
            // A machine that was short of something for long is no reason to end the host.
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
                // Whoever asks for it next says so again.
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

    /// Has a file that has failed tried as soon as it may be, for requests wait for it.
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
