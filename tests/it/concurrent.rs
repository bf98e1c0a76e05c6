//! Components of wasi:http 0.3 under reuse: many requests in one instance, what they share, how
//! they fail together, and when another instance takes over.
//!
//! The guest is the one of `component_03`, and once more that of `component_03_whole` (`main.rs`).
//! `/probe/count` answers with the number of such requests that its instance has had: 1 is the
//! first.

use std::thread::{Scope, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use crate::client::{Response, message};
use crate::component_03::raw_connection::{LAST, RawConnection, chunks, unchunked};
use crate::component_03::{Came, assert_as_new, get_or_cut, text};
use crate::host::{Host, until};
use crate::patience::patience;

/// The number of requests that an instance has at once, and in all.
const SEATS: usize = 16;
const REQUESTS_MAX: usize = 128;

/// Whether these are the tests of the whole probe.
fn is_whole() -> bool {
    module_path!().ends_with("_whole")
}

#[track_caller]
fn start(flags: &[&str]) -> Host {
    if is_whole() {
        crate::component_03_whole::start(flags)
    } else {
        crate::component_03::start(flags)
    }
}

/// A host with one worker and no slow lane. With a slow lane, an instance whose thread is kept off
/// its core for a quantum moves there and gets no further requests. On a busy machine it would then
/// be chance which instance a request gets.
#[track_caller]
fn reuse(flags: &[&str]) -> Host {
    in_lanes(&[&["--slow-priority", "off"], flags].concat())
}

/// A host with one worker.
#[track_caller]
fn in_lanes(flags: &[&str]) -> Host {
    start(&[&["--workers", "1", "--isolation", "reuse"], flags].concat())
}

/// The number of requests that an instance says it has had.
#[track_caller]
fn count(host: &Host) -> usize {
    text(host, "/probe/count").parse().expect("a number")
}

/// Sends a request, and does not wait for its answer.
fn ask<'a>(
    scope: &'a Scope<'a, '_>,
    host: &'a Host,
    path: &'a str,
) -> ScopedJoinHandle<'a, Response> {
    scope.spawn(move || host.get(path))
}

/// Waits until this many requests are in the guest.
#[track_caller]
fn wait_inside(host: &Host, requests: u64) {
    host.status_when("inside", patience(), |status| status.instances_out == requests);
}

#[test]
fn requests_that_wait_share_an_instance() {
    let host = reuse(&[]);
    let ask = |_| text(&host, "/probe/count?2000").parse().expect("a number");
    let mut counts: Vec<usize> = scope(|scope| {
        let asked: Vec<_> = (0..=SEATS).map(|number| scope.spawn(move || ask(number))).collect();
        wait_inside(&host, SEATS as u64 + 1);
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    counts.sort_unstable();
    // Sixteen in one instance, and the seventeenth in another.
    let expected: Vec<usize> = std::iter::once(1).chain(1..=SEATS).collect();
    assert_eq!(counts, expected);
    assert_as_new(&host);
}

#[test]
fn an_instance_is_given_so_many_requests() {
    let host = reuse(&[]);
    let (mut last, mut begun, mut whole) = (0, 0, 0);
    let deadline = Instant::now() + patience();
    while whole < 3 {
        let now = count(&host);
        assert!(now == last + 1 || now == 1, "{now} after {last}");
        assert!(now <= REQUESTS_MAX, "{now} in one");
        begun += u64::from(now == 1);
        whole += u64::from(now == REQUESTS_MAX);
        last = now;
        assert!(Instant::now() < deadline, "none gets that far");
    }
    assert_eq!(count(&host), 1);
    // A request may end before, if this test is kept from asking for a while. There is no other
    // reason.
    let status = host.at_rest();
    assert_eq!(status.instances("spent"), whole, "{status:?}");
    assert_eq!(begun, whole + status.instances("idle"), "{status:?}");
    assert_as_new(&host);
}

#[test]
fn a_trap_ends_all_calls_of_its_instance() {
    let host = reuse(&[]);
    for _ in 0..3 {
        scope(|scope| {
            let others: Vec<_> = (0..8).map(|_| ask(scope, &host, "/probe/sleep?60000")).collect();
            let mut events =
                RawConnection::open(&host, message("GET", "/probe/sse?100000", &[], b""));
            events.wait_for("data: 0\n\n");
            wait_inside(&host, 9);
            host.get("/probe/trap-before").assert_problem(500);
            for other in others {
                other.join().expect("an answer").assert_problem(500);
            }
            let (_, is_whole) = unchunked(&events.rest());
            assert!(!is_whole, "it has an end");
        });
        assert_eq!(count(&host), 1);
        assert_as_new(&host);
    }
    assert_eq!(host.status().rejects("trap"), 27);
}

/// A response that is whole stays so, although its guest has ended before it is sent.
#[test]
fn a_trap_leaves_whole_answers_whole() {
    let host = reuse(&[]);
    scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| ask(scope, &host, "/probe/trap-after")).collect();
        for answer in asked.into_iter().map(|asked| asked.join().expect("an answer")) {
            match answer.status {
                200 => assert_eq!(answer.text(), "whole"),
                // It had not begun when another one trapped.
                _ => answer.assert_problem(500),
            }
        }
    });
    assert_as_new(&host);
}

#[test]
fn an_instance_with_an_overdue_call_takes_no_more() {
    let host = reuse(&["--deadline", "1s"]);
    assert_eq!(count(&host), 1);
    scope(|scope| {
        let silent = ask(scope, &host, "/probe/silent");
        // Its head arrives in time, and the body takes two seconds.
        let close = ["connection: close"];
        let events = RawConnection::open(&host, message("GET", "/probe/sse?40", &close, b""));
        wait_inside(&host, 2);
        assert_eq!(count(&host), 2);
        silent.join().expect("an answer").assert_problem(504);
        assert_eq!(count(&host), 1, "it was given more");
        let (body, is_whole) = unchunked(&events.rest());
        let body = String::from_utf8_lossy(&body);
        assert!(is_whole && body.ends_with("data: 39\n\n"), "{body}");
    });
    assert_eq!(assert_as_new(&host).rejects("deadline"), 1);
}

#[test]
fn an_instance_without_requests_is_given_up() {
    let host = reuse(&[]);
    let before = host.status().memory_used;
    for _ in 0..2 {
        assert_eq!(count(&host), 1);
        assert_eq!(count(&host), 2);
        assert!(host.status().memory_used > before, "{:?}", host.status());
        let is_gone = |status: &crate::host::Status| status.memory_used <= before;
        host.status_when("without instances", patience(), is_gone);
    }
    assert_as_new(&host);
}

#[test]
fn an_instance_that_has_grown_is_replaced() {
    let host = reuse(&["--memory-max", "16MiB"]);
    assert_eq!(text(&host, "/probe/memory?4"), "kept");
    assert_eq!(count(&host), 1);
    assert_eq!(count(&host), 2);
    for _ in 0..3 {
        assert_eq!(text(&host, "/probe/memory?9"), "kept");
        assert_eq!(count(&host), 1, "the one that has grown");
    }
    host.get("/probe/memory?64").assert_problem(500);
    assert_eq!(count(&host), 1);
    assert_as_new(&host);
}

/// An instance that never frees anything does not grow without end, nor does the host.
#[test]
fn an_instance_that_keeps_too_much_is_replaced() {
    const RSS_GROWTH_MAX: u64 = 32 << 20;
    let host = reuse(&[]);
    let mut connection = host.connect();
    let mut litter = |times: u32| {
        let count = |_| connection.get("/probe/litter?20").text().parse().expect("a number");
        let most: usize = (0..times).map(count).max().expect("some");
        host.at_rest();
        (most, host.rss_bytes())
    };
    let (most, before) = litter(1_000);
    assert!((2..=30).contains(&most), "{most} requests in one");
    let (_, after) = litter(4_000);
    assert!(after <= before + RSS_GROWTH_MAX, "{before} bytes, then {after}");
    assert_as_new(&host);
}

/// A call that computes moves to the slow lane with its instance. Later requests do not wait for
/// it.
#[test]
fn a_call_that_computes_holds_up_nobody() {
    let host = in_lanes(&["--cpu-max", "60s", "--deadline", "60s"]);
    assert_eq!(count(&host), 1);
    scope(|scope| {
        let waiting = ask(scope, &host, "/probe/count?1500");
        wait_inside(&host, 1);
        let long = ask(scope, &host, "/probe/compute?8000");
        until("another instance", patience(), || (count(&host) == 1).then_some(()));
        for _ in 0..20 {
            host.assert_serves("/probe/exact");
        }
        assert!(!long.is_finished(), "they waited for it, or it was too short");
        assert_eq!(waiting.join().expect("an answer").text(), "2");
        assert_eq!(long.join().expect("an answer").text(), "computed");
    });
    assert_as_new(&host);
}

/// A guest may block its whole instance while it waits. Its calls are then answered one after the
/// other.
#[test]
fn calls_that_block_their_instance_are_answered() {
    let host = reuse(&[]);
    scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| ask(scope, &host, "/probe/block?200")).collect();
        for answer in asked.into_iter().map(|asked| asked.join().expect("an answer")) {
            assert_eq!((answer.status, answer.text().as_str()), (200, "blocked"));
        }
    });
    assert_as_new(&host);
}

#[test]
fn a_call_that_computes_too_long_is_stopped_with_its_instance() {
    let host = in_lanes(&["--cpu-max", "200ms", "--deadline", "60s"]);
    for _ in 0..2 {
        scope(|scope| {
            let other = ask(scope, &host, "/probe/sleep?60000");
            wait_inside(&host, 1);
            host.get("/probe/spin").assert_problem(504);
            other.join().expect("an answer").assert_problem(504);
        });
        assert_eq!(count(&host), 1);
        assert_as_new(&host);
    }
    assert_eq!(host.status().rejects("cpu_time"), 4);
}

#[test]
fn a_client_that_leaves_takes_nobody_along() {
    let host = reuse(&["--deadline", "60s"]);
    assert_eq!(count(&host), 1);
    for (method, path, headers, body) in [
        ("GET", "/probe/sse?100000", &[][..], &b""[..]),
        ("GET", "/probe/write-forever", &[], b""),
        ("GET", "/probe/silent", &[], b""),
        ("POST", "/probe/echo", &["content-length: 9"], b"part"),
        ("POST", "/probe/pass", &["content-length: 9"], b"part"),
        ("POST", "/probe/upload", &["content-length: 9"], b"part"),
    ] {
        let before = count(&host);
        let stays = RawConnection::open(
            &host,
            message("GET", "/probe/sse?10", &["connection: close"], b""),
        );
        let leaves = RawConnection::open(&host, message(method, path, headers, body));
        wait_inside(&host, 2);
        drop(leaves);
        let (body, is_whole) = unchunked(&stays.rest());
        let body = String::from_utf8_lossy(&body);
        assert!(is_whole && body.ends_with("data: 9\n\n"), "{path}: {body}");
        // It is not known what the call that was given up has left behind.
        assert!(count(&host) == 1 || path.ends_with("upload"), "{path} after {before}");
        host.at_rest();
    }
    assert_as_new(&host);
}

/// A deadline holds for a request that runs beside one that computes, once its body was received.
#[test]
fn a_deadline_holds_beside_who_computes() {
    let host = in_lanes(&["--deadline", "1s", "--stall-timeout", "1s", "--cpu-max", "60s"]);
    let [mut waits, mut computes] = [host.connect(), host.connect()];
    waits.send(message("POST", "/probe/upload", &["content-length: 10"], b"first"));
    wait_inside(&host, 1);
    computes.send(message("GET", "/probe/spin", &[], b""));
    wait_inside(&host, 2);
    waits.send("other");
    computes.read().assert_problem(504);
    waits.read().assert_problem(504);
    assert_eq!(assert_as_new(&host).rejects("deadline"), 2);
}

/// Work that goes on after a response keeps its place until it ends.
#[test]
fn work_behind_a_response_is_counted() {
    let host = reuse(&[]);
    let begun = Instant::now();
    assert_eq!(text(&host, "/probe/after?2000"), "at once");
    assert!(begun.elapsed() < Duration::from_millis(1500), "it was waited for");
    let status = host.status();
    assert_eq!((status.in_flight, status.instances_out), (0, 1), "{status:?}");
    host.wait_log_with(&["done afterwards"]);
    assert_as_new(&host);
}

/// It keeps its place, too, if the guest answers and goes on without a pause, in the slow lane.
#[test]
fn computing_behind_a_response_is_counted() {
    let host = in_lanes(&[]);
    assert_eq!(text(&host, "/probe/compute-after?3000"), "at once");
    let status = host.status_when("answered", patience(), |status| status.in_flight == 0);
    assert!(!host.lines().iter().any(|line| line.has(&["computed afterwards"])), "{status:?}");
    assert_eq!(status.instances_out, 1, "{status:?}");
    host.wait_log_with(&["computed afterwards"]);
    assert_as_new(&host);
}

#[test]
fn work_behind_a_response_does_not_go_on_for_ever() {
    let host = reuse(&[]);
    let before = host.status().memory_used;
    assert_eq!(text(&host, "/probe/after?600000"), "at once");
    host.status_when("stopped", patience(), |status| {
        status.instances_out == 0 && status.memory_used <= before
    });
    assert!(!host.lines().iter().any(|line| line.has(&["done afterwards"])));
    assert_as_new(&host);
}

#[test]
fn another_task_may_answer() {
    for isolation in ["fresh", "reuse"] {
        let host = start(&["--isolation", isolation]);
        assert_eq!(text(&host, "/probe/spawned"), "by another task");
        assert_eq!(text(&host, "/probe/sent"), "sent");
        host.wait_log_with(&["the answer was sent: Ok(())"]);
        assert_as_new(&host);
    }
}

/// A body that the guest passes on belongs to the host from then on, whatever happens to the
/// instance.
#[test]
fn a_body_may_be_handed_on() {
    for isolation in ["fresh", "reuse"] {
        let host = start(&["--isolation", isolation]);
        for bytes in [0, 1, 4 << 20] {
            let body = vec![b'x'; bytes];
            let answer = host.request("POST", "/probe/pass", &[], &body);
            assert!(answer.status == 200 && answer.body == body, "{answer:?}");
        }
        let chunked = "transfer-encoding: chunked";
        let close = ["connection: close", chunked];
        let mut raw = RawConnection::open(&host, message("POST", "/probe/pass", &close, b""));
        for number in 0..20 {
            let piece = format!("piece {number};");
            raw.send(chunks(piece.as_bytes(), piece.len()));
            raw.wait_for(&piece);
        }
        raw.send(LAST);
        let (_, is_whole) = unchunked(&raw.rest());
        assert!(is_whole, "it has no end");
        assert_as_new(&host);
    }
}

#[test]
fn a_body_that_is_handed_on_is_not_whole_if_it_is_not() {
    for isolation in ["fresh", "reuse"] {
        let host = start(&["--isolation", isolation, "--stall-timeout", "300ms"]);
        for length in [4, 6] {
            let path = format!("/probe/pass?{length}");
            host.request("POST", &path, &[], b"12345").assert_problem(500);
        }
        let answer = host.request("POST", "/probe/pass?5", &[], b"12345");
        assert_eq!((answer.text().as_str(), answer.header("content-length")), ("12345", Some("5")));
        for broken in ["4\r\nbody\r\nzz\r\n", "4\r\nbody\r\n"] {
            let chunked = ["transfer-encoding: chunked"];
            let request = message("POST", "/probe/pass", &chunked, broken.as_bytes());
            let came =
                String::from_utf8_lossy(&RawConnection::open(&host, request).rest()).into_owned();
            let is_refused = came.starts_with("HTTP/1.1 400 ") || came.starts_with("HTTP/1.1 408 ");
            assert!(is_refused || !came.ends_with(LAST), "{came}");
        }
        assert_as_new(&host);
    }
}

/// A request that drops its body late does not change how the bodies of others end.
#[test]
fn the_end_of_a_body_is_that_of_its_own_request() {
    let host = reuse(&["--body-max", "1000"]);
    let chunked = ["transfer-encoding: chunked", "connection: close"];
    let too_long = [chunks(&[b'x'; 2000], 2000), LAST.as_bytes().to_vec()].concat();
    for (rest, is_good) in [(&b"0\r\nx-t: yes\r\n\r\n"[..], true), (&too_long, false)] {
        let body = [chunks(b"body", 4), LAST.as_bytes().to_vec()].concat();
        let mut first =
            RawConnection::open(&host, message("POST", "/probe/let-go?300", &chunked, &body));
        first.wait_for("read, true");
        let begun = message("POST", "/probe/upload-trailers", &chunked, &chunks(b"body", 4));
        let mut second = RawConnection::open(&host, begun);
        wait_inside(&host, 2);
        first.wait_for("let go");
        second.send(rest);
        let answer = String::from_utf8_lossy(&second.rest()).into_owned();
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), is_good, "{answer}");
        assert_eq!(answer.contains("x-t: yes"), is_good, "{answer}");
        host.at_rest();
    }
    assert_as_new(&host);
}

/// If the host cannot know which request has written a line, the log names none.
#[test]
fn a_line_has_the_name_of_its_request_or_of_none() {
    let host = reuse(&[]);
    scope(|scope| {
        let other = ask(scope, &host, "/probe/sleep?1000");
        wait_inside(&host, 1);
        assert_eq!(text(&host, "/probe/print"), "printed");
        let line = host.wait_log_with(&["out one"]);
        assert_eq!(line.json["handler"], "probe");
        // The calls of one module take turns, so the running call is known.
        assert_eq!(line.json["request"].is_null(), is_whole(), "{}", line.text);
        other.join().expect("an answer");
    });
    host.at_rest();
    assert_eq!(text(&host, "/probe/after?1"), "at once");
    let line = host.wait_log_with(&["done afterwards"]);
    assert!(line.json["request"].is_string(), "{}", line.text);
    assert_as_new(&host);
}

/// Thousands of requests at once, of all kinds, leave nothing behind.
#[test]
fn many_of_all_kinds_leave_nothing_behind() {
    const RSS_GROWTH_MAX: u64 = 48 << 20;
    let host = start(&["--isolation", "reuse", "--deadline", "500ms"]);
    let paths = [
        "/probe/exact",
        "/probe/sleep?20",
        "/probe/count",
        "/probe/trailers",
        "/probe/short",
        "/probe/trap-after",
        "/probe/unfinished-drop",
        "/probe/error",
        "/probe/sse?2",
        "/probe/after?20",
        "/probe/no-answer",
        "/probe/leak?1",
    ];
    let round = |times: usize| {
        scope(|scope| {
            for thread in 0..8 {
                let (host, paths) = (&host, &paths);
                scope.spawn(move || {
                    for number in 0..times {
                        let path = paths[(thread * 5 + number) % paths.len()];
                        if let Came::Whole(answer) = get_or_cut(host, path) {
                            let known = [200, 500, 504].contains(&answer.status);
                            assert!(known, "{path}: {answer:?}");
                        }
                    }
                });
            }
        });
        host.at_rest();
        host.rss_bytes()
    };
    let before = round(100);
    let after = round(300);
    assert!(after <= before + RSS_GROWTH_MAX, "{before} bytes, then {after}");
    assert_as_new(&host);
}
