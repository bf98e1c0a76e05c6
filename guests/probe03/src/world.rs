//! Behaviours about everything else: the environment of a guest, and what a guest leaves behind.

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

/// Answers with a line for each environment variable and for each argument.
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

/// Waits for N milliseconds, and answers with the number of requests that this instance has had.
async fn count(ask: Ask) -> Answer {
    let asked = asked();
    if let Some(ms) = ask.number {
        wait(ms).await;
    }
    answer(asked.to_string())
}

/// The number of calls of this function in the instance, this one included.
pub fn asked() -> u64 {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    ASKED.fetch_add(1, Ordering::Relaxed) + 1
}

/// Leaves a set of fields of N KiB and both ends of a stream in the host.
async fn leak(ask: Ask) -> Answer {
    let kib = usize::try_from(ask.number.unwrap_or(0)).expect("a size");
    std::mem::forget(made(&[("x-leaked", &"x".repeat(kib << 10))]));
    std::mem::forget(wit_stream::new::<u8>());
    answer("leaked")
}

/// Allocates N MiB, and writes to all of them.
async fn memory(ask: Ask) -> Answer {
    let mib = usize::try_from(ask.number.unwrap_or(1)).expect("a size");
    drop(black_box(vec![1_u8; mib << 20]));
    answer("kept")
}
