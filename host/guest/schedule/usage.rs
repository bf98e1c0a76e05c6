//! What the calls of one guest cost on one worker, and where they run because of that.
//!
//! Owns the averages. Time counts and not calls: one call that holds its worker for long weighs as
//! much as the many short ones that it delays. Knows no clock but what it is told.

use std::time::{Duration, Instant};

use super::ticker::QUANTUM_TICKS;

/// A call of more CPU time is long: its first slice, which ends after one to two ticks, would more
/// often than not be too short for it.
pub const LONG_CALL: Duration = Duration::from_micros(1500);
/// All calls of a guest are long, and so many that its calls start in the slow lane.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 2;
/// Calls, and slices of them, over which an average is taken: of fewer, as long as there are no
/// more. So many that it takes six long calls in a row behind as many short ones.
const AVERAGED: u32 = 8;
/// Slices of so much on average wait for a turn. To wait costs about a microsecond. Forty at once
/// of less take two milliseconds.
pub const HEAVY_SLICE: Duration = Duration::from_micros(50);
/// A guest whose slices are long is measured until so many in a row were short, which takes two
/// looks at the thread's clock each. One long slice has used more than all these looks.
const MEASURED_AFTER_LONG: u32 = 1024;
/// The same for one that is only suspected, or whose slices are half as long as heavy ones.
const MEASURED_AFTER_HEAVY: u32 = 64;
/// The clock ticks once a millisecond, so it ticks in one of twenty calls that take 50 us, and in
/// one of three hundred that take 3 us. Two ticks within so many calls make a guest suspect.
const SUSPECT_CALLS: u32 = 8;
/// No slice is to take longer. One that does has held its worker up, and its guest stays off the
/// fast lane for so many times as long as it was too long.
const SLICE_MAX: Duration = Duration::from_millis(3);
const PENALTY_TIMES: u32 = 32;
const PENALTY_MAX: Duration = Duration::from_secs(10);

/// What a guest's calls are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostClass {
    /// Not known: none has ended. Each is measured, and waits for a turn in the fast lane.
    New,
    /// Short. They are not measured.
    Short,
    /// Short, as far as is known. Each is measured.
    Measured,
    /// Each waits for a turn in the fast lane.
    Heavy,
    /// Each begins in the slow lane.
    Long,
}

/// What is known of the calls of one guest.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// What part of them outlasts the quantum, a moving average: 256 is all of them.
    long: u32,
    /// Nanoseconds of CPU time of a measured slice in the fast lane, a moving average: a
    /// [`Duration`] takes ten times as long to divide.
    slice_ns: u64,
    /// How many more short slices there have to be until they are measured no more.
    measured_for: u32,
    /// Until when they begin in the slow lane, whatever the averages say.
    penalty: Option<Instant>,
    /// CPU time of making an instance, a moving average, and whether it has to be measured.
    making: Duration,
    is_making_measured: bool,
    /// Calls and slices of which the averages are, up to [`AVERAGED`].
    calls_noted: u8,
    slices_noted: u8,
    /// Calls so far, and how many there had been at the last in which the clock ticked.
    calls: u32,
    ticked_at: u32,
}

impl Default for Usage {
    /// Of a guest that has had no calls: its first ones are measured.
    fn default() -> Self {
        Usage {
            long: 0,
            slice_ns: 0,
            measured_for: AVERAGED,
            penalty: None,
            making: Duration::ZERO,
            is_making_measured: false,
            calls_noted: 0,
            slices_noted: 0,
            calls: 0,
            ticked_at: 0,
        }
    }
}

impl Usage {
    pub fn cost_class(&self) -> CostClass {
        if self.long > LONG_MIN || self.penalty.is_some_and(is_ahead) {
            CostClass::Long
        } else if self.measured_for == 0 {
            CostClass::Short
        } else if self.is_new() {
            CostClass::New
        } else if self.slice_ns >= HEAVY_SLICE.as_nanos() as u64 {
            CostClass::Heavy
        } else {
            CostClass::Measured
        }
    }

    /// Whether nothing is known of its calls.
    pub fn is_new(&self) -> bool {
        self.calls_noted == 0
    }

    /// Counts a call that begins.
    pub fn count(&mut self) {
        self.calls = self.calls.wrapping_add(1);
    }

    /// Takes note of a call that was not measured, and in which the clock has ticked.
    pub fn note_ticks(&mut self, ticks: u32) {
        let calls = self.calls.wrapping_sub(self.ticked_at);
        self.ticked_at = self.calls;
        if ticks > QUANTUM_TICKS as u32 {
            // It has been long, or others have had the core: one of many, as it was not measured.
            self.calls_noted = AVERAGED as u8;
            self.note_call(true);
        } else if ticks > 1 || calls <= SUSPECT_CALLS {
            self.measure(MEASURED_AFTER_HEAVY);
        }
    }

    /// Takes note of a slice in which others may have had the core.
    pub fn suspect(&mut self, used: Duration) {
        if used >= HEAVY_SLICE {
            self.measure(MEASURED_AFTER_HEAVY);
        }
    }

    /// What a slice of it is expected to take; the most, where nothing is known.
    pub fn slice(&self) -> Duration {
        if self.slices_noted == 0 { LONG_CALL } else { Duration::from_nanos(self.slice_ns) }
    }

    /// Takes note of whether a call has outlasted the quantum.
    pub fn note_call(&mut self, is_long: bool) {
        let averaged = one_more(&mut self.calls_noted);
        self.long -= self.long / averaged;
        if is_long {
            self.long += LONG_ALL / averaged;
            self.measure(MEASURED_AFTER_LONG);
        }
    }

    /// Takes note of what one slice in the fast lane took.
    pub fn note_slice(&mut self, used: Duration, now: impl FnOnce() -> Instant) {
        let averaged = u64::from(one_more(&mut self.slices_noted));
        let used_ns = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX / 2);
        self.slice_ns = self.slice_ns - self.slice_ns / averaged + used_ns / averaged;
        if used >= LONG_CALL {
            self.measure(MEASURED_AFTER_LONG);
        } else if used >= HEAVY_SLICE / 2 {
            self.measure(MEASURED_AFTER_HEAVY);
        } else {
            self.measured_for = self.measured_for.saturating_sub(1);
        }
        if used > SLICE_MAX {
            let now = now();
            let begin = self.penalty.map_or(now, |end| end.max(now));
            let end = begin + (used - SLICE_MAX) * PENALTY_TIMES;
            self.penalty = Some(end.min(now + PENALTY_MAX));
        }
    }

    /// What making an instance is like, which is one slice.
    pub fn instantiation_class(&self) -> CostClass {
        match self.making {
            long if long >= LONG_CALL => CostClass::Long,
            heavy if heavy >= HEAVY_SLICE => CostClass::Heavy,
            _ if self.is_making_measured => CostClass::Measured,
            _ => CostClass::Short,
        }
    }

    /// What it is expected to take.
    pub fn instantiation_time(&self) -> Duration {
        self.making
    }

    /// Takes note of what making an instance took; by the wall clock, others may have had the core.
    pub fn note_instantiation(&mut self, used: Duration, is_measured: bool) {
        self.is_making_measured = used >= HEAVY_SLICE / 2;
        if is_measured || used < HEAVY_SLICE {
            self.making = (self.making + used) / 2;
        }
    }

    fn measure(&mut self, slices: u32) {
        self.measured_for = self.measured_for.max(slices);
    }
}

#[cold]
fn is_ahead(end: Instant) -> bool {
    Instant::now() < end
}

/// Counts one more, up to [`AVERAGED`]; over how many an average is taken with it.
fn one_more(noted: &mut u8) -> u32 {
    *noted = (*noted + 1).min(AVERAGED as u8);
    u32::from(*noted)
}

#[cfg(test)]
mod tests;
