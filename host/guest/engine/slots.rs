//! How many instances there can be at once, and how many mappings are left for the code of guests.
//!
//! Owns how the process's mappings and address space are divided at the start. Reads nothing of the
//! machine itself.

use super::class::{Class, SMALL_ENGINES};

/// Stacks for each instance that runs several calls at once: every call that waits inside the host
/// holds one.
pub const STACKS_PER_SLOT: u32 = 4;
/// Address space of one memory: 4 GiB and its guard, so that code needs no bounds checks.
pub const SLOT_ADDRESS_BYTES: u64 = (4 << 30) + (32 << 20);
/// Calls that each worker has room for, beside its ready instances.
const IN_FLIGHT: u64 = 256;
/// Slots of one small engine: the range that is wanted, and the least with which a host is useful.
const SMALL_WANTED: std::ops::RangeInclusive<u64> = 1_000..=4_000;
const SMALL_MIN: u32 = 16;
const LARGE_MAX: u32 = 250;
const OTHERS_MIN: u32 = 8;

/// A stack and its guard page. Both exist from the start.
const MAPPINGS_PER_STACK: u64 = 2;
/// A memory in use splits its reservation into the accessible part and the rest. A mapped image
/// adds a part before it and one after it.
const MAPPINGS_PER_MEMORY: u64 = 2;
const MAPPINGS_PER_IMAGE: u64 = 4;
/// Fifths of the free mappings that instances may take. Guests get the rest: more than 10,000 of
/// them with the kernel's default of 65,530.
const FIFTHS_FOR_INSTANCES: u64 = 2;
/// Mappings kept back for threads, heaps and libraries: so many, and a fraction of all.
const MAPPINGS_RESERVED: u64 = 256;
const MAPPINGS_RESERVED_PART: u64 = 32;

/// Ready instances of all guests that one worker keeps at most. Measured with 10,000 guests
/// requested by Zipf's law: 64 serve half of the requests, 1,024 three quarters. Each takes some 40
/// KiB.
const READY_MAX: usize = 1024;
/// The number of the large engine. The small ones come before it.
pub const LARGE_ENGINE: usize = SMALL_ENGINES;
/// The number of the concurrent engine.
pub const CONCURRENT_ENGINE: usize = SMALL_ENGINES + 1;
/// The number of all engines.
pub const ENGINES: usize = SMALL_ENGINES + 2;

/// How many ready instances a worker keeps.
#[derive(Clone, Copy, Debug)]
pub struct ReadyMax {
    /// Of all guests together.
    pub all: usize,
    /// Of the guests of each engine.
    pub by_engine: [usize; ENGINES],
}

/// What the process has left when its engines are made.
#[derive(Clone, Copy, Debug)]
pub struct Headroom {
    /// Memory mappings.
    pub mappings: u64,
    /// Bytes of address space.
    pub address_bytes: u64,
}

/// How many instances each engine can hold at once, over all workers. Each small engine has as many
/// slots as if it were the only one, since it may get all the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Of each small engine.
    pub small: u32,
    /// Of the large engine.
    pub large: u32,
    /// Of the concurrent engine.
    pub concurrent: u32,
}

impl Slots {
    /// For engines without pools.
    pub const NONE: Slots = Slots { small: 0, large: 0, concurrent: 0 };

    /// Room for 256 calls per worker beside the ready instances, and for at least 1,000 in all, as
    /// far as the mappings and the address space allow.
    pub fn derive(room: Headroom, workers: usize) -> Self {
        let (least, most) = SMALL_WANTED.into_inner();
        let wanted = (workers as u64 * (IN_FLIGHT + READY_MAX as u64)).clamp(least, most) as u32;
        let mappings_max = room.mappings / 5 * FIFTHS_FOR_INSTANCES;
        let fits = |slots: &Slots| {
            slots.mappings() <= mappings_max && slots.address_bytes() <= room.address_bytes
        };
        let mut sizes = (SMALL_MIN..=wanted).rev().map(Slots::of_size);
        sizes.find(fits).unwrap_or(Slots::of_size(SMALL_MIN))
    }

    /// The slots for so many of each small engine, with the others in proportion.
    fn of_size(small: u32) -> Self {
        Slots {
            small,
            large: (small / 5).clamp(OTHERS_MIN, LARGE_MAX),
            concurrent: (small / 4).max(OTHERS_MIN),
        }
    }

    /// Half as many slots; `None` if that is too few.
    pub fn halved(self) -> Option<Self> {
        let small = self.small / 2;
        (small >= SMALL_MIN).then(|| Slots::of_size(small))
    }

    /// Slots of one engine of a class.
    pub fn of(self, class: Class) -> u32 {
        match class {
            Class::Small => self.small,
            Class::Large => self.large,
            Class::Concurrent => self.concurrent,
        }
    }

    /// Slots of the engine with this number; `None` if it has no pool.
    pub fn of_engine(self, index: usize) -> Option<u32> {
        let slots = match index {
            CONCURRENT_ENGINE => self.concurrent,
            LARGE_ENGINE => self.large,
            _ => self.small,
        };
        (slots > 0).then_some(slots)
    }

    /// Stacks of one engine of a class.
    pub fn stacks(self, class: Class) -> u32 {
        match class {
            Class::Small | Class::Large => self.of(class),
            Class::Concurrent => self.concurrent * STACKS_PER_SLOT,
        }
    }

    /// Mappings that all engines may come to need.
    pub fn mappings(self) -> u64 {
        Class::ALL.map(|class| self.mappings_of(class)).iter().sum()
    }

    fn mappings_of(self, class: Class) -> u64 {
        let memory = match class {
            Class::Small => MAPPINGS_PER_MEMORY,
            Class::Large | Class::Concurrent => MAPPINGS_PER_IMAGE,
        };
        let stacks = u64::from(self.stacks(class)) * MAPPINGS_PER_STACK;
        engines(class) * (u64::from(self.of(class)) * memory + stacks)
    }

    /// Bytes of address space that all slots reserve.
    pub fn address_bytes(self) -> u64 {
        let slots = Class::ALL.map(|class| engines(class) * u64::from(self.of(class)));
        slots.iter().sum::<u64>() * SLOT_ADDRESS_BYTES
    }

    /// Mappings left for guests, if so many were free before the engines were made.
    pub fn mappings_for_guests(self, free: u64) -> u64 {
        free.saturating_sub(self.mappings() + MAPPINGS_RESERVED + free / MAPPINGS_RESERVED_PART)
    }

    /// Ready instances that each worker keeps of the guests of one engine: its share of the slots,
    /// less those that calls need.
    fn ready_max_of(self, class: Class, workers: usize) -> usize {
        let share = self.of(class) as usize / workers;
        (share / 2).max(share.saturating_sub(IN_FLIGHT as usize)).clamp(1, READY_MAX)
    }

    /// Ready instances that each worker keeps.
    pub fn ready_max(self, workers: usize) -> ReadyMax {
        let of_engine = |engine| {
            let class = match engine {
                LARGE_ENGINE => Class::Large,
                CONCURRENT_ENGINE => Class::Concurrent,
                _ => Class::Small,
            };
            self.ready_max_of(class, workers)
        };
        ReadyMax { all: READY_MAX, by_engine: std::array::from_fn(of_engine) }
    }

    /// Requests that each worker admits at once: its share of the slots, less those of instances
    /// that are ready or wait to be recycled.
    pub fn in_flight_max(self, workers: usize) -> usize {
        let share = self.small as usize / workers;
        share.saturating_sub(self.ready_max_of(Class::Small, workers) + 16).max(8)
    }
}

/// How many engines a class has.
fn engines(class: Class) -> u64 {
    match class {
        Class::Small => SMALL_ENGINES as u64,
        Class::Large | Class::Concurrent => 1,
    }
}

#[cfg(test)]
mod tests;
