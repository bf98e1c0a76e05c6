//! What a call of a component and who waits for its response have in common.

use wasmtime_wasi_http::Error;

use super::body;

/// What a guest answers with: a response whose body is still to come, or an error of its own.
pub type GuestResponse = Result<http::Response<body::GuestResponseBody>, Error>;

/// Bytes that the resources which an instance leaves behind may have had the host keep.
pub const LEFTOVER_BYTES_MAX: usize = 1 << 20;
