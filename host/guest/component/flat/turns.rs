//! What drives a flattened guest of 0.3: its handler is called for each request, and its callback
//! whenever something has happened that one of its calls waits for.
//!
//! Owns the order of the turns. No call of the guest's code is interrupted by another.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use wasmtime::{AsContextMut, Memory, Store, TypedFunc};

use super::pipe::look;
use crate::guest::component::concurrent::{Arrival, Inbox, Marks};
use crate::guest::component::state::State;
use crate::guest::schedule::QUANTUM_TICKS;

/// Turns of calls that have only yielded, in a row, before others get the thread.
const YIELDS: u32 = 8;

/// The functions of a module that take part.
pub struct Turns {
    pub memory: Memory,
    pub handle: TypedFunc<u32, u32>,
    /// Is told an event, a handle and a value.
    pub callback: TypedFunc<(u32, u32, u32), u32>,
}

/// Where requests come from.
pub enum Arrivals {
    /// One, or none any more.
    One(Option<Box<Arrival>>),
    Many(Arc<Inbox>, Arc<Marks>),
}

/// What comes next.
enum Turn {
    Begin(Box<Arrival>),
    GoOn((u32, u32, u32), bool),
    End,
}

impl Arrivals {
    fn take(&mut self) -> Poll<Option<Box<Arrival>>> {
        match self {
            Arrivals::One(arrival) => Poll::Ready(arrival.take()),
            Arrivals::Many(inbox, _) => inbox.take(),
        }
    }

    /// Takes note of what the instance says about itself.
    fn note(&self, state: &mut State) {
        if let Arrivals::Many(_, marks) = self {
            marks.note(state);
            let tasks = &state.canon.tasks;
            marks.note_work(tasks.backpressure > 0, tasks.len() > 0);
        }
    }
}

/// Has a guest handle requests as they arrive, until no more can come and its calls have ended.
///
/// # Errors
/// The guest has trapped, and the instance is not to be used again.
pub async fn attend(
    store: &mut Store<State>,
    turns: &Turns,
    mut arrivals: Arrivals,
) -> wasmtime::Result<()> {
    let mut yields = 0;
    loop {
        let turn = poll_fn(|cx| next(store, turns, &mut arrivals, cx)).await?;
        store.set_epoch_deadline(QUANTUM_TICKS);
        let code = match turn {
            Turn::End => return Ok(()),
            Turn::Begin(arrival) => {
                let Arrival { id, request, head, .. } = *arrival;
                let state = store.data_mut();
                state.begin(Some(id));
                let request = state.put_request(request)?;
                state.canon.tasks.begin(id, head);
                turns.handle.call_async(store.as_context_mut(), request).await?
            }
            Turn::GoOn(event, has_yielded) => {
                yields = if has_yielded { yields + 1 } else { 0 };
                if yields >= YIELDS {
                    yields = 0;
                    tokio::task::yield_now().await;
                }
                let state = store.data_mut();
                let id = state.canon.tasks.call()?.id;
                state.resume(id);
                turns.callback.call_async(store.as_context_mut(), event).await?
            }
        };
        store.data_mut().canon.tasks.pause(code)?;
        arrivals.note(store.data_mut());
    }
}

fn next(
    store: &mut Store<State>,
    turns: &Turns,
    arrivals: &mut Arrivals,
    cx: &mut Context<'_>,
) -> Poll<wasmtime::Result<Turn>> {
    let (memory, state) = turns.memory.data_and_store_mut(&mut *store);
    look(memory, state, cx)?;
    let is_over = match arrivals.take() {
        Poll::Ready(Some(arrival)) => return Poll::Ready(Ok(Turn::Begin(arrival))),
        Poll::Ready(None) => true,
        Poll::Pending => false,
    };
    if let Some((event, handle, value, has_yielded)) = state.canon.tasks.next()? {
        let event = (event as u32, handle, value);
        return Poll::Ready(Ok(Turn::GoOn(event, has_yielded)));
    }
    if is_over && state.canon.tasks.len() == 0 { Poll::Ready(Ok(Turn::End)) } else { Poll::Pending }
}
