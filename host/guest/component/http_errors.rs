//! The error codes for bodies that have failed.
//!
//! A stream holds wasmtime's own error, in which wasmtime finds no code of wasi:http when the guest
//! asks for one.

use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Host as _};
use wasmtime_wasi_http::{Error, WasiHttpView as _};
use wasmtime_wasi_io::IoView as _;
use wasmtime_wasi_io::streams::Error as StreamError;

use super::state::ComponentState;

/// The error code behind a stream's error, if that comes from a body.
pub fn error_code(
    state: &mut ComponentState,
    error: Resource<StreamError>,
) -> wasmtime::Result<Option<ErrorCode>> {
    if let Some(error) = state.table().get(&error)?.downcast_ref() {
        return Ok(Some(of_body(error)));
    }
    state.http().http_error_code(error)
}

fn of_body(error: &Error) -> ErrorCode {
    match error {
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        // This host's bodies fail with no other error.
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}
