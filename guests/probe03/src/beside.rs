//! Behaviours that only 0.3 has: bodies that are passed on, several tasks of one call, and
//! concurrent calls in one instance.

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::Response;
use wasip3::wit_bindgen::block_on;
use wasip3::{wit_future, wit_stream};

use crate::ask::{Ask, answer, begin, wait};
use crate::reply::{Reply, made};
use crate::upload::Upload;
use crate::world::asked;
use crate::{Answer, Behaviour, behaviours};

pub const BEHAVIOURS: [(&str, Behaviour); 7] = behaviours! {
    "pass": pass,
    "spawned": spawned,
    "sent": sent,
    "compute": compute,
    "compute-after": compute_after,
    "block": block,
    "litter": litter,
};

/// Sends the request's body back as it is. With N, announces N as its length.
async fn pass(ask: Ask) -> Answer {
    let length = ask.number.map(|number| number.to_string());
    let fields: Vec<(&str, &str)> =
        length.iter().map(|length| ("content-length", length.as_str())).collect();
    let upload = Upload::of(ask.request);
    let (response, _sent) = Response::new(made(&fields), Some(upload.stream), upload.end);
    Ok(response)
}

/// Lets another task answer.
async fn spawned(_ask: Ask) -> Answer {
    let task = wasip3::spawn_local(async {
        wait(10).await;
        answer("by another task")
    });
    task.await.expect("nobody cancels it")
}

/// Answers, and logs whether the answer was sent.
async fn sent(_ask: Ask) -> Answer {
    let (mut body, contents) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, sent) = Response::new(made(&[]), Some(contents), trailers);
    wasip3::spawn_local(async move {
        body.write_all(b"sent".to_vec()).await;
        drop((body, end));
        println!("the answer was sent: {:?}", sent.await);
    });
    Ok(response)
}

fn compute_for(ms: u64) {
    let begun = monotonic_clock::now();
    while monotonic_clock::now() - begun < ms.saturating_mul(1_000_000) {}
}

/// Computes for N milliseconds, and then answers.
async fn compute(ask: Ask) -> Answer {
    compute_for(ask.number.unwrap_or(100));
    answer("computed")
}

/// Computes for longer than a quantum, answers, and computes for N milliseconds more.
async fn compute_after(ask: Ask) -> Answer {
    compute_for(50);
    begin(&[], async move |reply: Reply| {
        reply.end("at once").await;
        compute_for(ask.number.unwrap_or(100));
        println!("computed afterwards");
    })
}

/// Blocks its instance for N milliseconds, so that no other call in it can run, and then answers.
async fn block(ask: Ask) -> Answer {
    block_on(wait(ask.number.unwrap_or(100)));
    answer("blocked")
}

/// Leaves N sets of fields behind, and answers with the number of requests that the instance has
/// had.
async fn litter(ask: Ask) -> Answer {
    for _ in 0..ask.number.unwrap_or(1) {
        std::mem::forget(made(&[("x-left", "here")]));
    }
    answer(asked().to_string())
}
