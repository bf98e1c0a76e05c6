//! A call of a core guest, from the checkout of its instance until that goes back to the pool.

use std::rc::Rc;

use super::context::{CallContext, InstancePool};
use super::next;
use crate::guest::engine::form::Form;
use crate::guest::instance::core::CoreInstance;
use crate::guest::schedule::Meter;
use crate::message::{Reject, Request, Response};

/// Has a core guest handle a request.
///
/// # Errors
/// As [`CoreInstance::request`], and the rejects of the next handler.
pub async fn call<P: InstancePool>(
    mut instance: Box<CoreInstance>,
    request: Box<Request>,
    context: &CallContext<'_, P>,
) -> Result<Response, Reject> {
    let schedule: &Rc<_> = context.pool.schedule();
    let _active_call = schedule.begin();
    let guest = instance.guest();
    let meter = Meter::new(&guest.info.grants.limits, context.started);
    let mut meter = meter.in_lanes(schedule, guest.id);
    if context.waited {
        meter.resume();
    }
    instance.accept(request, context.spare.take());
    let (mut instance, passed) = instance.request(&mut meter, schedule).await?;
    if let Some(passed) = passed {
        return Box::pin(next::forward_request(instance, passed, &mut meter, context)).await;
    }
    let (response, spare) = instance.respond();
    context.spare.put(spare);
    context.pool.give_back(Form::Core(instance));
    Ok(response)
}
