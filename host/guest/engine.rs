//! What instances are made of: engines and their slots, memory, and what the machine has of either.
//!
//! Knows what a guest may use, and neither its code nor its calls.

pub mod about;
pub mod allocator;
pub mod budget;
pub mod class;
pub mod ends;
pub mod engines;
pub mod failure;
pub mod fault;
pub mod form;
pub mod health;
pub mod limiter;
pub mod mapped;
pub mod pages;
pub mod reset;
pub mod resources;
pub mod slot_pages;
pub mod slots;
pub mod tenants;
