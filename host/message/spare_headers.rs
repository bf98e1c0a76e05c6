//! Recycles the allocation of a request's header map for the next response.

use std::cell::Cell;

use http::HeaderMap;

/// A place for one empty header map with capacity. Lives on one thread.
#[derive(Default)]
pub struct SpareHeaders(Cell<Option<HeaderMap>>);

impl SpareHeaders {
    /// Takes an empty map to build a response in, a new one if none is kept.
    pub fn take(&self) -> HeaderMap {
        self.0.take().unwrap_or_default()
    }

    /// Empties a map and keeps its allocation for the next response.
    pub fn put(&self, mut headers: HeaderMap) {
        headers.clear();
        self.0.set(Some(headers));
    }
}
