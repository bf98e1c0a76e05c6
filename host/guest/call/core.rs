//! A request's call of a core guest, from its instance's checkout until that is given back.

use std::rc::Rc;

use super::context::{Context, Home};
use super::next;
use crate::guest::engine::form::Form;
use crate::guest::instance::core::CoreInstance;
use crate::guest::schedule::Meter;
use crate::message::{Reject, Request, Response};

/// Has a core guest handle a request.
///
/// # Errors
/// As [`CoreInstance::request`], and those of the next handler.
pub async fn call<P: Home>(
    mut instance: Box<CoreInstance>,
    request: Box<Request>,
    context: &Context<'_, P>,
) -> Result<Response, Reject> {
    let schedule: &Rc<_> = context.pool.schedule();
    let _under_way = schedule.begin();
    let guest = instance.guest();
    let meter = Meter::new(&guest.about.grants.limits, context.started);
    let mut meter = meter.in_lanes(schedule, guest.id);
    if context.waited {
        meter.resume();
    }
    instance.accept(request, context.spare.take());
    let (mut instance, passed) = instance.request(&mut meter, schedule).await?;
    if let Some(passed) = passed {
        return Box::pin(next::pass_on(instance, passed, &mut meter, context)).await;
    }
    let (response, spare) = instance.respond();
    context.spare.keep(spare);
    context.pool.give_back(Form::Core(instance));
    Ok(response)
}
