//! One call of a guest of any form: begun with a request and a context, it gives a response.

use std::any::Any;

use super::component::ComponentCall;
use super::context::{CallContext, InstancePool};
use super::options::CallOptions;
use super::response;
use super::shared_instance::CallSlot;
use crate::guest::engine::form::Form;
use crate::guest::instance::sandbox::Instance;
use crate::message::{Reject, Request, Response};

/// What a request is handled in.
pub enum Checkout {
    /// An instance of its own.
    Instance(Instance),
    /// A slot of an instance that handles several requests.
    Shared(CallSlot),
}

/// Has a guest handle a request. `permit` is dropped when the call has ended.
///
/// # Errors
/// The reject says what the client is told. The instance is gone.
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
        Checkout::Shared(slot) => ComponentCall::join(slot, request, options(permit)),
    };
    // The future is large, and each idle connection reserves room for this function's own.
    Box::pin(response::response(call?, context.deadline)).await
}
