//! Limits on what one request of a component may have the host hold or pass, exact to the byte
//! where the contract gives bytes.

use super::{assert_as_new, is_03, is_flat, setup, start, text};
use crate::client::message;
use crate::host::{Host, until};
use crate::patience::patience;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Asserts that a behaviour succeeds with one amount, and fails with another one.
#[track_caller]
fn check(host: &Host, behaviour: &str, good: (u32, &str), bad: u32) {
    let path = |amount: u32| format!("/probe/{behaviour}?{amount}");
    let (amount, words) = good;
    assert_eq!(text(host, &path(amount)), words);
    host.get(&path(bad)).assert_problem(500);
    assert_eq!(text(host, &path(amount)), words, "behind what was too much");
}

#[test]
fn what_one_call_passes_is_bounded() {
    for isolation in crate::hostile::ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        for behaviour in ["random-bytes", "insecure-bytes"] {
            if is_03() {
                // In this form, the host may return less than was asked for.
                let path = format!("/probe/{behaviour}?{}", 64 * KIB + 1);
                assert_eq!(text(&host, &path), "65536 bytes");
            } else {
                assert_eq!(text(&host, &format!("/probe/{behaviour}?65537")), "65537 bytes");
                check(&host, behaviour, (4 * MIB, "4194304 bytes"), 4 * MIB + 1);
            }
        }
        // Other values that are passed with a text count as well.
        check(&host, "pass-text", (255 * KIB, "not there"), 256 * KIB + 1);
        check(&host, "pass-text", (255 * KIB, "not there"), 64 * MIB);
        let traps = if is_03() { 2 } else { 4 };
        assert_eq!(assert_as_new(&host).rejects("trap"), traps);
    }
}

#[test]
fn what_is_buffered_for_a_request_is_bounded() {
    for isolation in crate::hostile::ISOLATIONS {
        let host = start(&["--isolation", isolation]);
        // The request has some handles of its own.
        check(&host, "open", (980, "980 open"), 1_000);
        check(&host, "open", (980, "980 open"), 100_000);
        // The name of a field takes memory, too.
        assert_eq!(text(&host, "/probe/field?65000"), "taken");
        for bytes in [64 * KIB + 1, 4 * MIB - KIB] {
            let answer = host.get(&format!("/probe/field?{bytes}"));
            assert!(answer.status == 500 || answer.text() == "refused", "{bytes}: {answer:?}");
        }
        assert_as_new(&host);
    }
}

/// The fields and requests that a guest makes count as memory of the host, until the end of its
/// request.
#[test]
fn what_a_guest_has_the_host_keep_counts() {
    for isolation in crate::hostile::ISOLATIONS {
        let flags = ["--isolation", isolation, "--workers", "1", "--memory-total", "16MiB"];
        let host = start(&flags);
        // The flat 0.3 probe makes no outbound requests.
        let behaviours: &[&str] =
            if is_03() && is_flat() { &["fields"] } else { &["fields", "paths"] };
        for behaviour in behaviours {
            let asked = |number: u32| host.get(&format!("/probe/{behaviour}?{number}"));
            // 60 kB each.
            assert_eq!(asked(50).text(), "50 kept", "{behaviour}");
            asked(280).assert_problem(503);
            assert_eq!(asked(50).text(), "50 kept", "{behaviour} behind what was too much");
        }
        assert_eq!(assert_as_new(&host).rejects("no_memory"), behaviours.len() as u64);
    }
}

/// A client that gets a 503 for want of memory may ask again at once: the memory of its guest is
/// free by then, however busy the threads are that free it.
#[test]
fn what_a_guest_had_is_there_again_behind_its_503() {
    let flags = ["--workers", "1", "--memory-total", "16MiB", "--deadline", "1h"];
    let setup = setup(&flags).args(["--cpu-max", "1h"]);
    let host = setup.file("loop.wat", crate::hostile::text("loop")).start();
    host.settled();
    let mut busy: Vec<_> = (0..4).map(|_| host.connect()).collect();
    busy.iter_mut().for_each(|it| it.send(message("GET", "/loop", &[], b"")));
    host.status_when("they run", patience(), |status| status.in_flight == 4);
    for _ in 0..20 {
        host.get("/probe/fields?280").assert_problem(503);
        assert_eq!(text(&host, "/probe/fields?50"), "50 kept");
    }
    drop(busy);
    assert_eq!(assert_as_new(&host).rejects("no_memory"), 20);
}

/// The allocator does not keep what the host has freed for a guest. If it did, nobody would be
/// charged for that memory.
#[test]
fn what_is_freed_goes_back_to_the_kernel() {
    let host = start(&["--workers", "1", "--memory-total", "256MiB"]);
    assert_eq!(text(&host, "/probe/small-fields?1"), "1 kept");
    host.at_rest();
    let before = host.rss_bytes();
    host.peak_bytes();
    for _ in 0..3 {
        assert_eq!(text(&host, "/probe/small-fields?900"), "900 kept");
    }
    let peak = host.peak_bytes();
    assert!(peak > before + u64::from(16 * MIB), "{before} to {peak}: nothing to give back");
    let is_back = || host.rss_bytes() < before + u64::from(8 * MIB);
    until("memory that is given back", patience(), || is_back().then_some(()));
    assert_as_new(&host);
}

/// The output of a guest is limited, line by line and as a whole, and the log says that lines are
/// missing.
#[test]
fn what_a_component_prints_is_bounded() {
    const LINE_MAX: usize = 4 * 1024;
    let host = start(&[]);
    assert_eq!(text(&host, "/probe/print-much?100"), "printed");
    let last = host.wait_log_with(&["this request logs too much; the rest is dropped"]);
    assert_eq!(
        (last.json["handler"].as_str(), last.json["from"].as_str()),
        (Some("probe"), Some("host"))
    );
    let said: Vec<_> = host.lines().into_iter().filter(|line| line.has(&["much much"])).collect();
    assert!((10..=16).contains(&said.len()), "{} lines", said.len());
    for line in &said {
        assert!(line.message().len() <= LINE_MAX + 8, "{} bytes", line.message().len());
        assert_eq!(line.json["request"], last.json["request"], "{}", line.text);
    }
    // The next request may log again.
    assert_eq!(text(&host, "/probe/print"), "printed");
    host.wait_log_with(&["out two"]);
    assert_as_new(&host);
}
