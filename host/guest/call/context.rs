//! What a call of a guest is given beside its request, whatever the guest's form.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use crate::guest::engine::guest_info::GuestInfo;
use crate::guest::instance::sandbox::Instance;
use crate::guest::schedule::Scheduler;
use crate::message::body_progress::Deadline;
use crate::message::{Reject, Request, RequestId, Response, SpareHeaders};
use crate::outbound::OutboundHandle;

/// What a call uses of the pool that its instance came from.
pub trait InstancePool {
    /// The scheduler of this worker.
    fn schedule(&self) -> &Rc<Scheduler>;

    /// Where guests send requests of their own.
    fn outbound(&self) -> &OutboundHandle;

    /// Takes back an instance whose call ended well.
    fn give_back(&self, instance: Instance);
}

/// The answer to a request that was passed on, once it is there.
pub type ForwardFuture<'a> = Pin<Box<dyn Future<Output = Result<Response, Reject>> + 'a>>;

/// The next handler: it answers the requests that guests pass on (`next`).
pub trait NextHandler {
    /// Sends a request on, taking its body. `guest` is the guest that passes it on, by its number
    /// and its info.
    ///
    /// # Errors
    /// [`Reject::NoRoute`] if nobody serves it; otherwise why there was no answer.
    fn forward<'a>(
        &'a self,
        guest: (usize, &'a GuestInfo),
        request: &'a mut Request,
        deadline: &'a Deadline,
    ) -> ForwardFuture<'a>;

    /// Logs what is wrong with the answer to a request that was passed on.
    fn warn(&self, request: RequestId, why: &str);
}

/// What a call is given, beside its request.
pub struct CallContext<'a, P> {
    /// The pool that the instance goes back to.
    pub pool: &'a Rc<P>,
    /// Where a request goes that the guest passes on.
    pub next: &'a dyn NextHandler,
    /// Empty header maps that keep their capacity for the next response.
    pub spare: &'a SpareHeaders,
    /// When the request began: its deadline counts from here.
    pub started: Instant,
    /// Whether the request has waited since then. If not, all that time counts as the guest's.
    pub waited: bool,
    /// When the head of the response is due. Components only.
    pub deadline: Instant,
}
