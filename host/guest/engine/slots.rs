//! How many instances there can be at once, and how many mappings are left for the code of guests.
//!
//! Owns how the mappings and the address space that the process has left at its start are divided.
//! Reads nothing of the machine itself.

use super::class::{Class, SMALL_ENGINES};

/// Stacks for each instance whose calls run beside each other: those wait on stacks of their own
/// that wait within a call of the host.
pub const STACKS_PER_SLOT: u32 = 4;
/// Address space of one memory: 4 GiB and its guard, so that the code needs no bounds checks.
pub const SLOT_ADDRESS_BYTES: u64 = (4 << 30) + (32 << 20);
/// Calls that each worker is to have room for.
const IN_FLIGHT: u64 = 256;
/// Instances of one small engine: as many as are wanted, and the least with which a host is of use.
const SMALL_WANTED: std::ops::RangeInclusive<u64> = 1_000..=4_000;
const SMALL_MIN: u32 = 16;
const LARGE_MAX: u32 = 250;
const OTHERS_MIN: u32 = 8;

/// A stack and its guard page, both of which are there from the start.
const MAPPINGS_PER_STACK: u64 = 2;
/// A memory in use splits its reservation: what is accessible, and the rest. With an image that is
/// mapped there are a part before it and one behind it.
const MAPPINGS_PER_MEMORY: u64 = 2;
const MAPPINGS_PER_IMAGE: u64 = 4;
/// Of the mappings that are free, so many fifths may be taken for instances. Guests get the rest:
/// with the kernel's default of 65,530 that is more than 10,000 of them.
const FIFTHS_FOR_INSTANCES: u64 = 2;
/// What is kept back for threads, heaps and libraries: so much, and a part of all.
const MAPPINGS_RESERVED: u64 = 256;
const MAPPINGS_RESERVED_PART: u64 = 32;

/// Ready instances that one worker keeps at most, of all guests together. Measured with 10,000
/// guests asked for by Zipf's law: 64 serve a half of the requests, 1,024 three quarters. Each
/// takes some 40 KiB.
const READY_MAX: usize = 1024;
/// Engines by number: the small ones, the large one, and the concurrent one.
pub const LARGE_ENGINE: usize = SMALL_ENGINES;
pub const CONCURRENT_ENGINE: usize = SMALL_ENGINES + 1;
pub const ENGINES: usize = SMALL_ENGINES + 2;

/// How many instances a worker keeps ready: of all guests together, and of those of each engine.
#[derive(Clone, Copy, Debug)]
pub struct ReadyMax {
    pub all: usize,
    pub by_engine: [usize; ENGINES],
}

/// What the process has left when its engines are made.
#[derive(Clone, Copy, Debug)]
pub struct Headroom {
    pub mappings: u64,
    pub address_bytes: u64,
}

/// How many instances each engine can hold at once, all workers together. Each small engine has as
/// many slots as if it were the only one, for it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    pub small: u32,
    pub large: u32,
    pub concurrent: u32,
}

impl Slots {
    /// For a process that makes an instance now and then.
    pub const NONE: Slots = Slots { small: 0, large: 0, concurrent: 0 };

    /// Room for 256 calls per worker beside the ready instances, and at least 1,000 in all, as far
    /// as the mappings and the address space go.
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

    /// With so many of each small engine, and of the others in proportion.
    fn of_size(small: u32) -> Self {
        Slots {
            small,
            large: (small / 5).clamp(OTHERS_MIN, LARGE_MAX),
            concurrent: (small / 4).max(OTHERS_MIN),
        }
    }

    /// Half of it; `None` where that is too little.
    pub fn halved(self) -> Option<Self> {
        let small = self.small / 2;
        (small >= SMALL_MIN).then(|| Slots::of_size(small))
    }

    /// Slots of one engine.
    pub fn of(self, class: Class) -> u32 {
        match class {
            Class::Small => self.small,
            Class::Large => self.large,
            Class::Concurrent => self.concurrent,
        }
    }

    /// Those of an engine by its number; `None` where instances are not pooled.
    pub fn of_engine(self, index: usize) -> Option<u32> {
        let slots = match index {
            CONCURRENT_ENGINE => self.concurrent,
            LARGE_ENGINE => self.large,
            _ => self.small,
        };
        (slots > 0).then_some(slots)
    }

    /// Stacks of one engine.
    pub fn stacks(self, class: Class) -> u32 {
        match class {
            Class::Small | Class::Large => self.of(class),
            Class::Concurrent => self.concurrent * STACKS_PER_SLOT,
        }
    }

    /// Mappings that all engines may come to have.
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

    /// Address space that their memories take.
    pub fn address_bytes(self) -> u64 {
        let slots = Class::ALL.map(|class| engines(class) * u64::from(self.of(class)));
        slots.iter().sum::<u64>() * SLOT_ADDRESS_BYTES
    }

    /// Mappings that are left for guests where so many were free before the engines were made.
    pub fn mappings_for_guests(self, free: u64) -> u64 {
        free.saturating_sub(self.mappings() + MAPPINGS_RESERVED + free / MAPPINGS_RESERVED_PART)
    }

    /// Ready instances that each worker keeps of the guests of one engine: its share of the slots,
    /// less what calls need.
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

    /// Requests that each worker lets in at once: its share of the slots, less those that are kept
    /// ready or wait to be renewed.
    pub fn in_flight_max(self, workers: usize) -> usize {
        let share = self.small as usize / workers;
        share.saturating_sub(self.ready_max_of(Class::Small, workers) + 16).max(8)
    }
}

/// Engines of a class.
fn engines(class: Class) -> u64 {
    match class {
        Class::Small => SMALL_ENGINES as u64,
        Class::Large | Class::Concurrent => 1,
    }
}

#[cfg(test)]
mod tests;
