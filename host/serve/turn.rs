//! How long a worker's tasks keep its thread to themselves.
//!
//! Owns the longest turn: the CPU time of one poll of a connection, a guest's slice included, or of
//! the work behind the connections. It asks for the CPU time only when the ticker has ticked, so it
//! may say up to a tick too much. Knows nothing of what is polled.

use std::cell::Cell;
use std::time::Duration;

use crate::guest::engine::{Pulse, TICK};
use crate::guest::meter::cpu_time;
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
    /// Whether the ticker has slept since, so that this may be long ago.
    is_stale: bool,
}

/// A turn that has begun.
pub struct Turn {
    ticks: u32,
}

impl Turns {
    pub fn new(pulse: Pulse) -> Self {
        let last = Asked { ticks: pulse.ticks(), cpu: cpu_time(), is_stale: false };
        Turns { pulse, last: Cell::new(last) }
    }

    pub fn begin(&self) -> Turn {
        let (ticks, last) = (self.pulse.ticks(), self.last.get());
        if ticks != last.ticks {
            self.last.set(Asked { ticks, cpu: cpu_time(), is_stale: false });
        } else if self.pulse.is_asleep() {
            self.last.set(Asked { is_stale: true, ..last });
        }
        Turn { ticks }
    }

    /// Ends a turn; `longest` is the longest so far, in microseconds.
    pub fn end(&self, turn: &Turn, longest: &Counter) {
        let ticks = self.pulse.ticks();
        if ticks == turn.ticks {
            return;
        }
        let (cpu, last) = (cpu_time(), self.last.get());
        let mut used = cpu.saturating_sub(last.cpu);
        if last.is_stale {
            used = used.min(TICK * (ticks.wrapping_sub(turn.ticks) + 1));
        }
        self.last.set(Asked { ticks, cpu, is_stale: false });
        longest.set(longest.get().max(used.as_micros() as u64));
    }
}
