//! `wasi:config/store`: values that flags set for a guest to read.
//!
//! The interface has no released version, so this draft is the only one that can be imported.

use guesthouse_module::interfaces::wasi02::CONFIG_STORE;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::state::ComponentState;

/// The interface's error, for its type. Reading from memory has no errors.
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

/// Adds the interface to a linker.
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
