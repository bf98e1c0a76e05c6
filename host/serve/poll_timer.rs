//! Measures how long a task keeps its worker's thread busy.
//!
//! Owns the longest turn. A turn is one poll of a connection, a guest's slice included, or one run
//! of the task that flushes and resets. Reading the CPU time is a system call, so it happens only
//! after a tick of the ticker. A turn may therefore be charged for short turns before it, but never
//! for more than its wall time. Knows nothing of what is polled.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::guest::schedule::TickerHandle;
use crate::guest::schedule::cpu::cpu_time;
use crate::metrics::Counter;

/// Measures the turns of one worker.
pub struct PollTimer {
    ticker: TickerHandle,
    last: Cell<CpuSample>,
}

/// The thread's CPU time, and the tick at which it was read.
#[derive(Clone, Copy)]
struct CpuSample {
    ticks: u32,
    cpu: Duration,
}

/// A turn that has begun.
pub struct PollStart {
    ticks: u32,
    begun: Instant,
}

impl PollTimer {
    /// A timer for the calling thread.
    pub fn new(ticker: TickerHandle) -> Self {
        let last = CpuSample { ticks: ticker.ticks(), cpu: cpu_time() };
        PollTimer { ticker, last: Cell::new(last) }
    }

    /// Begins a turn.
    pub fn begin(&self) -> PollStart {
        let ticks = self.ticker.ticks();
        if ticks != self.last.get().ticks {
            self.last.set(CpuSample { ticks, cpu: cpu_time() });
        }
        PollStart { ticks, begun: Instant::now() }
    }

    /// Ends a turn. Raises `longest`, in microseconds, if this turn took longer.
    pub fn end(&self, turn: &PollStart, longest: &Counter) {
        let ticks = self.ticker.ticks();
        if ticks == turn.ticks {
            return;
        }
        let cpu = cpu_time();
        let used = cpu.saturating_sub(self.last.get().cpu).min(turn.begun.elapsed());
        self.last.set(CpuSample { ticks, cpu });
        longest.set(longest.get().max(used.as_micros() as u64));
    }
}
