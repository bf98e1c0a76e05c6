//! What there is in the store of a component, by its form: how it is made, handed a request, and
//! called.

use std::sync::Arc;

use wasmtime::{Engine, Global, Memory, Store};

use super::concurrent::{Arrival, Inbox, InstanceFlags};
use super::state::ComponentState;

/// A component in its store.
pub trait ComponentForm: Sized + Send + Sync + 'static {
    /// What it is made of.
    type Pre: Sync;
    /// What a call begins with.
    type Handed: Send + 'static;
    /// Whether each call of an instance that waits may hold a stack of its own.
    const HAS_MANY_STACKS: bool = false;
    /// Whether the place for an answer goes with its call alone: 0.3. Where it does not, the guest
    /// may drop it before.
    const RETURNS_RESPONSE: bool;

    fn engine(pre: &Self::Pre) -> &Engine;

    /// # Errors
    /// Those of the engine, and a trap of its start function.
    fn make(
        pre: &Self::Pre,
        store: &mut Store<ComponentState>,
    ) -> impl Future<Output = wasmtime::Result<Self>> + Send;

    /// Takes up a request.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    fn accept(state: &mut ComponentState, arrival: Arrival) -> wasmtime::Result<Self::Handed>;

    /// Calls the guest's `handle`.
    ///
    /// # Errors
    /// The guest has trapped, and the instance is not to be used again.
    fn call(
        &self,
        store: &mut Store<ComponentState>,
        handed: Self::Handed,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;

    /// What is to be put back where an instance is reset, if that can be.
    fn mutable_state(&self) -> Option<(Memory, &[Global])> {
        None
    }
}

/// One that handles requests beside each other.
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
