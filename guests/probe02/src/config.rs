//! Behaviours about `wasi:config`. It is a draft, so no WASI crate has bindings for it.

use crate::Behaviour;
use crate::ask::Ask;
use bindings::wasi::config::store;

/// The interface as its draft defines it.
#[allow(missing_docs)]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit/config.wit",
    });
}

pub const BEHAVIOURS: [(&str, Behaviour); 2] = [("config", config), ("config-key", config_key)];

/// Answers with a line for each configuration variable.
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
