//! The fields of wasi:http. Both versions have the same, but for two names and the errors.

use wasmtime::Linker;
use wasmtime_wasi_http::{FieldMap, FieldMapError, WasiHttpHooks};

use super::abi::{FlatCaller, give_all, parts};
use super::error::FieldChangeError;
use super::lower::{List, store};
use super::memory::{Result, list, lists, pairs, string};
use crate::guest::component::limits::FIELD_BYTES_MAX;
use crate::guest::component::state::ComponentState;
use crate::guest::component::store_charge::content;
use crate::guest::services::header::FIELD_BYTES;

/// Adds them to an interface. `all` is its name for the function that returns all fields.
pub fn add_to_linker<R: FieldChangeError>(
    linker: &mut Linker<ComponentState>,
    types: &str,
    all: &str,
) -> Result<()> {
    add_fields(linker, types)?;
    add_getters(linker, types, all)?;
    add_changes::<R>(linker, types)?;
    add_edits::<R>(linker, types)
}

/// Gives the guest a handle of fields.
pub fn put(state: &mut ComponentState, fields: FieldMap) -> Result<u32> {
    let fields = state.table.push(fields)?;
    state.give(fields)
}

fn fields(state: &ComponentState, handle: u32) -> Result<&FieldMap> {
    let fields = state.canon.handles.get::<FieldMap>(handle)?;
    Ok(state.table.get(&fields)?)
}

/// Takes fields from the guest. They cannot be changed any more.
pub fn take(state: &mut ComponentState, handle: u32) -> Result<FieldMap> {
    let fields = state.canon.handles.take::<FieldMap>(handle)?;
    let mut fields = state.table.delete(fields)?;
    fields.set_immutable();
    Ok(fields)
}

fn add_fields(linker: &mut Linker<ComponentState>, types: &str) -> Result<()> {
    linker.func_wrap(types, "[resource-drop]fields", |mut guest: FlatCaller<'_>, this: u32| {
        take(guest.data_mut(), this).map(drop)
    })?;
    linker.func_wrap(types, "[constructor]fields", |mut guest: FlatCaller<'_>| {
        put(guest.data_mut(), FieldMap::new_mutable(FIELD_BYTES_MAX))
    })?;
    linker.func_wrap(types, "[method]fields.clone", |mut guest: FlatCaller<'_>, this: u32| {
        let mut copy = fields(guest.data(), this)?.clone();
        copy.set_mutable(FIELD_BYTES_MAX);
        // It shares its contents until it is changed, and has a copy of its own from then on.
        guest.data_mut().hold(content(&copy))?;
        put(guest.data_mut(), copy)
    })?;
    Ok(())
}

fn add_getters(linker: &mut Linker<ComponentState>, types: &str, all: &str) -> Result<()> {
    linker.func_wrap(
        types,
        "[method]fields.get",
        |mut guest: FlatCaller<'_>, this: u32, name: u32, name_len: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            let values = fields(state, this)?.get_all(name).into_iter();
            let values = values.map(|value| value.as_bytes().to_vec()).collect();
            give_all(&mut guest, ret, List(values))
        },
    )?;
    linker.func_wrap(
        types,
        "[method]fields.has",
        |mut guest: FlatCaller<'_>, this: u32, name: u32, name_len: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            Ok(u32::from(fields(state, this)?.contains_key(name)))
        },
    )?;
    linker.func_wrap(
        types,
        &format!("[method]fields.{all}"),
        |mut guest: FlatCaller<'_>, this: u32, ret: u32| {
            let entries = fields(guest.data(), this)?.iter();
            let entries = entries.map(|(name, value)| {
                (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
            });
            let entries = entries.collect();
            give_all(&mut guest, ret, List(entries))
        },
    )?;
    Ok(())
}

/// Changes fields. The inner result is the guest's.
fn change<T, R: FieldChangeError>(
    state: &mut ComponentState,
    this: u32,
    change: impl FnOnce(&mut FieldMap, &mut dyn WasiHttpHooks) -> Result<T, FieldMapError>,
) -> Result<Result<T, R>> {
    let handle = state.canon.handles.get::<FieldMap>(this)?;
    let (hooks, table) = state.hooks_and_table();
    change_result(change(table.get_mut(&handle)?, hooks))
}

/// Turns the result of a change into the guest's.
fn change_result<T, R: FieldChangeError>(result: Result<T, FieldMapError>) -> Result<Result<T, R>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => R::of(error).map(Err),
    }
}

fn add_changes<R: FieldChangeError>(
    linker: &mut Linker<ComponentState>,
    types: &str,
) -> Result<()> {
    linker.func_wrap(
        types,
        "[static]fields.from-list",
        |mut guest: FlatCaller<'_>, ptr: u32, len: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            // Each entry is two pairs of pointer and length: the name's and the value's.
            let mut words = pairs(memory, ptr, len.saturating_mul(2))?;
            let mut made = FieldMap::new_mutable(FIELD_BYTES_MAX);
            let mut result = Ok(());
            while let (Some(name), Some(value), Ok(())) = (words.next(), words.next(), &result) {
                let (name, value) =
                    (string(memory, name.0, name.1)?, list(memory, value.0, value.1)?);
                state.hold(name.len() + value.len() + FIELD_BYTES)?;
                let (hooks, _) = state.hooks_and_table();
                result = made.append(hooks, name, value).map(drop);
            }
            drop(words);
            let made = match change_result::<_, R>(result)? {
                Ok(()) => Ok(put(state, made)?),
                Err(refusal) => Err(refusal),
            };
            store(memory, ret, made)
        },
    )?;
    linker.func_wrap(
        types,
        "[method]fields.set",
        |mut guest: FlatCaller<'_>,
         this: u32,
         name: u32,
         name_len: u32,
         values: u32,
         values_len: u32,
         ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            let values = lists(memory, values, values_len)?;
            let bytes = values.iter().map(|value| name.len() + value.len() + FIELD_BYTES);
            state.hold(bytes.sum())?;
            let set = change::<_, R>(state, this, |fields, hooks| fields.set(hooks, name, values))?;
            store(memory, ret, set)
        },
    )?;
    Ok(())
}

fn add_edits<R: FieldChangeError>(linker: &mut Linker<ComponentState>, types: &str) -> Result<()> {
    linker.func_wrap(
        types,
        "[method]fields.delete",
        |mut guest: FlatCaller<'_>, this: u32, name: u32, name_len: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            let deleted = change::<_, R>(state, this, |fields, hooks| {
                fields.remove_all(hooks, name).map(drop)
            })?;
            store(memory, ret, deleted)
        },
    )?;
    linker.func_wrap(
        types,
        "[method]fields.append",
        |mut guest: FlatCaller<'_>,
         this: u32,
         name: u32,
         name_len: u32,
         value: u32,
         value_len: u32,
         ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            let value = list(memory, value, value_len)?;
            state.hold(name.len() + value.len() + FIELD_BYTES)?;
            let appended = change::<_, R>(state, this, |fields, hooks| {
                fields.append(hooks, name, value).map(drop)
            })?;
            store(memory, ret, appended)
        },
    )?;
    Ok(())
}

/// Adds the function that only 0.3 has.
pub fn add_removal<R: FieldChangeError>(
    linker: &mut Linker<ComponentState>,
    types: &str,
) -> Result<()> {
    linker.func_wrap(
        types,
        "[method]fields.get-and-delete",
        |mut guest: FlatCaller<'_>, this: u32, name: u32, name_len: u32, ret: u32| {
            let (memory, state) = parts(&mut guest)?;
            let name = string(memory, name, name_len)?;
            let removed =
                change::<_, R>(state, this, |fields, hooks| fields.remove_all(hooks, name))?;
            let bytes = |value: http::HeaderValue| value.as_bytes().to_vec();
            let removed =
                removed.map(|values| List(values.into_iter().map(bytes).collect::<Vec<_>>()));
            give_all(&mut guest, ret, removed)
        },
    )?;
    Ok(())
}
