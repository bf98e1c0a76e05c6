//! What the calls of one guest cost on one worker, and where they run because of that.
//!
//! Owns the averages. They weigh time, not calls: one call that holds its worker for long weighs as
//! much as the many short ones that it delays. Reads no clock itself, except for a penalty.

use std::time::{Duration, Instant};

use super::ticker::QUANTUM_TICKS;

/// A call of more CPU time is long. Its first slice ends after one to two ticks, which would mostly
/// be too short for it.
pub const LONG_CALL: Duration = Duration::from_micros(1500);
/// The average if all calls of a guest are long, and the average above which its calls begin in the
/// slow lane.
const LONG_ALL: u32 = 256;
const LONG_MIN: u32 = LONG_ALL / 2;
/// Calls or slices in an average, or fewer while there are fewer. So many that after short calls it
/// takes six long ones in a row to make a guest long.
const AVERAGED: u32 = 8;
/// Slices of so much on average wait for their turn. Waiting costs about a microsecond. Forty
/// shorter slices at once take two milliseconds.
pub const HEAVY_SLICE: Duration = Duration::from_micros(50);
/// A guest with long slices is measured until so many slices in a row were short. Each of them
/// takes two readings of the thread's clock. All of these cost less than one long slice.
const MEASURED_AFTER_LONG: u32 = 1024;
/// The same for a guest that is only suspect, or whose slices are half as long as heavy ones.
const MEASURED_AFTER_HEAVY: u32 = 64;
/// The clock ticks once a millisecond: in one of twenty calls of 50 us, and in one of three hundred
/// of 3 us. Two ticks within so many calls make a guest suspect.
const SUSPECT_CALLS: u32 = 8;
/// No slice should take longer. One that does has held up its worker, so its guest stays in the
/// slow lane for so many times the excess, but not longer than the maximum.
const SLICE_MAX: Duration = Duration::from_millis(3);
const PENALTY_TIMES: u32 = 32;
const PENALTY_MAX: Duration = Duration::from_secs(10);

/// What a guest's calls are like, and so how they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostClass {
    /// Unknown: none has ended. Each is measured, and waits for its turn in the fast lane.
    New,
    /// Short. They are not measured.
    Short,
    /// Short so far, but each is measured.
    Measured,
    /// Each waits for its turn in the fast lane.
    Heavy,
    /// Each begins in the slow lane.
    Long,
}

/// What is known of the calls of one guest on one worker.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The part of the calls that outlast the quantum, a moving average: 256 is all of them.
    long: u32,
    /// Nanoseconds of CPU time of a measured slice in the fast lane, a moving average. Dividing a
    /// [`Duration`] would take ten times as long.
    slice_ns: u64,
    /// How many more short slices have to be measured.
    measured_for: u32,
    /// Until when its calls begin in the slow lane, whatever the averages are.
    penalty: Option<Instant>,
    /// CPU time of making an instance, a moving average, and whether it is measured.
    making: Duration,
    is_making_measured: bool,
    /// How many calls and slices are in the averages, up to [`AVERAGED`].
    calls_noted: u8,
    slices_noted: u8,
    /// Calls so far, and how many there were when the clock last ticked during one.
    calls: u32,
    ticked_at: u32,
}

impl Default for Usage {
    /// A guest that has had no calls: its first ones are measured.
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
    /// The cost class of the next call.
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

    /// Whether no call has ended yet.
    pub fn is_new(&self) -> bool {
        self.calls_noted == 0
    }

    /// Counts a call that begins.
    pub fn count(&mut self) {
        self.calls = self.calls.wrapping_add(1);
    }

    /// Records a call that was not measured, and during which the clock has ticked.
    pub fn note_ticks(&mut self, ticks: u32) {
        let calls = self.calls.wrapping_sub(self.ticked_at);
        self.ticked_at = self.calls;
        if ticks > QUANTUM_TICKS as u32 {
            // The call was long, or others have had the core. It counts as one of many.
            self.calls_noted = AVERAGED as u8;
            self.note_call(true);
        } else if ticks > 1 || calls <= SUSPECT_CALLS {
            self.measure(MEASURED_AFTER_HEAVY);
        }
    }

    /// Has the next slices measured if this one was long. Others may have had the core meanwhile.
    pub fn suspect(&mut self, used: Duration) {
        if used >= HEAVY_SLICE {
            self.measure(MEASURED_AFTER_HEAVY);
        }
    }

    /// The CPU time that a slice is expected to take; the most, as long as nothing is known.
    pub fn slice(&self) -> Duration {
        if self.slices_noted == 0 { LONG_CALL } else { Duration::from_nanos(self.slice_ns) }
    }

    /// Records whether a call has outlasted the quantum.
    pub fn note_call(&mut self, is_long: bool) {
        let averaged = one_more(&mut self.calls_noted);
        self.long -= self.long / averaged;
        if is_long {
            self.long += LONG_ALL / averaged;
            self.measure(MEASURED_AFTER_LONG);
        }
    }

    /// Records the CPU time of a slice in the fast lane.
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

    /// The cost class of making an instance, which is one slice.
    pub fn instantiation_class(&self) -> CostClass {
        match self.making {
            long if long >= LONG_CALL => CostClass::Long,
            heavy if heavy >= HEAVY_SLICE => CostClass::Heavy,
            _ if self.is_making_measured => CostClass::Measured,
            _ => CostClass::Short,
        }
    }

    /// The CPU time that making an instance is expected to take.
    pub fn instantiation_time(&self) -> Duration {
        self.making
    }

    /// Records what making an instance took. Without `is_measured` that is by the wall clock, and
    /// others may have had the core.
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

/// Counts one more, up to [`AVERAGED`]. Returns the number to average over.
fn one_more(noted: &mut u8) -> u32 {
    *noted = (*noted + 1).min(AVERAGED as u8);
    u32::from(*noted)
}

#[cfg(test)]
mod tests;
