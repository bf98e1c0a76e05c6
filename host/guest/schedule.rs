//! Where and when calls run: on their worker's thread for a quantum, then in the slow lane.
//!
//! Knows a call as a future and a guest by its number, and no instance.

pub mod cpu;
mod drops;
mod first_calls;
mod flow;
pub mod lane;
mod line;
pub mod meter;
mod run_queue;
pub mod ticker;
mod usage;
mod worker;

pub use drops::{Bulky, PendingDrops};
pub use flow::Flow;
pub use lane::{Lane, Movable, Moved};
pub use meter::{Meter, QUANTUM, Slice};
pub use run_queue::Turn;
pub use ticker::{Beating, Pulse, QUANTUM_TICKS, Ticker};
pub use usage::{HEAVY, LONG, Length};
pub use worker::Schedule;
