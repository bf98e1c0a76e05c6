//! Where a request goes.

use std::sync::Arc;

use crate::demo::native::Twin;
use crate::registry::{CurrentGuest, Handler};

/// Where a request goes.
pub enum Routed {
    Guest(CurrentGuest),
    /// To a guest that has to be loaded first.
    Unloaded(Arc<Handler>),
    /// To what is the host's own, or to nobody here.
    Host(HostTarget),
}

/// Who answers where no guest does.
#[derive(Clone, Copy)]
pub enum HostTarget {
    Twin(Twin),
    Landing,
    /// The upstream, if there is one.
    Upstream,
}
