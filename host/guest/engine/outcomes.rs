//! How calls and starts of instances end: what the client is told, and what is logged.

use super::fault::{Fault, describe, fault_reject};
use super::guest_info::GuestInfo;
use super::resources::is_engine_shortage;
use crate::message::{Reject, RequestId};

/// Turns the result of a call into what the client is told. Logs a bad end, once.
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

/// Counts failed start-up code, and logs if that pauses the guest. Start-up code sees nothing of
/// any request, so no request can make it fail.
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

/// Counts start-up code that has ended well.
pub fn note_start(about: &GuestInfo) {
    if about.breaker.note_start() {
        tracing::info!(target: "handler", handler = &*about.name, "starts again");
    }
}

/// Logs why a call ended badly.
pub fn log_stopped(about: &GuestInfo, request: Option<RequestId>, why: std::fmt::Arguments<'_>) {
    log_failure(about, request, format_args!("stopped: {why}"));
}

/// Logs why an instance could not start.
pub fn log_not_started(
    about: &GuestInfo,
    request: Option<RequestId>,
    why: std::fmt::Arguments<'_>,
) {
    log_failure(about, request, format_args!("could not start: {why}"));
}

/// Logs within the guest's quota: a client that makes it fail all the time leaves room for others.
fn log_failure(about: &GuestInfo, request: Option<RequestId>, what: std::fmt::Arguments<'_>) {
    let (handler, what) = (&*about.name, what.to_string());
    let Some(dropped) = about.failure_quota.take(what.len()) else { return };
    if dropped > 0 {
        tracing::warn!(target: "handler", handler, "and {dropped} more, too fast to be listed");
    }
    let request = request.map(tracing::field::display);
    tracing::warn!(target: "handler", handler, request, "{what}");
}

/// What the client is told if an instance could not be made. Logs a shortage of the kernel.
pub fn start_reject(about: &GuestInfo, error: &wasmtime::Error) -> Reject {
    if is_engine_shortage(error) {
        about.memory.note_kernel_shortage(&describe(error));
    }
    fault_reject(error)
}

/// Whether an instance could not be made for want of a slot or of memory.
pub fn is_out_of_capacity(reject: Reject) -> bool {
    matches!(reject, Reject::NoInstance | Reject::NoMemory)
}

/// Whether an instance could not be made because of this host's own limits, and not the kernel's.
pub fn is_host_limit(error: &wasmtime::Error) -> bool {
    is_out_of_capacity(fault_reject(error)) && !is_engine_shortage(error)
}
