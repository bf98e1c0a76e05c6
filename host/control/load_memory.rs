//! How much memory loads may take at once, for the bytes of files and of what they are compiled to,
//! as long as the host has both in hand.
//!
//! Owns who waits for whom: large loads for each other, one after the other, but for much smaller
//! ones behind one that has long waited for what others have; small ones for nobody.
//! None waits on a thread: a load for which there is no memory does not begin, or ends and begins
//! anew when there is. Knows nothing of files and threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge, PendingDemand};
use crate::guest::engine::load_failure::LoadFailure;

/// Two of the file: that in hand and the compiler's job. Two of the code: as it comes, and as it is
/// linked. Before there is code, it is taken for half as long as the file.
const COPIES: u64 = 2;
const CODE_PART: u64 = 2;
/// The code of one file may be a little longer the next time, with what is kept beside it.
const CODE_STEP: u64 = 64 << 10;
/// The part of the memory for guests that large loads take at once, if there are several.
const LARGE_LOADS_PART: u64 = 8;
/// The part of that up to which a load is small, which it is up to this in any case. There are
/// twenty loads at once at the most.
const SMALL_PART: u64 = 32;
const SMALL_BYTES: u64 = 256 << 10;
/// The part of the memory for guests that one load may take: the rest is for those that are served.
const ONE_PART: u64 = 2;
/// How long the first one waits for guests to give memory back, how often it is looked, and how
/// often they are asked for what they have kept ready since.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const RECLAIM_EVERY: Duration = Duration::from_secs(1);
/// How long it is overtaken by nobody, and from then on by those that take so much less, as long as
/// it would have to wait without these as well: a load before it may take long, and guests may keep
/// their memory for long.
const OVERTAKE_AFTER: Duration = Duration::from_secs(1);
const OVERTAKE_DIVISOR: u64 = 2;

/// The loads that wait to begin. The first large one that does not fit keeps other large ones
/// waiting.
pub struct LoadMemory {
    load_budget: LoadBudget,
    head_of_line: Option<HeadOfLine>,
    /// Whether another large load has been found to wait since they were looked through.
    is_blocked: bool,
}

/// What is known of how much a load takes: bytes of its file, and of its code if it had any before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadEstimate {
    pub file_bytes: u64,
    pub code_bytes: u64,
}

/// Room for large loads.
#[derive(Clone)]
struct LoadBudget {
    all: Arc<Mutex<LoadUsage>>,
    memory: Budget,
}

#[derive(Default)]
struct LoadUsage {
    used: u64,
    /// What those take of it that have overtaken a load which waited to begin.
    overtaking: u64,
    /// How much others may take that overtake a load which waits to begin, if one does.
    overtake_bytes_max: Option<u64>,
}

impl LoadUsage {
    /// Whether a load of so many bytes need not wait for the one that waits to begin.
    fn may_overtake(&self, bytes: u64) -> bool {
        self.overtake_bytes_max.is_none_or(|most| bytes <= most)
    }
}

/// What one load takes of it, until this is dropped.
pub struct LoadReservation {
    load_budget: LoadBudget,
    need: LoadEstimate,
    bytes: u64,
    charge: Charge,
    /// Whether it was taken while another load waited to begin.
    is_overtaking: bool,
    /// Whether there was too little for its code.
    pub is_short: bool,
}

/// The load that waits to begin before all others.
struct HeadOfLine {
    id: usize,
    since: Instant,
    short: Option<Shortfall>,
}

/// What is known of a load for which guests have too little memory left.
struct Shortfall {
    since: Instant,
    /// When they were asked last for what they keep ready.
    asked: Instant,
    /// What they are not to grow into meanwhile.
    _want: Option<PendingDemand>,
}

impl LoadEstimate {
    fn bytes(self) -> u64 {
        let code_bytes = self.code_bytes.max(self.file_bytes / CODE_PART);
        self.file_bytes.saturating_add(code_bytes).saturating_mul(COPIES)
    }
}

impl LoadBudget {
    /// What a load is charged; nothing if it is small.
    ///
    /// # Errors
    /// It is too large for the memory of this host.
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
            _ => format!("twice its {file} KiB and the {code} KiB that they are compiled to"),
        };
        Err(LoadFailure::of_file(format!(
            "to load it takes {of_what}, which is more than a half of --memory-total ({} KiB): \
             make it smaller, or raise that",
            total >> 10
        )))
    }

    /// Whether one that has `own` of it may have so much. One that is larger than all there is for
    /// loads goes alone.
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
    pub fn need(&self) -> LoadEstimate {
        self.need
    }

    /// Takes memory for code of so many bytes before it is there. Does not wait.
    ///
    /// # Errors
    /// It is too large for the memory of this host, or there is too little now: then the load is to
    /// begin anew, when it can have what it needs.
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
        // What had its place before goes on: the sooner it ends.
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

    /// Takes so much in all, if guests leave it.
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
    pub fn new(memory: Budget) -> Self {
        LoadMemory {
            load_budget: LoadBudget { all: Arc::default(), memory },
            head_of_line: None,
            is_blocked: false,
        }
    }

    /// Whether a load waits, so that it is to be looked again after this long.
    pub fn poll_after(&self) -> Option<Duration> {
        self.head_of_line.as_ref().map(|_| LOOK_EVERY)
    }

    /// Begins to look through those that wait. Each is to try [`LoadMemory::reserve_load`], in
    /// their order, up to the first that need not wait.
    pub fn begin_scan(&mut self) {
        self.is_blocked = false;
    }

    /// Says that all that wait have tried.
    pub fn end_scan(&mut self) {
        if !self.is_blocked {
            self.clear();
        }
    }

    /// Says that none waits for memory now: none waits at all, or they wait for something else.
    pub fn clear(&mut self) {
        self.load_budget.lock().overtake_bytes_max = None;
        self.head_of_line = None;
    }

    /// Memory for the load of a handler, if it need not wait for it. Does not wait.
    ///
    /// # Errors
    /// It is too large for the memory of this host, or the guests have not left enough of it for
    /// a while.
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
        // Where it is asked for, what is kept ready is given up for it.
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

    /// Whether a load would have to wait if none had overtaken it.
    fn waits_anyway(&self, bytes: u64) -> bool {
        let all = self.load_budget.lock();
        let own = as_usize(bytes.saturating_sub(all.overtaking));
        !self.load_budget.has(&all, all.overtaking, bytes) || !self.load_budget.memory.has(own)
    }

    /// What is known of a load of which guests have too little memory left, if they have: it has
    /// been asked for just now, or was before and is not there yet.
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
                // No guest grows into what others give back meanwhile.
                let want = is_modest.then(|| memory.add_demand(as_usize(bytes)));
                Some(Shortfall { since: now, asked: now, _want: want })
            }
            None => None,
        }
    }

    /// Memory for a load that need not wait for the first one.
    fn overtake(&self, need: LoadEstimate, bytes: u64) -> Option<LoadReservation> {
        let mut place = self.load_budget.empty_reservation(need);
        place.is_overtaking = true;
        let mut all = self.load_budget.lock();
        let may_go = all.may_overtake(bytes) && self.load_budget.has(&all, 0, bytes);
        // Nothing is given up for it that is kept ready.
        let fits = may_go && self.load_budget.memory.has(as_usize(bytes));
        let is_taken = fits && place.raise_to(bytes, &mut all);
        // A place that is dropped looks for it, too.
        drop(all);
        is_taken.then_some(place)
    }
}

fn too_little(bytes: u64) -> LoadFailure {
    LoadFailure::of_shortage(format!(
        "to load it takes {} KiB, and the guests that are served leave no more of --memory-total",
        bytes >> 10
    ))
}

fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
