//! What gives every running guest its quantum: a thread that ticks while calls run.
//!
//! Owns the length of a tick and of a quantum, and when the thread sleeps. It knows an engine as
//! something that is told to go on.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result};

/// The epoch's period. A tick costs a busy core two context switches, about 8 us in a virtual
/// machine: 0.8 % of its time.
const TICK: Duration = Duration::from_millis(1);
/// The ticker sleeps once no call has begun for this many ticks.
const IDLE_TICKS: u32 = 4;
/// Ticks in a quantum: a guest yields after 1 to 2 ms of running.
pub const QUANTUM_TICKS: u64 = 2;
/// A thread that advances the epochs of the engines while calls run, and sleeps otherwise.
pub struct Ticker {
    shared: Arc<TickerShared>,
    thread: Option<JoinHandle<()>>,
}

struct TickerShared {
    worker_calls: Box<[WorkerCalls]>,
    /// Written once a millisecond, while calls run.
    ticks: AtomicU32,
    asleep: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

/// One worker's count of calls, on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct WorkerCalls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One worker's end of the ticker.
#[derive(Clone)]
pub struct TickerHandle {
    shared: Arc<TickerShared>,
    worker: usize,
}

/// Keeps the ticker awake until it is dropped.
pub struct TickGuard<'a>(&'a WorkerCalls);

/// The same, for what runs elsewhere and longer than its worker looks at it.
pub struct OwnedTickGuard(TickerHandle);

impl TickerHandle {
    /// Says that a call begins; the ticker runs at least until the guard is dropped.
    pub fn begin(&self) -> TickGuard<'_> {
        self.count();
        TickGuard(&self.shared.worker_calls[self.worker])
    }

    /// As [`TickerHandle::begin`], with a guard that can be kept.
    pub fn begin_owned(&self) -> OwnedTickGuard {
        self.count();
        OwnedTickGuard(self.clone())
    }

    fn count(&self) {
        let line = &self.shared.worker_calls[self.worker];
        // Pairs with the fence in `Ticker::run`: either it sees this call, or we see it asleep.
        line.begun.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.shared.thread.get()
        {
            thread.unpark();
        }
    }

    /// Ticks so far, while calls run.
    pub fn ticks(&self) -> u32 {
        self.shared.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for TickGuard<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OwnedTickGuard {
    fn drop(&mut self) {
        let OwnedTickGuard(pulse) = self;
        drop(TickGuard(&pulse.shared.worker_calls[pulse.worker]));
    }
}

impl TickerShared {
    /// Calls begun so far, and whether some of them still run.
    fn calls(&self) -> (u64, bool) {
        let ended: u64 =
            self.worker_calls.iter().map(|line| line.ended.load(Ordering::Acquire)).sum();
        let begun: u64 =
            self.worker_calls.iter().map(|line| line.begun.load(Ordering::Relaxed)).sum();
        (begun, begun != ended)
    }
}

impl Ticker {
    /// Starts it for so many workers. `advance` lets every engine's epoch go on by one.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(advance: impl Fn() + Send + 'static, workers: usize) -> Result<Self> {
        let pulses = (0..workers).map(|_| WorkerCalls::default()).collect();
        let shared = Arc::new(TickerShared {
            worker_calls: pulses,
            asleep: AtomicBool::new(false),
            ticks: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let ticker_shared = shared.clone();
        let thread = thread::Builder::new()
            .name("ticker".into())
            .spawn(move || Self::run(&ticker_shared, advance))
            .context("could not start the ticker thread")?;
        shared.thread.set(thread.thread().clone()).expect("the thread is set once, here");
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// The pulse through which worker `index` tells that calls run.
    pub fn handle_of(&self, index: usize) -> TickerHandle {
        TickerHandle { shared: self.shared.clone(), worker: index }
    }

    fn run(shared: &TickerShared, advance: impl Fn()) {
        let mut begun_before = 0;
        let mut idle_ticks = 0;
        while !shared.stop.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            advance();
            shared.ticks.fetch_add(1, Ordering::Relaxed);
            let (begun, running) = shared.calls();
            idle_ticks = if running || begun != begun_before { 0 } else { idle_ticks + 1 };
            begun_before = begun;
            if idle_ticks > IDLE_TICKS {
                shared.asleep.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                if shared.calls().0 == begun && !shared.stop.load(Ordering::Relaxed) {
                    thread::park();
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
