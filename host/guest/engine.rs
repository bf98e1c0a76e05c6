//! What instances are made of: engines and their slots, memory, and the machine's limits on both.
//!
//! Knows what a guest may use, but neither its code nor its calls.

pub mod allocator;
pub mod budget;
pub mod circuit_breaker;
pub mod class;
pub mod engines;
pub mod fault;
pub mod form;
pub mod guest_info;
pub mod limiter;
pub mod load_failure;
pub mod mapped_buffer;
pub mod outcomes;
pub mod pages;
pub mod reset;
pub mod resources;
pub mod slot_pages;
pub mod slot_quota;
pub mod slots;
