//! Decides when requests are due, and which request is next.
//!
//! Pure: has no clock and no socket. Times are nanoseconds from the start of a measurement.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1, Zipf};

use super::load::{Arrivals, PathDistribution};

/// When to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// As soon as there is room for it: a closed loop.
    AtOnce,
    /// At this time, whether or not the server keeps up: an open loop.
    At(u64),
}

/// The due times of one thread. They never fall. Only a counted schedule ends.
pub enum RequestSchedule {
    /// Every request is due as soon as there is room for it.
    Closed,
    /// So many requests, each as soon as there is room for it.
    Counted {
        /// Requests that are still to come.
        left: usize,
    },
    /// Requests at equal distances.
    Constant {
        /// The distance between two requests.
        interval_ns: f64,
        /// When the first request is due.
        offset_ns: f64,
        /// Requests that were due so far.
        sent: u64,
    },
    /// Requests at random distances, independent of each other.
    Poisson {
        /// The mean distance between two requests.
        mean_ns: f64,
        /// When the last request was due.
        last_ns: f64,
        /// Draws the distances.
        random: Box<SmallRng>,
    },
}

impl RequestSchedule {
    /// The schedule of thread `index`, if `threads` of them share `rate` requests a second. Without
    /// a rate it is a closed loop.
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
            // The threads take turns, so that together they send at equal distances.
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

impl RequestSchedule {
    /// How many requests there are in all, if they are counted.
    pub fn counted(&self) -> Option<u64> {
        match self {
            Self::Counted { left } => Some(*left as u64),
            _ => None,
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
            // Uses the count and not the last time, so that rounding errors do not add up.
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

/// Draws the next request of one thread, as an index below `count`.
pub enum PathSampler {
    /// There is only one request.
    One,
    /// Each of these requests once.
    Once {
        /// Requests that are still to come, the next one last.
        left: Vec<usize>,
    },
    /// All requests equally often.
    Uniform {
        /// How many requests there are.
        count: usize,
        /// Draws the request.
        random: SmallRng,
    },
    /// The n-th request in proportion to a power of n.
    Zipf {
        /// The distribution of n, from 1.
        zipf: Zipf<f64>,
        /// How many requests there are.
        count: usize,
        /// Draws the request.
        random: SmallRng,
    },
}

impl PathSampler {
    /// The sampler of thread `thread` out of `threads`. If each path is asked for once, the threads
    /// divide the paths between them.
    pub fn new(
        count: usize,
        spread: PathDistribution,
        seed: u64,
        thread: usize,
        threads: usize,
    ) -> Self {
        // Another random sequence than that of the due times.
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
                // The exponent is negative or not a number. Flags and scenarios allow neither.
                Err(_) => Self::Uniform { count, random },
            },
        }
    }

    /// The index of the next request.
    pub fn next(&mut self) -> usize {
        match self {
            Self::One => 0,
            // No schedule asks for more requests than there are paths.
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
