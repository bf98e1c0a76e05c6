//! When requests are due, and which of them is next.
//!
//! Pure: no clock, no socket. Times are nanoseconds from the start of a measurement.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1, Zipf};

use super::load::{Arrivals, PathDistribution};

/// When a request is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// As soon as there is room for it: a closed loop.
    AtOnce,
    /// At this time, whether or not the server keeps up: an open loop.
    At(u64),
}

/// The due times of one thread, never falling, and without end unless they are counted.
pub enum RequestSchedule {
    Closed,
    /// So many requests, each as soon as there is room for it.
    Counted {
        left: usize,
    },
    Constant {
        interval_ns: f64,
        offset_ns: f64,
        sent: u64,
    },
    Poisson {
        mean_ns: f64,
        last_ns: f64,
        random: Box<SmallRng>,
    },
}

impl RequestSchedule {
    /// Thread `index` of `threads` that share `rate`, in requests a second.
    pub fn new(
        rate: Option<f64>,
        arrivals: Arrivals,
        index: usize,
        threads: usize,
        seed: u64,
    ) -> Self {
        let Some(rate) = rate else { return Self::Closed };
        let interval_ns = 1e9 * threads as f64 / rate;
        match arrivals {
            // The threads in turn: together they send at equal distances.
            Arrivals::Constant => Self::Constant {
                interval_ns,
                offset_ns: interval_ns * index as f64 / threads as f64,
                sent: 0,
            },
            Arrivals::Poisson => Self::Poisson {
                mean_ns: interval_ns,
                last_ns: 0.0,
                random: Box::new(random(seed, index)),
            },
        }
    }
}

impl Iterator for RequestSchedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        Some(match self {
            Self::Closed => Due::AtOnce,
            Self::Counted { left } => {
                *left = left.checked_sub(1)?;
                Due::AtOnce
            }
            // From the count and not from the last time, so that rounding does not add up.
            Self::Constant { interval_ns, offset_ns, sent } => {
                let due = *offset_ns + *sent as f64 * *interval_ns;
                *sent += 1;
                Due::At(due as u64)
            }
            Self::Poisson { mean_ns, last_ns, random } => {
                let distance: f64 = Exp1.sample(random);
                *last_ns += distance * *mean_ns;
                Due::At(*last_ns as u64)
            }
        })
    }
}

/// Which request is next, as an index below `count`.
pub enum PathSampler {
    One,
    /// Each of these once.
    Once {
        left: Vec<usize>,
    },
    Uniform {
        count: usize,
        random: SmallRng,
    },
    Zipf {
        zipf: Zipf<f64>,
        count: usize,
        random: SmallRng,
    },
}

impl PathSampler {
    /// For thread `thread` of `threads`.
    pub fn new(
        count: usize,
        spread: PathDistribution,
        seed: u64,
        thread: usize,
        threads: usize,
    ) -> Self {
        // Not the sequence that the due times are drawn from.
        let mut random = random(!seed, thread);
        match spread {
            PathDistribution::Once => {
                let mut left: Vec<usize> = (thread..count).step_by(threads.max(1)).collect();
                left.shuffle(&mut random);
                Self::Once { left }
            }
            _ if count < 2 => Self::One,
            PathDistribution::Uniform => Self::Uniform { count, random },
            PathDistribution::Zipf { exponent } => match Zipf::new(count as f64, exponent) {
                Ok(zipf) => Self::Zipf { zipf, count, random },
                // A negative exponent or one that is not a number; nothing but a flag can say so,
                // and those are checked.
                Err(_) => Self::Uniform { count, random },
            },
        }
    }

    pub fn next(&mut self) -> usize {
        match self {
            Self::One => 0,
            // Asked for more often than it has paths, which no schedule does, it stays at the first.
            Self::Once { left } => left.pop().unwrap_or(0),
            Self::Uniform { count, random } => random.random_range(0..*count),
            Self::Zipf { zipf, count, random } => {
                // Ranks count from 1.
                (zipf.sample(random) as usize).clamp(1, *count) - 1
            }
        }
    }
}

fn random(seed: u64, thread: usize) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_add(thread as u64))
}

#[cfg(test)]
mod tests;
