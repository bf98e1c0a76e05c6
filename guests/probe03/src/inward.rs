//! The behaviours of `outward.rs` by interfaces that a flat component can import, if there are
//! such.

use std::io::Write as _;

use crate::ask::{Ask, answer};
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 1] = behaviours! {
    "print": print,
};

/// Writes lines to stdout and stderr. The last one has no line break.
async fn print(_ask: Ask) -> Answer {
    println!("out one");
    eprintln!("err one");
    print!("out two");
    // The standard library buffers an unfinished line until it is flushed.
    std::io::stdout().flush().expect("the host takes it");
    answer("printed")
}
