//! How much may be loaded: which guests give way to others, and whether there is room for one more.
//!
//! Owns the sum of what loaded guests take, the marks past which idle ones are unloaded, and the
//! wait of those for which the kernel would have nothing left. A part of the reload loop. Knows
//! nothing of files.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::guest::engine::resources::{MAPPINGS_PER_GUEST, ResourceAmount, Resources};
use crate::guest::load::loader::Size;

/// How long a guest must not have been used to be unloaded, in tenths of a second.
const IDLE_COARSE_TICKS: u32 = 10;
/// Between two looks at how much loaded guests take.
const UNLOAD_EVERY: Duration = Duration::from_millis(200);
/// Between two looks whether there is room again. What was unloaded is given back once the workers
/// have swept their pools, which they do every tenth of a second.
const CAPACITY_RETRY: Duration = Duration::from_millis(50);
/// Eighths of what guests may hold, past which idle ones are unloaded. The last is for those that
/// are in use when more are asked for.
const WATERMARK_EIGHTHS: u64 = 7;
/// So many loads, and the mappings of the process are counted anew.
const COUNTED_EVERY: u32 = 1_024;
/// How often the log tells that there is no room.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What loaded guests take, and may take.
pub struct LoadedCapacity {
    bytes_max: usize,
    resources: Resources,
    loaded: Size,
    loads: u32,
    unload_at: Option<Instant>,
    /// When it is looked again, where there is no room for what is to be loaded.
    wait_until: Option<Instant>,
    warned_at: Option<Instant>,
}

impl LoadedCapacity {
    pub fn new(bytes_max: usize, resources: Resources) -> Self {
        let (trim_at, wait_until, told) = Default::default();
        let loaded = Size::default();
        LoadedCapacity {
            bytes_max,
            resources,
            loaded,
            loads: 0,
            unload_at: trim_at,
            wait_until,
            warned_at: told,
        }
    }

    /// Takes note of a guest that is loaded, in the place of one of this size.
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

    pub fn note_unloaded(&mut self, size: Size) {
        self.loaded.bytes -= size.bytes;
        self.loaded.amount.sub(size.amount);
    }

    /// Whether guests are loaded that nobody has asked for.
    pub fn has_headroom(&self) -> bool {
        let mut with_one = self.loaded.amount;
        with_one.add(ResourceAmount { mappings: MAPPINGS_PER_GUEST, descriptors: 0 });
        self.loaded.bytes < self.bytes_max && !with_one.exceeds(self.watermark())
    }

    /// When there is something to do though nothing is heard.
    pub fn wake_at(&self) -> Option<Instant> {
        self.unload_at.into_iter().chain(self.wait_until).min()
    }

    /// Says that the next look is when a load has ended.
    pub fn wait_for_a_load(&mut self) {
        self.wait_until = None;
    }

    /// Whether the kernel has what one more guest takes beside so many loads, or none waits.
    pub fn has_kernel_capacity(&mut self, is_quiet: bool, loads: usize) -> bool {
        let has_room = is_quiet || self.resources.has_room(loads);
        if has_room {
            self.wait_until = None;
        }
        has_room
    }

    /// Takes note that loads wait for room, or that none does. Whether they begin to.
    pub fn wait(&mut self, waits: bool, now: Instant) -> bool {
        let begins = waits && self.wait_until.is_none();
        self.wait_until = waits.then_some(now + CAPACITY_RETRY);
        if begins {
            self.warn_no_capacity(now);
            self.unload_at = None;
        }
        begins
    }

    /// In what order guests are to be unloaded now, at this moment of the registry, if any are.
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

    /// Whether it helps to unload a guest of this size.
    pub fn is_helped_by(&self, size: Size) -> bool {
        let (loaded, mark) = (self.loaded, self.watermark());
        loaded.bytes > self.bytes_max
            || loaded.amount.mappings > mark.mappings
            || loaded.amount.descriptors > mark.descriptors && size.amount.descriptors > 0
    }

    /// Whether even guests that are in use are unloaded: they will be loaded again.
    fn is_under_pressure(&self) -> bool {
        self.wait_until.is_some() || self.is_over_memory()
    }

    /// Whether that is for the memory that they take.
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
    /// Whether those that are in use are unloaded, too, and whether for the memory that they take.
    unloads_used: bool,
    unloads_largest: bool,
}

impl UnloadOrder {
    /// Of these guests, each with its last use and its bytes: the idle ones come first, that which
    /// is idle longest before all others. Of those in use the largest go for want of memory, so
    /// that few have to, and not small ones that would make no room.
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
