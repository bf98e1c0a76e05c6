//! The canonical ABI's state of one flat instance.

use wasmtime::Memory;

use super::handle_table::HandleTable;
use super::lower::PendingResult;
use super::tasks::Tasks;

/// The canonical ABI's state of one flat instance.
#[derive(Default)]
pub struct CanonState {
    /// The instance's memory, once it has been instantiated.
    pub memory: Option<Memory>,
    /// The result for which the guest is allocating memory.
    pub pending: PendingResult,
    /// The guest's handles.
    pub handles: HandleTable,
    /// Streams, futures, timers and calls of a guest of 0.3.
    pub tasks: Tasks,
    /// Whether the guest has called `poll` and has neither read nor written a stream since.
    pub has_polled: bool,
}
