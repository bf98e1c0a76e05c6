//! The wasmtime engines, one per class of guest, each setting with its reason, and the ticker that
//! gives every running guest its quantum.
//!
//! Owns every engine setting and the machine's limits on instances. Knows nothing of HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use super::budget::Budget;
use super::pool::READY_MAX;
use crate::config::Limits;

/// The epoch's period. A tick costs a busy core two context switches, about 8 us in a virtual
/// machine: 0.8 % of its time.
pub const TICK: Duration = Duration::from_millis(1);
/// Ticks in a quantum: a guest yields after 1 to 2 ms of running.
pub const QUANTUM_TICKS: u64 = 2;
/// The ticker sleeps once no call has begun for this many ticks.
const IDLE_TICKS: u32 = 4;

/// Images up to this size are copied into a fresh memory; larger ones are mapped copy-on-write.
/// Measured: at 16 KiB copying wins, 64 KiB is even, at 256 KiB mapping wins.
pub const SMALL_IMAGE_BYTES_MAX: usize = 64 * 1024;
/// Memory of a finished instance that is zeroed in place instead of being given back, in bytes.
/// The PAGEMAP_SCAN ioctl finds the written pages, so the untouched ones cost nothing. It is a part
/// of the memory that there is, for hundreds of slots may keep so much, and nobody is charged.
const MEMORY_KEEP_BYTES: std::ops::RangeInclusive<usize> = 128 * 1024..=4 * 1024 * 1024;
const MEMORY_KEEP_PART: usize = 1024;
const TABLE_KEEP_BYTES: usize = 64 * 1024;
/// Elements of one table. Rust and C guests use some hundreds; Python and JavaScript tens of
/// thousands.
pub const TABLE_ELEMENTS_MAX: usize = 20_000;
pub const TABLES_MAX: usize = 4;
pub const MEMORIES_MAX: usize = 4;
/// Core instances and tables that are reckoned with for each instance of a guest. A component has
/// several: its own, and small ones that connect it with the host.
const CORE_INSTANCES_PER_SLOT: u32 = 16;
const TABLES_PER_SLOT: u32 = 3;
/// Stacks for each instance whose calls run beside each other: those wait on stacks of their own
/// that wait within a call of the host.
const STACKS_PER_SLOT: u32 = 4;
/// Address space of one memory: 4 GiB and its guard, so that the code needs no bounds checks.
const SLOT_ADDRESS_BYTES: u64 = (4 << 30) + (32 << 20);
/// Calls that each worker is to have room for.
const IN_FLIGHT: u64 = 256;
/// Mappings that one used memory slot can split off its reservation: accessible part, guard, image.
const MAPPINGS_PER_SLOT: u64 = 4;
/// Free slots of a small engine that are kept from being used for another guest.
const WARM_SLOTS: u32 = 16;
/// Mappings of a loaded guest: its code, and the read-only data before and behind it.
const MAPPINGS_PER_GUEST: u64 = 3;
/// Mappings for everything else: libraries, heaps, stacks.
const MAPPINGS_OF_THE_HOST: u64 = 4096;

/// Which engine a guest runs on; chosen at load by the size of its memory image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Images are copied: no mapping and no file descriptor per guest.
    Small,
    /// Images are mapped copy-on-write.
    Large,
    /// Components whose calls run beside each other: wasi:http 0.3. Images as in the large class.
    Concurrent,
}

/// Sizes of a memory as it begins, in bytes, that have a small engine of their own: the least there
/// is, the least with a stack beside the data, and what Rust's 1 MiB stack comes to. All others
/// share one more. A slot that is used for another size than before has its protection changed,
/// and every core that runs the host is interrupted for that: with 10,000 guests of two sizes in
/// one engine that was a tenth of all CPU time.
const SMALL_SIZES: [u64; 3] = [64 << 10, 128 << 10, 17 * (64 << 10)];
pub const SMALL_ENGINES: usize = SMALL_SIZES.len() + 1;

/// The engines of this process.
pub struct Engines {
    /// They differ in their pools only, so code for one fits all.
    pub small: [Engine; SMALL_ENGINES],
    pub large: Engine,
    pub concurrent: Engine,
    /// Runs start-up code once, for its snapshot: quick to compile, no pool.
    pub startup: Engine,
    pub slots: Slots,
    /// What all guests of this process may have.
    pub memory: Budget,
    ticker: Ticker,
}

/// How many instances each engine can hold at once, all workers together, and how many guests may
/// be loaded beside them. Each small engine has as many slots as if it were the only one, for it
/// may be.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub small: u32,
    pub large: u32,
    pub guests: usize,
}

impl Slots {
    /// Ready instances that each worker keeps, of all guests together: its share, less what calls
    /// need.
    pub fn ready_max(self, workers: usize) -> usize {
        let share = self.small as usize / workers;
        (share / 2).max(share.saturating_sub(IN_FLIGHT as usize)).clamp(1, READY_MAX)
    }
}

/// What the machine says about the limits that matter here.
#[derive(Clone, Copy, Debug)]
struct Machine {
    mappings_max: u64,
    /// Whether finished memories can be zeroed page by page.
    pagemap_scan: bool,
    /// How much of each is zeroed and not given back.
    keep_bytes: usize,
}

impl Engines {
    /// Builds the engines and starts the ticker. Fails where the address space cannot be reserved.
    pub fn new(limits: &Limits, workers: usize, memory: Budget) -> Result<Self> {
        let machine = Machine::read(&memory);
        let slots = Slots::derive(machine, workers);
        let small = || pooled(limits, machine, Class::Small, slots.small);
        let small = [small()?, small()?, small()?, small()?];
        let large = pooled(limits, machine, Class::Large, slots.large)?;
        let concurrent = pooled(limits, machine, Class::Concurrent, slots.small)?;
        tracing::debug!(
            "instance slots: {} small, {} large; memory: {} MiB; mappings allowed: {}",
            slots.small,
            slots.large,
            memory.total() >> 20,
            machine.mappings_max
        );
        Self::with((small, large, concurrent), slots, (workers, memory))
    }

    /// Engines whose machine code the pooled ones take, for a process that makes an instance now
    /// and then.
    pub fn unpooled() -> Result<Self> {
        let engine = |class| Engine::new(&class_settings(class));
        let small = engine(Class::Small)?;
        let small = std::array::from_fn(|_| small.clone());
        let (large, concurrent) = (engine(Class::Large)?, engine(Class::Concurrent)?);
        let slots = Slots { small: 0, large: 0, guests: 0 };
        Self::with((small, large, concurrent), slots, (1, Budget::unlimited()))
    }

    fn with(
        (small, large, concurrent): ([Engine; SMALL_ENGINES], Engine, Engine),
        slots: Slots,
        (workers, memory): (usize, Budget),
    ) -> Result<Self> {
        let mut config = settings();
        config.cranelift_opt_level(OptLevel::None);
        let startup = Engine::new(&config)?;
        let all = small.iter().chain([&large, &concurrent, &startup]).cloned().collect();
        let ticker = Ticker::start(all, workers)?;
        Ok(Engines { small, large, concurrent, startup, slots, memory, ticker })
    }

    /// The engine for guests of a class whose memories begin with so many bytes.
    pub fn get(&self, class: Class, memory_bytes: u64) -> &Engine {
        match class {
            Class::Small => &self.small[small_index(memory_bytes)],
            Class::Large => &self.large,
            Class::Concurrent => &self.concurrent,
        }
    }

    /// The pulse through which worker `index` tells the ticker that calls run.
    pub fn pulse(&self, index: usize) -> Pulse {
        Pulse { shared: self.ticker.shared.clone(), worker: index }
    }
}

/// Which of the small engines is for memories that begin with so many bytes.
pub fn small_index(memory_bytes: u64) -> usize {
    SMALL_SIZES.iter().position(|size| *size == memory_bytes).unwrap_or(SMALL_SIZES.len())
}

impl Machine {
    fn read(memory: &Budget) -> Self {
        let (least, most) = MEMORY_KEEP_BYTES.into_inner();
        let mappings_max = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(65_530);
        Machine {
            mappings_max,
            pagemap_scan: pagemap_scan_is_safe(),
            keep_bytes: (memory.total() / MEMORY_KEEP_PART).clamp(least, most),
        }
    }
}

/// PAGEMAP_SCAN as wasmtime 48 uses it misses pages that were swapped out, which would show one
/// request's data to the next (wasmtime#14357). So it is used only where nothing can be swapped.
fn pagemap_scan_is_safe() -> bool {
    if !PoolingAllocationConfig::is_pagemap_scan_available() {
        tracing::warn!(
            "this kernel has no PAGEMAP_SCAN (Linux 6.7 has it): a fresh instance costs two to \
             five times more"
        );
        return false;
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() > 1 {
        tracing::warn!(
            "swap is on: memory is given back to the kernel after each request, which is slower; \
             run without swap (swapoff -a) for full speed"
        );
        return false;
    }
    true
}

impl Slots {
    /// Room for 256 calls per worker beside the ready instances, and at least 1,000 in all, within
    /// a half of the mappings that the kernel allows this process.
    fn derive(machine: Machine, workers: usize) -> Self {
        let affordable = machine.mappings_max / 2 / MAPPINGS_PER_SLOT;
        let wanted = (workers as u64 * (IN_FLIGHT + READY_MAX as u64)).clamp(1_000, 4_000);
        let small = wanted.min(affordable).max(64) as u32;
        let large = (small / 8).clamp(64, 250);
        let instances = u64::from(small + large) * MAPPINGS_PER_SLOT + MAPPINGS_OF_THE_HOST;
        // An eighth is left for guests that are in use when more are asked for.
        let left = machine.mappings_max.saturating_sub(instances);
        let guests = left / MAPPINGS_PER_GUEST / 8 * 7;
        Slots { small, large, guests: (guests as usize).max(64) }
    }
}

/// The settings that every engine shares.
fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // The support costs 0.3 us a call, and is for one class alone.
    config.concurrency_support(false);
    config.wasm_component_model_async(false);
    // Exceptions unwind through wasmtime's own tables; the system's would be registered per module.
    config.native_unwind_info(false);
    // Proposals that a handler does not need and that had most of the advisories.
    config.wasm_gc(false);
    config.wasm_function_references(false);
    config.wasm_exceptions(false);
    config.wasm_memory64(false);
    config.wasm_threads(false);
    config.wasm_stack_switching(false);
    config
}

/// The settings of one class.
fn class_settings(class: Class) -> Config {
    let mut config = settings();
    config.memory_init_cow(class != Class::Small);
    if class == Class::Concurrent {
        config.concurrency_support(true);
        config.wasm_component_model_async(true);
    }
    config.cranelift_opt_level(OptLevel::Speed);
    config
}

fn pooled(limits: &Limits, machine: Machine, class: Class, slots: u32) -> Result<Engine> {
    let mut config = class_settings(class);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(
        limits, machine, class, slots,
    )));
    Engine::new(&config).map_err(anyhow::Error::from).with_context(|| {
        format!(
            "could not reserve {} GiB of address space for {slots} instances; \
             is there a limit on virtual memory (ulimit -v)?",
            (u64::from(slots) * SLOT_ADDRESS_BYTES) >> 30
        )
    })
}

fn pool(limits: &Limits, machine: Machine, class: Class, slots: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let stacks = if class == Class::Concurrent { STACKS_PER_SLOT } else { 1 };
    pool.total_component_instances(slots)
        // These are counted, and take no room before they are there.
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_PER_SLOT))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(TABLES_PER_SLOT))
        .total_stacks(slots.saturating_mul(stacks))
        .max_memories_per_module(MEMORIES_MAX as u32)
        .max_tables_per_module(TABLES_MAX as u32)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(limits.memory_bytes_max)
        // Mapped images stay with their slots. Copied ones do not, so the slots that were used last
        // are used next: they are in the cache.
        .max_unused_warm_slots(if class == Class::Small { WARM_SLOTS } else { slots });
    if machine.pagemap_scan {
        // Keeping memory without the scan would be a blind memset, slower than giving it back.
        pool.linear_memory_keep_resident(machine.keep_bytes)
            .table_keep_resident(TABLE_KEEP_BYTES)
            .pagemap_scan(Enabled::Yes);
    }
    pool
}

/// A thread that advances the epoch of every engine while calls run, and sleeps otherwise.
struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    pulses: Box<[PulseLine]>,
    /// Written once a millisecond, while calls run.
    ticks: AtomicU32,
    asleep: AtomicBool,
    stop: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

/// One worker's count of calls, on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct PulseLine {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One worker's end of the ticker.
#[derive(Clone)]
pub struct Pulse {
    shared: Arc<Shared>,
    worker: usize,
}

/// Keeps the ticker awake until it is dropped.
pub struct Running<'a>(&'a PulseLine);

/// The same, for what runs elsewhere and longer than its worker looks at it.
pub struct Beating(Pulse);

impl Pulse {
    /// Says that a call begins; the ticker runs at least until the guard is dropped.
    pub fn begin(&self) -> Running<'_> {
        self.count();
        Running(&self.shared.pulses[self.worker])
    }

    /// As [`Pulse::begin`], with a guard that can be kept.
    pub fn keep(&self) -> Beating {
        self.count();
        Beating(self.clone())
    }

    fn count(&self) {
        let line = &self.shared.pulses[self.worker];
        // Pairs with the fence in `Ticker::run`: either it sees this call, or we see it asleep.
        line.begun.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.shared.thread.get()
        {
            thread.unpark();
        }
    }

    /// Whether the ticker sleeps, for want of calls.
    pub fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::Relaxed)
    }

    /// Ticks so far, while calls run.
    pub fn ticks(&self) -> u32 {
        self.shared.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        let Beating(pulse) = self;
        drop(Running(&pulse.shared.pulses[pulse.worker]));
    }
}

impl Shared {
    /// Calls begun so far, and whether some of them still run.
    fn calls(&self) -> (u64, bool) {
        let ended: u64 = self.pulses.iter().map(|line| line.ended.load(Ordering::Acquire)).sum();
        let begun: u64 = self.pulses.iter().map(|line| line.begun.load(Ordering::Relaxed)).sum();
        (begun, begun != ended)
    }
}

impl Ticker {
    fn start(engines: Vec<Engine>, workers: usize) -> Result<Self> {
        let pulses = (0..workers).map(|_| PulseLine::default()).collect();
        let shared = Arc::new(Shared {
            pulses,
            asleep: AtomicBool::new(false),
            ticks: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
        });
        let ticker_shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name("ticker".into())
            .spawn(move || Self::run(&ticker_shared, &engines))
            .context("could not start the ticker thread")?;
        shared.thread.set(thread.thread().clone()).expect("the thread is set once, here");
        Ok(Ticker { shared, thread: Some(thread) })
    }

    fn run(shared: &Shared, engines: &[Engine]) {
        let mut begun_before = 0;
        let mut idle_ticks = 0;
        while !shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            for engine in engines {
                engine.increment_epoch();
            }
            shared.ticks.fetch_add(1, Ordering::Relaxed);
            let (begun, running) = shared.calls();
            idle_ticks = if running || begun != begun_before { 0 } else { idle_ticks + 1 };
            begun_before = begun;
            if idle_ticks > IDLE_TICKS {
                shared.asleep.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                if shared.calls().0 == begun && !shared.stop.load(Ordering::Relaxed) {
                    std::thread::park();
                }
                shared.asleep.store(false, Ordering::Relaxed);
                idle_ticks = 0;
            }
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The only error is a panic of the ticker, which has been reported already.
            drop(thread.join());
        }
    }
}
