//! Where and when calls run: on their worker's thread for one quantum, then in the slow lane.
//!
//! Knows calls as futures and guests as numbers, but no instances.

mod byte_counter;
pub mod cpu;
mod first_calls;
pub mod lane;
mod long_call_queue;
pub mod meter;
mod pending_drops;
mod run_queue;
mod scheduler;
pub mod ticker;
mod usage;

pub use byte_counter::ByteCounter;
pub use lane::{BoxedCall, Lane, LaneJoinHandle};
pub use meter::{Meter, QUANTUM, SliceStart};
pub use pending_drops::{DropCost, PendingDrops};
pub use run_queue::RunPermit;
pub use scheduler::Scheduler;
pub use ticker::{OwnedTickGuard, QUANTUM_TICKS, Ticker, TickerHandle};
pub use usage::{CostClass, HEAVY_SLICE, LONG_CALL};
