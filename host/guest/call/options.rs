//! What a component's call is given beside its request, and how it ends.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::context::InstancePool;
use crate::guest::instance::sandbox::Instance;
use crate::message::Reject;

/// How long a guest may go on once its response is complete, or all of them.
pub const BACKGROUND_TIME_MAX: Duration = Duration::from_secs(10);

/// What a call is given, beside the request.
pub struct CallOptions<K> {
    pub pool: Rc<dyn InstancePool>,
    /// When the request began, and whether all the time since then was the guest's.
    pub started: Instant,
    pub waited: bool,
    /// Is dropped when the call has ended.
    pub permit: K,
}

/// What is left of a call that ran: the instance, and what the guest made of it.
pub type CallReturn = (Instance, wasmtime::Result<()>);

/// How a call has ended: with the instance, if that is still good.
pub type CallOutcome = Result<Instance, CallFailure>;

/// A call that came to a bad end. As long as its instance is there, a body that the guest has
/// finished can be told from one that it has not.
pub struct CallFailure {
    pub reject: Reject,
    pub instance: Option<Instance>,
}
