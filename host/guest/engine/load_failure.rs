//! Why a guest was not loaded, and whether it is worth trying again.
//!
//! Owns the kinds of failures. A kernel that is short of something says nothing about a file, and a
//! compiler that was killed may be the file's doing or not.

use std::io;

use serde::{Deserialize, Serialize};

use super::fault::describe;
use super::resources::{is_engine_shortage, is_shortage};

/// Why a guest cannot be loaded, in words that a user can act on.
pub type Reason = String;

/// Why a guest was not loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadFailure {
    pub reason: Reason,
    pub cause: FailureCause,
}

/// Where the fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCause {
    /// In the file: only another version of it helps.
    File,
    /// The file cannot be read, for which its folder or its owner may be to blame.
    Access,
    /// The file may be to blame or not, as where its compiler was killed. Tried a few times.
    Unclear,
    /// The host has too little of something at the moment: memory, mappings, descriptors or
    /// processes. Requests wait for it.
    Shortage,
}

impl LoadFailure {
    pub fn of_file(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::File }
    }

    pub fn of_unclear(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::Unclear }
    }

    /// For want of something that others have now.
    pub fn of_shortage(reason: Reason) -> Self {
        LoadFailure { reason, cause: FailureCause::Shortage }
    }

    /// Why a file cannot be read.
    pub fn of_access(error: &io::Error) -> Self {
        let cause = if is_shortage(error) { FailureCause::Shortage } else { FailureCause::Access };
        LoadFailure { reason: format!("cannot be read: {error}"), cause }
    }

    /// Why a process or a thread could not be had.
    pub fn of_process(what: &str, error: &io::Error) -> Self {
        let cause = if is_shortage(error) { FailureCause::Shortage } else { FailureCause::Unclear };
        let limit = match error.kind() {
            io::ErrorKind::FileTooLarge => " (files may be no larger here: see ulimit -f)",
            _ => "",
        };
        LoadFailure { reason: format!("{what}: {error}{limit}"), cause }
    }

    /// What the engine says of a guest, unless it was the kernel that refused.
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

    /// The same failure in a process with limits of its own on memory: the file may be too large
    /// for them, so that it is no verdict and not a shortage either.
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
