//! Everything that a component may import: all of WASI, wasi:http and wasi:config, with empty
//! capabilities.
//! The implementation behind the interfaces is in `state.rs`.

use anyhow::Result;
use guesthouse_module::interfaces::{http02, http03};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::types::HostResponseOutparam as Outparam;

use super::http_errors::error_code;
use super::state::ComponentState;
use super::{charged_fields, config, outgoing, random};
use crate::guest::engine::fault::misuse;

/// A linker with everything a component of wasi:http 0.2 may import.
pub fn linker(engine: &Engine) -> Result<Linker<ComponentState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Most guests use streams and pollables but nothing else of WASI. These functions need only the
    // table, and so do not make the rest of WASI's state.
    linker.allow_shadowing(true);
    let types_02 = &http02::HTTP_TYPES.linked();
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    let mut types = linker.instance(types_02)?;
    types.func_wrap("http-error-code", |mut store, (error,)| {
        Ok((error_code(store.data_mut(), error)?,))
    })?;
    types.func_wrap("[method]outgoing-response.body", |mut store, (this,)| {
        Ok((outgoing::take_response_body(store.data_mut(), this)?,))
    })?;
    types.func_wrap("[method]outgoing-request.body", |mut store, (this,)| {
        Ok((outgoing::take_request_body(store.data_mut(), this)?,))
    })?;
    types.func_wrap("[method]outgoing-body.write", |mut store, (this,)| {
        Ok((outgoing::take_stream(store.data_mut(), this)?,))
    })?;
    // A draft, which wasmtime adds only where it is enabled.
    types.func_wrap(
        "[method]response-outparam.send-informational",
        |_: StoreContextMut<'_, ComponentState>,
         (_, _, _): (Resource<Outparam>, u16, Resource<FieldMap>)| {
            Err::<(Result<(), ErrorCode>,), _>(misuse("informational responses cannot be sent"))
        },
    )?;
    charged_fields::add_to_linker_02(&mut linker, types_02)?;
    random::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    config::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// A linker with everything a component of wasi:http 0.3 may import: all of 0.2, and the interfaces
/// of 0.3.
pub fn concurrent_linker(engine: &Engine) -> Result<Linker<ComponentState>> {
    let mut linker = linker(engine)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    charged_fields::add_to_linker_03(&mut linker, &http03::HTTP_TYPES.linked())?;
    linker.allow_shadowing(false);
    Ok(linker)
}
