//! The argument of every behaviour, and the ways to answer that most of them share.

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{ErrorCode, IncomingRequest, ResponseOutparam};

use crate::reply::Reply;

/// A request, and the response outparam for its answer.
pub struct Ask {
    pub request: IncomingRequest,
    pub out: ResponseOutparam,
    /// The query, if it is a number. The behaviours call it N.
    pub number: Option<u64>,
}

impl Ask {
    /// Answers 200 with this text.
    pub fn answer(self, text: impl AsRef<[u8]>) {
        self.begin(&[]).end(text);
    }

    /// Begins a response with status 200 and these header fields.
    pub fn begin(self, fields: &[(&str, &str)]) -> Reply {
        Reply::begin(self.out, 200, fields)
    }

    /// Answers with an error instead of a response.
    pub fn fail(self, code: ErrorCode) {
        ResponseOutparam::set(self.out, Err(code));
    }
}

/// Waits for this many milliseconds.
pub fn wait(ms: u64) {
    monotonic_clock::subscribe_duration(ms.saturating_mul(1_000_000)).block();
}

/// Waits and never returns.
pub fn wait_for_ever() -> ! {
    loop {
        wait(24 * 60 * 60 * 1000);
    }
}
