//! The output of guests and the fields that they set: harmless in the log and on the wire.

use super::{assert_discreet, host};
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, Line, until};
use crate::patience::patience;

/// The hostile guests that this file tests.
pub const GUESTS: &[&str] = &["own_framing", "sockets_forever", "stdout_escapes"];

/// The most lines that one request may write, with room for the host's own.
const LINES_MAX: usize = 300;

#[test]
fn what_a_terminal_would_obey_is_escaped() {
    for format in ["json", "text"] {
        let host = host(["stdout_escapes"], "fresh").args(["--log", format]).start();
        host.assert_serves("/stdout_escapes");
        let line = host.wait_log(|line| line.message().contains("begin"));
        let raw = ['\x1b', '\x07', '\r', '\u{9b}', '\u{202e}', '\0'];
        let message = line.message();
        assert!(!message.contains(raw), "{message:?}");
        let escaped =
            r"begin \x1b[31mred\x1b]0;title\x07 \r\x1b[2Jgone \u{9b}1m \u{202e}evil \xff\x00 end";
        assert!(message.contains(escaped), "{message:?}");
    }
}

/// Asserts that one request wrote a limited number of lines of limited length.
#[track_caller]
fn assert_bounded(host: &Host, wrote: impl Fn(&Line) -> bool) {
    // The status is logged after all lines that came before it.
    host.at_rest();
    let lines: Vec<Line> = host.lines().into_iter().filter(|line| wrote(line)).collect();
    assert!(lines.len() <= LINES_MAX, "{} lines", lines.len());
    for line in &lines {
        assert!(line.text.len() < 8 * 1024, "{} bytes", line.text.len());
    }
}

#[test]
fn one_request_cannot_fill_the_log() {
    let flags = ["--deadline", "300ms"];
    let guests = ["log_forever", "stdout_forever"];
    let host = host(guests, "fresh").args(flags).start();
    host.settled();
    for name in guests {
        assert_discreet(name, &host.get(&format!("/{name}")), 504);
        assert_bounded(&host, |line| line.json["handler"] == name);
    }
    host.wait_log_with(&["log_forever", "logs too much"]);
    let again = host.get("/log_forever");
    let id = again.header("x-request-id").expect("a request id").to_owned();
    // The next request has an allowance of its own.
    host.wait_log(|line| line.json["request"] == id && line.has(&["a line of the one"]));
}

/// The host's libraries may log on behalf of a guest, too.
#[test]
fn one_request_cannot_fill_the_log_through_a_library() {
    let host = host(["sockets_forever"], "fresh").start();
    host.assert_serves("/sockets_forever");
    assert_bounded(&host, |_| true);
}

#[test]
fn a_long_line_is_cut() {
    let loud = Probe::new(
        "(memory.fill #65536 #120 #100000)
         (call $log #1 #65536 #100000)
         (call $log #1 'after the long line')",
    );
    let host = Host::with("loud.wat", loud.wat()).start();
    host.assert_serves("/loud");
    host.wait_log_with(&["after the long line"]);
    let cut = host.wait_log_with(&["xxxxxxxx"]);
    assert!(cut.text.len() < 8 * 1024, "{} bytes", cut.text.len());
    assert!(cut.message().ends_with("more bytes)"), "{}", cut.message());
}

#[test]
fn framing_is_the_hosts() {
    let host = host(["own_framing"], "fresh").start();
    let mut connection = host.connect();
    for _ in 0..3 {
        let answer = connection.get("/own_framing");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), "framed by the host");
        assert_eq!(answer.header("content-length"), Some("18"));
        for name in ["transfer-encoding", "keep-alive", "upgrade", "trailer", "x-mine"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert!(!answer.closes(), "{answer:?}");
        connection.assert_silent();
    }
    let head = connection.request("HEAD", "/own_framing", &[], b"");
    assert_eq!(head.header("content-length"), Some("18"));
    connection.assert_silent();
    assert_eq!(connection.get("/own_framing").status, 200);
    host.at_rest();
}

/// A status without a body is sent without one, whatever the guest wrote.
#[test]
fn a_status_without_a_body_has_none() {
    let guest = |status: u16| {
        Probe::new(&format!(
            "(call $set_status_code #{status})
             (call $set_header_value #1 'content-length' '7')
             (call $say 'a body!')"
        ))
        .wat()
    };
    let host = Host::with("good.wat", HELLO)
        .file("none.wat", guest(204))
        .file("same.wat", guest(304))
        .file("reset.wat", guest(205))
        .start();
    let mut connection = host.connect();
    for (path, status) in [("/none", 204), ("/same", 304)] {
        let answer = connection.get(path);
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, b"");
        assert_eq!(answer.header("transfer-encoding"), None);
        let length = answer.header("content-length");
        assert!(status != 204 || length.is_none(), "{answer:?}");
        // No bytes are left that could be taken for the next answer.
        connection.assert_silent();
        assert_eq!(connection.get("/good").text(), "Hello, World!");
    }
    // RFC 9110, 15.3.6: without content, which HTTP/1.1 has to announce.
    let reset = connection.get("/reset");
    assert_eq!((reset.status, reset.body.as_slice()), (205, b"".as_slice()));
    host.at_rest();
}

/// There is also a limit for all requests to one guest together, because a guest could fill the log
/// for others. Dropped lines are counted.
#[test]
fn a_guest_leaves_the_log_to_others() {
    let lines = "(call $log (i32.const 2) (i32.const 0) (i32.const 4000))".repeat(16);
    let guest = format!(
        r#"(module (import "http_handler" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "handle_request") (result i64) {lines} (i64.const 0)))"#
    );
    let host = Host::with("chatty.wat", guest).file("good.wat", HELLO).start();
    host.settled();
    until("lines that were dropped", patience(), || {
        let mut connection = host.connect();
        for _ in 0..100 {
            assert_eq!(connection.get("/chatty").status, 200);
        }
        host.lines()
            .iter()
            .any(|line| line.has(&["chatty", "this handler logs too much"]))
            .then_some(())
    });
    host.at_rest();
}
