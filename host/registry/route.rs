//! The route table: which target serves a request's host and path.
//!
//! Owns the meaning of a route ([`Pattern`]), the choice among routes that match, and the rule that
//! no two sources claim one route. Must not know files, HTTP or guests.
//!
//! # Which route wins
//!
//! 1. A route for the request's host wins over a route for every host.
//! 2. The route that names the most segments of the path wins. So `/a/[x]/c` takes `/a/b/c` from
//!    `/a/b/*`, and `/fib/*` keeps `/fib/32` even if there is a `/[...rest]`.
//! 3. From left to right, a static segment wins over a `[param]`.
//! 4. A route that ends there wins over `[...rest]`, which wins over "everything below".
//!
//! It follows that a route always wins over another that matches all its paths and more.
//! [`Table::routes`] is in this order: the first route that matches serves the request.
//!
//! # How a path is read
//!
//! A path is split at `/`; each segment is percent-decoded and compared as bytes. One slash at the
//! end makes no difference. An empty segment in between (`/a//b`) matches no name and no `[param]`,
//! only `[...rest]` and "everything below". [`BadPath`] lists the paths that are refused.

mod name;
mod path;
mod pattern;
#[cfg(test)]
mod tests;
mod trie;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

pub use self::name::PatternError;
pub use self::pattern::Pattern;
pub use crate::message::path::BadPath;

use self::path::RawPath;
use self::trie::{Hit, Trie};
use crate::log::escape;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Route<T> {
    /// The hosts and paths that it matches.
    pub pattern: Pattern,
    /// What serves the requests.
    pub target: T,
    /// Where the route comes from (a file, "built in"), for messages.
    pub source: String,
}

/// All routes, indexed for matching. Immutable.
#[derive(Debug)]
pub struct Table<T> {
    /// Most specific first; the tries hold indices into it.
    routes: Vec<Route<T>>,
    hosts: HashMap<Box<str>, Trie>,
    every_host: Trie,
}

/// The result of [`Table::find`].
#[derive(Debug)]
pub struct Match<'t, T> {
    /// What serves the request.
    pub target: &'t T,
    /// How many bytes of the raw path are the route's base, without a slash at the end: 4 (`/fib`)
    /// for `/fib/*` on `/fib/32`, 6 (`/files`) for `/files/[...rest]` on `/files/a/b`. For a route
    /// with nothing below it, the whole path.
    pub base_len: usize,
    /// The parameters of the pattern, in its order.
    pub params: Vec<Param<'t>>,
}

/// The value of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param<'t> {
    /// The name as the pattern spells it.
    pub name: &'t str,
    /// The value's range in the raw path, still percent-encoded. The value of `[...rest]` runs to
    /// the very end of the path, a last slash included.
    pub value: Range<usize>,
}

/// All routes that two or more sources claim, most specific first.
#[derive(Debug)]
pub struct Conflicts(Vec<Conflict>);

#[derive(Debug)]
struct Conflict {
    route: String,
    sources: Vec<String>,
}

impl<T> Table<T> {
    /// Builds the table from (pattern, target, source). Parameter names do not make a difference:
    /// `/users/[id]` and `/users/[name]` are the same route.
    ///
    /// # Errors
    /// Two or more sources claim one route. The error lists all such routes.
    pub fn build(
        routes: impl IntoIterator<Item = (Pattern, T, String)>,
    ) -> Result<Table<T>, Conflicts> {
        let mut routes: Vec<Route<T>> = routes
            .into_iter()
            .map(|(pattern, target, source)| Route { pattern, target, source })
            .collect();
        routes.sort_by(|a, b| (&a.pattern, &a.source).cmp(&(&b.pattern, &b.source)));

        let mut hosts: HashMap<Box<str>, Trie> = HashMap::new();
        let mut every_host = Trie::default();
        let mut rivals: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            let trie = match route.pattern.host() {
                Some(host) => hosts.entry(host.into()).or_default(),
                None => &mut every_host,
            };
            if let Err(first) = trie.insert(&route.pattern, index) {
                rivals.entry(first).or_insert_with(|| vec![first]).push(index);
            }
        }
        if rivals.is_empty() {
            return Ok(Table { routes, hosts, every_host });
        }
        let conflict = |(first, indices): (usize, Vec<usize>)| Conflict {
            route: routes[first].pattern.to_string(),
            sources: indices.into_iter().map(|index| routes[index].source.clone()).collect(),
        };
        Err(Conflicts(rivals.into_iter().map(conflict).collect()))
    }

    /// All routes, most specific first.
    #[must_use]
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    /// The route that serves `path` on `host`, if there is one.
    ///
    /// `host` is the request's authority, with or without a port. `path` is raw: percent-encoded,
    /// without the query. Allocates only for parameters, for escapes in a segment that is looked
    /// up, and for capitals in a host if there are routes for hosts. The length of the path and the
    /// number of routes bound the time.
    ///
    /// # Errors
    /// The path cannot be matched safely, whether or not a route would match it.
    pub fn find(&self, host: Option<&str>, path: &str) -> Result<Option<Match<'_, T>>, BadPath> {
        let path = RawPath::check(path)?;
        let hit = host
            .and_then(|host| self.trie_of(host))
            .and_then(|trie| trie.find(path))
            .or_else(|| self.every_host.find(path));
        Ok(hit.map(|hit| self.answer(&hit, path)))
    }

    fn trie_of(&self, host: &str) -> Option<&Trie> {
        if self.hosts.is_empty() {
            return None;
        }
        let name = match host.rsplit_once(':') {
            // This is the inside of a bare IPv6 address, which no folder can name, and no port.
            Some((_, port)) if port.ends_with(']') => host,
            Some((name, _)) => name,
            None => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.hosts.get(name.to_ascii_lowercase().as_str())
        } else {
            self.hosts.get(name)
        }
    }

    fn answer(&self, hit: &Hit, path: RawPath<'_>) -> Match<'_, T> {
        let route = &self.routes[hit.route];
        Match {
            target: &route.target,
            base_len: hit.base_len,
            params: params(&route.pattern, path),
        }
    }
}

/// The parameters of a pattern that is known to match. Most patterns have none, so the search does
/// not collect them.
fn params<'t>(pattern: &'t Pattern, path: RawPath<'_>) -> Vec<Param<'t>> {
    let mut params = Vec::with_capacity(pattern.params().count());
    if params.capacity() == 0 {
        return params;
    }
    let mut at = 0;
    for name in pattern.segment_params() {
        let Some(value) = path.segment(at) else { break };
        at = value.end;
        if let Some(name) = name {
            params.push(Param { name, value });
        }
    }
    if let Some(name) = pattern.rest_param() {
        params.push(Param { name, value: at + 1..path.len() });
    }
    params
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Conflict { route, sources }) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            let claims: Vec<_> = sources.iter().map(|it| escape(it.as_bytes(), 512)).collect();
            let claims = claims.join(" and ");
            write!(f, "{line}the route {route} is claimed by {claims}: keep one of them")?;
        }
        Ok(())
    }
}

impl std::error::Error for Conflicts {}
