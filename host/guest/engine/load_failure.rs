//! Why a guest was not loaded, and whether to try again.
//!
//! Owns the kinds of failures. If the kernel is short of something, that says nothing about the
//! file. If the compiler was killed, it may have been the file's fault or not.

use std::io;

use serde::{Deserialize, Serialize};

use super::fault::describe;
use super::resources::{is_engine_shortage, is_shortage};

/// Why a guest cannot be loaded, in words that tell a user what to do.
pub type Reason = String;

/// Why a guest was not loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadFailure {
    /// What the user is told.
    pub reason: Reason,
    /// Where the fault is, which decides about another try.
    pub cause: FailureCause,
}

/// Where the fault of a failed load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCause {
    /// In the file: only a new version helps.
    File,
    /// The file cannot be read: its folder or its owner may be to blame.
    Access,
    /// Unknown, for example if the compiler was killed. A few more tries are made.
    Unclear,
    /// The host is short of memory, mappings, descriptors or processes at the moment. Requests wait
    /// for it.
    Shortage,
}

impl LoadFailure {
    /// The file is at fault.
    pub fn of_file(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::File }
    }

    /// It is not known what is at fault.
    pub fn of_unclear(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::Unclear }
    }

    /// The host is short of something that others have now.
    pub fn of_shortage(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::Shortage }
    }

    /// The file cannot be read.
    pub fn of_access(error: &io::Error) -> Self {
        let cause = if is_shortage(error) { FailureCause::Shortage } else { FailureCause::Access };
        LoadFailure { reason: format!("cannot be read: {error}"), cause }
    }

    /// A process or a thread could not be started. `what` says for what.
    pub fn of_process(what: &str, error: &io::Error) -> Self {
        let cause = if is_shortage(error) { FailureCause::Shortage } else { FailureCause::Unclear };
        let limit = match error.kind() {
            io::ErrorKind::FileTooLarge => " (files may be no larger here: see ulimit -f)",
            _ => "",
        };
        LoadFailure { reason: format!("{what}: {error}{limit}"), cause }
    }

    /// The engine refuses the guest, or the kernel refuses the engine.
    pub fn of_engine(what: &str, error: &wasmtime::Error) -> Self {
        let cause =
            if is_engine_shortage(error) { FailureCause::Shortage } else { FailureCause::File };
        // Where the kernel refuses, the cause alone does not say what was refused.
        let outer = error.to_string();
        let detail = match cause {
            FailureCause::Shortage if outer != error.root_cause().to_string() => {
                format!("{}: {}", crate::log::escape(outer.as_bytes(), 200), describe(error))
            }
            _ => describe(error),
        };
        LoadFailure { reason: format!("{what}: {detail}"), cause }
    }

    /// The same failure, if it happened in a child with its own limit on memory. There a shortage
    /// may be the fault of a file that is too large.
    pub fn in_child(self) -> Self {
        let cause =
            if self.cause == FailureCause::Shortage { FailureCause::Unclear } else { self.cause };
        LoadFailure { cause, ..self }
    }
}

impl From<Reason> for LoadFailure {
    fn from(reason: Reason) -> Self {
        LoadFailure::of_file(reason)
    }
}
