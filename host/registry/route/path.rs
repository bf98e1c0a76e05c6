//! A request path as it came: what is refused, and where its segments are.
//!
//! Owns the first look at a path. Must not know patterns or routes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use percent_encoding::percent_decode;

/// A path that [`RawPath::check`] let through.
#[derive(Clone, Copy)]
pub(super) struct RawPath<'p> {
    bytes: &'p [u8],
    /// Where the segments end: before a slash at the end of the path.
    end: usize,
}

/// Why a path is refused. A guest or an upstream might read such a path in another way than the
/// host did, and so get behind a route that was meant to stand in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadPath {
    /// Empty, or does not start with `/`.
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    BadEscape,
    /// A segment which is `.` or `..`, in any encoding.
    DotSegment,
    /// `%2F`.
    EncodedSlash,
    /// `\` or `%5C`.
    Backslash,
    /// NUL or `%00`.
    Nul,
}

impl BadPath {
    /// One sentence without the path itself, fit for a client.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            BadPath::NotAbsolute => "the path does not start with `/`",
            BadPath::BadEscape => "the path has a `%` without two hexadecimal digits after it",
            BadPath::DotSegment => "the path has a `.` or `..` segment",
            BadPath::EncodedSlash => "the path has an encoded slash (`%2F`)",
            BadPath::Backslash => "the path has a backslash",
            BadPath::Nul => "the path has a NUL byte",
        }
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for BadPath {}

impl<'p> RawPath<'p> {
    /// Looks at every byte once. The path is decoded once, here and in matching: `%252e` is the
    /// text `%2e`, not a dot.
    pub(super) fn check(path: &'p str) -> Result<RawPath<'p>, BadPath> {
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(BadPath::NotAbsolute);
        }
        let mut at = 1;
        // Bytes and dots of the segment so far, decoded.
        let (mut len, mut dots) = (0_usize, 0_usize);
        while let Some(&raw) = bytes.get(at) {
            at += 1;
            if raw == b'/' {
                refuse_dots(len, dots)?;
                (len, dots) = (0, 0);
                continue;
            }
            let byte = if raw == b'%' {
                let digits = (hex(bytes.get(at)), hex(bytes.get(at + 1)));
                let (Some(high), Some(low)) = digits else {
                    return Err(BadPath::BadEscape);
                };
                at += 2;
                high << 4 | low
            } else {
                raw
            };
            match byte {
                b'/' => return Err(BadPath::EncodedSlash),
                b'\\' => return Err(BadPath::Backslash),
                0 => return Err(BadPath::Nul),
                b'.' => dots += 1,
                _ => {}
            }
            len += 1;
        }
        refuse_dots(len, dots)?;
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

fn refuse_dots(len: usize, dots: usize) -> Result<(), BadPath> {
    if len == dots && (len == 1 || len == 2) { Err(BadPath::DotSegment) } else { Ok(()) }
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    match *digit? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
