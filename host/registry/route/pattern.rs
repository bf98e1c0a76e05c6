//! The pattern of a route, which a handler's file name defines.
//!
//! Owns the meaning of that name, the order of patterns from most to least specific, and how they
//! are printed. Must not know the file system or the table.
//!
//! | name, without extension | serves |
//! |---|---|
//! | `hello` | `/hello`, `/hello/` and everything below |
//! | `index`, `docs/index` | `/`; `/docs` and `/docs/`; nothing below |
//! | `users/[id]` | `/users/7` and `/users/7/`; nothing below |
//! | `files/[...path]` | one or more segments below `/files`; not `/files/` itself |
//! | `users/[id]/posts` | `/users/7/posts` and everything below |
//! | `@example.com/hello` | as `hello`, for requests to that host only |
//!
//! Every other name is literal and in decoded form: `a b` serves `/a%20b`.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use super::name::{Name, PatternError, parse_host};

/// How many names one pattern may have. This bounds the depth of the search for a route.
const SEGMENTS_MAX: usize = 64;

/// The hosts and paths that one route matches. Ordered most specific first: if two patterns match a
/// path, the lesser one serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// In lower case, without a port.
    host: Option<Box<str>>,
    segments: Vec<Segment>,
    tail: Tail,
}

/// A named part of the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Static(Box<str>),
    Param(Box<str>),
}

/// What may follow the named segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tail {
    /// Nothing.
    Exact,
    /// One or more segments, under this name.
    Rest(Box<str>),
    /// Anything, nothing included.
    Below,
}

impl Pattern {
    /// Parses a handler's name: a path relative to the handler folder, without extension, with `/`
    /// between its parts.
    ///
    /// # Errors
    /// The name is outside the grammar, or no request could ever match it.
    pub fn parse(name: &str) -> Result<Pattern, PatternError> {
        let (host, path) = match name.strip_prefix('@') {
            Some(top) => match top.split_once('/') {
                Some((host, path)) => (Some(parse_host(host)?), path),
                None => {
                    return Err(PatternError::new(format!(
                        "{name:?} stands for a host and must be a folder: put `index` (for `/`) \
                         or `[...path]` into a folder of that name"
                    )));
                }
            },
            None => (None, name),
        };
        let (folders, file) = match path.rsplit_once('/') {
            Some((folders, file)) => (Some(folders), file),
            None => (None, path),
        };
        let mut segments = Vec::new();
        for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
            segments.push(parse_folder(folder)?);
        }
        let tail = match Name::parse(file)? {
            Name::Static("index") => Tail::Exact,
            Name::Static(text) => {
                segments.push(Segment::Static(text.into()));
                Tail::Below
            }
            Name::Param(name) => {
                segments.push(Segment::Param(name.into()));
                Tail::Exact
            }
            Name::Rest(name) => Tail::Rest(name.into()),
        };
        let pattern = Pattern { host, segments, tail };
        pattern.refuse_excess()?;
        Ok(pattern)
    }

    /// A pattern without a file: these literal segments and everything below, for every host.
    #[must_use]
    pub fn prefix(segments: &[&str]) -> Pattern {
        let segments = segments.iter().map(|&text| Segment::Static(text.into())).collect();
        Pattern { host: None, segments, tail: Tail::Below }
    }

    /// The host in lower case; `None` matches every host.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The names of the parameters, in the order of [`super::Match::params`].
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.segment_params().flatten().chain(self.rest_param())
    }

    /// For each named segment, the parameter's name if it is a parameter.
    pub(super) fn segment_params(&self) -> impl Iterator<Item = Option<&str>> {
        self.segments.iter().map(|segment| match segment {
            Segment::Static(_) => None,
            Segment::Param(name) => Some(&**name),
        })
    }

    fn dynamic(&self) -> impl Iterator<Item = bool> {
        self.segment_params().map(|param| param.is_some())
    }

    pub(super) fn rest_param(&self) -> Option<&str> {
        match &self.tail {
            Tail::Rest(name) => Some(name),
            Tail::Exact | Tail::Below => None,
        }
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    fn refuse_excess(&self) -> Result<(), PatternError> {
        if self.segments.len() > SEGMENTS_MAX {
            return Err(PatternError::new(format!(
                "more than {SEGMENTS_MAX} names deep: use fewer folders"
            )));
        }
        let names: Vec<&str> = self.params().collect();
        for (index, name) in names.iter().enumerate() {
            // The names become header names, in which case does not matter.
            if names[..index].iter().any(|earlier| earlier.eq_ignore_ascii_case(name)) {
                return Err(PatternError::new(format!(
                    "the parameter name {name:?} is used twice (capitals make no difference): \
                     rename one of them"
                )));
            }
        }
        Ok(())
    }
}

impl Tail {
    /// The lesser rank wins.
    fn rank(&self) -> u8 {
        match self {
            Tail::Exact => 0,
            Tail::Rest(_) => 1,
            Tail::Below => 2,
        }
    }
}

fn parse_folder(name: &str) -> Result<Segment, PatternError> {
    if name.starts_with('@') {
        return Err(PatternError::new(format!(
            "the host folder {name:?} is inside another folder: move it to the top of the handler \
             folder"
        )));
    }
    match Name::parse(name)? {
        Name::Static(text) => Ok(Segment::Static(text.into())),
        Name::Param(name) => Ok(Segment::Param(name.into())),
        Name::Rest(_) => Err(PatternError::new(format!(
            "{name:?} takes the rest of the path, so nothing can come after it: let it be the \
             file's name, or use a `[param]` folder"
        ))),
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Pattern) -> Ordering {
        let for_every_host = |pattern: &Pattern| pattern.host.is_none();
        (for_every_host(self), &self.host, Reverse(self.segments.len()))
            .cmp(&(for_every_host(other), &other.host, Reverse(other.segments.len())))
            .then_with(|| self.dynamic().cmp(other.dynamic()))
            .then_with(|| self.tail.rank().cmp(&other.tail.rank()))
            // The rest only makes the order total and pleasant to read.
            .then_with(|| (&self.segments, &self.tail).cmp(&(&other.segments, &other.tail)))
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Pattern) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// For example `/`, `/hello/*`, `/users/[id]`, `example.com/files/[...path]`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or_default())?;
        for segment in &self.segments {
            match segment {
                Segment::Static(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/[{name}]")?,
            }
        }
        match &self.tail {
            Tail::Exact if self.segments.is_empty() => f.write_str("/"),
            Tail::Exact => Ok(()),
            Tail::Rest(name) => write!(f, "/[...{name}]"),
            Tail::Below => f.write_str("/*"),
        }
    }
}
