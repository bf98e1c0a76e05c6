//! One call of a guest, whatever its form: begun with a request and a context, it gives a response.

use std::any::Any;

use super::component::ComponentCall;
use super::context::{CallContext, InstancePool};
use super::options::CallOptions;
use super::response;
use super::shared_instance::CallSlot;
use crate::guest::engine::form::Form;
use crate::guest::instance::sandbox::Instance;
use crate::message::{Reject, Request, Response};

/// What a request has been given to be handled in.
pub enum Checkout {
    /// An instance for it alone.
    Instance(Instance),
    /// A place in an instance that handles several requests.
    Shared(CallSlot),
}

/// Has a guest handle a request. `place` is given back when the call has ended.
///
/// # Errors
/// The instance is gone, and the reject says what the client is told.
pub async fn call<P: InstancePool + 'static>(
    checkout: Checkout,
    request: Box<Request>,
    context: &CallContext<'_, P>,
    permit: impl Any,
) -> Result<Response, Reject> {
    let options = |permit| {
        let CallContext { pool, started, waited, .. } = *context;
        CallOptions { pool: pool.clone(), started, waited, permit }
    };
    let call = match checkout {
        Checkout::Instance(Form::Core(instance)) => {
            let _permit = permit;
            return super::core::call(instance, request, context).await;
        }
        Checkout::Instance(Form::Whole02(instance)) => {
            ComponentCall::begin(instance, request, options(permit))
        }
        Checkout::Instance(Form::Whole03(instance)) => {
            ComponentCall::begin(instance, request, options(permit))
        }
        Checkout::Instance(Form::Flat02(instance)) => {
            ComponentCall::begin(instance, request, options(permit))
        }
        Checkout::Instance(Form::Flat03(instance)) => {
            ComponentCall::begin(instance, request, options(permit))
        }
        Checkout::Shared(seat) => ComponentCall::join(seat, request, options(permit)),
    };
    // Its future is large, and idle connections have room for this one.
    Box::pin(response::response(call?, context.deadline)).await
}
