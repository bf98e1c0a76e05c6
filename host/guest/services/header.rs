//! Header fields as a guest sees them: what counts, and which ones the host makes.
//!
//! Owns the fields that are not in the request's map. Knows neither wasmtime nor hyper.

use http::{HeaderName, HeaderValue};

use crate::message::{BASE_PATH, MATCH_PREFIX, Request};

/// What one field takes beside its bytes: its place in a table that grows twofold.
pub const FIELD_BYTES: usize = 256;

/// Bytes of one field on the wire, `name: value\r\n`.
pub fn field_bytes(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + 4
}

/// Calls `each(prefix, name, value)` for the request headers that the host makes; the field's name
/// is `prefix` followed by `name`.
pub fn host_made(request: &Request, mut each: impl FnMut(&str, &str, &str)) {
    each(BASE_PATH, "", request.base_path());
    for (name, value) in &request.route_match.params {
        each(MATCH_PREFIX, name, value);
    }
}
