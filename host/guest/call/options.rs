//! What a component's call is given beside its request, and what it returns.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::context::InstancePool;
use crate::guest::instance::sandbox::Instance;
use crate::message::Reject;

/// How long a guest may go on after its response is complete; in a shared instance, after all of
/// them are.
pub const BACKGROUND_TIME_MAX: Duration = Duration::from_secs(10);

/// What a call is given beside its request.
pub struct CallOptions<K> {
    /// The pool that the instance goes back to.
    pub pool: Rc<dyn InstancePool>,
    /// When the request began: its deadline counts from here.
    pub started: Instant,
    /// Whether the request has waited since then. If not, all that time counts as the guest's.
    pub waited: bool,
    /// Dropped when the call has ended.
    pub permit: K,
}

/// What a call leaves when it was not stopped: the instance, and the result of the guest's code.
pub type CallReturn = (Instance, wasmtime::Result<()>);

/// How a call has ended: with an instance that can be used again, or not.
pub type CallOutcome = Result<Instance, CallFailure>;

/// A call that came to a bad end.
pub struct CallFailure {
    /// What the client is told.
    pub reject: Reject,
    /// The instance, which is not used again. As long as it is there, its body ends only if the
    /// guest has finished it.
    pub instance: Option<Instance>,
}
