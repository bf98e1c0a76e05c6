//! Behaviours about `wasi:config`. It is a draft, so no WASI crate has bindings for it.

use crate::ask::{Ask, answer};
use crate::{Answer, Behaviour, behaviours};
use bindings::wasi::config::store;

/// The interface as its draft defines it.
#[allow(missing_docs)]
mod bindings {
    wasip3::wit_bindgen::generate!({
        runtime_path: "wasip3::wit_bindgen::rt",
        path: "../wit/config.wit",
    });
}

pub const BEHAVIOURS: [(&str, Behaviour); 2] = behaviours! {
    "config": config,
    "config-key": config_key,
};

/// Answers with a line for each configuration variable.
async fn config(_ask: Ask) -> Answer {
    let all = store::get_all().expect("it is in memory").into_iter();
    let lines: Vec<String> = all.map(|(name, value)| format!("{name}={value}")).collect();
    answer(lines.join("\n"))
}

/// Answers with the value of the variable `key`.
async fn config_key(_ask: Ask) -> Answer {
    let value = store::get("key").expect("it is in memory");
    answer(value.unwrap_or_else(|| "none".to_owned()))
}
