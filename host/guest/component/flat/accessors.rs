//! Builders for functions of wasi:http/types that differ only in their types.

use guesthouse_module::interfaces::DROP;
use guesthouse_module::interfaces::http02::HTTP_TYPES;
use wasmtime::Linker;
use wasmtime::component::Resource;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView as _};

use super::abi::{FlatCaller, give, give_all, owned};
use super::handle_table::ResourceKind;
use super::lower::Lower;
use super::memory::Result;
use crate::guest::component::state::ComponentState;

/// The interface of the resources of wasi:http 0.2.
pub const TYPES: &str = HTTP_TYPES.module;

/// wasmtime's own implementation of a function of a resource.
type ResourceFn<T, V> = fn(&mut WasiHttpCtxView<'_>, Resource<T>) -> Result<V>;

/// Adds a function that drops a resource.
pub fn add_drop<T: ResourceKind>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    drop: ResourceFn<T, ()>,
) -> Result<()> {
    let name = format!("{DROP}{name}");
    linker.func_wrap(TYPES, &name, move |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.take(this)?;
        drop(&mut state.http(), resource)
    })?;
    Ok(())
}

/// Adds a function that returns a value, for which the guest may have to allocate.
pub fn add_getter<T: ResourceKind, V: Lower + 'static>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    value: ResourceFn<T, V>,
) -> Result<()> {
    linker.func_wrap(TYPES, name, move |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.get(this)?;
        let value = value(&mut state.http(), resource)?;
        give_all(&mut guest, ret, value)
    })?;
    Ok(())
}

/// Adds a function that returns another resource.
pub fn add_child_getter<T: ResourceKind, P: ResourceKind>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    part: ResourceFn<T, Resource<P>>,
) -> Result<()> {
    linker.func_wrap(TYPES, name, move |mut guest: FlatCaller<'_>, this: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.get(this)?;
        let part = part(&mut state.http(), resource)?;
        state.give(part)
    })?;
    Ok(())
}

/// Adds a function that returns another resource the first time that it is called.
pub fn add_child_taker<T: ResourceKind, P: ResourceKind>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    part: ResourceFn<T, std::result::Result<Resource<P>, ()>>,
) -> Result<()> {
    linker.func_wrap(TYPES, name, move |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.get(this)?;
        let part = part(&mut state.http(), resource)?;
        let part = owned(state, part)?;
        give(&mut guest, ret, part)
    })?;
    Ok(())
}

/// Takes a resource out of another. The inner result is the guest's.
type TakeEnd<T, P> =
    fn(&mut ComponentState, Resource<T>) -> Result<std::result::Result<Resource<P>, ()>>;

/// As [`add_child_taker`], for functions that need the store's data.
pub fn add_end<T: ResourceKind, P: ResourceKind>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    end: TakeEnd<T, P>,
) -> Result<()> {
    linker.func_wrap(TYPES, name, move |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.get(this)?;
        let end = end(state, resource)?;
        let end = owned(state, end)?;
        give(&mut guest, ret, end)
    })?;
    Ok(())
}

/// Adds a function that makes a resource of another, which it takes from the guest.
pub fn add_constructor<T: ResourceKind, M: ResourceKind>(
    linker: &mut Linker<ComponentState>,
    name: &str,
    make: ResourceFn<T, Resource<M>>,
) -> Result<()> {
    linker.func_wrap(TYPES, name, move |mut guest: FlatCaller<'_>, from: u32| {
        let state = guest.data_mut();
        let resource = state.canon.handles.take(from)?;
        let made = make(&mut state.http(), resource)?;
        state.give(made)
    })?;
    Ok(())
}
