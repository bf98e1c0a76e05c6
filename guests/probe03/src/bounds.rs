//! Behaviours about the limits on what one request may have the host hold or pass. N is the amount.

use wasip3::http::types::Fields;
use wasip3::random::{insecure, random};

use crate::ask::{Ask, answer};
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 8] = behaviours! {
    "open": open,
    "field": field,
    "fields": fields,
    "small-fields": small_fields,
    "pass-text": pass_text,
    "random-bytes": random_bytes,
    "insecure-bytes": insecure_bytes,
    "print-much": print_much,
};

pub fn amount(ask: &Ask) -> usize {
    usize::try_from(ask.number.unwrap_or(0)).expect("a size")
}

/// Keeps N handles open at once, not counting those of its request.
async fn open(ask: Ask) -> Answer {
    let opened: Vec<Fields> = (0..amount(&ask)).map(|_| Fields::new()).collect();
    let text = format!("{} open", opened.len());
    drop(opened);
    answer(text)
}

/// Adds a value of N bytes to a set of fields.
async fn field(ask: Ask) -> Answer {
    let is_taken = Fields::new().append("x", &vec![b'x'; amount(&ask)]).is_ok();
    answer(if is_taken { "taken" } else { "refused" })
}

/// The length of each of many values, in bytes.
pub const VALUE_BYTES: usize = 60_000;
const SMALL_FIELDS: usize = 400;

/// Keeps N sets of fields with a long value each. Half of them are made directly, and half are
/// copies that are then changed.
async fn fields(ask: Ask) -> Answer {
    let value = vec![b'x'; VALUE_BYTES];
    let whole = || Fields::from_list(&[("x".to_owned(), value.clone())]).expect("fields");
    let source = whole();
    let kept: Vec<Fields> = (0..amount(&ask))
        .map(|number| if number % 2 == 0 { whole() } else { source.clone() })
        .collect();
    for fields in &kept {
        fields.append("y", b"changed").expect("a field");
    }
    let text = format!("{} kept", kept.len());
    drop((kept, source));
    answer(text)
}

/// Keeps N sets of four hundred short fields each.
async fn small_fields(ask: Ask) -> Answer {
    let some = vec![("x".to_owned(), b"y".to_vec()); SMALL_FIELDS];
    let made = (0..amount(&ask)).map(|_| Fields::from_list(&some).expect("fields"));
    let kept: Vec<Fields> = made.collect();
    let text = format!("{} kept", kept.len());
    drop(kept);
    answer(text)
}

/// Passes a text of N bytes to the host.
async fn pass_text(ask: Ask) -> Answer {
    let name = "x".repeat(amount(&ask));
    answer(if Fields::new().has(&name) { "there" } else { "not there" })
}

async fn random_bytes(ask: Ask) -> Answer {
    let bytes = random::get_random_bytes(amount(&ask) as u64);
    answer(format!("{} bytes", bytes.len()))
}

async fn insecure_bytes(ask: Ask) -> Answer {
    let bytes = insecure::get_insecure_random_bytes(amount(&ask) as u64);
    answer(format!("{} bytes", bytes.len()))
}

/// Writes N long lines to stderr.
async fn print_much(ask: Ask) -> Answer {
    let line = "much ".repeat(2_000);
    for _ in 0..ask.number.unwrap_or(1) {
        eprintln!("{line}");
    }
    answer("printed")
}
