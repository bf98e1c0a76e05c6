//! The state of one source: its native routes, and the set that is not served yet.
//!
//! Owns how the routes of all sources form a snapshot. Publishes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::entries::Entries;
use crate::registry::route::{Pattern, Table};
use crate::registry::{RouteTarget, Snapshot};
use crate::source::{Source, Wake};

/// A source with what is served of it.
pub struct FollowedSource {
    /// The source itself.
    pub source: Box<dyn Source>,
    /// Its served routes to native code.
    pub native: Vec<(Pattern, usize)>,
    /// The changes of a set that is served once all its handlers are loaded.
    pub pending_diff: Option<SetDiff>,
    /// Why its last set was refused.
    refused: Option<String>,
}

/// How a set changes what is served of its source.
pub struct SetDiff {
    /// Ids of new handlers, which have no route yet.
    pub added: Vec<usize>,
    /// Ids of routed handlers that are not in the set.
    pub gone: Vec<usize>,
    /// All routes of the set to native code.
    pub native: Vec<(Pattern, usize)>,
}

impl FollowedSource {
    /// A source with the native routes of its first set.
    fn new(source: Box<dyn Source>, native: Vec<(Pattern, usize)>) -> Self {
        FollowedSource { source, native, pending_diff: None, refused: None }
    }

    /// Logs why a set is refused, unless the last one was refused for the same reason. `None` says
    /// that the set is accepted.
    pub fn refuse(&mut self, refused: Option<String>) {
        if let Some(refused) = refused.as_ref().filter(|new| self.refused.as_ref() != Some(*new)) {
            tracing::error!("{refused}; the routes stay as they were");
        }
        self.refused = refused;
    }
}

/// Takes the first set of each source and queues its handlers to be loaded.
///
/// # Errors
/// A source has no set.
pub fn begin(
    sources: Vec<Box<dyn Source>>,
    entries: &mut Entries,
    wake: &Wake,
) -> Result<Vec<FollowedSource>> {
    let begin = |(at, mut source): (usize, Box<dyn Source>)| {
        let set = source.begin(wake.clone())?;
        for item in set.items {
            let id = entries.add(at, item);
            entries.route(id);
            if let Some(entry) = entries.get(id) {
                entry.is_awaited = set.is_atomic;
            }
            entries.enqueue(id, false);
        }
        Ok(FollowedSource::new(source, set.native))
    };
    sources.into_iter().enumerate().map(begin).collect()
}

/// The routes of all sources, after the changes in `changed` to the source with that index.
///
/// # Errors
/// Two handlers claim one route.
pub fn snapshot(
    entries: &Entries,
    sources: &[FollowedSource],
    changed: Option<(usize, &SetDiff)>,
) -> Result<Snapshot> {
    let ids = |list: fn(&SetDiff) -> &Vec<usize>| -> HashSet<usize> {
        changed.iter().flat_map(|(_, next)| list(next)).copied().collect()
    };
    let (added, gone) = (ids(|next| &next.added), ids(|next| &next.gone));
    let mut routes: Vec<(Pattern, RouteTarget, String)> = entries
        .iter()
        .filter(|(id, entry)| entry.is_routed && !gone.contains(id) || added.contains(id))
        .map(|(_, entry)| {
            let target = RouteTarget::Handler(Arc::clone(&entry.handler));
            (entry.item.pattern.clone(), target, entry.item.label.to_string())
        })
        .collect();
    if routes.is_empty() {
        let index = Pattern::parse("index").context("the pattern of the landing page")?;
        routes.push((index, RouteTarget::Landing, "built in".into()));
    }
    for (at, followed) in sources.iter().enumerate() {
        let native = match changed {
            Some((changed, next)) if changed == at => &next.native,
            _ => &followed.native,
        };
        let native = native.iter().map(|(pattern, number)| {
            (pattern.clone(), RouteTarget::Native(*number), "built in".to_owned())
        });
        routes.extend(native);
    }
    let table = Table::build(routes).map_err(|conflicts| anyhow::anyhow!("{conflicts}"))?;
    Ok(Snapshot { table })
}
