//! Results for a flattened component's guest, and what a host function sees of it.

use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::Caller;
use wasmtime::component::Resource;

use super::handle_table::ResourceKind;
use super::lower::{At, Layout, Lower, store};
use super::memory::Result;
use crate::guest::component::state::ComponentState;
use crate::guest::engine::fault::misuse;

pub type FlatCaller<'a> = Caller<'a, ComponentState>;

/// The memory of the guest beside the rest of its store's data.
pub fn parts<'a>(guest: &'a mut FlatCaller<'_>) -> Result<(&'a mut [u8], &'a mut ComponentState)> {
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
pub fn give<T: Lower>(guest: &mut FlatCaller<'_>, ret: u32, value: T) -> Result<()> {
    let (memory, _) = parts(guest)?;
    store(memory, ret, value)
}

/// Begins to give the guest a result. What it gets to know is what room is needed first, and from
/// [`resume_lowering`] what next (`flatten/realloc_plan.rs`).
pub fn give_all<T: Lower>(guest: &mut FlatCaller<'_>, ret: u32, value: T) -> Result<i64> {
    let (memory, state) = parts(guest)?;
    state.canon.pending.begin(memory, ret, value)
}

/// Takes the place of the piece that was asked for.
pub fn resume_lowering(mut guest: FlatCaller<'_>, ptr: u32) -> Result<i64> {
    let (memory, state) = parts(&mut guest)?;
    state.canon.pending.resume(memory, ptr)
}

/// A handle of a resource that the guest has been given.
pub struct OwnHandle<T>(pub u32, PhantomData<T>);

impl<T: ResourceKind> OwnHandle<T> {
    pub fn new(state: &mut ComponentState, resource: Resource<T>) -> Result<Self> {
        Ok(OwnHandle(state.give(resource)?, PhantomData))
    }
}

impl<T> Lower for OwnHandle<T> {
    const SIZE: usize = 4;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        self.0.lower(out, at);
    }
}

/// A result with a resource in it, as the guest gets it.
pub fn owned<T: ResourceKind, E>(
    state: &mut ComponentState,
    result: std::result::Result<Resource<T>, E>,
) -> Result<std::result::Result<OwnHandle<T>, E>> {
    Ok(match result {
        Ok(resource) => Ok(OwnHandle::new(state, resource)?),
        Err(error) => Err(error),
    })
}
