//! A component's sandbox: a store and an instance in it.
//!
//! Owns how an instance is made, called and reset. A call consumes the instance, and gives it back
//! if the guest ended well. What the forms of a component differ in is in `component_form.rs`.

use std::sync::Arc;

use wasmtime::Store;

use super::guest::Guest;
use crate::guest::component::code::ComponentCode;
use crate::guest::component::component_form::{ComponentForm, Concurrent};
use crate::guest::component::concurrent::{Arrival, Inbox, InstanceFlags};
use crate::guest::component::guest_response::LEFTOVER_BYTES_MAX;
use crate::guest::component::state::ComponentState;
use crate::guest::component::store_liveness::StoreLiveness;
use crate::guest::engine::limiter::PrepaidStacks;
use crate::guest::engine::reset::{Baseline, RESETS_MAX};
use crate::guest::engine::slots::STACKS_PER_SLOT;
use crate::guest::schedule::DropCost;
use crate::guest::schedule::QUANTUM_TICKS;
use crate::outbound::OutboundHandle;

/// Resources that an instance may leave behind, under reuse, before another takes its place.
const LEFT_MAX: usize = 256;

/// A component that is ready for a request, and runs as `R`.
pub struct ComponentInstance<R> {
    guest: Arc<Guest>,
    store: Store<ComponentState>,
    running: R,
    resets: u32,
}

/// A call that has ended, with the instance.
pub type FinishedCall<R> = (Box<ComponentInstance<R>>, wasmtime::Result<()>);

impl<R: ComponentForm> ComponentInstance<R> {
    /// # Errors
    /// Those of the engine, and a trap of its start function.
    pub async fn instantiate(
        guest: &Arc<Guest>,
        code: &ComponentCode<R>,
    ) -> wasmtime::Result<Box<ComponentInstance<R>>> {
        let mut store = ComponentState::store(code.engine(), guest.info.clone());
        let stacks = if R::HAS_MANY_STACKS { STACKS_PER_SLOT } else { 1 };
        store.data_mut().limiter.charge_instance(guest.cost(), stacks as usize)?;
        if R::HAS_MANY_STACKS {
            store.call_hook(|mut store, hook| store.data_mut().limiter.note_call(hook));
        }
        if !code.has_start {
            // Filling the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let running = R::make(&code.pre, &mut store).await?;
        Ok(Box::new(ComponentInstance { guest: guest.clone(), store, running, resets: 0 }))
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Bytes of its memories, as large as they have become.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }

    /// Where it is counted how many of its stacks its requests are charged.
    pub fn prepaid_stacks(&self) -> PrepaidStacks {
        self.store.data().limiter.prepaid_stacks()
    }

    /// Tells when it is gone.
    pub fn gone(&self) -> StoreLiveness {
        self.store.data().liveness.clone()
    }

    /// Whether it has left too much behind to serve more requests.
    pub fn is_spent(&mut self) -> bool {
        let state = self.store.data_mut();
        let (resources, bytes) = state.leftovers();
        // Where a call ends, so do its requests.
        resources > LEFT_MAX || bytes > LEFTOVER_BYTES_MAX || state.hooks.has_in_flight()
    }

    /// The state in which it was made, where it can be read.
    pub fn baseline(&mut self) -> Option<Baseline> {
        let (memory, globals) = self.running.mutable_state()?;
        Some(Baseline::read(&mut self.store, memory, globals))
    }

    /// Puts an instance that ended well back into the state in which it was made.
    ///
    /// # Errors
    /// The instance is gone; a new one of this guest has to be made instead.
    pub fn reset(mut self: Box<Self>, is_warm: bool) -> Result<Box<Self>, Arc<Guest>> {
        self.resets += 1;
        let restored = match (self.running.mutable_state(), &self.guest.baseline) {
            (Some((memory, globals)), Some(baseline)) if self.resets < RESETS_MAX => {
                baseline.restore(&mut self.store, memory, globals, is_warm)
            }
            _ => false,
        };
        if !restored {
            return Err(self.guest);
        }
        self.store.data_mut().clear_requests();
        Ok(self)
    }

    /// Lets the guest's own requests out.
    pub fn open(&mut self, door: &OutboundHandle) {
        self.store.data_mut().hooks.enable_outbound(door);
    }

    /// Takes up a request.
    ///
    /// # Errors
    /// The request cannot be handed to the guest.
    pub fn accept(&mut self, arrival: Arrival) -> wasmtime::Result<R::Handed> {
        R::accept(self.store.data_mut(), arrival)
    }

    /// Calls the guest's `handle`. The call may move to another thread while it runs.
    pub async fn call(mut self: Box<Self>, handed: R::Handed) -> FinishedCall<R> {
        self.store.set_epoch_deadline(QUANTUM_TICKS);
        let result = self.running.call(&mut self.store, handed).await;
        self.store.data().end_log();
        (self, result)
    }

    /// Has the guest handle requests as they arrive, beside each other.
    pub async fn attend(
        mut self: Box<Self>,
        inbox: Arc<Inbox>,
        marks: Arc<InstanceFlags>,
    ) -> FinishedCall<R>
    where
        R: Concurrent,
    {
        let result = self.running.serve(&mut self.store, inbox, marks).await;
        self.store.data().end_log();
        (self, result)
    }
}

impl<R: ComponentForm> DropCost for ComponentInstance<R> {
    fn bytes(&self) -> usize {
        self.memory_bytes() + self.store.data().held_bytes()
    }
}
