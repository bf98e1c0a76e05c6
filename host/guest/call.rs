//! One call of a guest: begun with a request and a context, it gives a response.

pub mod call_slots;
pub mod checkout;
pub mod component;
pub mod context;
pub mod core;
pub mod next;
pub mod options;
pub mod response;
pub mod shared_instance;
