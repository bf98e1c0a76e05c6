//! From the folder as it was read to the routes that are served: what has come, changed and gone.
//!
//! Owns the publishing of snapshots. Either all of a look's changes to the routes take place, or
//! none.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::entries::{Entries, Newcomer};
use super::loaders::Origin;
use super::reload::Reload;
use crate::demo::native::Twin;
use crate::folder::scan::{Found, Scan};
use crate::registry::route::{Pattern, Table};
use crate::registry::{Snapshot, Target};

impl Newcomer {
    pub fn of_file(found: Found) -> Self {
        let Found { pattern, path, name, stamp } = found;
        Newcomer { name, pattern, origin: Origin::File(path), stamp: Some(stamp) }
    }
}

impl Reload {
    /// Looks at the folder and follows it.
    pub fn look(&mut self) {
        let Some(scan) = self.folder.as_mut().and_then(crate::folder::follow::Folder::look) else {
            return;
        };
        let now = Instant::now();
        let Scan { found, unknown, .. } = scan;
        let mut gone: HashMap<PathBuf, usize> = self
            .entries
            .iter()
            .filter_map(|(id, entry)| Some((entry.path()?.to_owned(), id)))
            // What could not be looked at may be as it was.
            .filter(|(path, _)| !unknown.iter().any(|unknown| path.starts_with(unknown)))
            .collect();
        let mut newcomers = Vec::new();
        for found in found {
            gone.remove(&found.path);
            let Some(id) = self.entries.id_of(&found.path) else {
                newcomers.push(found);
                continue;
            };
            let has_changed = self.entries.get(id).is_some_and(|it| it.stamp != Some(found.stamp));
            if has_changed {
                self.touched(id, now, Some(found.stamp));
            }
        }
        let conflict = if newcomers.is_empty() && gone.is_empty() {
            None
        } else {
            self.change_routes(newcomers, gone.into_values().collect(), now).err()
        };
        if let Some(folder) = &mut self.folder {
            folder.conflict(conflict.map(|conflict| format!("{conflict:#}")));
            folder.forget_pens(now);
        }
    }

    fn change_routes(
        &mut self,
        newcomers: Vec<Found>,
        gone: Vec<usize>,
        now: Instant,
    ) -> Result<()> {
        let added: Vec<usize> = newcomers
            .into_iter()
            .map(|found| self.entries.add(Newcomer::of_file(found), now))
            .collect();
        let snapshot = snapshot(&self.entries, &gone, self.native).inspect_err(|_| {
            // They are found again by the next look.
            for id in &added {
                self.entries.remove(*id);
            }
        })?;
        self.registry.publish(snapshot);
        for id in &added {
            self.let_settle(*id, now);
        }
        let (came, went) = (added.len(), gone.len());
        let mut names = Vec::new();
        for id in gone {
            names.push(self.remove(id));
        }
        if came + went > 1 {
            tracing::info!("routes: {came} added, {went} removed, {} in all", self.entries.len());
        } else {
            let added = added.into_iter().filter_map(|id| Some(self.entries.get(id)?.file()));
            let went = names.into_iter().map(|path| path.to_string_lossy().into_owned());
            let lines = added.map(|file| (file, "a new route")).chain(went.map(|it| (it, "gone")));
            for (file, what) in lines {
                tracing::info!("{}: {what}", crate::log::escape(file.as_bytes(), 512));
            }
        }
        Ok(())
    }
}

/// The routes of these entries but for some.
///
/// # Errors
/// Two files claim one route.
pub fn snapshot(entries: &Entries, without: &[usize], native: bool) -> Result<Snapshot> {
    let without: std::collections::HashSet<usize> = without.iter().copied().collect();
    let mut routes: Vec<(Pattern, Target, String)> = entries
        .iter()
        .filter(|(id, _)| !without.contains(id))
        .map(|(_, entry)| {
            let target = Target::Handler(Arc::clone(&entry.handler));
            (entry.pattern.clone(), target, entry.file())
        })
        .collect();
    if routes.is_empty() {
        let index = Pattern::parse("index").context("the pattern of the landing page")?;
        routes.push((index, Target::Landing, "built in".into()));
    }
    Ok(Snapshot { table: table(routes, native, Target::Native)? })
}

/// Builds the table, with the twins if they are wanted.
///
/// # Errors
/// Two sources claim one route.
pub fn table<T>(
    routes: impl IntoIterator<Item = (Pattern, T, String)>,
    native: bool,
    target: impl Fn(Twin) -> T,
) -> Result<Table<T>> {
    let twins = Twin::ALL.into_iter().filter(|_| native).map(|twin| {
        (Pattern::prefix(&["native", twin.name()]), target(twin), "built in".to_owned())
    });
    Table::build(routes.into_iter().chain(twins))
        .map_err(|conflicts| anyhow::anyhow!("{conflicts}"))
}
