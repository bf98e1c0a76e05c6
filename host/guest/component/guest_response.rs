//! What a component's call and the task that waits for its response share.

use wasmtime_wasi_http::Error;

use super::body;

/// What a guest answers: a response whose body may still be coming, or an error of its own.
pub type GuestResponse = Result<http::Response<body::GuestResponseBody>, Error>;

/// Bytes that the host may keep for the resources that an instance leaves behind.
pub const LEFTOVER_BYTES_MAX: usize = 1 << 20;
