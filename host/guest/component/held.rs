//! What the host keeps for a component at its word: header fields, the texts of requests that it
//! makes, and the resources behind its handles.
//!
//! Owns what of them counts as the host's memory. What a guest has written counts until its
//! requests have ended, even if it has let go of it, since who holds what is not followed; but no
//! more than all resources that there are can hold. Handles count at the most that there have been
//! at once, as far as that is looked up.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtxView, WasiHttpView as _, p2, p3};

use super::State;
use super::state::{FIELD_BYTES_MAX, HOSTCALL_FUEL};
use crate::guest::allocator::Freed;
use crate::guest::budget::{Budget, Charge};
use crate::guest::header::FIELD_BYTES;
use crate::message::Reject;

/// Up to here nothing is charged: it is within what each instance is charged for the host's
/// objects.
const FREE_BYTES: usize = 16 << 10;
/// What is charged is a multiple of this.
const CHUNK_BYTES: usize = 64 << 10;
/// No resource holds more: fields take twice their limit, a request has four texts beside them, of
/// which hyper's types take 64 KiB each and a method what one call can pass.
const RESOURCE_BYTES_MAX: usize = 2 * FIELD_BYTES_MAX + 3 * (64 << 10) + HOSTCALL_FUEL;
/// Handles that are not charged, and what others are: no resource takes more beside what is in it.
const HANDLES_FREE: usize = 32;
const HANDLE_BYTES: usize = 1 << 10;
/// Of so many looks at the resources, one counts them.
const LOOKS: u32 = 32;

/// What one store's guest has the host keep.
#[derive(Default)]
pub struct Holdings {
    bytes: usize,
    charge: Option<Charge>,
    handles: Option<Charge>,
    looks: u32,
}

impl Holdings {
    /// Bytes that have been written since nothing was left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it takes in all, with the resources, to let go of which takes a while.
    pub fn size(&self) -> usize {
        self.bytes + self.handles.as_ref().map_or(0, Charge::bytes)
    }

    /// Counts bytes before they are kept. `resources` counts what may hold them.
    ///
    /// # Errors
    /// [`Reject::NoMemory`].
    pub fn add(
        &mut self,
        memory: &Budget,
        bytes: usize,
        resources: impl FnOnce() -> usize,
    ) -> Result<(), Reject> {
        self.bytes = self.bytes.saturating_add(bytes);
        let mut over = self.bytes.saturating_sub(FREE_BYTES);
        let charged = self.charge.as_ref().map_or(0, Charge::bytes);
        if over > charged {
            // One more is about to be made.
            self.bytes = self.bytes.min((resources() + 1) * RESOURCE_BYTES_MAX);
            over = self.bytes.saturating_sub(FREE_BYTES);
        }
        if over > charged {
            let charge = self.charge.get_or_insert_with(|| memory.nothing());
            charge.raise_to(over.next_multiple_of(CHUNK_BYTES))?;
        }
        Ok(())
    }

    /// Whether the resources are to be counted now.
    pub fn is_due(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        self.looks.is_multiple_of(LOOKS)
    }

    /// Takes note of how many handles or resources there are.
    pub fn note(&mut self, memory: &Budget, handles: usize) {
        let bytes = handles.saturating_sub(HANDLES_FREE) * HANDLE_BYTES;
        if bytes > self.handles.as_ref().map_or(0, Charge::bytes) {
            // They are there.
            let all = memory.take_anyway(bytes.next_multiple_of(CHUNK_BYTES));
            self.handles = Some(all);
        }
    }
}

/// What was free of charge is soon used again.
impl Drop for Holdings {
    fn drop(&mut self) {
        let charged = [&self.charge, &self.handles].into_iter().flatten().map(Charge::bytes);
        drop(Freed(charged.sum()));
    }
}

/// Bytes that fields take.
pub fn content(fields: &FieldMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

/// How a text of a request is set: whether it can be that.
type SetText<T> =
    fn(&mut WasiHttpCtxView<'_>, Resource<T>, Option<String>) -> wasmtime::Result<Result<(), ()>>;

fn add_text<T: 'static>(
    types: &mut LinkerInstance<'_, State>,
    name: &str,
    set: SetText<T>,
) -> wasmtime::Result<()> {
    types.func_wrap(
        name,
        move |mut store: StoreContextMut<'_, State>,
              (this, text): (Resource<T>, Option<String>)| {
            let state = store.data_mut();
            state.hold(text.as_ref().map_or(0, String::len))?;
            Ok((set(&mut state.http(), this, text)?,))
        },
    )
}

/// Has the functions that take what is to be kept count it, in the interface of one version.
macro_rules! counted {
    (
        $add:ident, $of_requests:ident, $version:ident,
        $requests:ident, $request:ty, $resource:literal
    ) => {
        pub fn $add(linker: &mut Linker<State>, types: &str) -> wasmtime::Result<()> {
            use $version::bindings::http::types::{HeaderError, Host as _, HostFields};

            type Told<T> = Result<T, HeaderError>;
            let mut types = linker.instance(types)?;
            $of_requests(&mut types)?;
            types.func_wrap(
                "[static]fields.from-list",
                |mut store: StoreContextMut<'_, State>, (all,): (Vec<(String, Vec<u8>)>,)| {
                    let state = store.data_mut();
                    let bytes = all.iter().map(|(name, value)| name.len() + value.len());
                    state.hold(bytes.map(|bytes| bytes + FIELD_BYTES).sum())?;
                    let mut http = state.http();
                    let made: Told<Resource<FieldMap>> = match HostFields::from_list(&mut http, all)
                    {
                        Ok(made) => Ok(made),
                        Err(error) => Err(http.convert_header_error(error)?),
                    };
                    Ok((made,))
                },
            )?;
            types.func_wrap(
                "[method]fields.set",
                |mut store: StoreContextMut<'_, State>,
                 (this, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
                    let state = store.data_mut();
                    let bytes = values.iter().map(|value| name.len() + value.len() + FIELD_BYTES);
                    state.hold(bytes.sum())?;
                    let mut http = state.http();
                    let set: Told<()> = match HostFields::set(&mut http, this, name, values) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(http.convert_header_error(error)?),
                    };
                    Ok((set,))
                },
            )?;
            types.func_wrap(
                "[method]fields.append",
                |mut store: StoreContextMut<'_, State>,
                 (this, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
                    let state = store.data_mut();
                    state.hold(name.len() + value.len() + FIELD_BYTES)?;
                    let mut http = state.http();
                    let set: Told<()> = match HostFields::append(&mut http, this, name, value) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(http.convert_header_error(error)?),
                    };
                    Ok((set,))
                },
            )?;
            types.func_wrap(
                "[method]fields.clone",
                |mut store: StoreContextMut<'_, State>, (this,): (Resource<FieldMap>,)| {
                    let state = store.data_mut();
                    // Where it is changed, it is copied.
                    let bytes = content(state.table.get(&this)?);
                    state.hold(bytes)?;
                    Ok((HostFields::clone(&mut state.http(), this)?,))
                },
            )?;
            Ok(())
        }

        /// The same of requests.
        fn $of_requests(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
            use $version::bindings::http::types::{Method, Scheme, $requests};

            type Set = (Result<(), ()>,);

            types.func_wrap(
                concat!("[method]", $resource, ".set-method"),
                |mut store: StoreContextMut<'_, State>,
                 (this, method): (Resource<$request>, Method)| {
                    let state = store.data_mut();
                    if let Method::Other(text) = &method {
                        state.hold(text.len())?;
                    }
                    let set: Set = ($requests::set_method(&mut state.http(), this, method)?,);
                    Ok(set)
                },
            )?;
            types.func_wrap(
                concat!("[method]", $resource, ".set-scheme"),
                |mut store: StoreContextMut<'_, State>,
                 (this, scheme): (Resource<$request>, Option<Scheme>)| {
                    let state = store.data_mut();
                    if let Some(Scheme::Other(text)) = &scheme {
                        state.hold(text.len())?;
                    }
                    let set: Set = ($requests::set_scheme(&mut state.http(), this, scheme)?,);
                    Ok(set)
                },
            )?;
            let name = concat!("[method]", $resource, ".set-path-with-query");
            add_text(types, name, |http, this: Resource<$request>, text| {
                $requests::set_path_with_query(http, this, text)
            })?;
            let name = concat!("[method]", $resource, ".set-authority");
            add_text(types, name, |http, this: Resource<$request>, text| {
                $requests::set_authority(http, this, text)
            })?;
            Ok(())
        }
    };
}

counted!(
    add_to_linker_02,
    add_requests_02,
    p2,
    HostOutgoingRequest,
    p2::types::HostOutgoingRequest,
    "outgoing-request"
);
counted!(add_to_linker_03, add_requests_03, p3, HostRequest, p3::Request, "request");
