//! The event loop of a flat guest of 0.3. It calls the guest's handler for each request, and its
//! callback whenever something has happened that one of its calls waits for.
//!
//! Owns the order of these calls. The guest's code is never entered twice at a time.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use wasmtime::{AsContextMut, Memory, Store, TypedFunc};

use super::transfer::advance_all;
use crate::guest::component::concurrent::{Arrival, Inbox, InstanceFlags};
use crate::guest::component::state::ComponentState;
use crate::guest::schedule::QUANTUM_TICKS;

/// Calls that merely yield, in a row, before other tasks get the thread.
const YIELDS_MAX: u32 = 8;

/// The exports that the event loop needs.
pub struct CallbackExports {
    /// The memory of the instance.
    pub memory: Memory,
    /// Takes the request's handle and returns a callback code.
    pub handle: TypedFunc<u32, u32>,
    /// Takes an event code, a handle and a value, and returns a callback code.
    pub callback: TypedFunc<(u32, u32, u32), u32>,
}

/// Where requests come from.
pub enum ArrivalSource {
    /// A single request, until it is taken.
    One(Option<Box<Arrival>>),
    Many(Arc<Inbox>, Arc<InstanceFlags>),
}

/// What the event loop does next.
enum LoopAction {
    Begin(Box<Arrival>),
    Resume((u32, u32, u32), bool),
    End,
}

impl ArrivalSource {
    fn take(&mut self) -> Poll<Option<Box<Arrival>>> {
        match self {
            ArrivalSource::One(arrival) => Poll::Ready(arrival.take()),
            ArrivalSource::Many(inbox, _) => inbox.take(),
        }
    }

    /// Reports the state of a shared instance.
    fn note(&self, state: &mut ComponentState) {
        if let ArrivalSource::Many(_, flags) = self {
            flags.note_usage(state);
            let tasks = &state.canon.tasks;
            flags.note_work(tasks.backpressure > 0, tasks.len() > 0);
        }
    }
}

/// Has a guest handle requests as they arrive, until no more can come and its calls have ended.
///
/// # Errors
/// The guest has trapped: the instance is not to be used again.
pub async fn run_event_loop(
    store: &mut Store<ComponentState>,
    exports: &CallbackExports,
    mut arrivals: ArrivalSource,
) -> wasmtime::Result<()> {
    let mut yields = 0;
    loop {
        let action = poll_fn(|cx| poll_action(store, exports, &mut arrivals, cx)).await?;
        store.set_epoch_deadline(QUANTUM_TICKS);
        let code = match action {
            LoopAction::End => return Ok(()),
            LoopAction::Begin(arrival) => {
                let Arrival { id, request, head, .. } = *arrival;
                let state = store.data_mut();
                state.begin(Some(id));
                let request = state.put_request(request)?;
                state.canon.tasks.begin(id, head);
                exports.handle.call_async(store.as_context_mut(), request).await?
            }
            LoopAction::Resume(event, has_yielded) => {
                yields = if has_yielded { yields + 1 } else { 0 };
                if yields >= YIELDS_MAX {
                    yields = 0;
                    tokio::task::yield_now().await;
                }
                let state = store.data_mut();
                let id = state.canon.tasks.current_task()?.id;
                state.resume(id);
                exports.callback.call_async(store.as_context_mut(), event).await?
            }
        };
        store.data_mut().canon.tasks.apply_callback_code(code)?;
        arrivals.note(store.data_mut());
    }
}

fn poll_action(
    store: &mut Store<ComponentState>,
    exports: &CallbackExports,
    arrivals: &mut ArrivalSource,
    cx: &mut Context<'_>,
) -> Poll<wasmtime::Result<LoopAction>> {
    let (memory, state) = exports.memory.data_and_store_mut(&mut *store);
    advance_all(memory, state, cx)?;
    let is_over = match arrivals.take() {
        Poll::Ready(Some(arrival)) => return Poll::Ready(Ok(LoopAction::Begin(arrival))),
        Poll::Ready(None) => true,
        Poll::Pending => false,
    };
    if let Some((event, handle, value, has_yielded)) = state.canon.tasks.next_ready()? {
        let event = (event as u32, handle, value);
        return Poll::Ready(Ok(LoopAction::Resume(event, has_yielded)));
    }
    if is_over && state.canon.tasks.len() == 0 {
        Poll::Ready(Ok(LoopAction::End))
    } else {
        Poll::Pending
    }
}
