//! Whether the figures are right: delays, stalls and rates.
//!
//! A stub stalls for as long as a test says, and the figures have to show it.

use std::thread::sleep;
use std::time::Duration;

use super::stub::{OK, Stub};
use super::{Bench, Outcome, assert_within};

const STALL: Duration = Duration::from_millis(500);

#[test]
fn a_known_delay_is_what_is_measured() {
    let stub = Stub::after(Duration::from_millis(20));
    let done = Bench::new([stub.url("/"), "--duration".into(), "1s".into()])
        .args(["--connections", "8"])
        .run();
    done.assert_good();
    let target = done.target();
    let (p50, p90) = (target.get("p50_us"), target.get("p90_us"));
    let (p99, max) = (target.get("p99_us"), target.get("max_us"));
    assert_within("p50", p50, 20e3, 50e3);
    assert!(p50 <= p90 && p90 <= p99 && p99 <= max, "{p50} {p90} {p99} {max}");
    assert_within("p99", p99, 20e3, 200e3);
    // Each connection has one request in flight at any time. The server cannot be faster than its
    // delay, but it may have slept for longer.
    let req_per_s = target.get("req_per_s");
    let expected = 8.0 / stub.held().as_secs_f64();
    assert_within("req/s", req_per_s, 0.8 * expected, 8.0 / 0.020);
    assert_eq!(stub.waiting_max(), 8);
    // In a closed loop no request is due before it is sent.
    assert_eq!(target.find("rate_reached"), None);
}

/// A timer in whole milliseconds would make every request late by half of one.
#[test]
fn a_request_is_sent_when_it_is_due() {
    let stub = Stub::ok();
    let p50_us = || {
        let args = ["--connections", "1", "--rate", "400", "--duration", "250ms"];
        let done = Bench::new([stub.url("/")]).args(args).run();
        done.assert_good();
        done.target().get("p50_us")
    };
    // Other work of the machine can only add to it.
    let least = (0..20).map(|_| p50_us()).find(|p50_us| *p50_us < 400.0);
    assert!(least.is_some(), "no median below 400 us");
}

#[test]
fn two_delays_keep_their_distance() {
    let stub = Stub::new(|asked, client| {
        let is_slow = asked.request.target == "/slow";
        sleep(Duration::from_millis(if is_slow { 40 } else { 10 }));
        client.say(OK)
    });
    let done = Bench::new([stub.url("/fast"), stub.url("/slow")])
        .args(["--connections", "2", "--rounds", "2"])
        .run();
    done.assert_good();
    let (fast, slow) = (done.target_named("/fast"), done.target_named("/slow"));
    assert_within("the fast p50", fast.get("p50_us"), 10e3, 35e3);
    assert_within("the slow p50", slow.get("p50_us"), 40e3, 120e3);
    let ratio = slow.0["ratio"]["req_per_s"].as_f64().expect("a ratio");
    assert_within("the ratio", ratio, 0.15, 0.5);
    assert_eq!(slow.0["ratio"]["to"], fast.name());
}

#[test]
fn a_stall_is_seen_by_all_that_waited_in_it() {
    let (rate, seconds) = (200.0, 2.0);
    // After the warm-up, and early enough that all waiting requests are answered before the end.
    let done = stall(150, &["--rate", "200", "--duration", "2s"]);
    let target = done.target();
    assert_within("answers", target.samples() as f64, 0.98 * rate * seconds, rate * seconds);
    // A request that is due during the stall waits for the rest of the stall, evenly from 0 to 500
    // ms. So the slowest n of all have waited for all but the first n intervals of the stall.
    for (key, quantile) in [("p90_us", 0.9), ("p99_us", 0.99), ("p99_9_us", 0.999)] {
        let slower = (1.0 - quantile) * rate * seconds;
        let waited_us = STALL.as_secs_f64() * 1e6 - slower / rate * 1e6;
        // One request more or less, and the time for the answers to all that had to wait.
        assert_within(key, target.get(key), waited_us - 1.5e6 / rate, waited_us + 150e3);
    }
    assert_within("max", target.get("max_us"), 500e3, 700e3);
    // Three of four requests are not affected.
    assert!(target.get("p50_us") < 100e3, "{}", done.text());
    assert!(done.out.contains("when a request was due"), "{}", done.text());
    assert_eq!(target.notes(), "");
}

#[test]
fn in_a_closed_loop_a_stall_is_seen_by_one() {
    // The warm-up is a tenth of the time, with 150 requests at most.
    let done = stall(200, &["--duration", "1500ms"]);
    let target = done.target();
    assert!(target.samples() > 200, "{}", done.text());
    assert!(target.get("max_us") >= 500e3, "{}", done.text());
    assert!(target.get("p99_us") < 250e3, "{}", done.text());
}

/// Measures a server on one connection. The server takes 2 ms for each request, and stalls at one.
#[track_caller]
fn stall(at: usize, args: &[&str]) -> Outcome {
    let stub = Stub::new(move |asked, client| {
        sleep(if asked.number == at { STALL } else { Duration::from_millis(1) });
        client.say(OK)
    });
    let done = Bench::new([stub.url("/")]).args(["--connections", "1"]).args(args).run();
    done.assert_good();
    done
}

#[test]
fn a_rate_that_is_not_reached_is_called_saturated() {
    let stub = Stub::after(Duration::from_millis(10));
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "1", "--rate", "1000", "--duration", "500ms", "--rounds", "2"])
        .run();
    // Being too slow is no error.
    done.assert_good();
    let target = done.target();
    assert!(target.notes().contains("saturated in 2 of 2 rounds"), "{}", done.text());
    assert!(done.out.contains("saturated"), "{}", done.text());
    assert_within("what was sent", target.get("rate_reached"), 0.005, 0.15);
    // The last request that was sent was due long before: it is late by nine tenths of the time.
    assert!(target.get("max_us") > 250e3, "{}", done.text());
    assert_within("req/s", target.get("req_per_s"), 5.0, 100.0);
}

#[test]
fn a_rate_that_is_reached_is_not() {
    let stub = Stub::ok();
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "2", "--rate", "20", "--duration", "1s"])
        .run();
    done.assert_good();
    let target = done.target();
    assert_eq!((target.get("rate_reached"), target.notes().as_str()), (1.0, ""));
    assert!(!done.out.contains("saturated"), "{}", done.text());
}

#[test]
fn as_many_are_sent_as_are_due() {
    for (rate, threads) in [("100", "1"), ("100", "3"), ("12.5", "1")] {
        let stub = Stub::ok();
        let done = Bench::new([stub.url("/")])
            .args(["--connections", "4", "--duration", "800ms"])
            .args(["--rate", rate, "--threads", threads])
            .run();
        done.assert_good();
        let expected = 0.8 * rate.parse::<f64>().expect("a number");
        let sent = done.target().samples() as f64;
        let due = sent / done.target().get("rate_reached");
        assert_within("what was due", due, expected - 1e-6, expected + 1.0);
        // If the machine is busy at the end, the last request may come too late to be sent.
        assert_within("what was sent", sent, 0.95 * due - 1.0, due + 1e-6);
        // Before that come one request to check the target, and a tenth of the time to warm up.
        let warm_up = stub.requests() as f64 - sent - 1.0;
        assert_within("warm-up", warm_up, expected / 10.0 - 3.0, expected / 10.0 + 1.0);
    }
}

#[test]
fn poisson_arrivals_are_as_many_by_chance() {
    let mut counts = Vec::new();
    for seed in ["1", "2", "3", "3"] {
        let stub = Stub::ok();
        let done = Bench::new([stub.url("/")])
            .args(["--connections", "10", "--rate", "1000", "--poisson"])
            .args(["--duration", "500ms", "--seed", seed])
            .run();
        done.assert_good();
        let count = done.target().samples() as f64;
        assert_within(
            "the count",
            count,
            500.0 - 5.0 * 500_f64.sqrt(),
            500.0 + 5.0 * 500_f64.sqrt(),
        );
        counts.push(count);
    }
    // The seed decides all random choices. The last of them may have missed the end.
    assert!(counts[0] != counts[1] || counts[1] != counts[2], "{counts:?}");
    assert_within("the difference", counts[2] - counts[3], -5.0, 5.0);
}
