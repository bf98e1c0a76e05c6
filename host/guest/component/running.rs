//! What there is in the store of a component, by its form: how it is made, handed a request, and
//! called.

use std::sync::Arc;

use wasmtime::{Engine, Global, Memory, Store};

use super::concurrent::{Arrival, Inbox, Marks};
use super::state::State;

/// A component in its store.
pub trait Running: Sized + Send + Sync + 'static {
    /// What it is made of.
    type Pre: Sync;
    /// What a call begins with.
    type Handed: Send + 'static;
    /// Whether each call of an instance that waits may hold a stack of its own.
    const HAS_MANY_STACKS: bool = false;
    /// Whether the place for an answer goes with its call alone: 0.3. Where it does not, the guest
    /// may drop it before.
    const ANSWERS_BY_RETURNING: bool;

    fn engine(pre: &Self::Pre) -> &Engine;

    /// # Errors
    /// Those of the engine, and a trap of its start function.
    fn make(
        pre: &Self::Pre,
        store: &mut Store<State>,
    ) -> impl Future<Output = wasmtime::Result<Self>> + Send;

    /// Takes up a request.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    fn accept(state: &mut State, arrival: Arrival) -> wasmtime::Result<Self::Handed>;

    /// Calls the guest's `handle`.
    ///
    /// # Errors
    /// The guest has trapped, and the instance is not to be used again.
    fn call(
        &self,
        store: &mut Store<State>,
        handed: Self::Handed,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;

    /// What is to be put back where an instance is reset, if that can be.
    fn mutable(&self) -> Option<(Memory, &[Global])> {
        None
    }
}

/// One that handles requests beside each other.
pub trait Concurrent: Running {
    /// Has the guest handle requests as they arrive, until no more can come and its calls have
    /// ended.
    ///
    /// # Errors
    /// As [`Running::call`].
    fn attend(
        &self,
        store: &mut Store<State>,
        inbox: Arc<Inbox>,
        marks: Arc<Marks>,
    ) -> impl Future<Output = wasmtime::Result<()>> + Send;
}
