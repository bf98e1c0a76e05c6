//! Results for a flattened component's guest, and what a host function sees of it.

use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::Caller;
use wasmtime::component::Resource;

use super::handles::Held;
use super::lower::{At, Layout, Lower, store};
use super::memory::Result;
use crate::guest::component::state::State;
use crate::guest::engine::fault::misuse;

pub type Guest<'a> = Caller<'a, State>;

/// The memory of the guest beside the rest of its store's data.
pub fn parts<'a>(guest: &'a mut Guest<'_>) -> Result<(&'a mut [u8], &'a mut State)> {
    let memory = guest.data().canon.memory.ok_or_else(|| misuse("it has no memory yet"))?;
    Ok(memory.data_and_store_mut(guest))
}

/// What comes of a future that does not wait.
pub fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(misuse("a call that does not wait would have had to")),
    }
}

/// Gives the guest a result that needs no room beside its own.
pub fn give<T: Lower>(guest: &mut Guest<'_>, ret: u32, value: T) -> Result<()> {
    let (memory, _) = parts(guest)?;
    store(memory, ret, value)
}

/// Begins to give the guest a result. What it gets to know is what room is needed first, and from
/// [`place`] what next (`flatten/rooms.rs`).
pub fn give_all<T: Lower>(guest: &mut Guest<'_>, ret: u32, value: T) -> Result<i64> {
    let (memory, state) = parts(guest)?;
    state.canon.pending.begin(memory, ret, value)
}

/// Takes the place of the piece that was asked for.
pub fn place(mut guest: Guest<'_>, ptr: u32) -> Result<i64> {
    let (memory, state) = parts(&mut guest)?;
    state.canon.pending.place(memory, ptr)
}

/// A handle of a resource that the guest has been given.
pub struct Own<T>(pub u32, PhantomData<T>);

impl<T: Held> Own<T> {
    pub fn new(state: &mut State, resource: Resource<T>) -> Result<Self> {
        Ok(Own(state.give(resource)?, PhantomData))
    }
}

impl<T> Lower for Own<T> {
    const SIZE: usize = 4;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        self.0.lower(out, at);
    }
}

/// A result with a resource in it, as the guest gets it.
pub fn owned<T: Held, E>(
    state: &mut State,
    result: std::result::Result<Resource<T>, E>,
) -> Result<std::result::Result<Own<T>, E>> {
    Ok(match result {
        Ok(resource) => Ok(Own::new(state, resource)?),
        Err(error) => Err(error),
    })
}
