//! One call of a guest, whatever its form: begun with a request and a context, it gives a response.

use std::any::Any;

use super::component::ComponentCall;
use super::context::{Context, Home};
use super::response;
use super::shared::Seat;
use super::terms::Terms;
use crate::guest::engine::form::Form;
use crate::guest::instance::sandbox::Instance;
use crate::message::{Reject, Request, Response};

/// What a request has been given to be handled in.
pub enum Checkout {
    /// An instance for it alone.
    Instance(Instance),
    /// A place in an instance that handles several requests.
    Seat(Seat),
}

/// Has a guest handle a request. `place` is given back when the call has ended.
///
/// # Errors
/// The instance is gone, and the reject says what the client is told.
pub async fn call<P: Home + 'static>(
    checkout: Checkout,
    request: Box<Request>,
    context: &Context<'_, P>,
    place: impl Any,
) -> Result<Response, Reject> {
    let terms = |keep| {
        let Context { pool, started, waited, .. } = *context;
        Terms { pool: pool.clone(), started, waited, keep }
    };
    let call = match checkout {
        Checkout::Instance(Form::Core(instance)) => {
            let _place = place;
            return super::core::call(instance, request, context).await;
        }
        Checkout::Instance(Form::Whole02(instance)) => {
            ComponentCall::begin(instance, request, terms(place))
        }
        Checkout::Instance(Form::Whole03(instance)) => {
            ComponentCall::begin(instance, request, terms(place))
        }
        Checkout::Instance(Form::Flat02(instance)) => {
            ComponentCall::begin(instance, request, terms(place))
        }
        Checkout::Instance(Form::Flat03(instance)) => {
            ComponentCall::begin(instance, request, terms(place))
        }
        Checkout::Seat(seat) => ComponentCall::join(seat, request, terms(place)),
    };
    // Its future is large, and idle connections have room for this one.
    Box::pin(response::response(call?, context.deadline)).await
}
