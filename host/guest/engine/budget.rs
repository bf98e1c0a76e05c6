//! The memory of the whole host: how much its guests may have, and how much of it is in use.
//!
//! Owns the ceiling (`--memory-total`) and the sum below it: all instances with their memories at
//! the declared size, bodies that are kept for guests, loaded code, and the pages that the engines'
//! pools keep in free slots. All threads share one counter. It changes when an instance is made or
//! dropped, a memory grows, or a large body is kept, but not when an instance is reset. Does not
//! know who gives memory back when it is short.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::slot_quota::SlotCount;
use super::slots::ENGINES;
use crate::message::Reject;

/// A guest that has no more than this has its first instance at most: stacks and the host's
/// objects, a memory of 2 MiB, and tables, which are charged one after the other. An instance of
/// 0.3 has four stacks, the largest charge in one piece.
const FIRST_BYTES: usize = 5 << 20;
const FIRST_STEP_MAX: usize = FIRST_BYTES / 2;
/// In the last eighth, a guest may have as much as it leaves free, and its owner three times that.
const OWNER_TIMES_LEFT: usize = 3;
/// How often the log says that memory is short.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The memory that all guests of a process share. A guest's own clone also counts what the guest
/// has.
#[derive(Clone)]
pub struct Budget {
    all: Arc<BudgetShared>,
    guest_usage: Option<Arc<GuestUsage>>,
}

/// What one guest has, and its owner, whose guests are counted together.
struct GuestUsage {
    bytes: AtomicUsize,
    owner: Arc<OwnerUsage>,
}

/// What all guests of one owner have.
#[derive(Default)]
pub struct OwnerUsage {
    bytes: AtomicUsize,
    /// Instance slots, by engine.
    pub slots: [SlotCount; ENGINES],
}

/// On cache lines of its own, so that only its users wait for its changes.
#[repr(align(128))]
struct BudgetShared {
    used: AtomicUsize,
    total: usize,
    owners: Mutex<HashMap<u64, Weak<OwnerUsage>>>,
    /// Bytes that loads wait for.
    demand_bytes: AtomicUsize,
    /// How often memory was refused that others could have given back.
    shortages: AtomicU64,
    /// When the log was last told, in milliseconds since `began`; 0 for never.
    logged_at_ms: AtomicU64,
    began: Instant,
    /// Measures the bytes that the engines' pools keep in free slots.
    pooled: OnceLock<Measure>,
}

type Measure = Box<dyn Fn() -> usize + Send + Sync>;

/// What memory is for. The last eighth of the budget is for guests that have little: a guest may
/// use it as long as all that it has is no more than what it leaves free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new instance. The first of a guest may use the last eighth if it is small.
    Start,
    /// Something that grows.
    Growth,
}

/// Announces, until it is dropped, that somebody waits for memory.
pub struct PendingDemand {
    memory: Budget,
    bytes: usize,
}

/// Memory that is charged until this is dropped.
pub struct Charge {
    memory: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
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

    /// The same memory, charged to one more guest of an owner.
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

    /// What the owner of this guest has; `None` if the memory is charged to no guest.
    pub fn owner(&self) -> Option<&OwnerUsage> {
        self.guest_usage.as_ref().map(|own| &*own.owner)
    }

    /// Includes what the engines' pools keep in free slots. `measure` returns the bytes.
    pub fn count_pooled(&self, measure: impl Fn() -> usize + Send + Sync + 'static) {
        // A budget has one set of engines. A second one would not be counted.
        let _ = self.all.pooled.set(Box::new(measure));
    }

    /// For a process that serves no requests.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Charges memory, until [`Budget::uncharge`].
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing is charged.
    pub fn try_charge(&self, bytes: usize, purpose: Purpose) -> Result<(), Reject> {
        let added = self.added(bytes, purpose);
        // Adding first, and taking back what is too much, would refuse others in between.
        let taken = self.all.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        taken.map_err(|used| {
            self.note_shortage(bytes, used);
            Reject::NoMemory
        })?;
        self.note_own(bytes);
        Ok(())
    }

    /// Has guests leave so many bytes free for somebody who waits for them, until this is dropped.
    /// A guest's small first instance is exempt.
    pub fn add_demand(&self, bytes: usize) -> PendingDemand {
        self.all.demand_bytes.fetch_add(bytes, Ordering::Relaxed);
        PendingDemand { memory: self.clone(), bytes }
    }

    /// Whether so much could be charged now for growth. Asking does not count as a shortage.
    pub fn has(&self, bytes: usize) -> bool {
        self.added(bytes, Purpose::Growth)(self.used()).is_some()
    }

    /// Maps the bytes in use to those after this charge; `None` if it is not allowed.
    fn added(&self, bytes: usize, purpose: Purpose) -> impl Fn(usize) -> Option<usize> + use<> {
        let is_small = purpose == Purpose::Start && bytes <= FIRST_STEP_MAX;
        let own = self.guest_usage.as_ref().map(|own| own.bytes.load(Ordering::Relaxed));
        let owned = self.owner().map_or(0, |owner| owner.bytes.load(Ordering::Relaxed));
        let is_first = is_small && own.unwrap_or(0).saturating_add(bytes) <= FIRST_BYTES;
        let total = self.all.total;
        let wanted = if own.is_some() { self.all.demand_bytes.load(Ordering::Relaxed) } else { 0 };
        // Measuring takes a lock in every pool. It matters only here, as the pools keep an eighth
        // of the budget at most.
        let is_near = self.used().saturating_add(bytes) > total / 2;
        let pooled = if is_near { self.pooled() } else { 0 };
        move |used| {
            let used = used.checked_add(bytes)?;
            let left = total.checked_sub(used)?.checked_sub(pooled)?;
            let is_modest = own.is_some_and(|own| own.saturating_add(bytes) <= left)
                && owned.saturating_add(bytes) <= left.saturating_mul(OWNER_TIMES_LEFT);
            // Those who wait get nothing of the last eighth.
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

    /// Returns memory that was charged.
    pub fn uncharge(&self, bytes: usize) {
        self.all.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(own) = &self.guest_usage {
            own.bytes.fetch_sub(bytes, Ordering::Relaxed);
            own.owner.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// An empty charge, to be raised.
    pub fn empty_charge(&self) -> Charge {
        Charge { memory: self.clone(), bytes: 0 }
    }

    /// Charges memory that is in use already, even if there is not enough.
    pub fn force_charge(&self, bytes: usize) -> Charge {
        self.all.used.fetch_add(bytes, Ordering::Relaxed);
        self.note_own(bytes);
        Charge { memory: self.clone(), bytes }
    }

    /// Whether more than half of the budget is in use. Then no more instances should be kept ready.
    pub fn is_tight(&self) -> bool {
        self.used() > self.all.total / 2
    }

    /// How often so far memory was refused that others could have given back.
    pub fn shortages(&self) -> u64 {
        self.all.shortages.load(Ordering::Relaxed)
    }

    /// Bytes that are charged.
    pub fn used(&self) -> usize {
        self.all.used.load(Ordering::Relaxed)
    }

    /// Bytes that the engines' pools keep in free slots. They are not charged.
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

    /// Logs that the kernel had no memory or no mappings left for an instance.
    #[cold]
    pub fn note_kernel_shortage(&self, why: &str) {
        if self.may_log() {
            tracing::warn!(
                "the kernel is short of memory or of mappings: {why}; such requests wait a little \
                 and are then answered with 503"
            );
        }
    }

    /// Whether it is time to log a shortage again: not every request does.
    fn may_log(&self) -> bool {
        let now = self.all.began.elapsed().as_millis() as u64 + 1;
        let told = self.all.logged_at_ms.load(Ordering::Relaxed);
        if told > 0 && now - told.min(now) < SHORTAGE_LOG_INTERVAL.as_millis() as u64 {
            return false;
        }
        // Only one of several threads that come here at once may log.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.all.logged_at_ms.compare_exchange(told, now, success, failure).is_ok()
    }
}

impl Charge {
    /// Bytes that are charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more than half of the budget is in use, so that others may wait for memory.
    pub fn is_tight(&self) -> bool {
        self.memory.is_tight()
    }

    /// Takes the whole charge out, so that this one is empty.
    pub fn take(&mut self) -> Charge {
        Charge { memory: self.memory.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// Raises the charge to `bytes`. It never sinks.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: the charge is as before.
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
