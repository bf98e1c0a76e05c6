//! Why the host answers a request itself: the closed list of reasons.
//!
//! A row has the reason, its name in metrics and in the log, the status, the text for the client,
//! and, if a retry helps, after how many seconds.

use std::fmt;

use http::StatusCode;

/// Declares the reasons. A variant with a text of its own has that as its field.
macro_rules! rejects {
    (@text $why:ident) => { &'static str };
    ($(
        $(#[$doc:meta])*
        $name:ident $(($why:ident))? = $label:literal, $status:ident, $text:expr
            $(, retry $seconds:literal)?;
    )*) => {
        /// Why the host answers a request itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reject {
            $($(#[$doc])* $name $((rejects!(@text $why)))?,)*
        }

        /// The variants of [`Reject`] without fields, to number them.
        enum Position { $($name,)* }

        impl Reject {
            /// The names of all reasons. The position of a name is the index of its counter.
            pub const NAMES: &'static [&'static str] = &[$($label,)*];

            /// The position of this reason in [`Reject::NAMES`].
            pub fn index(self) -> usize {
                match self { $(Reject::$name { .. } => Position::$name as usize,)* }
            }

            /// The status of the response.
            pub fn status(self) -> StatusCode {
                match self { $(Reject::$name { .. } => StatusCode::$status,)* }
            }

            /// The text for the client.
            pub fn text(self) -> &'static str {
                match self { $(Reject::$name $(($why))? => $text,)* }
            }

            /// After how many seconds the client may try again, if that helps.
            pub fn retry_after(self) -> Option<u32> {
                match self { $(Reject::$name { .. } => None::<u32>$(.or(Some($seconds)))?,)* }
            }
        }
    };
}

rejects! {
    /// No route matches the path, and there is no upstream.
    NoRoute = "no_route", NOT_FOUND, "no handler serves this path";
    /// The request target is not a path that can be routed; the text says why.
    BadPath(why) = "bad_path", BAD_REQUEST, why;
    /// The Host header is missing, repeated or not a host.
    BadHost(why) = "bad_host", BAD_REQUEST, why;
    /// The request's head is larger than the limit.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request's head is larger than is accepted for this path";
    /// The request's body is larger than the limit.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE,
        "the request's body is larger than is accepted for this path";
    /// The request's body ended early or was not framed as HTTP says.
    BodyBroken = "body_broken", BAD_REQUEST, "the request's body is not framed as HTTP says";
    /// The request's body arrived too slowly.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "the request's body came too slowly";
    /// The request's body has a transfer coding that the host does not know.
    UnknownCoding = "unknown_coding", NOT_IMPLEMENTED,
        "this host does not support the request's transfer coding";
    /// The client has gone away before the request's body was complete.
    ClientGone = "client_gone", BAD_REQUEST, "the request's body ended early";
    /// The handler stopped with a trap of any kind.
    Trap = "trap", INTERNAL_SERVER_ERROR, "the handler stopped with an error";
    /// The handler's response is not one that HTTP allows, or it is larger than the limit.
    InvalidResponse = "invalid_response", INTERNAL_SERVER_ERROR,
        "the handler made an invalid response";
    /// The handler has changed a request into one that HTTP does not allow, and passes it on.
    InvalidRequest = "invalid_request", INTERNAL_SERVER_ERROR,
        "the handler passed on a request that HTTP does not allow";
    /// The handler has answered with an error instead of a response.
    HandlerError = "handler_error", INTERNAL_SERVER_ERROR, "the handler answered with an error";
    /// The host's own code has panicked.
    Panic = "panic", INTERNAL_SERVER_ERROR, "the host has failed";
    /// The request has passed this host too often: a handler calls itself.
    Loop = "loop", LOOP_DETECTED, "the handler has called itself through the network";
    /// The handler's file could not be loaded.
    NotLoaded = "not_loaded", SERVICE_UNAVAILABLE,
        "the handler for this path could not be loaded", retry 30;
    /// The handler is not loaded yet, and the request has reached its deadline, or too many wait.
    Loading = "loading", SERVICE_UNAVAILABLE,
        "the handler is being loaded; try again shortly", retry 1;
    /// Every instance or permit is in use, and the request may not wait or has waited too long.
    NoInstance = "no_instance", SERVICE_UNAVAILABLE, "the host is busy; try again shortly", retry 1;
    /// All handlers together use all memory that they may have.
    NoMemory = "no_memory", SERVICE_UNAVAILABLE,
        "the host is short of memory; try again shortly", retry 1;
    /// The handler's start-up has failed again and again, and is not tried for a while.
    Paused = "paused", SERVICE_UNAVAILABLE,
        "the handler has failed too often; try again later", retry 10;
    /// The handler gave no response head before the deadline.
    Deadline = "deadline", GATEWAY_TIMEOUT, "the handler did not answer before the deadline";
    /// The handler used more CPU time than one request may.
    CpuTime = "cpu_time", GATEWAY_TIMEOUT, "the handler used more CPU time than one request may";
    /// The upstream could not be reached or broke off.
    UpstreamFailed = "upstream_failed", BAD_GATEWAY,
        "the upstream could not be reached or broke off";
    /// The upstream gave no response head before the deadline.
    UpstreamDeadline = "upstream_deadline", GATEWAY_TIMEOUT,
        "the upstream did not answer before the deadline";
    /// Too many requests are in flight to the upstream already.
    UpstreamBusy = "upstream_busy", SERVICE_UNAVAILABLE,
        "the upstream is busy; try again shortly", retry 1;
}

impl Reject {
    /// The name in metrics and in the log.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Reject {}
