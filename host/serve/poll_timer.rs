//! How long a worker's tasks keep its thread to themselves.
//!
//! Owns the longest turn: the CPU time of one poll of a connection, a guest's slice included, or of
//! the work behind the connections. The kernel is asked for the CPU time only when the ticker has
//! ticked, so a turn may be said to have taken what the turns since the last tick before it took,
//! but never more than passed on the clock. Knows nothing of what is polled.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::guest::schedule::TickerHandle;
use crate::guest::schedule::cpu::cpu_time;
use crate::metrics::Counter;

/// The turns of one worker.
pub struct PollTimer {
    pulse: TickerHandle,
    last: Cell<CpuSample>,
}

/// When the CPU time was asked for last, and what it was.
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
    pub fn new(pulse: TickerHandle) -> Self {
        let last = CpuSample { ticks: pulse.ticks(), cpu: cpu_time() };
        PollTimer { pulse, last: Cell::new(last) }
    }

    pub fn begin(&self) -> PollStart {
        let ticks = self.pulse.ticks();
        if ticks != self.last.get().ticks {
            self.last.set(CpuSample { ticks, cpu: cpu_time() });
        }
        PollStart { ticks, begun: Instant::now() }
    }

    /// Ends a turn; `longest` is the longest so far, in microseconds.
    pub fn end(&self, turn: &PollStart, longest: &Counter) {
        let ticks = self.pulse.ticks();
        if ticks == turn.ticks {
            return;
        }
        let cpu = cpu_time();
        let used = cpu.saturating_sub(self.last.get().cpu).min(turn.begun.elapsed());
        self.last.set(CpuSample { ticks, cpu });
        longest.set(longest.get().max(used.as_micros() as u64));
    }
}
