//! Behaviours that are about what one request may have the host keep or pass. Each takes how much.

use wasip2::http::types::Fields;
use wasip2::random::{insecure, random};

use crate::Behaviour;
use crate::ask::Ask;

pub const BEHAVIOURS: [(&str, Behaviour); 5] = [
    ("open", open),
    ("field", field),
    ("pass-text", pass_text),
    ("random-bytes", random_bytes),
    ("insecure-bytes", insecure_bytes),
];

fn amount(ask: &Ask) -> usize {
    usize::try_from(ask.number.unwrap_or(0)).expect("a size")
}

/// Has so many handles open at once, beside those of its request.
fn open(ask: Ask) {
    let opened: Vec<Fields> = (0..amount(&ask)).map(|_| Fields::new()).collect();
    ask.answer(format!("{} open", opened.len()));
}

/// Puts a value of so many bytes into a set of fields.
fn field(ask: Ask) {
    let is_taken = Fields::new().append("x", &vec![b'x'; amount(&ask)]).is_ok();
    ask.answer(if is_taken { "taken" } else { "refused" });
}

/// Passes a text of so many bytes to the host.
fn pass_text(ask: Ask) {
    let name = "x".repeat(amount(&ask));
    ask.answer(if Fields::new().has(&name) { "there" } else { "not there" });
}

fn random_bytes(ask: Ask) {
    let bytes = random::get_random_bytes(amount(&ask) as u64);
    ask.answer(format!("{} bytes", bytes.len()));
}

fn insecure_bytes(ask: Ask) {
    let bytes = insecure::get_insecure_random_bytes(amount(&ask) as u64);
    ask.answer(format!("{} bytes", bytes.len()));
}
