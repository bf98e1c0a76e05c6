//! Refuses ambiguous paths, of requests from clients and of requests that guests pass on.
//!
//! Must not know routes, nor who sent the request.

use std::fmt;

/// Why a path is refused. A guest or an upstream might interpret such a path in another way than
/// the host, so a client could reach a path that another route should have answered.
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

/// Checks that a path is not ambiguous. Here, as in matching, a path is decoded once: `%252e` is
/// the text `%2e`, not a dot.
///
/// # Errors
/// The path is ambiguous.
pub fn check(path: &str) -> Result<(), BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut at = 1;
    // How many decoded bytes and dots the current segment has so far.
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
    refuse_dots(len, dots)
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
