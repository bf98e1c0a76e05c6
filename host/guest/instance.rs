//! One sandbox: a guest and its instances, in any form.

pub mod component;
pub mod core;
pub mod guest;
pub mod sandbox;
