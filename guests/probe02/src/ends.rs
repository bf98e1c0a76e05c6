//! Behaviours about how a call ends: without an answer, with an error, with a trap before, during
//! or after the response, late, or never.

use std::hint::black_box;

use wasip2::http::types::ErrorCode;

use crate::Behaviour;
use crate::ask::{Ask, wait, wait_for_ever};
use crate::reply::Reply;
use crate::upload::Upload;

pub const BEHAVIOURS: [(&str, Behaviour); 14] = [
    ("silent", silent),
    ("spin", spin),
    ("spin-middle", spin_middle),
    ("no-answer", no_answer),
    ("dropped", dropped),
    ("error", error),
    ("loop-detected", loop_detected),
    ("trap-before", trap_before),
    ("trap-middle", trap_middle),
    ("trap-after", trap_after),
    ("unfinished-leak", unfinished_leak),
    ("unfinished-drop", unfinished_drop),
    ("sleep", sleep),
    ("after", after),
];

fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

/// Waits for ever, and keeps its response outparam.
fn silent(_ask: Ask) {
    wait_for_ever();
}

fn compute_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn spin(_ask: Ask) {
    compute_for_ever();
}

/// Returns without an answer.
fn no_answer(_ask: Ask) {}

/// Drops its response outparam, and waits for ever.
fn dropped(ask: Ask) {
    drop(ask.out);
    wait_for_ever();
}

fn error(ask: Ask) {
    ask.fail(ErrorCode::InternalError(Some("no".to_owned())));
}

fn loop_detected(ask: Ask) {
    ask.fail(ErrorCode::LoopDetected);
}

fn trap_before(_ask: Ask) {
    trap();
}

/// Writes `first` and waits for the end of the request's body. A client that holds the body back
/// gets this piece before anything else happens.
fn begin(ask: Ask) -> Reply {
    let Ask { request, out, .. } = ask;
    let reply = Reply::begin(out, 200, &[]);
    reply.write("first");
    // Whether the body ends well does not matter here.
    let _ = Upload::of(&request).count();
    reply
}

fn spin_middle(ask: Ask) {
    let _reply = begin(ask);
    compute_for_ever();
}

fn trap_middle(ask: Ask) {
    let _reply = begin(ask);
    trap();
}

fn trap_after(ask: Ask) {
    ask.answer("whole");
    trap();
}

fn unfinished_leak(ask: Ask) {
    std::mem::forget(begin(ask));
}

fn unfinished_drop(ask: Ask) {
    drop(begin(ask));
}

/// Answers after N milliseconds.
fn sleep(ask: Ask) {
    wait(ask.number.unwrap_or(100));
    ask.answer("slept");
}

/// Answers at once, and goes on for N milliseconds.
fn after(ask: Ask) {
    let ms = ask.number.unwrap_or(100);
    ask.answer("at once");
    wait(ms);
    println!("done afterwards");
}
