//! `wasi:config/store`: what the flags give a guest to read.
//!
//! There is no released version of the interface, so a component may ask for this draft alone.

use guesthouse_module::interfaces::wasi02::CONFIG_STORE;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::state::ComponentState;

/// The interface's error, as its type is told. Reading what is in memory has none.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the type has cases for stores that are elsewhere")]
enum ConfigStoreError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type ConfigStoreResult<T> = wasmtime::Result<(Result<T, ConfigStoreError>,)>;

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    let mut store = linker.instance(&CONFIG_STORE.linked())?;
    store.func_wrap(
        "get",
        |guest: StoreContextMut<'_, ComponentState>,
         (key,): (String,)|
         -> ConfigStoreResult<Option<String>> { Ok((Ok(guest.data().var(&key)),)) },
    )?;
    store.func_wrap(
        "get-all",
        |guest: StoreContextMut<'_, ComponentState>,
         (): ()|
         -> ConfigStoreResult<Vec<(String, String)>> {
            Ok((Ok(guest.data().vars().to_vec()),))
        },
    )
}
