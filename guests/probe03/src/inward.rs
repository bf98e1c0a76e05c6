//! What `outward.rs` has, by interfaces that do not matter, as far as there are such.

use std::io::Write as _;

use crate::ask::{Ask, answer};
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 1] = behaviours! {
    "print": print,
};

/// Writes lines to stdout and stderr, the last one without its end.
async fn print(_ask: Ask) -> Answer {
    println!("out one");
    eprintln!("err one");
    print!("out two");
    // The library keeps back what is no whole line.
    std::io::stdout().flush().expect("the host takes it");
    answer("printed")
}
