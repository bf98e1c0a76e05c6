//! The memory of the whole host: how much its guests may have, and how much of it is taken.
//!
//! Owns the ceiling (`--memory-total`) and the sum below it: all instances with their memories at
//! the declared size, bodies that are kept for guests, loaded code, and the pages that the engines'
//! pools keep for instances to come. All threads share one number, which changes where an instance
//! is made or dropped, a memory grows, or a large body is kept; not where an instance is reset.
//! Knows nothing of who is to give way when there is no more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::slot_quota::SlotCount;
use super::slots::ENGINES;
use crate::message::Reject;

/// Who has no more than this has a first instance or less: its stacks and the host's objects, a
/// memory of 2 MiB, and its tables, which are charged one after the other. One of 0.3 has four
/// stacks, the most that is charged at once.
const FIRST_BYTES: usize = 5 << 20;
const FIRST_STEP_MAX: usize = FIRST_BYTES / 2;
/// Of the last eighth a guest may have as much as it leaves there, and its owner three times that.
const OWNER_TIMES_LEFT: usize = 3;
/// How often the log tells that there is no more.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The memory that the guests of one process may have, all together; in the hands of one of them,
/// with what that one has of it.
#[derive(Clone)]
pub struct Budget {
    all: Arc<BudgetShared>,
    guest_usage: Option<Arc<GuestUsage>>,
}

/// What one guest has, and its owner with all the guests that it has.
struct GuestUsage {
    bytes: AtomicUsize,
    owner: Arc<OwnerUsage>,
}

/// What the guests of one owner have together.
#[derive(Default)]
pub struct OwnerUsage {
    bytes: AtomicUsize,
    /// Instance slots, of each engine.
    pub slots: [SlotCount; ENGINES],
}

/// On cache lines of its own, so that only those who use it pay for its changes.
#[repr(align(128))]
struct BudgetShared {
    used: AtomicUsize,
    total: usize,
    owners: Mutex<HashMap<u64, Weak<OwnerUsage>>>,
    /// What loads wait for.
    demand_bytes: AtomicUsize,
    /// How often there was too little for what could be had.
    shortages: AtomicU64,
    /// When the log was told of it last, in milliseconds since `began`; 0 for never.
    logged_at_ms: AtomicU64,
    began: Instant,
    /// Says how many bytes the engines' pools keep in slots that are free.
    pooled: OnceLock<Measure>,
}

type Measure = Box<dyn Fn() -> usize + Send + Sync>;

/// What memory is asked for. The last eighth of all is for those who have little: a guest may take
/// of it as long as it has no more, all in all, than it leaves there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a memory of a new instance. The first of a guest may take the last eighth, if it is
    /// small.
    Start,
    /// For what grows.
    Growth,
}

/// Memory that somebody waits for until this is dropped.
pub struct PendingDemand {
    memory: Budget,
    bytes: usize,
}

/// Memory that is taken until this is dropped.
pub struct Charge {
    memory: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(total: usize) -> Self {
        let all = Arc::new(BudgetShared {
            used: AtomicUsize::new(0),
            total,
            owners: Mutex::default(),
            demand_bytes: AtomicUsize::new(0),
            shortages: AtomicU64::new(0),
            logged_at_ms: AtomicU64::new(0),
            began: Instant::now(),
            pooled: OnceLock::new(),
        });
        Budget { all, guest_usage: None }
    }

    /// The same in the hands of one more guest of an owner.
    pub fn of_guest(&self, owner: u64) -> Self {
        let own = GuestUsage { bytes: AtomicUsize::new(0), owner: self.of_owner(owner) };
        Budget { all: self.all.clone(), guest_usage: Some(Arc::new(own)) }
    }

    fn of_owner(&self, id: u64) -> Arc<OwnerUsage> {
        let mut owners = self.all.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owners.get(&id).and_then(Weak::upgrade) {
            return owner;
        }
        if owners.len() == owners.capacity() {
            owners.retain(|_, owner| owner.strong_count() > 0);
        }
        let owner = Arc::default();
        owners.insert(id, Arc::downgrade(&owner));
        owner
    }

    /// What the owner of this guest has with all its guests; nothing of nobody.
    pub fn owner(&self) -> Option<&OwnerUsage> {
        self.guest_usage.as_ref().map(|own| &*own.owner)
    }

    /// Has what the engines' pools keep in free slots count as well.
    pub fn count_pooled(&self, measure: impl Fn() -> usize + Send + Sync + 'static) {
        // There is one set of engines to a budget; a second one would not be counted.
        let _ = self.all.pooled.set(Box::new(measure));
    }

    /// For a process that serves nobody.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Takes memory; [`Budget::uncharge`] is to follow.
    ///
    /// # Errors
    /// [`Reject::NoMemory`], and nothing is taken.
    pub fn try_charge(&self, bytes: usize, purpose: Purpose) -> Result<(), Reject> {
        let added = self.added(bytes, purpose);
        // Added and taken back where it is too much, others would be refused in between.
        let taken = self.all.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        taken.map_err(|used| {
            self.note_shortage(bytes, used);
            Reject::NoMemory
        })?;
        self.note_own(bytes);
        Ok(())
    }

    /// Has guests leave so much more to who waits for it, until this is dropped. A first instance
    /// is small enough to come before.
    pub fn add_demand(&self, bytes: usize) -> PendingDemand {
        self.all.demand_bytes.fetch_add(bytes, Ordering::Relaxed);
        PendingDemand { memory: self.clone(), bytes }
    }

    /// Whether so much could be taken now for what grows. To ask is no shortage.
    pub fn has(&self, bytes: usize) -> bool {
        self.added(bytes, Purpose::Growth)(self.used()).is_some()
    }

    /// Says for what is taken already what it is with these bytes, if they may be taken.
    fn added(&self, bytes: usize, purpose: Purpose) -> impl Fn(usize) -> Option<usize> + use<> {
        let is_small = purpose == Purpose::Start && bytes <= FIRST_STEP_MAX;
        let own = self.guest_usage.as_ref().map(|own| own.bytes.load(Ordering::Relaxed));
        let owned = self.owner().map_or(0, |owner| owner.bytes.load(Ordering::Relaxed));
        let is_first = is_small && own.unwrap_or(0).saturating_add(bytes) <= FIRST_BYTES;
        let total = self.all.total;
        let wanted = if own.is_some() { self.all.demand_bytes.load(Ordering::Relaxed) } else { 0 };
        // To measure takes a lock in every pool, so it is done only where the result may matter:
        // the pools keep an eighth of all at most.
        let is_near = self.used().saturating_add(bytes) > total / 2;
        let pooled = if is_near { self.pooled() } else { 0 };
        move |used| {
            let used = used.checked_add(bytes)?;
            let left = total.checked_sub(used)?.checked_sub(pooled)?;
            let is_modest = own.is_some_and(|own| own.saturating_add(bytes) <= left)
                && owned.saturating_add(bytes) <= left.saturating_mul(OWNER_TIMES_LEFT);
            // Who waits is not for the last eighth.
            let is_plenty = left.saturating_sub(wanted) >= total / 8;
            (is_plenty || is_first || is_modest).then_some(used)
        }
    }

    fn note_own(&self, bytes: usize) {
        if let Some(own) = &self.guest_usage {
            own.bytes.fetch_add(bytes, Ordering::Relaxed);
            own.owner.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Gives back what was taken.
    pub fn uncharge(&self, bytes: usize) {
        self.all.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(own) = &self.guest_usage {
            own.bytes.fetch_sub(bytes, Ordering::Relaxed);
            own.owner.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Nothing yet, to be raised.
    pub fn empty_charge(&self) -> Charge {
        Charge { memory: self.clone(), bytes: 0 }
    }

    /// Takes memory that is in use already, be there enough or not.
    pub fn force_charge(&self, bytes: usize) -> Charge {
        self.all.used.fetch_add(bytes, Ordering::Relaxed);
        self.note_own(bytes);
        Charge { memory: self.clone(), bytes }
    }

    /// Whether more than a half is taken: then no more than there is should be kept ready.
    pub fn is_tight(&self) -> bool {
        self.used() > self.all.total / 2
    }

    /// How often there was too little so far, for what could be had if others gave theirs back.
    pub fn shortages(&self) -> u64 {
        self.all.shortages.load(Ordering::Relaxed)
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.all.used.load(Ordering::Relaxed)
    }

    /// Bytes that the engines' pools keep beside these.
    pub fn pooled(&self) -> usize {
        self.all.pooled.get().map_or(0, |measure| measure())
    }

    /// The ceiling, in bytes.
    pub fn total(&self) -> usize {
        self.all.total
    }

    #[cold]
    fn note_shortage(&self, bytes: usize, used: usize) {
        if bytes <= self.all.total {
            self.all.shortages.fetch_add(1, Ordering::Relaxed);
        }
        if self.may_log() {
            tracing::warn!(
                "memory is short: {} of {} KiB are taken (--memory-total), {} more were asked for; \
                 such requests are answered with 503",
                used >> 10,
                self.all.total >> 10,
                bytes.div_ceil(1024)
            );
        }
    }

    /// Takes note that the kernel had nothing left for an instance.
    #[cold]
    pub fn note_kernel_shortage(&self, why: &str) {
        if self.may_log() {
            tracing::warn!(
                "the kernel is short of memory or of mappings: {why}; such requests wait a little \
                 and are then answered with 503"
            );
        }
    }

    /// Whether the log is to be told, which it is not for every request.
    fn may_log(&self) -> bool {
        let now = self.all.began.elapsed().as_millis() as u64 + 1;
        let told = self.all.logged_at_ms.load(Ordering::Relaxed);
        if told > 0 && now - told.min(now) < SHORTAGE_LOG_INTERVAL.as_millis() as u64 {
            return false;
        }
        // Of several that come here at once, one tells it.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.all.logged_at_ms.compare_exchange(told, now, success, failure).is_ok()
    }
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether others may wait for it.
    pub fn is_tight(&self) -> bool {
        self.memory.is_tight()
    }

    /// All of it, of which nothing is left here.
    pub fn take(&mut self) -> Charge {
        Charge { memory: self.memory.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// Takes more, so that it is so much in all; what is taken already stays.
    ///
    /// # Errors
    /// [`Reject::NoMemory`], and it is as before.
    pub fn raise_to(&mut self, bytes: usize) -> Result<(), Reject> {
        self.memory.try_charge(bytes.saturating_sub(self.bytes), Purpose::Growth)?;
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }
}

impl Drop for PendingDemand {
    fn drop(&mut self) {
        self.memory.all.demand_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.uncharge(self.bytes);
    }
}

#[cfg(test)]
mod tests;
