//! The instances of one worker that are ready.

pub mod pool;
pub mod ready_instances;
