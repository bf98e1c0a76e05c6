//! A request path as it came: where its segments are.
//!
//! Must not know patterns or routes. What is refused is up to [`crate::message::path`].

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode;

use crate::message::path::{self, BadPath};

/// A path that [`RawPath::check`] let through.
#[derive(Clone, Copy)]
pub(super) struct RawPath<'p> {
    bytes: &'p [u8],
    /// Where the segments end: before a slash at the end of the path.
    end: usize,
}

impl<'p> RawPath<'p> {
    /// Takes a path that means what it says.
    pub(super) fn check(path: &'p str) -> Result<RawPath<'p>, BadPath> {
        path::check(path)?;
        let bytes = path.as_bytes();
        let end = if path.ends_with('/') { bytes.len() - 1 } else { bytes.len() };
        Ok(RawPath { bytes, end })
    }

    pub(super) fn len(self) -> usize {
        self.bytes.len()
    }

    /// The segment after the slash at `at`; none where the segments end. Begin with 0 and go on
    /// with the end of the last one: `/a//b/` has `a`, an empty one, and `b`; `/` has none.
    pub(super) fn segment(self, at: usize) -> Option<Range<usize>> {
        if at >= self.end {
            return None;
        }
        let start = at + 1;
        let len = self.bytes[start..self.end].iter().position(|&byte| byte == b'/');
        Some(start..len.map_or(self.end, |len| start + len))
    }

    /// The bytes a segment stands for. Borrowed unless there is an escape in it.
    pub(super) fn decoded(self, segment: Range<usize>) -> Cow<'p, [u8]> {
        percent_decode(&self.bytes[segment]).into()
    }
}
