//! One call of a guest: begun with a request and a context, it gives a response.

pub mod checkout;
pub mod component;
pub mod context;
pub mod core;
pub mod next;
pub mod response;
pub mod seats;
pub mod shared;
pub mod terms;
