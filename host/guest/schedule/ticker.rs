//! Makes running guests yield after each quantum: a thread that ticks while calls run.
//!
//! Owns the length of a tick and of a quantum, and when the thread sleeps. Knows engines only
//! through a function that advances their epochs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result};

/// The epoch's period. A tick costs a busy core two context switches, about 8 us in a virtual
/// machine: 0.8 % of its time.
const TICK: Duration = Duration::from_millis(1);
/// The ticker sleeps after so many ticks in which no call ran or began.
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
    /// Raised once a millisecond while calls run.
    ticks: AtomicU32,
    asleep: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

/// One worker's counts of calls, on a cache line of their own.
#[repr(align(128))]
#[derive(Default)]
struct WorkerCalls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One worker's access to the ticker.
#[derive(Clone)]
pub struct TickerHandle {
    shared: Arc<TickerShared>,
    worker: usize,
}

/// Keeps the ticker awake until it is dropped.
pub struct TickGuard<'a>(&'a WorkerCalls);

/// The same without a borrow, for calls that run on while their worker does something else.
pub struct OwnedTickGuard(TickerHandle);

impl TickerHandle {
    /// Says that a call begins. The ticker runs at least until the guard is dropped.
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
        let calls = &self.shared.worker_calls[self.worker];
        // Pairs with the fence in `Ticker::run`: either that sees this call, or this sees that it
        // is asleep.
        calls.begun.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.shared.thread.get()
        {
            thread.unpark();
        }
    }

    /// How often the ticker has ticked so far.
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
        let OwnedTickGuard(handle) = self;
        drop(TickGuard(&handle.shared.worker_calls[handle.worker]));
    }
}

impl TickerShared {
    /// How many calls have begun so far, and whether some still run.
    fn calls(&self) -> (u64, bool) {
        let ended: u64 =
            self.worker_calls.iter().map(|calls| calls.ended.load(Ordering::Acquire)).sum();
        let begun: u64 =
            self.worker_calls.iter().map(|calls| calls.begun.load(Ordering::Relaxed)).sum();
        (begun, begun != ended)
    }
}

impl Ticker {
    /// Starts the thread, for so many workers. `advance` advances the epoch of every engine by one.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(advance: impl Fn() + Send + 'static, workers: usize) -> Result<Self> {
        let worker_calls = (0..workers).map(|_| WorkerCalls::default()).collect();
        let shared = Arc::new(TickerShared {
            worker_calls,
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

    /// The handle of one worker.
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
            // The only error is a panic of the ticker, which has been reported.
            drop(thread.join());
        }
    }
}
