//! The functions by which a component has the host keep header fields and texts. Each charges the
//! bytes before it keeps them (`store_charge.rs`).

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtxView, WasiHttpView as _, p2, p3};

use super::state::ComponentState;
use super::store_charge::content;
use crate::guest::services::header::FIELD_BYTES;

/// wasmtime's setter of one text of a request. The inner result is the guest's.
type SetText<T> =
    fn(&mut WasiHttpCtxView<'_>, Resource<T>, Option<String>) -> wasmtime::Result<Result<(), ()>>;

fn add_text<T: 'static>(
    types: &mut LinkerInstance<'_, ComponentState>,
    name: &str,
    set: SetText<T>,
) -> wasmtime::Result<()> {
    types.func_wrap(
        name,
        move |mut store: StoreContextMut<'_, ComponentState>,
              (this, text): (Resource<T>, Option<String>)| {
            let state = store.data_mut();
            state.hold(text.as_ref().map_or(0, String::len))?;
            Ok((set(&mut state.http(), this, text)?,))
        },
    )
}

/// Functions that charge what they keep, for one version of wasi:http.
macro_rules! counted {
    (
        $add:ident, $of_requests:ident, $version:ident,
        $requests:ident, $request:ty, $resource:literal
    ) => {
        /// Puts them in the place of wasmtime's own functions. `types` names the interface.
        pub fn $add(linker: &mut Linker<ComponentState>, types: &str) -> wasmtime::Result<()> {
            use $version::bindings::http::types::{HeaderError, Host as _, HostFields};

            type FieldResult<T> = Result<T, HeaderError>;
            let mut types = linker.instance(types)?;
            $of_requests(&mut types)?;
            types.func_wrap(
                "[static]fields.from-list",
                |mut store: StoreContextMut<'_, ComponentState>,
                 (all,): (Vec<(String, Vec<u8>)>,)| {
                    let state = store.data_mut();
                    let bytes = all.iter().map(|(name, value)| name.len() + value.len());
                    state.hold(bytes.map(|bytes| bytes + FIELD_BYTES).sum())?;
                    let mut http = state.http();
                    let made: FieldResult<Resource<FieldMap>> =
                        match HostFields::from_list(&mut http, all) {
                            Ok(made) => Ok(made),
                            Err(error) => Err(http.convert_header_error(error)?),
                        };
                    Ok((made,))
                },
            )?;
            types.func_wrap(
                "[method]fields.set",
                |mut store: StoreContextMut<'_, ComponentState>,
                 (this, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
                    let state = store.data_mut();
                    let bytes = values.iter().map(|value| name.len() + value.len() + FIELD_BYTES);
                    state.hold(bytes.sum())?;
                    let mut http = state.http();
                    let set: FieldResult<()> = match HostFields::set(&mut http, this, name, values)
                    {
                        Ok(()) => Ok(()),
                        Err(error) => Err(http.convert_header_error(error)?),
                    };
                    Ok((set,))
                },
            )?;
            types.func_wrap(
                "[method]fields.append",
                |mut store: StoreContextMut<'_, ComponentState>,
                 (this, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
                    let state = store.data_mut();
                    state.hold(name.len() + value.len() + FIELD_BYTES)?;
                    let mut http = state.http();
                    let set: FieldResult<()> =
                        match HostFields::append(&mut http, this, name, value) {
                            Ok(()) => Ok(()),
                            Err(error) => Err(http.convert_header_error(error)?),
                        };
                    Ok((set,))
                },
            )?;
            types.func_wrap(
                "[method]fields.clone",
                |mut store: StoreContextMut<'_, ComponentState>, (this,): (Resource<FieldMap>,)| {
                    let state = store.data_mut();
                    // It shares its contents until it is changed, and has a copy of its own from
                    // then on.
                    let bytes = content(state.table.get(&this)?);
                    state.hold(bytes)?;
                    Ok((HostFields::clone(&mut state.http(), this)?,))
                },
            )?;
            Ok(())
        }

        /// Does the same for the texts of requests.
        fn $of_requests(types: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
            use $version::bindings::http::types::{Method, Scheme, $requests};

            type Set = (Result<(), ()>,);

            types.func_wrap(
                concat!("[method]", $resource, ".set-method"),
                |mut store: StoreContextMut<'_, ComponentState>,
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
                |mut store: StoreContextMut<'_, ComponentState>,
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
