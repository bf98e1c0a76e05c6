//! Admission of loads by memory: for the bytes of a file and of its compiled code, while the host
//! holds both.
//!
//! Owns which loads wait. Small loads never wait. Large loads run in order, but much smaller ones
//! may overtake a load that has waited for long. No load blocks a thread: if there is no memory for
//! it, it does not begin, or it ends and begins again later. Knows nothing of files and threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge, PendingDemand};
use crate::guest::engine::load_failure::LoadFailure;

/// How many copies of the file and of the code there are. The file: in the host, and in the job for
/// the compiler. The code: as it arrives, and as it is linked.
const COPIES: u64 = 2;
/// Before the code is known, it is estimated as one part in this many of the file.
const CODE_PART: u64 = 2;
/// Code sizes are rounded up to this, because the code of a file may grow a little the next time.
const CODE_STEP: u64 = 64 << 10;
/// Large loads together may take one part in this many of the guests' memory.
const LARGE_LOADS_PART: u64 = 8;
/// A load is small up to one part in this many of that, or up to [`SMALL_BYTES`]. There are twenty
/// loads at once at most.
const SMALL_PART: u64 = 32;
const SMALL_BYTES: u64 = 256 << 10;
/// One load may take one part in this many of the guests' memory. The rest is for served guests.
const ONE_PART: u64 = 2;
/// How long the first load waits for guests to give memory back, before it fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting load is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often ready instances are evicted for a waiting load.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// How long no load may overtake the first one. After that, loads of one part in
/// [`OVERTAKE_DIVISOR`] of its size may, as long as the first would have to wait without them, too.
/// The load before it may take long, and guests may hold their memory for long.
const OVERTAKE_AFTER: Duration = Duration::from_secs(1);
const OVERTAKE_DIVISOR: u64 = 2;

/// Gives memory to loads in their order. The first large load that does not fit holds up other
/// large loads.
pub struct LoadMemory {
    load_budget: LoadBudget,
    head_of_line: Option<HeadOfLine>,
    /// Whether the current scan has found a large load that has to wait.
    is_blocked: bool,
}

/// An estimate of what a load takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadEstimate {
    /// How many bytes the file has.
    pub file_bytes: u64,
    /// How many bytes its compiled code has; 0 if that is not known.
    pub code_bytes: u64,
}

/// The memory for large loads.
#[derive(Clone)]
struct LoadBudget {
    all: Arc<Mutex<LoadUsage>>,
    memory: Budget,
}

#[derive(Default)]
struct LoadUsage {
    used: u64,
    /// The part of `used` that belongs to loads that have overtaken a waiting one.
    overtaking: u64,
    /// How many bytes a load may take to overtake the waiting one; `None` if none waits.
    overtake_bytes_max: Option<u64>,
}

impl LoadUsage {
    /// Whether a load of `bytes` may run before the one that waits, if any does.
    fn may_overtake(&self, bytes: u64) -> bool {
        self.overtake_bytes_max.is_none_or(|most| bytes <= most)
    }
}

/// The memory that one load has reserved, until this is dropped.
pub struct LoadReservation {
    load_budget: LoadBudget,
    need: LoadEstimate,
    bytes: u64,
    charge: Charge,
    /// Whether it was reserved while another load waited to begin.
    is_overtaking: bool,
    /// Whether there was too little memory for the code.
    pub is_short: bool,
}

/// The load that waits to begin and holds up other large ones.
struct HeadOfLine {
    id: usize,
    since: Instant,
    short: Option<Shortfall>,
}

/// The guests leave too little memory for a load.
struct Shortfall {
    since: Instant,
    /// When ready instances were last evicted for it.
    asked: Instant,
    /// Keeps guests from growing into the memory meanwhile.
    _want: Option<PendingDemand>,
}

impl LoadEstimate {
    fn bytes(self) -> u64 {
        let code_bytes = self.code_bytes.max(self.file_bytes / CODE_PART);
        self.file_bytes.saturating_add(code_bytes).saturating_mul(COPIES)
    }
}

impl LoadBudget {
    /// How many bytes a load is charged; 0 if it is small.
    ///
    /// # Errors
    /// The load is too large for the memory of this host.
    fn charged(&self, need: LoadEstimate) -> Result<u64, LoadFailure> {
        let bytes = need.bytes();
        let total = self.memory.total() as u64;
        let small = (total / LARGE_LOADS_PART / SMALL_PART).max(SMALL_BYTES);
        if bytes <= small {
            return Ok(0);
        }
        if bytes <= total / ONE_PART {
            return Ok(bytes);
        }
        let (file, code) = (need.file_bytes >> 10, need.code_bytes >> 10);
        let of_what = match need.code_bytes {
            0 => format!("three times its {file} KiB"),
            _ => format!("twice its {file} KiB and its {code} KiB of code"),
        };
        Err(LoadFailure::of_file(format!(
            "loading it needs {} KiB, {of_what}: more than half of --memory-total ({} KiB). Make \
             it smaller, or raise that",
            bytes >> 10,
            total >> 10
        )))
    }

    /// Whether a load that has `own` bytes may have `bytes` in all. A load that is larger than the
    /// memory for all loads may run alone.
    fn has(&self, all: &LoadUsage, own: u64, bytes: u64) -> bool {
        let others = all.used - own;
        others == 0 || others + bytes <= self.memory.total() as u64 / LARGE_LOADS_PART
    }

    fn lock(&self) -> MutexGuard<'_, LoadUsage> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty_reservation(&self, need: LoadEstimate) -> LoadReservation {
        let (room, charge) = (self.clone(), self.memory.empty_charge());
        LoadReservation {
            load_budget: room,
            need,
            bytes: 0,
            charge,
            is_overtaking: false,
            is_short: false,
        }
    }
}

impl LoadReservation {
    /// What the load takes, as far as that is known.
    pub fn need(&self) -> LoadEstimate {
        self.need
    }

    /// Reserves memory for `code_bytes` of code before the code arrives. Does not wait.
    ///
    /// # Errors
    /// The load is too large for the memory of this host, or there is too little memory now. In the
    /// latter case [`LoadReservation::is_short`] is set, and the load has to begin again later.
    pub fn reserve_code(&mut self, code_bytes: u64) -> Result<(), LoadFailure> {
        let code_bytes = code_bytes.next_multiple_of(CODE_STEP).max(self.need.code_bytes);
        let need = LoadEstimate { code_bytes, ..self.need };
        let bytes = self.load_budget.charged(need)?;
        self.need = need;
        if bytes <= self.bytes {
            return Ok(());
        }
        let room = self.load_budget.clone();
        let mut all = room.lock();
        // A load that began before the waiting one goes on, because then it ends sooner.
        let is_before = self.bytes > 0 && !self.is_overtaking;
        let may_go = is_before || all.may_overtake(bytes);
        let fits = may_go && room.has(&all, self.bytes, bytes);
        if self.bytes == 0 {
            self.is_overtaking = all.overtake_bytes_max.is_some();
        }
        if fits && self.raise_to(bytes, &mut all) {
            return Ok(());
        }
        self.is_short = true;
        Err(too_little(bytes))
    }

    /// Raises the reservation to `bytes`, if guests leave that much. Returns whether they do.
    fn raise_to(&mut self, bytes: u64, all: &mut LoadUsage) -> bool {
        let is_taken = self.charge.raise_to(as_usize(bytes)).is_ok();
        if is_taken {
            all.used += bytes - self.bytes;
            if self.is_overtaking {
                all.overtaking += bytes - self.bytes;
            }
            self.bytes = bytes;
        }
        is_taken
    }
}

impl Drop for LoadReservation {
    fn drop(&mut self) {
        let mut all = self.load_budget.lock();
        all.used -= self.bytes;
        if self.is_overtaking {
            all.overtaking -= self.bytes;
        }
        drop(all);
        drop(FreedNotice(self.charge.bytes()));
    }
}

impl LoadMemory {
    /// Admission without loads. `memory` is the guests' memory.
    pub fn new(memory: Budget) -> Self {
        LoadMemory {
            load_budget: LoadBudget { all: Arc::default(), memory },
            head_of_line: None,
            is_blocked: false,
        }
    }

    /// After how long to scan again, if a load waits.
    pub fn poll_after(&self) -> Option<Duration> {
        self.head_of_line.as_ref().map(|_| LOOK_EVERY)
    }

    /// Begins a scan. The caller tries [`LoadMemory::reserve_load`] for the queued loads in their
    /// order, up to the first one that need not wait.
    pub fn begin_scan(&mut self) {
        self.is_blocked = false;
    }

    /// Ends a scan in which all queued loads have tried.
    pub fn end_scan(&mut self) {
        if !self.is_blocked {
            self.clear();
        }
    }

    /// Notes that no load waits for memory: none is queued, or they wait for something else.
    pub fn clear(&mut self) {
        self.load_budget.lock().overtake_bytes_max = None;
        self.head_of_line = None;
    }

    /// Reserves memory for loading the handler `id`. Returns `None` if the load has to wait. Does
    /// not block.
    ///
    /// # Errors
    /// The load is too large for the memory of this host, or the guests have left too little for
    /// [`PATIENCE`].
    pub fn reserve_load(
        &mut self,
        id: usize,
        need: LoadEstimate,
        now: Instant,
    ) -> Option<Result<LoadReservation, LoadFailure>> {
        let bytes = match self.load_budget.charged(need) {
            Ok(0) => return Some(Ok(self.load_budget.empty_reservation(need))),
            Ok(bytes) => bytes,
            Err(failure) => return Some(Err(failure)),
        };
        if self.is_blocked {
            return self.overtake(need, bytes).map(Ok);
        }
        let before = self.head_of_line.take().filter(|first| first.id == id);
        let (since, short) = before.map_or((now, None), |first| (first.since, first.short));
        let has_room = self.load_budget.has(&self.load_budget.lock(), 0, bytes);
        let is_asking = short.as_ref().is_none_or(|short| now - short.asked >= RECLAIM_EVERY);
        // Raising the charge evicts ready instances, so do it only now and then, or if it fits.
        if has_room && (is_asking || self.load_budget.memory.has(as_usize(bytes))) {
            let mut place = self.load_budget.empty_reservation(need);
            let is_taken = place.raise_to(bytes, &mut self.load_budget.lock());
            if is_taken {
                self.clear();
                return Some(Ok(place));
            }
        }
        let short = self.short(bytes, short, has_room && is_asking, now);
        if short.as_ref().is_some_and(|short| now - short.since >= PATIENCE) {
            self.clear();
            return Some(Err(too_little(bytes)));
        }
        self.is_blocked = true;
        let may_be_overtaken = now - since >= OVERTAKE_AFTER && self.waits_anyway(bytes);
        self.load_budget.lock().overtake_bytes_max =
            Some(if may_be_overtaken { bytes / OVERTAKE_DIVISOR } else { 0 });
        self.head_of_line = Some(HeadOfLine { id, since, short });
        None
    }

    /// Whether a load of `bytes` would have to wait even if none had overtaken it.
    fn waits_anyway(&self, bytes: u64) -> bool {
        let all = self.load_budget.lock();
        let own = as_usize(bytes.saturating_sub(all.overtaking));
        !self.load_budget.has(&all, all.overtaking, bytes) || !self.load_budget.memory.has(own)
    }

    /// The shortfall of a load of `bytes`, if there is one: the memory was asked for just now
    /// (`is_asked`), or it was asked for earlier and is not free yet.
    fn short(
        &self,
        bytes: u64,
        before: Option<Shortfall>,
        is_asked: bool,
        now: Instant,
    ) -> Option<Shortfall> {
        let memory = &self.load_budget.memory;
        match before {
            Some(short) if is_asked => Some(Shortfall { asked: now, ..short }),
            Some(short) => (!memory.has(as_usize(bytes))).then_some(short),
            None if is_asked => {
                let is_modest = bytes <= memory.total() as u64 / LARGE_LOADS_PART;
                // Keep guests from growing into what others give back meanwhile.
                let want = is_modest.then(|| memory.add_demand(as_usize(bytes)));
                Some(Shortfall { since: now, asked: now, _want: want })
            }
            None => None,
        }
    }

    /// Reserves memory for a load that may overtake the waiting one.
    fn overtake(&self, need: LoadEstimate, bytes: u64) -> Option<LoadReservation> {
        let mut place = self.load_budget.empty_reservation(need);
        place.is_overtaking = true;
        let mut all = self.load_budget.lock();
        let may_go = all.may_overtake(bytes) && self.load_budget.has(&all, 0, bytes);
        // Do not evict ready instances for it.
        let fits = may_go && self.load_budget.memory.has(as_usize(bytes));
        let is_taken = fits && place.raise_to(bytes, &mut all);
        // Dropping a reservation takes this lock, too.
        drop(all);
        is_taken.then_some(place)
    }
}

fn too_little(bytes: u64) -> LoadFailure {
    LoadFailure::of_shortage(format!(
        "loading it needs {} KiB, and the guests that are served leave less of --memory-total",
        bytes >> 10
    ))
}

fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
