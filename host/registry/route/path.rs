//! The segments of a raw request path.
//!
//! Must not know patterns or routes. [`crate::message::path`] decides which paths are refused.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

use crate::message::path::{self, BadPath};

/// A path that [`RawPath::check`] has accepted.
#[derive(Clone, Copy)]
pub(super) struct RawPath<'p> {
    bytes: &'p [u8],
    /// The end of the last segment, before a slash at the end of the path.
    end: usize,
}

impl<'p> RawPath<'p> {
    /// Accepts a path that is not ambiguous.
    pub(super) fn check(path: &'p str) -> Result<RawPath<'p>, BadPath> {
        path::check(path)?;
        let bytes = path.as_bytes();
        let end = if path.ends_with('/') { bytes.len() - 1 } else { bytes.len() };
        Ok(RawPath { bytes, end })
    }

    pub(super) fn len(self) -> usize {
        self.bytes.len()
    }

    /// The segment after the slash at `at`, or `None` after the last one. Begin with 0 and go on
    /// with the end of the last segment: `/a//b/` has `a`, an empty one, and `b`; `/` has none.
    pub(super) fn segment(self, at: usize) -> Option<Range<usize>> {
        if at >= self.end {
            return None;
        }
        let start = at + 1;
        let len = self.bytes[start..self.end].iter().position(|&byte| byte == b'/');
        Some(start..len.map_or(self.end, |len| start + len))
    }

    /// The decoded bytes of a segment. Borrowed unless it contains an escape.
    pub(super) fn decoded(self, segment: Range<usize>) -> Cow<'p, [u8]> {
        percent_decode(&self.bytes[segment]).into()
    }
}
