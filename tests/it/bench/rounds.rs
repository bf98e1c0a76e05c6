//! Rounds: the order in which targets are measured, and what an interruption does.
//!
//! The report says the order of the turns, and the stub sees it.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::host::until;
use crate::patience::patience;

use super::stub::{OK, Stub, nowhere};
use super::{Bench, Outcome, scenario};

const SLOW: Duration = Duration::from_millis(400);

/// Measures three targets of one stub for some rounds. Returns their order in each round.
#[track_caller]
fn target_order(seed: &str, rounds: &str) -> Vec<Vec<String>> {
    let stub = Stub::ok();
    let done = Bench::new(["/a", "/b", "/c"].map(|path| stub.url(path)))
        .args(["--seed", seed, "--rounds", rounds, "--duration", "20ms", "--connections", "1"])
        .run();
    done.assert_good();
    let told = told(&done, rounds.parse().expect("a number"));
    // The targets in the order in which the stub saw them, one entry for each turn. Two turns of
    // the same target in a row are the end of one round and the start of the next.
    let mut seen = stub.targets();
    seen.dedup();
    let mut expected = told.concat();
    expected.dedup();
    assert_eq!(seen, expected);
    told
}

/// The targets of each round in their order, by the JSON.
#[track_caller]
fn told(done: &Outcome, rounds: usize) -> Vec<Vec<String>> {
    let mut told = vec![vec![String::new(); 3]; rounds];
    for target in done.targets() {
        assert_eq!(target.rounds().len(), rounds, "{}", done.text());
        for (at, reading) in target.rounds().iter().enumerate() {
            assert_eq!(reading["round"], at + 1);
            let position = reading["position"].as_u64().expect("a number") as usize;
            let (_, path) = target.name().rsplit_once('/').expect("a URL");
            let place = &mut told[at][position - 1];
            assert_eq!(place, "", "two targets at one place: {}", done.text());
            *place = format!("/{path}");
        }
    }
    told
}

#[test]
fn each_target_is_measured_once_in_each_round() {
    let first = target_order("5", "6");
    assert_eq!(first, target_order("5", "6"));
    // The order is random, so it differs between rounds and between seeds.
    assert!(first.iter().any(|round| *round != first[0]), "{first:?}");
    assert_ne!(first, target_order("6", "6"));
}

#[test]
fn without_a_seed_one_is_drawn_and_told() {
    let stub = Stub::ok();
    let seed = || {
        let done = Bench::new([stub.url("/")]).args(["--duration", "20ms"]).run();
        done.assert_good();
        let seed = done.json["seed"].as_u64().expect("a number");
        assert!(done.out.contains(&format!("seed {seed}")), "{}", done.text());
        seed
    };
    let seeds = [seed(), seed(), seed()];
    assert!(seeds.iter().any(|seed| *seed != seeds[0]), "{seeds:?}");
}

#[test]
fn the_warm_up_is_not_measured() {
    // The first requests are slow, as they are while a compiler is still busy.
    let stub = Stub::new(|asked, client| {
        if asked.number < 2 {
            std::thread::sleep(SLOW);
        }
        client.say(OK)
    });
    let done = Bench::new([stub.url("/")]).args(["--connections", "1", "--duration", "1s"]).run();
    done.assert_good();
    assert!(done.target().get("max_us") < SLOW.as_secs_f64() * 1e6, "{}", done.text());
}

#[test]
fn a_signal_ends_it_with_what_there_is() {
    for signal in [Signal::INT, Signal::TERM] {
        let stub = Stub::after(Duration::from_millis(2));
        let running = Bench::new([stub.url("/one"), stub.url("/two")])
            .args(["--rounds", "3", "--duration", "100s", "--connections", "2"])
            .args(["--html", "run.html", "--csv", "run.csv", "--rate", "200"])
            .start();
        // A tenth of the time, but one second at most, is to warm up.
        until("requests", patience(), || (stub.requests() > 300).then_some(()));
        running.signal(signal);
        let done = running.end();
        assert_eq!((done.code, done.err.as_str()), (Some(130), ""), "{}", done.text());
        assert!(done.out.contains("INTERRUPTED"), "{}", done.text());
        assert_eq!(done.json["interrupted"], true);
        // The target that was measured has numbers and no errors. The other one has no numbers.
        let measured = done.targets().into_iter().filter(|target| !target.rounds().is_empty());
        let measured: Vec<_> = measured.collect();
        let [target] = measured[..] else { panic!("{}", done.text()) };
        assert!(target.get("req_per_s") > 50.0, "{}", done.text());
        assert!(target.samples() > 50, "{}", done.text());
        assert_eq!(target.errors("total"), 0, "{}", done.text());
        let page = std::fs::read_to_string(done.path("run.html")).expect("the page");
        assert!(page.contains("Interrupted"), "{page}");
        assert!(done.path("run.csv").metadata().expect("the file").len() > 100);
    }
}

#[test]
fn a_signal_before_there_is_anything_ends_it_too() {
    // The first answer never comes.
    let stub = Stub::new(|_, client| client.stay_silent());
    let args = ["--duration", "100s", "--timeout", "100s"];
    let running = Bench::new([stub.url("/")]).args(args).start();
    until("a request", patience(), || (stub.requests() > 0).then_some(()));
    running.signal(Signal::INT);
    let done = running.end();
    assert_eq!((done.code, done.err.as_str()), (Some(130), ""), "{}", done.text());
    assert!(done.out.contains("INTERRUPTED"), "{}", done.text());
    // In the middle of a measurement, when no request is answered any more.
    let stub = Stub::new(
        |asked, client| if asked.number < 20 { client.say(OK) } else { client.stay_silent() },
    );
    let running = Bench::new([stub.url("/")])
        .args(["--duration", "100s", "--timeout", "100s", "--connections", "1"])
        .start();
    until("silence", patience(), || (stub.requests() > 20).then_some(()));
    running.signal(Signal::INT);
    let done = running.end();
    assert_eq!(done.code, Some(130), "{}", done.text());
}

#[test]
fn a_signal_ends_the_wait_for_a_connection() {
    // Nobody accepts: once the queue is full, a connection has to wait.
    let (socket, addr) = nowhere();
    socket.listen(0).expect("it listens");
    let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok();
    let _queued: Vec<_> = std::iter::from_fn(connect).take(16).collect();
    let running = Bench::new([format!("http://{addr}/")])
        .args(["--duration", "100s", "--timeout", "1000s", "--connections", "1"])
        .start();
    // The kernel's state of a connection that has sent its SYN is 2.
    let begins = format!("0100007F:{:04X} 02", addr.port());
    let connections = || std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    until("a connection", patience(), || connections().contains(&begins).then_some(()));
    running.signal(Signal::INT);
    let done = running.end();
    assert_eq!((done.code, done.err.as_str()), (Some(130), ""), "{}", done.text());
}

#[test]
fn a_signal_ends_the_wait_for_a_version() {
    let text = r#"
        title = "Version"
        [[server]]
        name = "a"
        command = ["false"]
        version = ["sh", "-c", "touch begun; exec sleep 1000"]
        [[case]]
        name = "all"
        sides = ["a"]
        "#;
    let running = scenario(text).start();
    let begun = running.dir.path().join("begun");
    until("the command", patience(), || begun.exists().then_some(()));
    running.signal(Signal::INT);
    let done = running.end();
    assert_eq!((done.code, done.err.as_str()), (Some(130), ""), "{}", done.text());
}
