//! The sandbox: guests, their instances and pools.
//!
//! This folder is the only place that names wasmtime. Everything else sees a [`Guest`] that was
//! loaded, an [`Instance`] that was checked out of a [`Pool`], and what comes of a call.

pub mod call;
pub mod component;
pub mod core;
pub mod engine;
pub mod instance;
pub mod instances;
pub mod load;
pub mod schedule;
pub mod services;

pub use call::checkout::{Checkout, call};
pub use call::context::{CallContext, ForwardFuture, NextHandler};
pub use engine::guest_info::GuestInfo;
pub use instance::guest::Guest;
pub use instance::sandbox::Instance;
pub use instances::pool::Pool;
pub use load::loader::Loader;
pub use schedule::Scheduler;
