//! Behaviours about how a call ends: without an answer, with an error, with a trap before, during
//! or after the response, late, or never.

use std::hint::black_box;

use wasip3::http::types::ErrorCode;
use wasip3::wit_future;

use crate::ask::{Ask, answer, wait, wait_for_ever};
use crate::reply::Reply;
use crate::upload::Upload;
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 14] = behaviours! {
    "silent": silent,
    "spin": spin,
    "spin-middle": spin_middle,
    "no-answer": no_answer,
    "dropped": dropped,
    "error": error,
    "loop-detected": loop_detected,
    "trap-before": trap_before,
    "trap-middle": trap_middle,
    "trap-after": trap_after,
    "unfinished-leak": unfinished_leak,
    "unfinished-drop": unfinished_drop,
    "sleep": sleep,
    "after": after,
};

pub fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

/// Waits for ever, and keeps the request.
async fn silent(_ask: Ask) -> Answer {
    wait_for_ever().await
}

fn compute_for_ever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

async fn spin(_ask: Ask) -> Answer {
    compute_for_ever()
}

/// Waits for itself, which never ends.
async fn no_answer(_ask: Ask) -> Answer {
    let (writer, reader) = wit_future::new(|| Ok(()));
    let got: Result<(), ErrorCode> = reader.await;
    drop(writer);
    got.and(answer("never"))
}

/// Drops the request, and waits for ever.
async fn dropped(ask: Ask) -> Answer {
    drop(ask);
    wait_for_ever().await
}

async fn error(_ask: Ask) -> Answer {
    Err(ErrorCode::InternalError(Some("no".to_owned())))
}

async fn loop_detected(_ask: Ask) -> Answer {
    Err(ErrorCode::LoopDetected)
}

/// Traps after N milliseconds instead of answering.
async fn trap_before(ask: Ask) -> Answer {
    if let Some(ms) = ask.number {
        wait(ms).await;
    }
    trap()
}

/// Writes `first` and waits for the end of the request's body. A client that holds the body back
/// gets this piece before anything else happens.
fn begin<F: Future<Output = ()>>(ask: Ask, then: impl FnOnce(Reply) -> F + 'static) -> Answer {
    crate::ask::begin(&[], async move |mut reply: Reply| {
        reply.write("first").await;
        // Whether the body ends well does not matter here.
        Upload::of(ask.request).count().await;
        then(reply).await;
    })
}

async fn spin_middle(ask: Ask) -> Answer {
    begin(ask, async |_reply| compute_for_ever())
}

async fn trap_middle(ask: Ask) -> Answer {
    begin(ask, async |_reply| trap())
}

async fn trap_after(_ask: Ask) -> Answer {
    crate::ask::begin(&[], async |reply: Reply| {
        reply.end("whole").await;
        trap();
    })
}

/// Returns while its body is still open.
async fn unfinished_leak(ask: Ask) -> Answer {
    begin(ask, async |reply| std::mem::forget(reply))
}

async fn unfinished_drop(ask: Ask) -> Answer {
    begin(ask, async |reply| drop(reply))
}

/// Answers after N milliseconds.
async fn sleep(ask: Ask) -> Answer {
    wait(ask.number.unwrap_or(100)).await;
    answer("slept")
}

/// Answers at once, and goes on for N milliseconds.
async fn after(ask: Ask) -> Answer {
    let ms = ask.number.unwrap_or(100);
    crate::ask::begin(&[], async move |reply: Reply| {
        reply.end("at once").await;
        wait(ms).await;
        println!("done afterwards");
    })
}
