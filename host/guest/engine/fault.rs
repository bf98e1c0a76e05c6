//! Errors that stop a guest: what the client is told, and what the log says.

use wasmtime::PoolConcurrencyLimitError;

use super::resources::is_engine_shortage;
use crate::message::Reject;

/// Why a host function stopped the guest.
#[derive(Debug)]
pub enum Fault {
    /// The request is at fault, or the host is short of something: the host answers with this.
    Reject(Reject),
    /// The guest has broken a rule of the interface; the text says which.
    Misuse(String),
    /// The guest has set something for a response or a request that HTTP or a limit forbids.
    Invalid(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Reject(reject) => write!(f, "the request was rejected: {reject}"),
            Fault::Misuse(text) | Fault::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

/// What the client is told when this error stops a guest.
pub fn fault_reject(error: &wasmtime::Error) -> Reject {
    match error.downcast_ref() {
        Some(Fault::Reject(reject)) => *reject,
        Some(Fault::Invalid(_)) => Reject::InvalidResponse,
        None if error.is::<PoolConcurrencyLimitError>() => Reject::NoInstance,
        None if is_engine_shortage(error) => Reject::NoMemory,
        Some(Fault::Misuse(_)) | None => Reject::Trap,
    }
}

/// An error of the engine as one line for the log: the cause, then where it happened. It contains
/// names from the module, so it is escaped and bounded.
pub fn describe(error: &wasmtime::Error) -> String {
    const BYTES_MAX: usize = 2 * 1024;
    let cause = error.root_cause().to_string();
    let place = error.downcast_ref::<wasmtime::WasmBacktrace>().map(place).unwrap_or_default();
    crate::log::escape(format!("{cause}{place}").as_bytes(), BYTES_MAX)
}

/// The innermost functions of a backtrace.
fn place(backtrace: &wasmtime::WasmBacktrace) -> String {
    const FRAMES_MAX: usize = 8;
    let frames = backtrace.frames().iter().take(FRAMES_MAX).map(|frame| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    });
    let frames: Vec<String> = frames.collect();
    if frames.is_empty() { String::new() } else { format!(", in {}", frames.join(" < ")) }
}

/// The error of a guest that breaks a rule of the interface.
pub fn misuse(text: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Fault::Misuse(text.into()))
}

/// The error of a guest that sets something that HTTP or a limit forbids.
pub fn invalid(text: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Fault::Invalid(text.into()))
}

/// Turns a refused charge into an error that stops the guest.
pub fn or_stop(charged: Result<(), Reject>) -> wasmtime::Result<()> {
    charged.map_err(|reject| wasmtime::Error::new(Fault::Reject(reject)))
}
