//! One worker's pool of instances.

pub mod pool;
pub mod ready_instances;
