//! Guests that do much work without a loop: in one instruction, in one call of the host, or in many
//! calls in a row. They are stopped all the same, and do not block their worker.

use super::{ISOLATIONS, host};
use crate::host::{HELLO, Host};

/// The hostile guests that this file tests, beside those that run too long.
pub const GUESTS: &[&str] = &["large_arguments"];

/// Error numbers of WASI preview 1.
const NOMEM: u32 = 48;

/// Arguments that are too large are refused, and the guest goes on.
#[test]
fn large_arguments_are_refused() {
    for isolation in ISOLATIONS {
        let host = host(GUESTS.iter().copied(), isolation).args(["--workers", "1"]).start();
        for _ in 0..2 {
            let answer = host.get("/large_arguments");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.body, [NOMEM, NOMEM].map(u32::to_le_bytes).concat());
            host.assert_serves("/good");
        }
        host.wait_log_with(&["large_arguments", "more bytes"]);
        host.at_rest();
    }
}

/// A core guest that runs `body`, with 2 MiB of memory full of a known text.
fn guest(body: &str) -> String {
    format!(
        r#"(module
  (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
  (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
  (import "http_handler" "set_uri" (func $set_uri (param i32 i32)))
  (import "http_handler" "set_method" (func $set_method (param i32 i32)))
  (import "http_handler" "set_header_value" (func $set_header (param i32 i32 i32 i32 i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (memory (export "memory") 32)
  (func $fill (param $from i32) (param $len i32)
    (loop $more
      (i32.store8 (i32.add (local.get $from) (local.get $len))
        (i32.rem_u (local.get $len) (i32.const 251)))
      (br_if $more (local.tee $len (i32.sub (local.get $len) (i32.const 1))))))
  (func (export "handle_request") (result i64)
    {body}
    (i64.const 0)))"#
    )
}

/// A body that is written at once arrives unchanged, although the host copies it in pieces.
#[test]
fn a_long_body_is_written_in_pieces() {
    let body = "(call $fill (i32.const 0) (i32.const 999999))
        (call $write_body (i32.const 1) (i32.const 1) (i32.const 65536))
        (call $write_body (i32.const 1) (i32.const 65537) (i32.const 934463))";
    let host = Host::with("long.wat", guest(body)).file("good.wat", HELLO).start();
    let answer = host.get("/long");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected: Vec<u8> = (1..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert!(answer.body == expected, "{} bytes", answer.body.len());
    host.at_rest();
}

/// One call of `read_body` returns 64 KiB at most. The next call goes on there.
#[test]
fn a_long_body_is_read_in_pieces() {
    let body = "(local $at i32) (local $got i64)
        (loop $more
          (local.set $got (call $read_body (i32.const 0) (local.get $at) (i32.const 0x100000)))
          (if (i64.gt_u (i64.and (local.get $got) (i64.const 0xffffffff)) (i64.const 65536))
            (then unreachable))
          (local.set $at (i32.add (local.get $at) (i32.wrap_i64 (local.get $got))))
          (br_if $more (i64.eqz (i64.shr_u (local.get $got) (i64.const 32)))))
        (call $write_body (i32.const 1) (i32.const 0) (local.get $at))";
    let host = Host::with("echo.wat", guest(body)).start();
    let sent: Vec<u8> = (0..900_000_u32).map(|at| (at % 249) as u8).collect();
    let answer = host.request("POST", "/echo", &[], &sent);
    assert!(answer.status == 200 && answer.body == sent, "{} {}", answer.status, answer.body.len());
    host.at_rest();
}

/// All random bytes are written, including the last ones.
#[test]
fn many_random_bytes_are_asked_for_at_once() {
    let body = "(drop (call $random_get (i32.const 0) (i32.const 200001)))
        (call $write_body (i32.const 1) (i32.const 0) (i32.const 200032))";
    let host = Host::with("random.wat", guest(body)).start();
    let answer = host.get("/random");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let is_zero = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    assert!(answer.body[..200_000].chunks(16).all(|piece| !is_zero(piece)), "some are missing");
    assert!(is_zero(&answer.body[200_001..]), "there are more than were asked for");
    host.at_rest();
}

/// Bytes that are not a valid method, path or field are refused before they are copied.
#[test]
fn long_texts_are_refused() {
    let texts = [
        ("method", "(call $set_method (i32.const 0) (i32.const 1000000))"),
        ("uri", "(call $set_uri (i32.const 0) (i32.const 1000000))"),
        (
            "field",
            "(call $set_header
              (i32.const 1) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 1000000))",
        ),
    ];
    let with = |setup: crate::host::Setup, (name, call): (&str, &str)| {
        let body = format!("(memory.fill (i32.const 0) (i32.const 97) (i32.const 1000000)) {call}");
        setup.file(&format!("{name}.wat"), guest(&body))
    };
    let host = texts.into_iter().fold(Host::with("good.wat", HELLO), with).start();
    for (name, _) in texts {
        host.get(&format!("/{name}")).assert_problem(500);
        host.wait_log_with(&[name, "--header-max"]);
        host.assert_serves("/good");
    }
    host.at_rest();
}

/// No guest keeps its worker for long, whatever it does in a row. A loop without an end is the
/// measure, because the engine can interrupt it everywhere.
#[test]
fn nobody_keeps_a_worker() {
    const TURN_MAX_US: u64 = 20_000;
    let store = |at: u32| format!("(i32.store (i32.const {}) (i32.const 1))", at * 640);
    let stores: String = (0..100_000).map(store).collect();
    let long_line = format!(
        r#"(module (memory (export "memory") 1024)
          (func (export "handle_request") (result i64) {stores} (i64.const 0)))"#
    );
    // After each of many returns, stores to two new pages.
    let deep_stores = r#"(module (memory (export "memory") 2000)
          (func $deep (param $at i32) (param $left i32)
            (if (i32.eqz (local.get $left)) (then (return)))
            (call $deep (i32.add (local.get $at) (i32.const 16384))
              (i32.sub (local.get $left) (i32.const 1)))
            (i64.store offset=4092 align=1 (local.get $at) (i64.const 1))
            (i64.store offset=12284 align=1 (local.get $at) (i64.const 1)))
          (func (export "handle_request") (result i64)
            (call $deep (i32.const 0) (i32.const 5000)) (i64.const 0)))"#;
    // As much data as is copied into each instance.
    let segment =
        |at: u32| format!("(data (i32.add (i32.const 0) (i32.const {})) \"x\")", at << 13);
    let segments: String = (0..680).map(segment).collect();
    let far_data = format!(
        r#"(module (memory (export "memory") 1024) {segments}
          (func (export "handle_request") (result i64) (i64.const 0)))"#
    );
    let generated =
        [("long_line", &*long_line), ("deep_stores", deep_stores), ("far_data", &far_data)];
    let files = ["fill_in_a_row", "random_in_a_row", "large_arguments", "loop"];
    for name in files.into_iter().chain(generated.map(|(name, _)| name)) {
        let mut setup = Host::with("good.wat", HELLO).args(["--workers", "1", "--deadline", "1s"]);
        let text = generated.iter().find(|(known, _)| *known == name);
        let text = text.map_or_else(|| super::text(name), |(_, text)| (*text).to_owned());
        setup = setup.file(&format!("{name}.wat"), text);
        let host = setup.start();
        host.settled();
        let mut callers: Vec<_> = (0..3).map(|_| host.connect()).collect();
        for connection in &mut callers {
            connection.send(format!("GET /{name} HTTP/1.1\r\nhost: guest.test\r\n\r\n"));
        }
        host.assert_serves("/good");
        let mut late = 0;
        for connection in &mut callers {
            let status = connection.read().status;
            assert!(matches!(status, 200 | 503 | 504), "{name}: {status}");
            late += usize::from(status == 503);
        }
        // Two calls run at once. The third one is refused once it has waited for all of its time.
        assert!(late <= 1, "{name}: {late} of three had no turn");
        let longest = host.at_rest().turn_max_us;
        assert!(longest < TURN_MAX_US, "{name} kept a worker for {longest} us");
    }
}
