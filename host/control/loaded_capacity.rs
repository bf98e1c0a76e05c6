//! How many guests may be loaded at once, and which are unloaded to make room.
//!
//! Owns the sum of what loaded guests take and the watermarks above which idle ones are unloaded.
//! Makes loads wait while the kernel's limits leave no room. Part of the reload loop. Knows nothing
//! of files.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::guest::engine::resources::{MAPPINGS_PER_GUEST, ResourceAmount, Resources};
use crate::guest::load::loader::Size;

/// How long a guest must be unused to count as idle, in tenths of a second.
const IDLE_COARSE_TICKS: u32 = 10;
/// How often to check whether guests have to be unloaded.
const UNLOAD_EVERY: Duration = Duration::from_millis(200);
/// How often to check whether there is room again. Unloaded guests free their memory once the
/// workers have swept their pools, which they do every tenth of a second.
const CAPACITY_RETRY: Duration = Duration::from_millis(50);
/// Idle guests are unloaded above this many eighths of what guests may hold. The last eighth is for
/// guests that requests want while all others are in use.
const WATERMARK_EIGHTHS: u64 = 7;
/// After how many loads the mappings of the process are counted again.
const COUNTED_EVERY: u32 = 1_024;
/// How often the log says that there is no room.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What loaded guests take, and how much they may take.
pub struct LoadedCapacity {
    bytes_max: usize,
    resources: Resources,
    loaded: Size,
    loads: u32,
    unload_at: Option<Instant>,
    /// When to check again, while loads wait for room.
    wait_until: Option<Instant>,
    warned_at: Option<Instant>,
}

impl LoadedCapacity {
    /// No guests yet. Loaded guests may take `bytes_max` bytes and what `resources` allow.
    pub fn new(bytes_max: usize, resources: Resources) -> Self {
        let (unload_at, wait_until, warned_at) = Default::default();
        let loaded = Size::default();
        LoadedCapacity { bytes_max, resources, loaded, loads: 0, unload_at, wait_until, warned_at }
    }

    /// Notes that a guest of this size was loaded. `before` is the size of the one it replaces.
    pub fn note_loaded(&mut self, size: Size, before: Option<Size>) {
        self.loaded.bytes += size.bytes;
        self.loaded.amount.add(size.amount);
        if let Some(before) = before {
            self.note_unloaded(before);
        }
        self.loads += 1;
        if self.loads.is_multiple_of(COUNTED_EVERY) {
            self.resources.recount_mappings();
        }
    }

    /// Notes that a guest of this size was unloaded.
    pub fn note_unloaded(&mut self, size: Size) {
        self.loaded.bytes -= size.bytes;
        self.loaded.amount.sub(size.amount);
    }

    /// Whether there is room for guests that no request wants yet.
    pub fn has_headroom(&self) -> bool {
        let mut with_one = self.loaded.amount;
        with_one.add(ResourceAmount { mappings: MAPPINGS_PER_GUEST, descriptors: 0 });
        self.loaded.bytes < self.bytes_max && !with_one.exceeds(self.watermark())
    }

    /// When there is something to do even without an event.
    pub fn wake_at(&self) -> Option<Instant> {
        self.unload_at.into_iter().chain(self.wait_until).min()
    }

    /// Notes that all threads are busy: the end of a load is the next time to check.
    pub fn wait_for_a_load(&mut self) {
        self.wait_until = None;
    }

    /// Whether the kernel's limits leave room for one more guest besides `loads` running loads.
    /// Also true if `is_quiet`: no handler waits to be loaded.
    pub fn has_kernel_capacity(&mut self, is_quiet: bool, loads: usize) -> bool {
        let has_room = is_quiet || self.resources.has_room(loads);
        if has_room {
            self.wait_until = None;
        }
        has_room
    }

    /// Notes whether loads wait for room. Returns whether they have just begun to.
    pub fn wait(&mut self, waits: bool, now: Instant) -> bool {
        let begins = waits && self.wait_until.is_none();
        self.wait_until = waits.then_some(now + CAPACITY_RETRY);
        if begins {
            self.warn_no_capacity(now);
            self.unload_at = None;
        }
        begins
    }

    /// The order in which to unload guests now, if any have to be. `moment` is the registry's time.
    pub fn order(&mut self, now: Instant, moment: u32) -> Option<UnloadOrder> {
        if !self.is_over_watermark() {
            self.unload_at = None;
            return None;
        }
        if self.unload_at.is_some_and(|at| at > now) {
            return None;
        }
        let (is_tight, is_heavy) = (self.is_under_pressure(), self.is_over_memory());
        self.unload_at = Some(now + if is_tight { CAPACITY_RETRY } else { UNLOAD_EVERY });
        Some(UnloadOrder { now_ticks: moment, unloads_used: is_tight, unloads_largest: is_heavy })
    }

    fn watermark(&self) -> ResourceAmount {
        self.resources.guests_max().eighths(WATERMARK_EIGHTHS)
    }

    /// Whether so much is loaded that idle guests are unloaded.
    pub fn is_over_watermark(&self) -> bool {
        self.loaded.bytes > self.bytes_max || self.loaded.amount.exceeds(self.watermark())
    }

    /// Whether unloading a guest of this size brings the sums closer to the watermarks.
    pub fn is_helped_by(&self, size: Size) -> bool {
        let (loaded, mark) = (self.loaded, self.watermark());
        loaded.bytes > self.bytes_max
            || loaded.amount.mappings > mark.mappings
            || loaded.amount.descriptors > mark.descriptors && size.amount.descriptors > 0
    }

    /// Whether even guests in use are unloaded. They are loaded again for their next request.
    fn is_under_pressure(&self) -> bool {
        self.wait_until.is_some() || self.is_over_memory()
    }

    /// Whether guests in use are unloaded because of their memory.
    fn is_over_memory(&self) -> bool {
        self.loaded.bytes > self.bytes_max + self.bytes_max / 4
    }

    fn warn_no_capacity(&mut self, now: Instant) {
        if self.warned_at.is_some_and(|at| now - at < TOLD_EVERY) {
            return;
        }
        self.warned_at = Some(now);
        let mappings = self.resources.mappings();
        let (files, files_max) = self.resources.descriptors();
        tracing::warn!(
            "no handler can be loaded now, so requests for those that are not loaded wait: {} of \
             {} mappings (vm.max_map_count) and {files} of {files_max} open files (ulimit -n) are \
             taken",
            mappings.used,
            mappings.max
        );
    }
}

/// The order in which guests are unloaded.
pub struct UnloadOrder {
    now_ticks: u32,
    /// Whether guests in use are unloaded, too.
    unloads_used: bool,
    /// Whether the largest guests in use are unloaded first, to free memory.
    unloads_largest: bool,
}

impl UnloadOrder {
    /// Sorts guests, given as (id, last use, bytes). Idle ones come first, the one idle longest
    /// before all others. If memory is short, guests in use follow with the largest first, so that
    /// few have to be unloaded.
    pub fn of(&self, guests: impl Iterator<Item = (usize, u32, usize)>) -> Vec<usize> {
        let mut order: Vec<_> = guests
            .map(|(id, used_at, bytes)| {
                let is_used = self.now_ticks.saturating_sub(used_at) < IDLE_COARSE_TICKS;
                let doublings = if self.unloads_largest { bytes.checked_ilog2() } else { None };
                let largest = Reverse(doublings.filter(|_| is_used));
                (is_used, largest, used_at, id)
            })
            .filter(|(is_used, ..)| self.unloads_used || !is_used)
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id).collect()
    }
}

#[cfg(test)]
mod tests;
