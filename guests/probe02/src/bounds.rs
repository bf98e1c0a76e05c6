//! Behaviours about the limits on what one request may have the host hold or pass. N is the amount.

use wasip2::http::types::{Fields, OutgoingRequest};
use wasip2::random::{insecure, random};

use crate::Behaviour;
use crate::ask::Ask;

pub const BEHAVIOURS: [(&str, Behaviour); 8] = [
    ("open", open),
    ("field", field),
    ("fields", fields),
    ("small-fields", small_fields),
    ("paths", paths),
    ("pass-text", pass_text),
    ("random-bytes", random_bytes),
    ("insecure-bytes", insecure_bytes),
];

fn amount(ask: &Ask) -> usize {
    usize::try_from(ask.number.unwrap_or(0)).expect("a size")
}

/// Keeps N handles open at once, not counting those of its request.
fn open(ask: Ask) {
    let opened: Vec<Fields> = (0..amount(&ask)).map(|_| Fields::new()).collect();
    ask.answer(format!("{} open", opened.len()));
}

/// Adds a value of N bytes to a set of fields.
fn field(ask: Ask) {
    let is_taken = Fields::new().append("x", &vec![b'x'; amount(&ask)]).is_ok();
    ask.answer(if is_taken { "taken" } else { "refused" });
}

/// The length of each of many values, in bytes.
const VALUE_BYTES: usize = 60_000;
const SMALL_FIELDS: usize = 400;

/// Keeps N sets of fields with a long value each. Half of them are made directly, and half are
/// copies that are then changed.
fn fields(ask: Ask) {
    let value = vec![b'x'; VALUE_BYTES];
    let whole = || Fields::from_list(&[("x".to_owned(), value.clone())]).expect("fields");
    let source = whole();
    let kept: Vec<Fields> = (0..amount(&ask))
        .map(|number| if number % 2 == 0 { whole() } else { source.clone() })
        .collect();
    for fields in &kept {
        fields.append("y", b"changed").expect("a field");
    }
    ask.answer(format!("{} kept", kept.len()));
}

/// Keeps N sets of four hundred short fields each.
fn small_fields(ask: Ask) {
    let some = vec![("x".to_owned(), b"y".to_vec()); SMALL_FIELDS];
    let made = (0..amount(&ask)).map(|_| Fields::from_list(&some).expect("fields"));
    let kept: Vec<Fields> = made.collect();
    ask.answer(format!("{} kept", kept.len()));
}

/// Keeps N requests with a long path each.
fn paths(ask: Ask) {
    let path = format!("/{}", "x".repeat(VALUE_BYTES));
    let made = (0..amount(&ask)).map(|_| {
        let request = OutgoingRequest::new(Fields::new());
        request.set_path_with_query(Some(&path)).expect("a path");
        request
    });
    let kept: Vec<OutgoingRequest> = made.collect();
    ask.answer(format!("{} kept", kept.len()));
}

/// Passes a text of N bytes to the host.
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
