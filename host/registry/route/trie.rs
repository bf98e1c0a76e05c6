//! A tree of path segments for the routes of one host.
//!
//! Owns the search. Must not know targets or sources: it knows a route by its index only. A node
//! can have static children and a parameter (`/a/b/*`, `/a/[x]/c`), so the search tries both.

use std::collections::HashMap;

use super::path::RawPath;
use super::pattern::{Pattern, Segment, Tail};

/// The tree. The first node is `/`.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

/// The end of a sequence of segments, with its children and the routes that end there.
#[derive(Debug, Default)]
struct Node {
    statics: HashMap<Box<[u8]>, usize>,
    param: Option<usize>,
    exact: Option<usize>,
    rest: Option<usize>,
    below: Option<usize>,
}

/// The route that won.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) route: usize,
    /// As in [`super::Match`].
    pub(super) base_len: usize,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie { nodes: vec![Node::default()] }
    }
}

impl Trie {
    /// Adds a route. The error is the index of an equal route that was added before.
    pub(super) fn insert(&mut self, pattern: &Pattern, route: usize) -> Result<(), usize> {
        let mut at = 0;
        for segment in pattern.segments() {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Static(text) => {
                    *node.statics.entry(text.as_bytes().into()).or_insert(next)
                }
                Segment::Param(_) => *node.param.get_or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at];
        let place = match pattern.tail() {
            Tail::Exact => &mut node.exact,
            Tail::Rest(_) => &mut node.rest,
            Tail::Below => &mut node.below,
        };
        if let Some(first) = *place {
            return Err(first);
        }
        *place = Some(route);
        Ok(())
    }

    /// The route that serves `path`. Among several, the rules of [`super`] decide.
    pub(super) fn find(&self, path: RawPath<'_>) -> Option<Hit> {
        let mut search = Search { trie: self, path, prefix_hit: None };
        search.descend(0, 0, 0).or_else(|| search.prefix_hit.map(|open| open.hit))
    }
}

/// A search, depth first, static segments before `[param]`. There is only one path to every node,
/// so a search visits each node at most once and never goes deeper than the longest pattern.
struct Search<'s> {
    trie: &'s Trie,
    path: RawPath<'s>,
    /// The best route found so far that does not name all segments.
    prefix_hit: Option<PrefixHit>,
}

struct PrefixHit {
    named: usize,
    hit: Hit,
}

impl Search<'_> {
    /// Searches below `node`, which `named` segments have led to; the next segment begins at the
    /// slash at `at`. The first route found that names all segments is the best one.
    fn descend(&mut self, node: usize, at: usize, named: usize) -> Option<Hit> {
        let node = &self.trie.nodes[node];
        let Some(segment) = self.path.segment(at) else {
            let exact = node.exact.map(|route| Hit { route, base_len: self.path.len() });
            return exact.or_else(|| node.below.map(|route| Hit { route, base_len: at }));
        };
        // If two routes name as many segments, the first found has its static segment further left.
        if let Some(route) = node.rest.or(node.below)
            && self.prefix_hit.as_ref().is_none_or(|open| open.named < named)
        {
            self.prefix_hit = Some(PrefixHit { named, hit: Hit { route, base_len: at } });
        }
        let next = segment.end;
        if !node.statics.is_empty()
            && let Some(&child) = node.statics.get(&*self.path.decoded(segment.clone()))
            && let Some(hit) = self.descend(child, next, named + 1)
        {
            return Some(hit);
        }
        match node.param {
            Some(child) if !segment.is_empty() => self.descend(child, next, named + 1),
            _ => None,
        }
    }
}
