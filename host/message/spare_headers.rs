//! The room of an earlier request's header map, for the next response.

use std::cell::Cell;

use http::HeaderMap;

/// An empty map with room. Lives on one thread.
#[derive(Default)]
pub struct SpareHeaders(Cell<Option<HeaderMap>>);

impl SpareHeaders {
    /// An empty map to build a response in.
    pub fn take(&self) -> HeaderMap {
        self.0.take().unwrap_or_default()
    }

    /// Keeps a map's room for the next response.
    pub fn put(&self, mut headers: HeaderMap) {
        headers.clear();
        self.0.set(Some(headers));
    }
}
