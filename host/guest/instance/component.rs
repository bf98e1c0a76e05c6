//! A component's sandbox: a store with an instance.
//!
//! Owns how an instance is made, called and reset. A call consumes the instance, and returns it if
//! the guest ended well. The differences between the forms are in `component_form.rs`.

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

/// Resources that an instance under reuse may leave behind before another replaces it.
const LEFT_MAX: usize = 256;

/// A component that is ready for a request and runs as `R`.
pub struct ComponentInstance<R> {
    guest: Arc<Guest>,
    store: Store<ComponentState>,
    running: R,
    resets: u32,
}

/// The instance after its call, and how the guest ended.
pub type FinishedCall<R> = (Box<ComponentInstance<R>>, wasmtime::Result<()>);

impl<R: ComponentForm> ComponentInstance<R> {
    /// Makes an instance.
    ///
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
            // Initialising the memory is code, too, but bounded: it need not yield.
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let running = R::make(&code.pre, &mut store).await?;
        Ok(Box::new(ComponentInstance { guest: guest.clone(), store, running, resets: 0 }))
    }

    /// The guest that it is an instance of.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Bytes of its memories at their present size.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }

    /// The count of stacks that are charged before requests come.
    pub fn prepaid_stacks(&self) -> PrepaidStacks {
        self.store.data().limiter.prepaid_stacks()
    }

    /// Tells whether its store is gone.
    pub fn gone(&self) -> StoreLiveness {
        self.store.data().liveness.clone()
    }

    /// Whether its requests have left too much behind for it to serve more.
    pub fn is_spent(&mut self) -> bool {
        let state = self.store.data_mut();
        let (resources, bytes) = state.leftovers();
        // At the end of a call the guest's own requests are to have ended, too.
        resources > LEFT_MAX || bytes > LEFTOVER_BYTES_MAX || state.hooks.has_in_flight()
    }

    /// The state in which it was made; `None` if it cannot be reset.
    pub fn baseline(&mut self) -> Option<Baseline> {
        let (memory, globals) = self.running.mutable_state()?;
        Some(Baseline::read(&mut self.store, memory, globals))
    }

    /// Resets an instance that ended well to the state in which it was made. `is_warm` says that
    /// its memory is likely to be in a cache.
    ///
    /// # Errors
    /// The instance is gone. A new one of this guest has to be made instead.
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

    /// Allows the guest to send requests of its own.
    pub fn open(&mut self, outbound: &OutboundHandle) {
        self.store.data_mut().hooks.enable_outbound(outbound);
    }

    /// Converts a request for the guest.
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

    /// Has the guest handle requests as they arrive, several at once.
    pub async fn attend(
        mut self: Box<Self>,
        inbox: Arc<Inbox>,
        flags: Arc<InstanceFlags>,
    ) -> FinishedCall<R>
    where
        R: Concurrent,
    {
        let result = self.running.serve(&mut self.store, inbox, flags).await;
        self.store.data().end_log();
        (self, result)
    }
}

impl<R: ComponentForm> DropCost for ComponentInstance<R> {
    fn bytes(&self) -> usize {
        self.memory_bytes() + self.store.data().held_bytes()
    }
}
