//! Request bodies, read in pieces and up to a limit, and response bodies.

use super::probe::Probe;
use super::{case, check};
use crate::host::Host;
use crate::patience::patience;

/// Reads the body to its end, at most `limit` bytes at once, and appends each piece to the
/// response. After each it logs `read`, the number of bytes, and the end flag as `count_len`.
fn reading(limit: u32) -> Probe {
    Probe::new(&format!(
        "(local $got i64)
         (loop $more
           (local.set $got (call $read_body #0 #65536 #{limit}))
           (call $say #65536 (i32.wrap_i64 (local.get $got)))
           (call $log #0 'a piece was read')
           (br_if $more (i64.eqz (i64.shr_u (local.get $got) (i64.const 32)))))
         (call $pair (local.get $got))"
    ))
}

/// The number of pieces that were read, by the log.
fn pieces(host: &Host) -> usize {
    let lines = host.lines();
    lines.iter().filter(|line| line.has(&["a piece was read"])).count()
}

/// A guest gets each piece before the client has sent the rest, and answers after the last.
#[test]
fn a_body_is_read_while_it_arrives() {
    let host = Host::with("reading.wat", reading(65536).wat()).start();
    for (framing, whole) in [("transfer-encoding: chunked", None), ("content-length: 9", Some(()))]
    {
        let before = pieces(&host);
        let piece = |text: &str| match whole {
            None => format!("{:x}\r\n{text}\r\n", text.len()),
            Some(()) => text.to_owned(),
        };
        let mut connection = host.connect();
        connection.send(format!("POST /reading HTTP/1.1\r\nhost: guest.test\r\n{framing}\r\n\r\n"));
        for (index, text) in ["one", "two", "six"].iter().enumerate() {
            connection.assert_silent();
            connection.send(piece(text));
            let what = format!("piece {index} of {framing}");
            crate::host::until(&what, patience(), || {
                (pieces(&host) > before + index).then_some(())
            });
        }
        if whole.is_none() {
            connection.assert_silent();
            connection.send("0\r\n\r\n");
        }
        let answer = connection.read().text();
        assert!(answer.starts_with("onetwosix1/"), "{framing}: {answer:?}");
        host.at_rest();
    }
}

#[test]
fn a_body_is_read_in_pieces_of_the_guests_size() {
    let cases = [1, 2, 3, 9, 10].map(|limit| {
        let last = match limit {
            1 => "1/1\n",
            2 => "1/1\n",
            3 => "1/3\n",
            _ => "1/9\n",
        };
        (reading(limit), format!("onetwosix{last}"))
    });
    check(&cases, |host, path| host.request("POST", path, &[], b"onetwosix"));
}

/// `read_body` never writes past its limit, and returns the end as often as it is called.
#[test]
fn reading_stops_at_the_limit_and_at_the_end() {
    let read = "(call $pair (call $read_body #0 #65536 #4))";
    let code = format!("(call $clean) {read} (call $show #6) {read} (call $show #6) {read} {read}");
    let expected = "0/4\nabcd..\n1/2\nefcd..\n1/0\n1/0\n";
    check(&[case(&code, expected)], |host, path| host.request("POST", path, &[], b"abcdef"));
    let nothing = [case(&format!("{read} {read}"), "1/0\n1/0\n")];
    check(&nothing, Host::get);
    check(&nothing, |host, path| host.request("POST", path, &["content-length: 0"], b""));
    check(&nothing, |host, path| {
        host.request("POST", path, &["transfer-encoding: chunked"], b"0\r\n\r\n")
    });
}

/// A body as large as the limit is read. If it is larger, the guest never sees the end.
#[test]
fn a_body_over_the_limit_is_refused() {
    const BYTES_MAX: usize = 10_000;
    let host = Host::with("reading.wat", reading(1000).wat())
        .file("good.wat", crate::host::HELLO)
        .args(["--body-max", "10000"])
        .start();
    let chunked = |bytes: usize| {
        let mut body = format!("{bytes:x}\r\n").into_bytes();
        body.extend(vec![b'x'; bytes]);
        body.extend(b"\r\n0\r\n\r\n");
        body
    };
    let framing = ["transfer-encoding: chunked"];
    let plain = vec![b'x'; BYTES_MAX];
    for answer in [
        host.request("POST", "/reading", &[], &plain),
        host.request("POST", "/reading", &framing, &chunked(BYTES_MAX)),
    ] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body.starts_with(&plain));
    }
    let over = vec![b'x'; BYTES_MAX + 1];
    host.request("POST", "/reading", &[], &over).assert_problem(413);
    host.request("POST", "/reading", &framing, &chunked(BYTES_MAX + 1)).assert_problem(413);
    let rest = host.at_rest();
    assert_eq!(rest.rejects("body_too_large"), 2, "{rest:?}");
    host.assert_serves("/good");
}

/// A client that announces more than it sends and disconnects leaves nothing behind.
#[test]
fn a_body_that_breaks_off_ends_the_request() {
    let host = Host::with("reading.wat", reading(1000).wat()).start();
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let mut connection = host.connect();
        connection
            .send(format!("POST /reading HTTP/1.1\r\nhost: guest.test\r\n{framing}\r\n\r\n3\r\n"));
        host.status_when("reading", patience(), |status| status.instances_out == 1);
        drop(connection);
        host.at_rest();
    }
    assert_eq!(host.request("POST", "/reading", &[], b"x").text(), "x1/1\n");
}

/// A body that no guest reads does not end up in the next request on the connection.
#[test]
fn a_body_that_was_not_read_is_not_the_next_request() {
    let host = Host::with("good.wat", crate::host::HELLO).start();
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: guest.test\r\n\r\n";
    let mut connection = host.connect();
    let answer = connection.request("POST", "/good", &[], smuggled);
    assert_eq!(answer.text(), "Hello, World!");
    if !answer.closes() {
        assert_eq!(connection.get("/good").text(), "Hello, World!");
        connection.assert_silent();
    }
    assert_eq!(host.at_rest().rejects("no_route"), 0);
}

#[test]
fn the_first_write_replaces_and_the_next_ones_append() {
    let cases = [
        case("(call $say 'one') (call $say 'two') (call $say '') (call $say 'six')", "onetwosix"),
        case("(call $say '')", ""),
        case("", ""),
        case("(call $say 'a\\00b\\ff')", "a\0b\u{fffd}"),
    ];
    check(&cases, Host::get);
}

/// A response as large as the limit is sent. With one byte more it is refused.
#[test]
fn a_response_over_the_limit_is_refused() {
    let sized = |bytes: u32| {
        let code = format!("(call $say #65536 #65536) (call $say #65536 #{})", bytes - 65536);
        Probe::new(&code).wat()
    };
    let host = Host::with("all.wat", sized(100_000))
        .file("more.wat", sized(100_001))
        .args(["--response-max", "100000"])
        .start();
    let answer = host.get("/all");
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    host.get("/more").assert_problem(500);
    host.wait_log_with(&["more", "--response-max"]);
    host.at_rest();
}
