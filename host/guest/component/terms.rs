//! What a component's call is given beside its request, and how it ends.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::instance::ComponentInstance;
use crate::guest::schedule::Schedule;
use crate::message::Reject;
use crate::outbound::Door;

/// How long a guest may go on once its response is complete, or all of them.
pub const AFTERWARDS_MAX: Duration = Duration::from_secs(10);

/// What a call sees of the pool that its instance is of.
pub trait Pool {
    fn schedule(&self) -> &Rc<Schedule>;

    /// Where guests hand in requests of their own.
    fn door(&self) -> &Door;

    /// Takes back an instance that ended well.
    fn take_back(&self, instance: Box<ComponentInstance>);
}

/// What a call is given, beside the request.
pub struct Terms<K> {
    pub pool: Rc<dyn Pool>,
    /// When the request began, and whether all the time since then was the guest's.
    pub started: Instant,
    pub waited: bool,
    /// Is dropped when the call has ended.
    pub keep: K,
}

/// How a call has ended: with the instance, if that is still good.
pub type Ended = Result<Box<ComponentInstance>, Broken>;

/// A call that came to a bad end. As long as its instance is there, a body that the guest has
/// finished can be told from one that it has not.
pub struct Broken {
    pub reject: Reject,
    pub instance: Option<Box<ComponentInstance>>,
}
