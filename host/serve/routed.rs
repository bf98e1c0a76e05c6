//! Where a request goes.

use std::sync::Arc;

use crate::demo::native::Twin;
use crate::registry::{Current, Handler};

/// Where a request goes.
pub enum Routed {
    Guest(Current),
    /// To a guest that has to be loaded first.
    Unloaded(Arc<Handler>),
    /// To what is the host's own, or to nobody here.
    Own(Own),
}

/// Who answers where no guest does.
#[derive(Clone, Copy)]
pub enum Own {
    Twin(Twin),
    Landing,
    /// The upstream, if there is one.
    Nobody,
}
