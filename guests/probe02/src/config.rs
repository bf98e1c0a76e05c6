//! Behaviours that are about `wasi:config`, which no crate of WASI has: it is a draft.

use crate::Behaviour;
use crate::ask::Ask;
use bindings::wasi::config::store;

/// The interface as its authors have it.
#[allow(missing_docs)]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit/config.wit",
    });
}

pub const BEHAVIOURS: [(&str, Behaviour); 2] = [("config", config), ("config-key", config_key)];

/// Answers with a line for each variable.
fn config(ask: Ask) {
    let all = store::get_all().expect("it is in memory").into_iter();
    let lines: Vec<String> = all.map(|(name, value)| format!("{name}={value}")).collect();
    ask.answer(lines.join("\n"));
}

/// Answers with the value of the variable `key`.
fn config_key(ask: Ask) {
    let value = store::get("key").expect("it is in memory");
    ask.answer(value.unwrap_or_else(|| "none".to_owned()));
}
