//! Parses the single names of a pattern and refuses bad ones.
//!
//! Owns the grammar of one name between two slashes. Must not know how names make a pattern.

use std::fmt;

/// One sentence that says what is wrong with a name and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl PatternError {
    pub(super) fn new(text: impl Into<String>) -> PatternError {
        PatternError(text.into())
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// RFC 1035, section 2.3.4, without the length bytes and the root label.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// One name of a pattern.
pub(super) enum Name<'n> {
    Static(&'n str),
    /// `[id]`, without the brackets.
    Param(&'n str),
    /// `[...path]`, without the brackets and dots.
    Rest(&'n str),
}

impl<'n> Name<'n> {
    pub(super) fn parse(name: &'n str) -> Result<Name<'n>, PatternError> {
        if let Some(inner) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return match inner.strip_prefix("...") {
                Some(rest) => Ok(Name::Rest(parse_param(name, rest)?)),
                None => Ok(Name::Param(parse_param(name, inner)?)),
            };
        }
        let wrong = if name.is_empty() {
            return Err(PatternError::new(
                "a name is empty: give it one, or call the file `index` to serve its folder",
            ));
        } else if name == "." || name == ".." {
            "is not a name that a request could ask for: rename it"
        } else if name.contains(['[', ']']) {
            "has brackets in the middle, but a parameter is the whole name between two slashes: \
             call it `[name]`, or leave the brackets out"
        } else if name.contains(|c: char| c == '\\' || c.is_control()) {
            "has a backslash or a control character, which no route may have: rename it"
        } else {
            return Ok(Name::Static(name));
        };
        Err(PatternError::new(format!("{name:?} {wrong}")))
    }
}

fn parse_param<'n>(whole: &str, name: &'n str) -> Result<&'n str, PatternError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let wrong = if name.is_empty() {
        "has no parameter name: write one between the brackets"
    } else if !name.bytes().all(allowed) {
        "is not a parameter: use ASCII letters, digits, `_` and `-` for its name"
    } else {
        return Ok(name);
    };
    Err(PatternError::new(format!("{whole:?} {wrong}, as in `[id]` or `[...path]`")))
}

/// The host of a top folder `@host`, in lower case.
pub(super) fn parse_host(host: &str) -> Result<Box<str>, PatternError> {
    let wrong = if host.is_empty() {
        "has no host name: write one after the `@`, as in `@example.com`"
    } else if host.contains(':') {
        "has a colon, but a host folder is for all ports of a host name: leave the port out"
    } else if !host.is_ascii() {
        "has letters outside ASCII: write the host name in its `xn--` form"
    } else if host.len() > HOST_BYTES_MAX || !host.split('.').all(is_label) {
        "is not a host name: use letters, digits and `-` between dots, as in `@example.com`"
    } else {
        return Ok(host.to_ascii_lowercase().into());
    };
    let folder = format!("@{host}");
    Err(PatternError::new(format!("the host folder {folder:?} {wrong}")))
}

/// Whether this is a label of a host name (RFC 1123, section 2.1).
fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
