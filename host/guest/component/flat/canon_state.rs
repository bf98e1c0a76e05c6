//! What the host knows of a flattened component's instance.

use wasmtime::Memory;

use super::handle_table::HandleTable;
use super::lower::PendingResult;
use super::tasks::Tasks;

/// What the host knows of a flattened component's instance.
#[derive(Default)]
pub struct CanonState {
    pub memory: Option<Memory>,
    pub pending: PendingResult,
    pub handles: HandleTable,
    /// What the calls of a guest of 0.3 wait for.
    pub tasks: Tasks,
    /// Whether the last `poll` has found something ready that the guest has made no use of yet.
    pub has_polled: bool,
}
