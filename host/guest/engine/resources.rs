//! Mappings, descriptors and address space of this process: how many are in use, how many there may
//! be, and whether an error means that there are no more.
//!
//! Owns the count of what loaded guests hold, and reads Linux's files for it. The code of every
//! guest is mapped, and a guest with a large image keeps a file open. Does not know who gives way.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::slots::{Headroom, Slots};
use crate::file::kernel_text;

/// Mappings of a loaded guest: its code, and the read-only data before and after it.
pub const MAPPINGS_PER_GUEST: u64 = 3;
/// The kernel's default limit on mappings, if it does not say.
const MAPPINGS_DEFAULT: u64 = 65_530;
/// Descriptors that a load needs for a moment, mostly for the process that compiles.
const DESCRIPTORS_PER_LOAD: u64 = 8;
/// Descriptors that are not for connections by default: a quarter, but no more than this.
const DESCRIPTORS_RESERVED_MAX: u64 = 4_096;
/// Address space left for code, heaps and stacks, if there is a limit.
const ADDRESS_BYTES_RESERVED: u64 = 4 << 30;
/// Address space of a process with four levels of page tables.
const ADDRESS_BYTES_ALL: u64 = 1 << 47;

/// What guests hold, and may hold, of the process's resources.
#[derive(Clone)]
pub struct Resources(Arc<ResourcesShared>);

struct ResourcesShared {
    mappings: AtomicU64,
    mappings_max: AtomicU64,
    descriptors: AtomicU64,
    descriptors_max: u64,
    /// Mappings of everything but guests at the last count, and how many were planned for it.
    others: AtomicU64,
    others_planned: u64,
    /// The limit on mappings of the whole process.
    limit: u64,
}

/// What one guest holds, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceAmount {
    /// Memory mappings.
    pub mappings: u64,
    /// File descriptors.
    pub descriptors: u64,
}

/// What one guest holds. Dropping it gives that back.
pub struct ResourceReservation {
    of: Resources,
    amount: ResourceAmount,
}

/// The mappings of the process.
#[derive(Clone, Copy, Debug)]
pub struct Mappings {
    /// How many there are.
    pub used: u64,
    /// How many there may be.
    pub max: u64,
}

impl Mappings {
    /// Counts them. `chosen` is a limit below the kernel's.
    pub fn read(chosen: Option<u64>) -> Self {
        let kernel = kernel_text("/proc/sys/vm/max_map_count").ok();
        let kernel = kernel.and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_DEFAULT);
        Mappings { used: count_mappings(), max: chosen.map_or(kernel, |chosen| chosen.min(kernel)) }
    }

    /// How many more there may be.
    pub fn free(self) -> u64 {
        self.max.saturating_sub(self.used)
    }
}

impl Headroom {
    /// The mappings and the address space that are left.
    pub fn read(mappings: Mappings) -> Self {
        let limit = getrlimit(Resource::As).current.unwrap_or(ADDRESS_BYTES_ALL);
        let used = kernel_text("/proc/self/statm").ok();
        let pages = used.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let used = pages.unwrap_or(0) * rustix::param::page_size() as u64;
        let left = limit.min(ADDRESS_BYTES_ALL).saturating_sub(used + ADDRESS_BYTES_RESERVED);
        Headroom { mappings: mappings.free(), address_bytes: left }
    }
}

impl Resources {
    /// Divides the mappings, after the engines are made. `before` is the state without them.
    pub fn new(before: Mappings, slots: Slots) -> Self {
        let for_guests = slots.mappings_for_guests(before.free());
        Resources(Arc::new(ResourcesShared {
            mappings: AtomicU64::new(0),
            mappings_max: AtomicU64::new(for_guests),
            descriptors: AtomicU64::new(0),
            descriptors_max: descriptors_reserved(descriptors_max()) / 2,
            others: AtomicU64::new(count_mappings()),
            others_planned: before.max - for_guests.min(before.max),
            limit: before.max,
        }))
    }

    /// For a process that loads few guests.
    pub fn unlimited() -> Self {
        let max = u64::MAX;
        Resources(Arc::new(ResourcesShared {
            mappings: AtomicU64::new(0),
            mappings_max: AtomicU64::new(max),
            descriptors: AtomicU64::new(0),
            descriptors_max: max,
            others: AtomicU64::new(0),
            others_planned: 0,
            limit: max,
        }))
    }

    /// Counts what a guest holds.
    pub fn reserve_for_guest(&self, amount: ResourceAmount) -> ResourceReservation {
        self.0.mappings.fetch_add(amount.mappings, Ordering::Relaxed);
        self.0.descriptors.fetch_add(amount.descriptors, Ordering::Relaxed);
        ResourceReservation { of: self.clone(), amount }
    }

    /// What all guests together may hold.
    pub fn guests_max(&self) -> ResourceAmount {
        ResourceAmount {
            mappings: self.0.mappings_max.load(Ordering::Relaxed),
            descriptors: self.0.descriptors_max,
        }
    }

    /// Whether there is room for one more load beside those that are under way.
    pub fn has_room(&self, loads: usize) -> bool {
        let loads = loads as u64 + 1;
        let held = self.0.mappings.load(Ordering::Relaxed);
        held.saturating_add(loads * MAPPINGS_PER_GUEST) <= self.guests_max().mappings
            && descriptors_max().saturating_sub(count_descriptors()) >= loads * DESCRIPTORS_PER_LOAD
    }

    /// Counts the mappings of the process again. If everything but guests has more than was
    /// planned, guests get less. Takes 1 ms for some thousand mappings.
    pub fn recount_mappings(&self) {
        let shared = &self.0;
        let others = count_mappings().saturating_sub(shared.mappings.load(Ordering::Relaxed));
        shared.others.store(others, Ordering::Relaxed);
        let reserved = shared.others_planned.max(others.saturating_add(MAPPINGS_PER_GUEST * 64));
        shared.mappings_max.store(shared.limit.saturating_sub(reserved), Ordering::Relaxed);
    }

    /// How many files are open, and how many may be.
    pub fn descriptors(&self) -> (u64, u64) {
        (count_descriptors(), descriptors_max())
    }

    /// Mappings of the process: what guests hold now, and the others at their last count.
    pub fn mappings(&self) -> Mappings {
        let shared = &self.0;
        let used = shared.others.load(Ordering::Relaxed) + shared.mappings.load(Ordering::Relaxed);
        Mappings { used, max: shared.limit }
    }
}

impl ResourceAmount {
    /// Adds another amount.
    pub fn add(&mut self, other: ResourceAmount) {
        self.mappings += other.mappings;
        self.descriptors += other.descriptors;
    }

    /// Subtracts another amount, which has to be a part of this.
    pub fn sub(&mut self, other: ResourceAmount) {
        self.mappings -= other.mappings;
        self.descriptors -= other.descriptors;
    }

    /// Whether any part of it is above a limit.
    pub fn exceeds(&self, most: ResourceAmount) -> bool {
        self.mappings > most.mappings || self.descriptors > most.descriptors
    }

    /// So many eighths of it.
    pub fn eighths(self, eighths: u64) -> ResourceAmount {
        let part = |all: u64| all / 8 * eighths + all % 8 * eighths / 8;
        ResourceAmount { mappings: part(self.mappings), descriptors: part(self.descriptors) }
    }
}

impl Drop for ResourceReservation {
    fn drop(&mut self) {
        let ResourceAmount { mappings, descriptors } = self.amount;
        self.of.0.mappings.fetch_sub(mappings, Ordering::Relaxed);
        self.of.0.descriptors.fetch_sub(descriptors, Ordering::Relaxed);
    }
}

/// How many files this process may have open.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// How many of all descriptors are reserved for other things than connections.
pub fn descriptors_reserved(all: u64) -> u64 {
    (all / 4).min(DESCRIPTORS_RESERVED_MAX)
}

/// How many files are open: the size of the folder, or its entries before Linux 6.2.
fn count_descriptors() -> u64 {
    const FOLDER: &str = "/proc/self/fd";
    let size = fs::metadata(FOLDER).map_or(0, |about| about.len());
    if size > 0 { size } else { fs::read_dir(FOLDER).map_or(0, |files| files.count() as u64) }
}

fn count_mappings() -> u64 {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    maps.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Whether the kernel was short of memory, mappings, descriptors or processes. That passes, and
/// says nothing about a file.
pub fn is_shortage(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        let code = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| is_short(Errno::from_raw_os_error(code))) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Whether an error of the engine comes from such a shortage.
pub fn is_engine_shortage(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        errno.is_some_and(is_short)
            || cause.downcast_ref::<io::Error>().is_some_and(is_shortage)
            || cause.is::<wasmtime::error::OutOfMemory>()
    })
}

fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOBUFS)
}

#[cfg(test)]
mod tests;
