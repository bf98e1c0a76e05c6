//! Tests medians and ratios of rounds, and how numbers are written.

use hdrhistogram::Histogram;

use super::{curve, median, number, quantity, ratio, thousands};
use crate::reading::{Quantity, Reading};
use crate::run::Row;

/// A row with a rate in each of these rounds.
fn row(rounds: &[(u32, f64)]) -> Row {
    let reading = |&(round, rate): &(u32, f64)| {
        let values = [(Quantity::ReqPerS, rate)].into();
        Reading { round, values, ..Reading::default() }
    };
    Row {
        name: String::new(),
        beside: false,
        may_fail: false,
        rounds: rounds.iter().map(reading).collect(),
        latency: Histogram::new(3).expect("three digits are possible"),
        notes: Vec::new(),
    }
}

#[test]
fn a_median_is_in_the_middle() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(median(&[f64::NAN, 1.0, f64::INFINITY]), Some(1.0));
    assert_eq!(median(&[]), None);
}

#[test]
fn a_ratio_is_taken_within_rounds_that_both_have() {
    let base = row(&[(1, 100.0), (2, 50.0), (4, 10.0)]);
    let other = row(&[(2, 100.0), (1, 100.0), (3, 7.0)]);
    let ratio = ratio(&other, &base, Quantity::ReqPerS).expect("two rounds are in both");
    assert_eq!((ratio.min, ratio.median, ratio.max, ratio.rounds), (1.0, 1.5, 2.0, 2));
    assert!(super::ratio(&other, &row(&[]), Quantity::ReqPerS).is_none());
    assert!(quantity(&base, Quantity::P50Us).is_none());
}

#[test]
fn a_curve_ends_with_the_maximum() {
    let mut latency = row(&[]).latency;
    assert!(curve(&latency).is_empty());
    for us in 1..=1000 {
        latency.record(us * 1000).expect("it fits");
    }
    let curve = curve(&latency);
    assert!(curve.is_sorted_by(|low, high| low.0 < high.0 && low.1 <= high.1), "{curve:?}");
    let (quantile, max_us) = curve.last().copied().expect("there are points");
    assert_eq!(quantile, 1.0);
    assert!((max_us - 1000.0).abs() < 1.0, "{max_us}");
    assert!(curve.iter().any(|(quantile, us)| *quantile == 0.99 && (us - 990.0).abs() < 1.0));
}

#[test]
fn numbers_have_three_digits() {
    for (value, text) in [
        (0.0, "0"),
        (0.01234, "0.012"),
        (0.0996, "0.10"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (-1_234_567.0, "-1,234,567"),
    ] {
        assert_eq!(number(value), text, "{value}");
    }
    assert_eq!(thousands(-0.4), "0");
    // A rate just missed does not look as if it was reached.
    assert_eq!(Quantity::RateReached.format(0.99999), "99.99");
    assert_eq!(Quantity::RateReached.format(1.0), "100.00");
}
