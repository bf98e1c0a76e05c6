//! The possible targets of a request.

use std::sync::Arc;

use crate::demo::native::Twin;
use crate::registry::{CurrentGuest, Handler};

/// The target of a request.
pub enum Routed {
    /// A loaded guest.
    Guest(CurrentGuest),
    /// A handler whose guest has to be loaded first.
    Unloaded(Arc<Handler>),
    /// The request goes to no handler.
    Host(HostTarget),
}

/// Where a request goes that no guest answers.
#[derive(Clone, Copy)]
pub enum HostTarget {
    /// A native twin.
    Twin(Twin),
    /// The start page of an empty folder.
    Landing,
    /// The upstream, or a 404 if there is none.
    Upstream,
}
