//! The wasmtime engines, one per class of guest, each setting with its reason.
//!
//! Owns every engine setting. `slots.rs` has the number of instances of each engine. Knows nothing
//! of HTTP.

use anyhow::{Context, Result};
use guesthouse_module::limits::{
    CORE_INSTANCES_PER_SLOT, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX, TABLES_PER_SLOT,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use super::budget::Budget;
use super::class::{Class, SMALL_ENGINES, small_index};
use super::resources::{Mappings, Resources};
use super::slot_pages::{SlotPages, SlotShape};
use super::slots::{Headroom, SLOT_ADDRESS_BYTES, STACKS_PER_SLOT, Slots};
use crate::file;

/// Bytes of an instance's stack: what guest code may use, and below that what host functions use.
/// Its pages stay as long as the instance exists.
pub const STACK_BYTES: usize = WASM_STACK_BYTES + 64 * 1024;
const WASM_STACK_BYTES: usize = 512 * 1024;
/// Bytes that an instance is charged beside its memories and tables: its stack, and 64 KiB for the
/// host's objects, which include its WASI state and the first [`RECORD_BYTES`] of its records.
pub const INSTANCE_BYTES: usize = STACK_BYTES + 64 * 1024;
/// Bytes of an instance's records (`guesthouse_module::records`) that are not charged separately.
pub const RECORD_BYTES: usize = 16 << 10;
/// Bytes that an instance's globals, table headers, functions and imports may take in wasmtime.
pub const INSTANCE_BYTES_MAX: usize = 1 << 20;
/// Free slots of a small engine that stay reserved for the guest that has used them last.
const WARM_SLOTS: u32 = 16;

/// The engines of this process.
pub struct Engines {
    /// For different initial sizes of memory. Only their pools differ, so code for one fits all.
    pub small: [Engine; SMALL_ENGINES],
    /// For guests with large images.
    pub large: Engine,
    /// For guests whose instances run several calls at once.
    pub concurrent: Engine,
    /// Runs start-up code once, for the snapshot: compiles fast, has no pool.
    pub startup: Engine,
    /// How many instances each engine can hold.
    pub slots: Slots,
    /// The memory that all guests of this process share.
    pub memory: Budget,
    /// Mappings and descriptors that guests hold, and may hold.
    pub resources: Resources,
}

/// What the machine allows, as far as it matters for the pools.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// Whether memories can be cleared page by page.
    pagemap_scan: bool,
    /// The memory that all guests of this process may have.
    memory_bytes: usize,
}

impl Engines {
    /// Builds the engines. `memory_bytes_max` is the limit on the memories of one instance,
    /// `mappings_max` a limit below the kernel's.
    ///
    /// # Errors
    /// The address space cannot be reserved.
    pub fn new(
        memory_bytes_max: usize,
        workers: usize,
        memory: Budget,
        mappings_max: Option<u64>,
    ) -> Result<Self> {
        let machine = Machine::read(&memory);
        let mappings = Mappings::read(mappings_max);
        let mut slots = Slots::derive(Headroom::read(mappings), workers);
        let pools = loop {
            // Some processors and kernels have less address space than any limit says.
            match (pools(memory_bytes_max, machine, slots), slots.halved()) {
                (Err(error), Some(half)) => {
                    tracing::warn!("{error:#}: trying half as many instances");
                    slots = half;
                }
                (pools, _) => break pools?,
            }
        };
        let (small, large, concurrent) = &pools;
        count_pooled(&memory, small.iter().chain([large, concurrent]));
        let resources = Resources::new(mappings, slots);
        tracing::debug!(
            "instance slots: {} small, {} large, {} concurrent; memory: {} MiB; mappings: {} of {}",
            slots.small,
            slots.large,
            slots.concurrent,
            memory.total() >> 20,
            resources.mappings().used,
            mappings.max
        );
        Self::with(pools, slots, (memory, resources))
    }

    /// Engines without pools, for a process that makes few instances. Their machine code fits the
    /// pooled ones.
    pub fn unpooled() -> Result<Self> {
        let engine = |class| Engine::new(&class_settings(class));
        let small = engine(Class::Small)?;
        let small = std::array::from_fn(|_| small.clone());
        let (large, concurrent) = (engine(Class::Large)?, engine(Class::Concurrent)?);
        let unlimited = (Budget::unlimited(), Resources::unlimited());
        Self::with((small, large, concurrent), Slots::NONE, unlimited)
    }

    fn with(
        (small, large, concurrent): Pools,
        slots: Slots,
        (memory, resources): (Budget, Resources),
    ) -> Result<Self> {
        let mut config = settings();
        config.cranelift_opt_level(OptLevel::None);
        let startup = Engine::new(&config)?;
        Ok(Engines { small, large, concurrent, startup, slots, memory, resources })
    }

    /// The engine for guests of a class whose memories begin with so many bytes.
    pub fn get(&self, class: Class, memory_bytes: u64) -> &Engine {
        match class {
            Class::Small => &self.small[small_index(memory_bytes)],
            Class::Large => &self.large,
            Class::Concurrent => &self.concurrent,
        }
    }

    /// A function that advances the epoch of every engine by one.
    pub fn advance(&self) -> impl Fn() + Send + 'static {
        let pooled = self.small.iter().chain([&self.large, &self.concurrent]);
        let all: Vec<Engine> = pooled.chain([&self.startup]).cloned().collect();
        move || all.iter().for_each(Engine::increment_epoch)
    }
}

/// Prepares the calling thread for running guests. Call it when the thread starts: later the kernel
/// may have no memory for it.
pub fn prepare_thread() {
    Engine::tls_eager_initialize();
}

/// Whether guests can run on the calling thread: whether it can have a signal stack.
pub fn can_run_here() -> bool {
    // The caller reports the result.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let can = std::panic::catch_unwind(Engine::tls_eager_initialize).is_ok();
    std::panic::set_hook(hook);
    can
}

impl Machine {
    fn read(memory: &Budget) -> Self {
        Machine { pagemap_scan: pagemap_scan_is_safe(), memory_bytes: memory.total() }
    }
}

/// PAGEMAP_SCAN as wasmtime 48 uses it misses pages that were swapped out, and would show one
/// request's data to the next (wasmtime#14357). So it is used only where nothing can be swapped.
fn pagemap_scan_is_safe() -> bool {
    if !PoolingAllocationConfig::is_pagemap_scan_available() {
        tracing::warn!(
            "this kernel has no PAGEMAP_SCAN (Linux 6.7 has it): a fresh instance costs two to \
             five times more"
        );
        return false;
    }
    let swaps = file::kernel_text("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() > 1 {
        tracing::warn!(
            "swap is on: memory is given back to the kernel after each request, which is slower; \
             run without swap (swapoff -a) for full speed"
        );
        return false;
    }
    true
}

/// The settings that every engine shares.
fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // It costs 0.3 us a call, and only one class needs it.
    config.concurrency_support(false);
    config.max_wasm_stack(WASM_STACK_BYTES);
    // Otherwise a stack would keep every page that any guest has ever used.
    config.async_stack_zeroing(true);
    config.wasm_component_model_async(false);
    // wasmtime unwinds by its own tables. The system's would have to be registered for each module.
    config.native_unwind_info(false);
    // Proposals that handlers do not need, and that had most of the security advisories.
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

/// The small engines, the large one and the concurrent one.
type Pools = ([Engine; SMALL_ENGINES], Engine, Engine);

fn pools(memory_bytes_max: usize, machine: Machine, slots: Slots) -> Result<Pools> {
    let pooled = |class| {
        let mut config = class_settings(class);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(
            memory_bytes_max,
            machine,
            class,
            slots,
        )));
        Engine::new(&config).map_err(anyhow::Error::from)
    };
    let all = || -> Result<Pools> {
        let small = || pooled(Class::Small);
        let small = [small()?, small()?, small()?, small()?];
        Ok((small, pooled(Class::Large)?, pooled(Class::Concurrent)?))
    };
    all().with_context(|| {
        format!(
            "could not reserve {} GiB of address space for {} instances; \
             is there a limit on virtual memory (ulimit -v)?",
            slots.address_bytes() >> 30,
            slots.address_bytes() / SLOT_ADDRESS_BYTES
        )
    })
}

fn pool(bytes_max: usize, machine: Machine, class: Class, all: Slots) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let slots = all.of(class);
    pool.total_component_instances(slots)
        // These are only counted, and take no memory in advance.
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_PER_SLOT))
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .total_memories(slots)
        .total_tables(slots.saturating_mul(TABLES_PER_SLOT))
        .total_stacks(all.stacks(class))
        .max_memories_per_module(MEMORIES_MAX as u32)
        .max_tables_per_module(TABLES_MAX as u32)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(bytes_max)
        // Mapped images stay with their slots. Copied ones do not, so it is best to reuse the slots
        // that were used last: they are in the cache.
        .max_unused_warm_slots(if class == Class::Small { WARM_SLOTS } else { slots });
    let pages = slot_pages(machine, class, slots as usize);
    pool.async_stack_keep_resident(pages.stack);
    if machine.pagemap_scan {
        // The PAGEMAP_SCAN ioctl finds the written pages, so that untouched ones cost nothing.
        // Without it, keeping memory means clearing all of it, which is slower than giving it back.
        pool.linear_memory_keep_resident(pages.memory)
            .table_keep_resident(pages.table)
            .pagemap_scan(Enabled::Yes);
    }
    pool
}

/// What a slot of a class keeps of an instance that has ended, to be cleared in place.
fn slot_pages(machine: Machine, class: Class, slots: usize) -> SlotPages {
    let (engines, stacks, eighths) = match class {
        Class::Small => (SMALL_ENGINES, 1, 3),
        Class::Large => (1, 1, 3),
        Class::Concurrent => (1, STACKS_PER_SLOT as usize, 2),
    };
    // Each of the small engines may have come to use all the memory that there is.
    let slots_max = (machine.memory_bytes / INSTANCE_BYTES).max(1);
    let slots = engines * slots.min(slots_max);
    let shape = SlotShape { slots, tables: TABLES_PER_SLOT as usize, stacks, eighths };
    SlotPages::derive(machine.memory_bytes, shape)
}

/// Counts the pages that the pools keep in free slots.
fn count_pooled<'a>(memory: &Budget, engines: impl Iterator<Item = &'a Engine>) {
    let pools: Vec<_> = engines.filter_map(Engine::pooling_allocator_metrics).collect();
    memory.count_pooled(move || {
        let pooled_bytes = pools.iter().map(|pool| {
            pool.unused_memory_bytes_resident()
                + pool.unused_table_bytes_resident()
                + pool.unused_stack_bytes_resident().unwrap_or(0)
        });
        pooled_bytes.sum()
    });
}
