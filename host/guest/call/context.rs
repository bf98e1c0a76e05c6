//! What a call of a guest is given, beside its request, whatever form the guest has.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::Scheduler;
use crate::message::body_progress::Deadline;
use crate::message::{Reject, Request, RequestId, Response, SpareHeaders};
use crate::outbound::OutboundHandle;

/// What a call sees of the pool that its instance is of.
pub trait InstancePool {
    fn schedule(&self) -> &Rc<Scheduler>;

    /// Where guests hand in requests of their own.
    fn outbound(&self) -> &OutboundHandle;

    /// Takes back an instance that ended well.
    fn give_back(&self, instance: Instance);
}

/// What a request waits for that is passed on.
pub type ForwardFuture<'a> = Pin<Box<dyn Future<Output = Result<Response, Reject>> + 'a>>;

/// The next handler: where requests go that a guest passes on (`next`).
pub trait NextHandler {
    /// Sends a request on, taking its body. `guest` is the number of the guest that passes it on.
    ///
    /// # Errors
    /// [`Reject::NoRoute`] where there is nobody to send it to.
    fn forward<'a>(
        &'a self,
        guest: (usize, &'a GuestInfo),
        request: &'a mut Request,
        deadline: &'a Deadline,
    ) -> ForwardFuture<'a>;

    /// Says in the log what is wrong with an answer to a request that was passed on.
    fn warn(&self, request: RequestId, why: &str);
}

/// What a call is given, beside its request.
pub struct CallContext<'a, P> {
    pub pool: &'a Rc<P>,
    pub next: &'a dyn NextHandler,
    /// Where the room of header maps is kept.
    pub spare: &'a SpareHeaders,
    /// When the request began, and whether all the time since then was the guest's.
    pub started: Instant,
    pub waited: bool,
    /// When the head of the response is due.
    pub deadline: Instant,
}
