//! Settings of single handlers by flags: environment, variables, and the size of bodies.
//!
//! These are core guests. `component/settings.rs` has the same flags for components.

use std::path::Path;

use crate::host::{HELLO, Host, Setup, command};
use crate::wat;

/// A guest that answers with its environment, in the bytes of WASI preview 1: `NAME=value` and a
/// NUL for each variable. It reads them in the function `$read`, and `start` says where that is
/// called.
fn environ(start: &str, handle: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get"
            (func $get (param i32 i32) (result i32)))
          (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
          (memory (export "memory") 1)
          (func $read
            (drop (call $sizes (i32.const 0) (i32.const 4)))
            (drop (call $get (i32.const 64) (i32.const 4096))))
          {start}
          (func (export "handle_request") (result i64)
            {handle}
            (call $write_body (i32.const 1) (i32.const 4096) (i32.load (i32.const 4)))
            (i64.const 0)))"#
    )
}

/// Reads its environment in each request.
fn late() -> String {
    environ("", "(call $read)")
}

/// Reads its environment in start-up code, after which a snapshot is taken.
fn early() -> String {
    environ(r#"(func (export "_initialize") (call $read))"#, "")
}

/// The variables that a guest finds.
#[track_caller]
fn found(host: &Host, path: &str) -> Vec<String> {
    let answer = host.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let text = answer.text();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn a_core_guest_has_the_environment_that_it_is_given() {
    for isolation in crate::hostile::ISOLATIONS {
        let host = Host::with("late.wat", late())
            .file("early.wat", early())
            .file("in/a folder.wat", late())
            .args(["--isolation", isolation])
            .args(["--env", "late:ONE=1", "--env", "*:ALL=all", "--env", "late:TWO=a:b=c, d"])
            .args(["--env", "early:ONE=early", "--env", "early:ALL=own", "--env", "*:EMPTY="])
            .args(["--env", "in/a folder:ONE=é"])
            .start();
        for _ in 0..2 {
            assert_eq!(found(&host, "/late"), ["ONE=1", "ALL=all", "TWO=a:b=c, d", "EMPTY="]);
            assert_eq!(found(&host, "/early"), ["ONE=early", "ALL=own", "EMPTY="]);
            assert_eq!(found(&host, "/in/a%20folder"), ["ALL=all", "EMPTY=", "ONE=é"]);
        }
        host.at_rest();
    }
}

#[test]
fn without_flags_there_is_no_environment() {
    let host = Host::with("late.wat", late()).file("early.wat", early()).start();
    assert_eq!(found(&host, "/late"), [""; 0]);
    assert_eq!(found(&host, "/early"), [""; 0]);
    host.at_rest();
}

/// Variables that start-up code has read are in the snapshot, so a cached snapshot is only for the
/// same environment. One more entry records that they were read.
#[test]
fn a_snapshot_is_of_one_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let ask = |flags: &[&str]| {
        let host = with_cache(&cache).args(flags).start();
        let variables = found(&host, "/early");
        (variables, std::fs::read_dir(&cache).expect("a cache").count())
    };
    let (one, two) = (["--env", "early:KEY=one"], ["--env", "early:KEY=two"]);
    assert_eq!(ask(&one), (vec!["KEY=one".into()], 2));
    assert_eq!(ask(&two), (vec!["KEY=two".into()], 3));
    assert_eq!(ask(&[]), (vec![], 4));
    assert_eq!(ask(&one), (vec!["KEY=one".into()], 4));
    // The environment of another handler changes nothing.
    assert_eq!(ask(&["--env", "other:KEY=one"]), (vec![], 4));
}

/// If start-up code has not read the environment, the snapshot is for all.
#[test]
fn a_snapshot_without_the_environment_is_for_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    // It has start-up code, which does not read the environment.
    let late = environ(
        r#"(func (export "_initialize") (i32.store (i32.const 8) (i32.const 1)))"#,
        "(call $read)",
    );
    for value in ["one", "two"] {
        let setup = Host::with("late.wat", &late).args(["--env", &format!("late:KEY={value}")]);
        let host = setup.arg("--cache-dir").arg(&cache).start();
        assert_eq!(found(&host, "/late"), [format!("KEY={value}")]);
        assert_eq!(std::fs::read_dir(&cache).expect("a cache").count(), 1);
    }
}

fn with_cache(cache: &Path) -> Setup {
    Host::with("early.wat", early()).arg("--cache-dir").arg(cache)
}

const SECRET: &str = "wPz5kQ7hLd";

/// No value is ever shown, whatever is logged and wherever there is a mistake.
#[test]
fn values_are_not_logged() {
    let (env, var) = (format!("early:KEY={SECRET}"), format!("nobody:KEY={SECRET}"));
    let host = Host::with("early.wat", early())
        .env("GUESTHOUSE_LOG", "trace")
        .args(["--env", &env, "--config-var", &var])
        .start();
    assert_eq!(found(&host, "/early"), [format!("KEY={SECRET}")]);
    host.wait_log_with(&["--config-var: no handler is called nobody"]);
    host.at_rest();
    assert!(!host.lines().iter().any(|line| line.text.contains(SECRET)), "it is in the log");
    for text in [
        format!("KEY={SECRET}"),
        format!(":KEY={SECRET}"),
        format!("guest:={SECRET}"),
        format!("guest:{SECRET}"),
    ] {
        for flag in ["--env", "--config-var"] {
            let output = command().args(["serve", flag, &text]).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.starts_with(&format!("error: {flag}: ")), "{said}");
            assert!(!said.contains(SECRET), "{said}");
        }
    }
}

#[test]
fn a_name_that_no_handler_has_is_a_warning() {
    let host = Host::with("hello.wat", HELLO)
        .args(["--env", "hello.wat:KEY=1", "--env", "hello:KEY=1", "--env", "*:KEY=1"])
        .args(["--config-var", "later:KEY=1", "--body-max", "later=none"])
        .args(["--allow-outbound", "later=http://a.test", "--allow-outbound", "*=http://b.test"])
        .args(["--allow-outbound", "hello=http://a.test,10.0.0.0/8"])
        .args(["--allow-outbound", "later=https://a.test"])
        .start();
    let flags = ["--config-var", "--body-max", "--allow-outbound"];
    let said = flags.map(|flag| format!("{flag}: no handler is called later;"));
    assert_eq!(host.wait_log_with(&["--env: no handler is called hello.wat;"]).level(), "WARN");
    for said in &said {
        assert_eq!(host.wait_log_with(&[said]).level(), "WARN");
    }
    host.assert_serves("/hello");
    let warnings = host.lines().into_iter().filter(|line| line.has(&["no handler is called"]));
    assert_eq!(warnings.count(), 4);
}

const MIB: usize = 1 << 20;

/// The status of a POST of this many bytes, with its length or in chunks.
fn post(host: &Host, path: &str, bytes: usize, chunked: bool) -> u16 {
    let body = vec![b'x'; bytes];
    if !chunked {
        return host.request("POST", path, &[], &body).status;
    }
    let mut framed = Vec::new();
    for piece in body.chunks(60_000) {
        framed.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    host.request("POST", path, &["transfer-encoding: chunked"], &framed).status
}

#[test]
fn one_guest_may_take_a_larger_body_than_others() {
    let host = Host::with("one.wat", wat::reads())
        .file("two.wat", wat::reads())
        .file("three.wat", wat::reads())
        .args(["--body-max", "1KiB", "--body-max", "two=none", "--body-max", "three=2KiB"])
        .start();
    for chunked in [false, true] {
        assert_eq!(post(&host, "/one", 1024, chunked), 200);
        assert_eq!(post(&host, "/one", 1025, chunked), 413);
        assert_eq!(post(&host, "/two", 20 * MIB, chunked), 200);
        assert_eq!(post(&host, "/three", 2048, chunked), 200);
        assert_eq!(post(&host, "/three", 2049, chunked), 413);
    }
    assert_eq!(post(&host, "/nobody", 1025, false), 413);
    assert_eq!(host.at_rest().rejects("body_too_large"), 5);
}

/// A handler's limit also holds for a request that comes before the guest is loaded.
#[test]
fn a_request_that_waits_for_its_guest_is_limited_as_any_other() {
    for chunked in [false, true] {
        let setup = || Host::with("one.wat", wat::reads());
        let host = setup().args(["--body-max", "one=1KiB"]).start();
        assert_eq!(post(&host, "/one", 1025, chunked), 413);
        let host = setup().args(["--body-max", "1KiB", "--body-max", "one=none"]).start();
        assert_eq!(post(&host, "/one", MIB, chunked), 200);
        host.at_rest();
    }
}

/// A body that streams may have any size. A body that the host holds for a guest may not.
#[test]
fn a_buffered_body_has_an_end() {
    let keeps = wat::reads().replacen(
        "(memory",
        r#"(import "http_handler" "enable_features" (func $features (param i32) (result i32)))
           (func (export "_initialize") (drop (call $features (i32.const 1))))
           (memory"#,
        1,
    );
    let host = Host::with("reads.wat", wat::reads())
        .file("keeps.wat", keeps)
        .args(["--body-max", "none", "--memory-max", "1MiB", "--memory-total", "64MiB"])
        .start();
    for chunked in [false, true] {
        assert_eq!(post(&host, "/reads", 80 * MIB, chunked), 200);
        assert_eq!(post(&host, "/keeps", MIB, chunked), 200);
        assert_eq!(post(&host, "/keeps", MIB + 1, chunked), 413);
    }
    assert_eq!(host.at_rest().rejects("body_too_large"), 2);
}
