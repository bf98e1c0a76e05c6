//! Histograms of request durations, with powers of two as bounds.
//!
//! Owns the bounds. Counting takes no lock and no division.

use std::time::Duration;

use super::counter::Counter;
use crate::status::Histogram;

/// Upper bounds in microseconds: from 16 us, as nothing is faster, to 33 s, which is above the
/// default deadline. One more bucket counts the longer durations.
const BOUNDS: [u64; 22] = bounds();
const LOWEST: u32 = 4;

const fn bounds() -> [u64; 22] {
    let (mut bounds, mut at) = ([0; 22], 0);
    while at < bounds.len() {
        bounds[at] = 1 << (LOWEST + at as u32);
        at += 1;
    }
    bounds
}

/// A histogram that one thread writes and others may read.
#[derive(Default)]
pub struct Durations {
    counts: [Counter; BOUNDS.len() + 1],
    sum_us: Counter,
}

impl Durations {
    /// Counts one duration.
    pub fn note(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[index(us)].add(1);
        self.sum_us.add(us);
    }

    /// Adds these durations to a histogram.
    pub fn add_to(&self, all: &mut Histogram) {
        for (count, own) in all.counts.iter_mut().zip(&self.counts) {
            *count += own.get();
        }
        all.sum = all.sum.wrapping_add(self.sum_us.get());
    }
}

/// A histogram without measurements, with these bounds.
pub fn empty_histogram() -> Histogram {
    Histogram { bounds: &BOUNDS, counts: vec![0; BOUNDS.len() + 1], sum: 0 }
}

/// The index of the first bound that is not below `us`.
fn index(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(LOWEST) as usize).min(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_at_the_first_bound_that_is_not_below_it() {
        let expected = |us| BOUNDS.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS.len());
        let near = BOUNDS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for us in near.chain([0, 1, 2, u64::MAX]) {
            assert_eq!(index(us), expected(us), "{us} us");
        }
    }

    #[test]
    fn those_of_two_threads_add_up() {
        let (one, other, mut all) = (Durations::default(), Durations::default(), empty_histogram());
        one.note(Duration::from_micros(16));
        other.note(Duration::from_micros(17));
        other.note(Duration::from_secs(60));
        one.add_to(&mut all);
        other.add_to(&mut all);
        assert_eq!((all.counts[0], all.counts[1], all.counts[BOUNDS.len()]), (1, 1, 1));
        assert_eq!((all.count(), all.sum), (3, 60_000_033));
    }
}
