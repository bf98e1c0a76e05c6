//! One call of a guest: begun with a request and a context, it gives a response.

pub mod checkout;
pub mod context;
pub mod core;
pub mod departure;
pub mod next;
pub mod resident;
pub mod terms;
pub mod visit;
