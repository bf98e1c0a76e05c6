//! How a host function gets at a flat component's memory, and how it returns results.

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

/// A host function's view of the guest that calls it.
pub type FlatCaller<'a> = Caller<'a, ComponentState>;

/// The guest's memory, and the data of its store.
pub fn parts<'a>(guest: &'a mut FlatCaller<'_>) -> Result<(&'a mut [u8], &'a mut ComponentState)> {
    let memory = guest.data().canon.memory.ok_or_else(|| misuse("it has no memory yet"))?;
    Ok(memory.data_and_store_mut(guest))
}

///
/// # Errors
/// It waits all the same: the guest is to be stopped.
/// The output of a future that has no reason to wait.
pub fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(misuse("a call that does not wait would have had to")),
    }
}

/// Stores a result at `ret` that points to no other memory.
pub fn give<T: Lower>(guest: &mut FlatCaller<'_>, ret: u32, value: T) -> Result<()> {
    let (memory, _) = parts(guest)?;
    store(memory, ret, value)
}

/// Begins to store a result at `ret`. Returns what the guest has to allocate first. The next
/// allocation comes from [`resume_lowering`] (`flatten/realloc_plan.rs`).
pub fn give_all<T: Lower>(guest: &mut FlatCaller<'_>, ret: u32, value: T) -> Result<i64> {
    let (memory, state) = parts(guest)?;
    state.canon.pending.begin(memory, ret, value)
}

/// Continues with the pointer to the memory that the guest was asked for.
pub fn resume_lowering(mut guest: FlatCaller<'_>, ptr: u32) -> Result<i64> {
    let (memory, state) = parts(&mut guest)?;
    state.canon.pending.resume(memory, ptr)
}

/// A handle that the guest owns, as a part of a result.
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

/// A result with a resource in it, whose handle is given to the guest.
pub fn owned<T: ResourceKind, E>(
    state: &mut ComponentState,
    result: std::result::Result<Resource<T>, E>,
) -> Result<std::result::Result<OwnHandle<T>, E>> {
    Ok(match result {
        Ok(resource) => Ok(OwnHandle::new(state, resource)?),
        Err(error) => Err(error),
    })
}
