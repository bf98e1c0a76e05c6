//! One sandbox: a guest and its instances, whichever form they have.

pub mod component;
pub mod core;
pub mod guest;
pub mod sandbox;
