//! Behaviours about everything else: the environment of a guest, and what a guest leaves behind.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use wasip2::cli::environment;
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};
use wasip2::random::random;

use crate::Behaviour;
use crate::ask::Ask;
use crate::reply::made;

pub const BEHAVIOURS: [(&str, Behaviour); 9] = [
    ("env", env),
    ("print", print),
    ("print-much", print_much),
    ("random", random_bytes),
    ("clock", clock),
    ("outbound", outbound),
    ("count", count),
    ("leak", leak),
    ("memory", memory),
];

/// Answers with a line for each environment variable and for each argument.
fn env(ask: Ask) {
    let variables = environment::get_environment().into_iter();
    let mut lines: Vec<String> = variables.map(|(name, value)| format!("{name}={value}")).collect();
    lines.extend(environment::get_arguments());
    ask.answer(lines.join("\n"));
}

/// Writes lines to stdout and stderr. The last one has no line break.
fn print(ask: Ask) {
    println!("out one");
    eprintln!("err one");
    print!("out two");
    // The standard library buffers an unfinished line until it is flushed.
    std::io::stdout().flush().expect("the host takes it");
    ask.answer("printed");
}

/// Writes N lines to stderr, each 10,000 bytes long.
fn print_much(ask: Ask) {
    let line = "much ".repeat(2_000);
    for _ in 0..ask.number.unwrap_or(1) {
        eprintln!("{line}");
    }
    ask.answer("printed");
}

/// Answers with 16 random bytes in hexadecimal.
fn random_bytes(ask: Ask) {
    let bytes = random::get_random_bytes(16);
    ask.answer(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

/// Answers with the time in seconds since 1970.
fn clock(ask: Ask) {
    ask.answer(wall_clock::now().seconds.to_string());
}

/// Answers with the result of an outbound request.
fn outbound(ask: Ask) {
    ask.answer(match call_out() {
        Ok(status) => format!("status {status}"),
        Err(code) => format!("{code:?}"),
    });
}

fn call_out() -> Result<u16, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let authority = request.set_authority(Some("127.0.0.1:1"));
    authority.and(request.set_scheme(Some(&Scheme::Http))).expect("an address");
    request.set_path_with_query(Some("/")).expect("a path");
    let response = outgoing_handler::handle(request, None)?;
    response.subscribe().block();
    let response = response.get().expect("it has been waited for").expect("it is taken once")?;
    Ok(response.status())
}

/// Answers with the number of requests that this instance has had.
fn count(ask: Ask) {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let before = ASKED.fetch_add(1, Ordering::Relaxed);
    ask.answer((before + 1).to_string());
}

/// Leaves a set of fields of N KiB and a timer in the host.
fn leak(ask: Ask) {
    let kib = usize::try_from(ask.number.unwrap_or(0)).expect("a size");
    std::mem::forget(made(&[("x-leaked", &"x".repeat(kib << 10))]));
    std::mem::forget(monotonic_clock::subscribe_duration(u64::MAX / 2));
    ask.answer("leaked");
}

/// Allocates N MiB, and writes to all of them.
fn memory(ask: Ask) {
    let mib = usize::try_from(ask.number.unwrap_or(1)).expect("a size");
    let kept = black_box(vec![1_u8; mib << 20]);
    ask.answer("kept");
    drop(kept);
}
