//! How long a worker's tasks keep its thread to themselves.
//!
//! Owns the longest turn: the CPU time of one poll of a connection, a guest's slice included, or of
//! the work behind the connections. The kernel is asked for the CPU time only when the ticker has
//! ticked, so a turn may be said to have taken what the turns since the last tick before it took,
//! but never more than passed on the clock. Knows nothing of what is polled.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::guest::schedule::Pulse;
use crate::guest::schedule::cpu::cpu_time;
use crate::metrics::Counter;

/// The turns of one worker.
pub struct Turns {
    pulse: Pulse,
    last: Cell<Asked>,
}

/// When the CPU time was asked for last, and what it was.
#[derive(Clone, Copy)]
struct Asked {
    ticks: u32,
    cpu: Duration,
}

/// A turn that has begun.
pub struct Turn {
    ticks: u32,
    begun: Instant,
}

impl Turns {
    pub fn new(pulse: Pulse) -> Self {
        let last = Asked { ticks: pulse.ticks(), cpu: cpu_time() };
        Turns { pulse, last: Cell::new(last) }
    }

    pub fn begin(&self) -> Turn {
        let ticks = self.pulse.ticks();
        if ticks != self.last.get().ticks {
            self.last.set(Asked { ticks, cpu: cpu_time() });
        }
        Turn { ticks, begun: Instant::now() }
    }

    /// Ends a turn; `longest` is the longest so far, in microseconds.
    pub fn end(&self, turn: &Turn, longest: &Counter) {
        let ticks = self.pulse.ticks();
        if ticks == turn.ticks {
            return;
        }
        let cpu = cpu_time();
        let used = cpu.saturating_sub(self.last.get().cpu).min(turn.begun.elapsed());
        self.last.set(Asked { ticks, cpu });
        longest.set(longest.get().max(used.as_micros() as u64));
    }
}
