//! Behaviours that are about everything else: what the guest finds around it, and what it leaves
//! behind.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use wasip3::cli::environment;
use wasip3::clocks::system_clock;
use wasip3::random::random;
use wasip3::wit_stream;

use crate::ask::{Ask, answer, wait};
use crate::reply::made;
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 7] = behaviours! {
    "env": env,
    "random": random_bytes,
    "random-large": random_large,
    "clock": clock,
    "count": count,
    "leak": leak,
    "memory": memory,
};

/// Answers with a line for each variable of the environment and for each argument.
async fn env(_ask: Ask) -> Answer {
    let variables = environment::get_environment().into_iter();
    let mut lines: Vec<String> = variables.map(|(name, value)| format!("{name}={value}")).collect();
    lines.extend(environment::get_arguments());
    answer(lines.join("\n"))
}

/// Answers with 16 random bytes in hexadecimal.
async fn random_bytes(_ask: Ask) -> Answer {
    let bytes = random::get_random_bytes(16);
    answer(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Asks for a mebibyte of random bytes at once.
async fn random_large(_ask: Ask) -> Answer {
    let bytes = random::get_random_bytes(1 << 20);
    answer(format!("{} bytes", bytes.len()))
}

/// Answers with the time in seconds since 1970.
async fn clock(_ask: Ask) -> Answer {
    answer(system_clock::now().seconds.to_string())
}

/// Answers with how often this instance has been asked, after so many milliseconds.
async fn count(ask: Ask) -> Answer {
    let asked = asked();
    if let Some(ms) = ask.number {
        wait(ms).await;
    }
    answer(asked.to_string())
}

/// How often this instance has been asked so.
pub fn asked() -> u64 {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    ASKED.fetch_add(1, Ordering::Relaxed) + 1
}

/// Leaves a set of fields, of so many KiB, and both ends of a stream behind with the host.
async fn leak(ask: Ask) -> Answer {
    let kib = usize::try_from(ask.number.unwrap_or(0)).expect("a size");
    std::mem::forget(made(&[("x-leaked", &"x".repeat(kib << 10))]));
    std::mem::forget(wit_stream::new::<u8>());
    answer("leaked")
}

/// Takes so many MiB and writes to all of them.
async fn memory(ask: Ask) -> Answer {
    let mib = usize::try_from(ask.number.unwrap_or(1)).expect("a size");
    drop(black_box(vec![1_u8; mib << 20]));
    answer("kept")
}
