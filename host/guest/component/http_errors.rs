//! What a guest is told of a body that came to a bad end.
//!
//! wasmtime keeps its own error in the stream, and does not find an error code of wasi:http there
//! when the guest asks for one.

use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Host as _};
use wasmtime_wasi_http::{Error, WasiHttpView as _};
use wasmtime_wasi_io::IoView as _;
use wasmtime_wasi_io::streams::Error as StreamError;

use super::state::ComponentState;

/// The error code behind an error of a stream, if it is one of a body.
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
        // No other one comes from a body of this host's.
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}
