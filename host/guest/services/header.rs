//! Header fields as guests see them: their size, and the fields that the host adds.
//!
//! Owns the fields that are not in the request's map. Knows neither wasmtime nor hyper.

use http::{HeaderName, HeaderValue};

use crate::message::{BASE_PATH, MATCH_PREFIX, Request};

/// Bytes that one field takes beside its text: its entry in a table that doubles when it grows.
pub const FIELD_BYTES: usize = 256;

/// Bytes of one field on the wire, `name: value\r\n`.
pub fn field_bytes(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + 4
}

/// Calls `each(prefix, name, value)` for every field that the host adds to a request. The field's
/// name is `prefix` followed by `name`.
pub fn host_made(request: &Request, mut each: impl FnMut(&str, &str, &str)) {
    each(BASE_PATH, "", request.base_path());
    for (name, value) in &request.route_match.params {
        each(MATCH_PREFIX, name, value);
    }
}
