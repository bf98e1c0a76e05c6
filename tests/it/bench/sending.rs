//! What is sent: over which connections, how deep, by which threads, and to which paths.
//!
//! The stub counts the requests and tells only the test.

use std::fs;
use std::time::Duration;

use crate::host::until;
use crate::patience::patience;

use super::stub::{OK, Setup, Stub};
use super::{Bench, assert_within};

/// Ten paths, one on each line, and the other things that such a file may have.
const PATHS: &str = "/a\n/b\n  /c  \n\n/d?x=1\n/e\n/f/%20\n/g\n/h\r\n/i\n/j";
const TARGETS: [&str; 10] = ["/a", "/b", "/c", "/d?x=1", "/e", "/f/%20", "/g", "/h", "/i", "/j"];

#[test]
fn a_pipeline_is_as_deep_as_it_was_told_to_be() {
    for depth in [1, 2, 8, 500] {
        let stub =
            Stub::with(Setup { waits: true, ..Setup::default() }, |_, client| client.say(OK));
        let done = Bench::new([stub.url("/")])
            .args(["--connections", "3", "--pipeline", &depth.to_string()])
            .run();
        done.assert_good();
        assert_eq!((stub.depth_max(), stub.waiting_max()), (depth, 3 * depth), "{}", done.text());
        assert_eq!(stub.connections(), 4, "{}", done.text());
    }
}

#[test]
fn at_a_rate_a_pipeline_fills_as_far_as_it_has_to() {
    let stub = Stub::after(Duration::from_millis(50));
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "1", "--pipeline", "4", "--rate", "200", "--duration", "500ms"])
        .run();
    done.assert_good();
    assert!(done.target().notes().contains("saturated"), "{}", done.text());
    assert!(stub.depth_max() <= 4, "{}", stub.depth_max());
    // Connections take turns: each gets a request before any gets a second one.
    let stub = Stub::after(Duration::from_millis(50));
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "20", "--pipeline", "4", "--rate", "100"])
        .run();
    done.assert_good();
    assert!(stub.depth_max() <= 2, "{}", stub.depth_max());
}

#[test]
fn all_connections_are_open_and_threads_share_them() {
    for (connections, threads) in [(1, 1), (20, 1), (7, 3), (2, 4)] {
        let stub = Stub::after(Duration::from_millis(30));
        let done = Bench::new([stub.url("/")])
            .args(["--connections", &connections.to_string()])
            .args(["--threads", &threads.to_string(), "--duration", "500ms"])
            .run();
        done.assert_good();
        assert_eq!(stub.waiting_max(), connections, "{threads} threads");
        assert_eq!(stub.connections(), connections + 1, "{threads} threads");
    }
}

#[test]
fn there_are_as_many_threads_as_were_asked_for() {
    let threads = |count: &str| {
        let stub = Stub::after(Duration::from_millis(5));
        let running = Bench::new([stub.url("/")])
            .args(["--connections", "8", "--threads", count, "--duration", "1s"])
            .start();
        until("requests", patience(), || (stub.requests() > 50).then_some(()));
        let threads = running.status("Threads:").expect("it runs");
        running.end().assert_good();
        threads
    };
    assert_eq!(threads("4"), threads("1") + 3);
}

#[test]
fn threads_may_be_pinned_to_a_cpu_and_spin() {
    let stub = Stub::ok();
    let status = fs::read_to_string("/proc/self/status").expect("of this process");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.expect("a list").trim().split([',', '-']).next().expect("a CPU");
    let done = Bench::new([stub.url("/")])
        .args(["--cpus", first, "--spin", "--rate", "500", "--connections", "2"])
        .run();
    done.assert_good();
    // It used its CPU for as long as it could get one.
    let spun = done.target().get("client_cpu_us_per_req");
    let done = Bench::new([stub.url("/")]).args(["--rate", "500", "--connections", "2"]).run();
    done.assert_good();
    let slept = done.target().get("client_cpu_us_per_req");
    assert!(spun > 2.0 * slept, "{spun} and {slept}");

    // A CPU that this machine does not have, and one that no machine has.
    for cpu in ["1023", "5000"] {
        let done = Bench::new([stub.url("/")]).args(["--cpus", cpu]).run();
        assert_eq!(done.code, Some(1), "{}", done.text());
        assert!(done.target().notes().contains("CPU"), "{}", done.text());
    }
}

#[test]
fn a_request_is_sent_as_it_was_given() {
    let stub = Stub::ok();
    Bench::new([stub.url("/plain?a=b&c=%20#fragment")]).run().assert_good();
    let plain = stub.recorded_requests().swap_remove(0);
    assert_eq!((plain.method.as_str(), plain.target.as_str()), ("GET", "/plain?a=b&c=%20"));
    assert_eq!(plain.headers, [("host".to_owned(), stub.addr().to_string())]);
    assert!(plain.body.is_empty());
    // Without a scheme and without a path.
    Bench::new([stub.addr().to_string()]).run().assert_good();
    assert!(stub.of_target("/") > 1);

    let stub = Stub::ok();
    let done = Bench::new([stub.url("/form")])
        .args(["-X", "PATCH", "-H", "X-One: 1", "-H", "x-two:  two  words ", "-H", "Host: a.test"])
        .args(["--body", "text = ü"])
        .run();
    done.assert_good();
    for request in stub.recorded_requests() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("PATCH", "/form"));
        assert_eq!(request.all("host"), ["a.test"]);
        assert_eq!((request.all("x-one"), request.all("x-two")), (vec!["1"], vec!["two  words"]));
        assert_eq!(request.all("content-length"), ["9"]);
        assert_eq!(request.body, "text = ü".as_bytes());
    }
}

#[test]
fn a_body_may_come_from_a_file() {
    let body: Vec<u8> = (0..100_000_u32).map(|at| (at * 7 % 256) as u8).collect();
    let stub = Stub::ok();
    let done = Bench::new([stub.url("/")])
        .file("body.bin", &body)
        .args(["--method", "POST", "--body", "@body.bin", "--connections", "2", "--rate", "50"])
        .run();
    done.assert_good();
    assert!(stub.recorded_requests().len() > 2, "{}", done.text());
    assert!(stub.recorded_requests().iter().all(|request| request.body == body));
    // For a method with a body, an empty body is announced as well.
    let stub = Stub::ok();
    Bench::new([stub.url("/")]).args(["--method", "POST", "--rate", "50"]).run().assert_good();
    assert_eq!(stub.recorded_requests()[0].all("content-length"), ["0"]);
}

/// Measures ten paths. Returns how often each was requested, without the check of the target.
#[track_caller]
fn counts(args: &[&str]) -> Vec<f64> {
    let stub = Stub::ok();
    let done = Bench::new([stub.url("/not-this-one")])
        .file("paths.txt", PATHS)
        .args(["--paths", "paths.txt", "--connections", "4", "--pipeline", "20", "--seed", "7"])
        .args(args)
        .run();
    done.assert_good();
    assert_eq!(stub.targets()[0], "/a");
    let mut counts: Vec<f64> = TARGETS.iter().map(|target| stub.of_target(target) as f64).collect();
    counts[0] -= 1.0;
    assert_eq!(
        counts.iter().sum::<f64>() as usize,
        stub.requests() - 1,
        "{:?}",
        stub.recorded_requests()
    );
    assert!(stub.requests() > 1000, "{}", done.text());
    counts
}

/// Asserts that counts are in proportion to weights, apart from chance.
#[track_caller]
fn assert_shape(counts: &[f64], weights: &[f64]) {
    let sum: f64 = counts.iter().sum();
    let all: f64 = weights.iter().sum();
    for (at, (count, weight)) in counts.iter().zip(weights).enumerate() {
        let expected = sum * weight / all;
        let sigma = (expected * (1.0 - weight / all)).sqrt();
        let name = TARGETS[at];
        assert_within(name, *count, expected - 5.0 * sigma, expected + 5.0 * sigma);
    }
}

#[test]
fn paths_are_drawn_alike() {
    assert_shape(&counts(&[]), &[1.0; 10]);
    assert_shape(&counts(&["--threads", "2"]), &[1.0; 10]);
    assert_shape(&counts(&["--zipf", "0"]), &[1.0; 10]);
}

#[test]
fn paths_are_drawn_by_zipfs_law() {
    for exponent in [0.5, 1.0, 2.0] {
        let weights: Vec<f64> = (1..=10).map(|rank| f64::from(rank).powf(-exponent)).collect();
        assert_shape(&counts(&["--zipf", &exponent.to_string()]), &weights);
    }
}

#[test]
fn the_same_seed_draws_the_same_paths() {
    let drawn = |seed: &str, more: &[&str]| {
        let stub = Stub::ok();
        let done = Bench::new([stub.url("/")])
            .file("paths.txt", PATHS)
            .args(["--paths", "paths.txt", "--connections", "1", "--seed", seed])
            .args(more)
            .run();
        done.assert_good();
        assert_eq!(done.json["seed"], seed.parse::<u64>().expect("a number"));
        assert!(done.out.contains(&format!("seed {seed}")), "{}", done.text());
        let mut targets = stub.targets();
        assert!(targets.len() > 50, "{}", done.text());
        targets.truncate(50);
        targets
    };
    for more in [&[][..], &["--zipf", "1"], &["--rate", "300"]] {
        assert_eq!(drawn("42", more), drawn("42", more));
        assert_ne!(drawn("42", more), drawn("43", more));
    }
}
