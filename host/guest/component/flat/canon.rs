//! What the host knows of a flattened component's instance.

use wasmtime::Memory;

use super::handles::Handles;
use super::lower::Pending;
use super::tasks::Tasks;

/// What the host knows of a flattened component's instance.
#[derive(Default)]
pub struct Canon {
    pub memory: Option<Memory>,
    pub pending: Pending,
    pub handles: Handles,
    /// What the calls of a guest of 0.3 wait for.
    pub tasks: Tasks,
    /// Whether the last `poll` has found something ready that the guest has made no use of yet.
    pub has_polled: bool,
}
