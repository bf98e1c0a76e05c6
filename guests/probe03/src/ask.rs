//! The argument of every behaviour, and the ways to answer that most of them share.

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::Request;

use crate::Answer;
use crate::reply::Reply;

/// A request.
pub struct Ask {
    pub request: Request,
    /// The query, if it is a number. The behaviours call it N.
    pub number: Option<u64>,
}

/// Answers 200 with this text.
pub fn answer(text: impl AsRef<[u8]>) -> Answer {
    Reply::whole(200, text)
}

/// Answers 200 with these header fields. The body is written after the answer.
pub fn begin<F: Future<Output = ()>>(
    fields: &[(&str, &str)],
    write: impl FnOnce(Reply) -> F + 'static,
) -> Answer {
    let (response, reply) = Reply::begin(200, fields);
    wasip3::spawn_local(async move { write(reply).await });
    Ok(response)
}

/// Waits for this many milliseconds.
pub async fn wait(ms: u64) {
    monotonic_clock::wait_for(ms.saturating_mul(1_000_000)).await;
}

/// Waits and never returns.
pub async fn wait_for_ever() -> ! {
    loop {
        wait(24 * 60 * 60 * 1000).await;
    }
}
