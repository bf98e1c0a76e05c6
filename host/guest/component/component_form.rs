//! The forms of a component: how each is instantiated, handed a request, and called.

use std::sync::Arc;

use wasmtime::{Engine, Global, Memory, Store};

use super::concurrent::{Arrival, Inbox, InstanceFlags};
use super::state::ComponentState;

/// A component in its store, in one of its forms.
pub trait ComponentForm: Sized + Send + Sync + 'static {
    /// Its linked code.
    type Pre: Sync;
    /// A request as the guest's `handle` takes it.
    type Handed: Send + 'static;
    /// Whether several calls of an instance may wait at once, each on a stack of its own.
    const HAS_MANY_STACKS: bool = false;
    /// Whether the response is what `handle` returns, as in 0.3. In 0.2 the guest sets a
    /// `response-outparam` instead, which it may drop before the call ends.
    const RETURNS_RESPONSE: bool;

    /// The engine that the code was compiled for.
    fn engine(pre: &Self::Pre) -> &Engine;

    /// Instantiates the component in a store.
    ///
    /// # Errors
    /// Those of the engine, and a trap of its start function.
    fn make(
        pre: &Self::Pre,
        store: &mut Store<ComponentState>,
    ) -> impl Future<Output = wasmtime::Result<Self>> + Send;

    /// Converts a request for `handle`.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    fn accept(state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed>;

    /// Calls the guest's `handle`.
    ///
    /// The guest has trapped: the instance is not to be used again.
    /// The guest has trapped, and the instance is not to be used again.
    fn call(
        &self,
        store: &mut Store<ComponentState>,
        handed: Self::Handed,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;

    /// What a reset restores; `None` if instances of this form cannot be reset.
    fn mutable_state(&self) -> Option<(Memory, &[Global])> {
        None
    }
}

/// A form whose instances handle several requests at once.
pub trait Concurrent: ComponentForm {
    /// Has the guest handle requests as they arrive, until no more can come and its calls have
    /// ended.
    ///
    /// # Errors
    /// As [`ComponentForm::call`].
    fn serve(
        &self,
        store: &mut Store<ComponentState>,
        inbox: Arc<Inbox>,
        flags: Arc<InstanceFlags>,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;
}
