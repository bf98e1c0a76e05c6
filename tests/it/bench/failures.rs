//! Requests that fail: each is counted by its kind, is named in the report, and makes the command
//! fail.
//!
//! The stubs of this file fail at every n-th request, so the number of failures is known.

use std::io::{self, Read as _, Write as _};
use std::thread::sleep;
use std::time::Duration;

use socket2::SockRef;

use super::stub::{OK, Setup, Stub, StubConnection, nowhere};
use super::{Bench, Outcome, assert_within, one_call};

const KINDS: [&str; 6] = ["connect", "read", "write", "timeout", "status", "body"];

/// A hundred requests in a second, one after the other.
const HUNDRED: [&str; 6] = ["--rate", "100", "--duration", "1s", "--connections", "1"];

/// Asserts that all errors are of one kind, that they were printed, and that the command failed.
#[track_caller]
fn assert_fails(done: &Outcome, kind: &str) {
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    let target = done.target();
    assert!(target.errors(kind) > 0, "no {kind}: {}", done.text());
    assert_eq!(target.errors(kind), target.errors("total"), "{}", done.text());
    let printed = format!("{} {kind}", target.errors(kind));
    assert!(done.out.contains(&printed), "{printed}: {}", done.text());
}

#[test]
fn where_nobody_listens_it_says_so() {
    let (_socket, addr) = nowhere();
    let url = format!("http://{addr}/hello");
    let done = Bench::new([&url]).run();
    assert_fails(&done, "connect");
    let notes = done.target().notes();
    assert!(notes.contains(&addr.to_string()), "{notes}");
    assert!(notes.contains("refused") && notes.contains("is the server running?"), "{notes}");
    assert!(done.out.contains("is the server running?"), "{}", done.text());
    // A target that was not measured has no numbers.
    assert_eq!(done.target().find("req_per_s"), None);
    assert_eq!(done.target().find("p50_us"), None);

    let done = Bench::new([&url]).args(["--allow-errors"]).run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert_eq!(done.target().errors("connect"), 1);
    // The other targets are measured all the same.
    let stub = Stub::ok();
    let done = Bench::new([url, stub.url("/there")]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(done.target_named("/there").get("req_per_s") > 0.0, "{}", done.text());
    assert_eq!(done.target_named("/there").errors("total"), 0);
}

#[test]
fn a_server_that_goes_away_is_a_connect_error() {
    // One connection to check the target, and one to measure it.
    let setup = Setup { connections_max: 2, ..Setup::default() };
    let stub = Stub::with(setup, |asked, client| {
        client.say(OK)?;
        Ok(asked.number < 50)
    });
    let done = Bench::new([stub.url("/")]).args(HUNDRED).run();
    assert_fails(&done, "connect");
    assert!(done.target().samples() > 0, "{}", done.text());
    // The rounds after the failure have failed, and the first has its numbers.
    let setup = Setup { connections_max: 2, ..Setup::default() };
    let stub = Stub::with(setup, |_, client| client.say(OK));
    let args = ["--rounds", "3", "--connections", "1"];
    let done = Bench::new([stub.url("/")]).args(args).run();
    assert_fails(&done, "connect");
    let notes = done.target().notes();
    assert!(notes.contains("round 2 failed") && notes.contains("round 3 failed"), "{notes}");
    assert!(done.target().get("req_per_s") > 0.0, "{}", done.text());
}

#[test]
fn a_connection_that_ends_is_a_read_error() {
    type Break = fn(&mut StubConnection) -> io::Result<bool>;
    let breaks: [(&str, Break); 4] = [
        ("in the middle of a body", |client| {
            client.say(&OK[..OK.len() - 2])?;
            client.flush().map(|()| false)
        }),
        ("in the middle of a head", |client| {
            client.say(&OK[..20])?;
            client.flush().map(|()| false)
        }),
        ("without a byte", |_| Ok(false)),
        ("with a reset", StubConnection::reset),
    ];
    for (what, ends) in breaks {
        let stub = Stub::new(
            move |asked, client| {
                if asked.number % 5 == 4 { ends(client) } else { client.say(OK) }
            },
        );
        let done = Bench::new([stub.url("/")]).args(HUNDRED).run();
        assert_fails(&done, "read");
        let (samples, errors) = (done.target().samples(), done.target().errors("read"));
        assert_within(what, errors as f64, 18.0, 21.0);
        assert_within(what, (samples + errors) as f64, 95.0, 100.0);
        // Each failure costs its connection, and no further connections are opened.
        assert_eq!(stub.connections(), 2 + stub.requests() / 5, "{what}: {}", done.text());
    }
}

#[test]
fn a_request_that_is_not_taken_is_a_write_error() {
    // Too large for the buffers of a connection.
    let body = vec![b'x'; 16 << 20];
    let stub = Stub::with(Setup { raw_from: 1, ..Setup::default() }, move |asked, client| {
        if asked.connection == 0 {
            return client.say(OK);
        }
        SockRef::from(&client.stream).set_recv_buffer_size(1 << 16)?;
        client.stream.read_exact(&mut [0; 1 << 16])?;
        client.reset()
    });
    let done = Bench::new([stub.url("/")])
        .file("body", body)
        .args(["--method", "PUT", "--body", "@body", "--connections", "1", "--rate", "20"])
        .run();
    assert_fails(&done, "write");
    assert_eq!(done.target().samples(), 0, "{}", done.text());
}

/// A server may answer before it has read the request, and read no more of it.
#[test]
fn an_early_answer_counts() {
    let early = |ends: fn(&mut StubConnection) -> io::Result<bool>| {
        let stub = Stub::with(Setup { raw_from: 0, ..Setup::default() }, move |_, client| {
            client.stream.read_exact(&mut [0; 1 << 10])?;
            client.say(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            client.flush()?;
            ends(client)
        });
        let bench = Bench::new([stub.url("/")]).file("body", vec![b'x'; 16 << 20]);
        let bench = bench.args(["--method", "PUT", "--body", "@body", "--connections", "1"]);
        // The stub goes with its test.
        (bench.args(["--timeout", "1000s", "--rate", "20"]), stub)
    };
    let (bench, _stub) = early(|_| {
        sleep(one_call());
        Ok(false)
    });
    let done = bench.run();
    assert_fails(&done, "status");
    assert!(done.target().notes().contains("status 413"), "{}", done.text());
    let (bench, _stub) = early(StubConnection::reset);
    bench.args(["--status", "413"]).run().assert_good();
}

#[test]
fn a_request_without_an_answer_is_a_timeout() {
    let stub = Stub::new(
        |asked, client| if asked.number == 40 { client.stay_silent() } else { client.say(OK) },
    );
    let done = Bench::new([stub.url("/")]).args(HUNDRED).args(["--timeout", "200ms"]).run();
    assert_fails(&done, "timeout");
    assert_eq!(done.target().errors("timeout"), 1);
    // The client goes on with a new connection. Requests that were due meanwhile have waited.
    assert_eq!(stub.connections(), 3);
    assert_within("answers", done.target().samples() as f64, 94.0, 99.0);
    assert!(done.target().get("max_us") >= 150e3, "{}", done.text());
}

#[test]
fn what_is_never_answered_ends_with_the_timeout() {
    // All requests that are in flight at the end, one with an endless answer among them.
    let stub = Stub::new(|asked, client| match (asked.number, asked.connection % 2) {
        (0, _) => client.say(OK),
        (_, 0) => client.stay_silent(),
        _ => {
            client.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                client.stream.write_all(b"more")?;
                sleep(Duration::from_millis(5));
            }
        }
    });
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "4", "--timeout", "500ms", "--duration", "300ms"])
        .run();
    assert_fails(&done, "timeout");
    assert_eq!((done.target().errors("timeout"), done.target().samples()), (4, 0));
}

#[test]
fn a_status_that_was_not_expected_is_an_error() {
    let stub = Stub::new(|asked, client| {
        let status = if asked.number % 4 == 3 { "503 No" } else { "404 No" };
        client.say(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    });
    let done = Bench::new([stub.url("/")]).args(HUNDRED).args(["--status", "404"]).run();
    assert_fails(&done, "status");
    let (samples, errors) = (done.target().samples(), done.target().errors("status"));
    assert_within("errors", errors as f64, 22.0, 26.0);
    assert_within("requests", (samples + errors) as f64, 95.0, 100.0);
    // The connection stays usable.
    assert_eq!(stub.connections(), 2);

    // Without the flag, every status below 400 is expected.
    let stub = Stub::new(|asked, client| {
        let status = [200, 204, 302, 304, 404, 500][asked.number % 6];
        client.say(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))
    });
    let done = Bench::new([stub.url("/")]).args(HUNDRED).run();
    assert_fails(&done, "status");
    assert_within("errors", done.target().errors("status") as f64, 31.0, 35.0);
}

#[test]
fn a_wrong_status_from_the_start_is_named() {
    let stub = Stub::new(|_, client| client.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    let done = Bench::new([stub.url("/broken")]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    let notes = done.target().notes();
    assert!(notes.contains("/broken") && notes.contains("status 500"), "{notes}");
    // A target that is wrong from the start is not measured.
    assert_eq!(stub.requests(), 1);
}

#[test]
fn another_body_in_another_round_is_an_error() {
    let stub = Stub::new(|asked, client| {
        client.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{:04}", asked.connection))
    });
    let args = ["--rounds", "3", "--connections", "1", "--duration", "50ms"];
    let done = Bench::new([stub.url("/")]).args(args).run();
    assert_fails(&done, "body");
    assert_eq!(done.target().errors("body"), 2);
    let of_round = |at: usize| done.target().rounds()[at]["errors"]["body"].as_u64();
    assert_eq!([0, 1, 2].map(of_round), [Some(0), Some(1), Some(1)]);
    // The message says what differs and what to do. Each round has two connections.
    let notes = done.target().notes();
    let differs = r#"4 and 4 bytes, from byte 3 on "0" and then "2""#;
    for words in ["first body error, in round 2: GET /: ", differs, "--allow-errors"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    // Two targets may differ from each other.
    let stub = Stub::new(|asked, client| {
        let body = &asked.request.target;
        client.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let done = Bench::new([stub.url("/one"), stub.url("/other")]).args(args).run();
    done.assert_good();
}

/// The first failure of each kind is described in words.
#[test]
fn what_fails_is_named_with_the_first_example() {
    let stub = Stub::new(|asked, client| match (asked.of_target, &*asked.request.target) {
        (0, _) => client.say(OK),
        (_, "/status") => client.say(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
        (_, "/closed") => Ok(false),
        (_, "/noise") => client.say(b"\x00\x01\r\n\r\n"),
        (_, "/late") => client.stay_silent(),
        (_, other) => panic!("{other}"),
    });
    let cases = [
        ("/status", "first status error, in round 1: GET /status was answered with 503"),
        ("/closed", "GET /closed: the connection ended before the whole answer had come"),
        ("/noise", "GET /noise: what the server sent is not HTTP/1.1: its head cannot be read"),
        ("/late", "GET /late had no whole answer in 200ms"),
    ];
    let done = Bench::new(cases.map(|(path, _)| stub.url(path)))
        .args(["--connections", "1", "--rate", "20", "--duration", "200ms", "--timeout", "200ms"])
        .run();
    for (path, words) in cases {
        let notes = done.target_named(path).notes();
        assert!(notes.contains(words), "{notes}");
        assert_eq!(notes.matches("first ").count(), 1, "{notes}");
    }
}

#[test]
fn errors_may_be_allowed() {
    let stub = Stub::new(
        |asked, client| if asked.number % 5 == 4 { client.reset() } else { client.say(OK) },
    );
    let done = Bench::new([stub.url("/")]).args(HUNDRED).args(["--allow-errors"]).run();
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    assert!(done.target().errors("read") > 0, "{}", done.text());
}

#[test]
fn what_does_not_fail_has_no_errors_of_any_kind() {
    let stub = Stub::ok();
    let done = Bench::new([stub.url("/")]).run();
    done.assert_good();
    for kind in KINDS {
        assert_eq!(done.target().errors(kind), 0, "{kind}");
    }
}
