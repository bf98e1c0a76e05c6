//! How calls and starts end: what the client is told, and what the log.

use super::fault::{Fault, describe, fault_reject};
use super::guest_info::GuestInfo;
use super::resources::is_engine_shortage;
use crate::message::{Reject, RequestId};

/// Sorts out how a call ended; a bad end is logged here, once.
pub fn resolve_outcome<T>(
    about: &GuestInfo,
    request: Option<RequestId>,
    result: wasmtime::Result<T>,
) -> Result<T, Reject> {
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let reject = fault_reject(&error);
    if !matches!(error.downcast_ref(), Some(Fault::Reject(_))) {
        log_stopped(about, request, format_args!("{}", describe(&error)));
    }
    Err(reject)
}

/// Takes note of start-up code that has failed. It gets nothing of any request, so no request can
/// make it fail.
pub fn note_failure(about: &GuestInfo) {
    if let Some(pause) = about.breaker.note_failure() {
        tracing::warn!(
            target: "handler",
            handler = &*about.name,
            "its start-up has failed time and again; its requests are refused but for one now and \
             then, the first in {pause:?}, until it starts or its file is replaced"
        );
    }
}

/// Takes note of start-up code that has ended well.
pub fn note_start(about: &GuestInfo) {
    if about.breaker.note_start() {
        tracing::info!(target: "handler", handler = &*about.name, "starts again");
    }
}

/// Says in the log how a call ended badly.
pub fn log_stopped(about: &GuestInfo, request: Option<RequestId>, why: std::fmt::Arguments<'_>) {
    log_failure(about, request, format_args!("stopped: {why}"));
}

/// Says in the log why an instance could not start.
pub fn log_not_started(
    about: &GuestInfo,
    request: Option<RequestId>,
    why: std::fmt::Arguments<'_>,
) {
    log_failure(about, request, format_args!("could not start: {why}"));
}

/// A client may have a guest fail as often as it likes, and others are to be heard as well.
fn log_failure(about: &GuestInfo, request: Option<RequestId>, what: std::fmt::Arguments<'_>) {
    let (handler, what) = (&*about.name, what.to_string());
    let Some(dropped) = about.failure_quota.take(what.len()) else { return };
    if dropped > 0 {
        tracing::warn!(target: "handler", handler, "and {dropped} more, too fast to be listed");
    }
    let request = request.map(tracing::field::display);
    tracing::warn!(target: "handler", handler, request, "{what}");
}

/// What the client is told when an instance could not be made.
pub fn start_reject(about: &GuestInfo, error: &wasmtime::Error) -> Reject {
    if is_engine_shortage(error) {
        about.memory.note_kernel_shortage(&describe(error));
    }
    fault_reject(error)
}

/// Whether an instance could not be made for want of a place or of memory: nobody's fault.
pub fn is_out_of_capacity(reject: Reject) -> bool {
    matches!(reject, Reject::NoInstance | Reject::NoMemory)
}

/// The same where it was this host's own limits, and not the kernel.
pub fn is_host_limit(error: &wasmtime::Error) -> bool {
    is_out_of_capacity(fault_reject(error)) && !is_engine_shortage(error)
}
