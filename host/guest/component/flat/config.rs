//! `wasi:config/store` for flat components.

use guesthouse_module::interfaces::wasi02::CONFIG_STORE;
use wasmtime::Linker;

use super::abi::{FlatCaller, give_all, parts};
use super::lower::{At, Layout, List, Lower};
use super::memory::{Result, string};
use crate::guest::component::state::ComponentState;

const STORE: &str = CONFIG_STORE.module;

/// The interface's error. None is ever returned, but its layout counts.
enum FlatConfigError {}

impl Lower for FlatConfigError {
    const SIZE: usize = 12;
    const ALIGN: usize = 4;
    fn lower(self, _out: &mut Layout, _at: At) {
        match self {}
    }
}

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> Result<()> {
    linker.func_wrap(STORE, "get", |mut guest: FlatCaller<'_>, key: u32, len: u32, ret: u32| {
        let (memory, state) = parts(&mut guest)?;
        let value = state.var(&string(memory, key, len)?);
        give_all(&mut guest, ret, Ok::<_, FlatConfigError>(value))
    })?;
    linker.func_wrap(STORE, "get-all", |mut guest: FlatCaller<'_>, ret: u32| {
        let all = List(guest.data().vars().to_vec());
        give_all(&mut guest, ret, Ok::<_, FlatConfigError>(all))
    })?;
    Ok(())
}
