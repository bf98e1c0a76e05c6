//! Tests the due times, and which paths are drawn.

use super::{Due, PathSampler, RequestSchedule};
use crate::load::{Arrivals, PathDistribution};

/// The first due times of all threads together, in order.
fn due_ns(rate: f64, arrivals: Arrivals, threads: usize, count: usize) -> Vec<u64> {
    let mut all = Vec::new();
    for index in 0..threads {
        let schedule = RequestSchedule::new(Some(rate), arrivals, index, threads, 1);
        all.extend(schedule.take(count / threads).map(|due| match due {
            Due::At(time) => time,
            Due::AtOnce => panic!("a rate has due times"),
        }));
    }
    all.sort_unstable();
    all
}

#[test]
fn threads_send_at_equal_distances_together() {
    for threads in [1, 2, 5] {
        let due = due_ns(1000.0, Arrivals::Constant, threads, 100);
        let expected: Vec<u64> = (0..100).map(|number| number * 1_000_000).collect();
        assert_eq!(due, expected, "{threads} threads");
    }
}

#[test]
fn distances_do_not_drift() {
    // A schedule that drifts would lose a third of a nanosecond with each request.
    let mut schedule = RequestSchedule::new(Some(3e6), Arrivals::Constant, 0, 1, 1);
    assert_eq!(schedule.nth(3_000_000), Some(Due::At(1_000_000_000)));
}

#[test]
fn random_arrivals_keep_the_rate_and_are_repeated_by_the_seed() {
    let due = due_ns(1000.0, Arrivals::Poisson, 4, 40_000);
    assert_eq!(due, due_ns(1000.0, Arrivals::Poisson, 4, 40_000));
    let mut distances: Vec<f64> = due.windows(2).map(|it| (it[1] - it[0]) as f64).collect();
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    assert!((0.95e6..1.05e6).contains(&mean), "{mean} ns");
    // The median of an exponential distribution is ln 2 of its mean.
    distances.sort_by(f64::total_cmp);
    let median = distances[distances.len() / 2] / mean;
    assert!((0.66..0.73).contains(&median), "{median} of the mean");
}

#[test]
fn without_a_rate_all_is_due_at_once() {
    let mut schedule = RequestSchedule::new(None, Arrivals::Poisson, 0, 1, 1);
    assert_eq!((schedule.next(), schedule.next()), (Some(Due::AtOnce), Some(Due::AtOnce)));
}

/// How often each of ten paths is drawn.
fn drawn(spread: PathDistribution, seed: u64) -> [u32; 10] {
    let (mut draw, mut counts) = (PathSampler::new(10, spread, seed, 0, 1), [0; 10]);
    for _ in 0..100_000 {
        counts[draw.next()] += 1;
    }
    counts
}

#[test]
fn paths_are_drawn_in_proportion() {
    for count in drawn(PathDistribution::Uniform, 1) {
        assert!((9_500..10_500).contains(&count), "{count}");
    }
    let harmonic: f64 = (1..=10).map(|rank| 1.0 / f64::from(rank)).sum();
    for (at, count) in drawn(PathDistribution::Zipf { exponent: 1.0 }, 1).into_iter().enumerate() {
        let expected = 1e5 / harmonic / (at + 1) as f64;
        assert!((f64::from(count) / expected - 1.0).abs() < 0.06, "rank {}: {count}", at + 1);
    }
    assert_eq!(drawn(PathDistribution::Uniform, 7), drawn(PathDistribution::Uniform, 7));
    assert_ne!(drawn(PathDistribution::Uniform, 7), drawn(PathDistribution::Uniform, 8));
    assert_eq!(PathSampler::new(1, PathDistribution::Uniform, 1, 0, 1).next(), 0);
}
