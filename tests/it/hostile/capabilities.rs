//! What WASI gives to a guest: no file, no socket, no environment, no argument.

use crate::host::{HELLO, Host};

/// WASI error codes.
const BADF: i32 = 8;

/// Each call with the results that it may have: the error code, and up to eight bytes at 0 if
/// given.
const CALLS: &[(&str, &str, &str)] = &[
    ("environ_sizes_get", "i32 i32", "#0 #4"),
    ("environ_get", "i32 i32", "#64 #128"),
    ("args_sizes_get", "i32 i32", "#0 #4"),
    ("args_get", "i32 i32", "#64 #128"),
    ("fd_prestat_get", "i32 i32", "#3 #64"),
    ("fd_prestat_dir_name", "i32 i32 i32", "#3 #64 #8"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "#3 #0 #256 #11 #0 @2 @2 #0 #64"),
    ("path_filestat_get", "i32 i32 i32 i32 i32", "#3 #0 #256 #11 #64"),
    ("path_create_directory", "i32 i32 i32", "#3 #256 #11"),
    ("path_unlink_file", "i32 i32 i32", "#3 #256 #11"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32", "#3 #256 #11 #64 #8 #128"),
    ("path_symlink", "i32 i32 i32 i32 i32", "#256 #11 #3 #256 #11"),
    ("path_rename", "i32 i32 i32 i32 i32 i32", "#3 #256 #11 #3 #256 #11"),
    ("fd_readdir", "i32 i32 i32 i64 i32", "#3 #64 #64 @0 #128"),
    ("fd_read", "i32 i32 i32 i32", "#3 #16 #1 #64"),
    ("fd_write", "i32 i32 i32 i32", "#3 #16 #1 #64"),
    ("fd_close", "i32", "#3"),
    ("sock_accept", "i32 i32 i32", "#3 #0 #64"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32", "#3 #16 #1 #0 #64 #128"),
    ("sock_send", "i32 i32 i32 i32 i32", "#3 #16 #1 #0 #64"),
    ("sock_shutdown", "i32 i32", "#3 #2"),
];

/// Calls that may succeed, because they have no result to give.
const EMPTY: &[&str] = &["environ_sizes_get", "environ_get", "args_sizes_get", "args_get"];

/// A guest that makes one call and answers with its result and eight bytes from 0 on.
fn guest(name: &str, params: &str, arguments: &str) -> String {
    let push = |argument: &str| match argument.split_at(1) {
        ("#", number) => format!("(i32.const {number})"),
        (_, number) => format!("(i64.const {number})"),
    };
    let arguments: Vec<String> = arguments.split(' ').map(push).collect();
    format!(
        r#"(module
             (import "wasi_snapshot_preview1" "{name}"
               (func $call (param {params}) (result i32)))
             (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
             (memory (export "memory") 1)
             (data (i32.const 0) "\ff\ff\ff\ff\ff\ff\ff\ff")
             (data (i32.const 16) "\00\02\00\00\08\00\00\00")
             (data (i32.const 256) "/etc/passwd")
             (func (export "handle_request") (result i64)
               (i32.store (i32.const 8) (call $call {}))
               (call $write_body (i32.const 1) (i32.const 0) (i32.const 12))
               (i64.const 0)))"#,
        arguments.join(" ")
    )
}

#[test]
fn nothing_of_the_machine_is_visible() {
    let mut setup = Host::with("good.wat", HELLO).env("A_SECRET_OF_THE_HOST", "1");
    for (name, params, arguments) in CALLS {
        setup = setup.file(&format!("{name}.wat"), guest(name, params, arguments));
    }
    let host = setup.start();
    for (name, _, _) in CALLS {
        let answer = host.get(&format!("/{name}"));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let (counts, result) = answer.body.split_at(8);
        let result = i32::from_le_bytes(result.try_into().expect("four bytes"));
        let untouched = if name.ends_with("_sizes_get") { 0 } else { 0xff };
        assert_eq!(counts, [untouched; 8], "{name} gave something");
        let expected = if EMPTY.contains(name) { 0 } else { BADF };
        assert_eq!(result, expected, "{name}");
    }
    host.assert_serves("/good");
    host.at_rest();
}

/// Standard input is empty, the standard streams are no terminals, and cannot be seeked.
#[test]
fn the_standard_streams_lead_nowhere() {
    let reading = guest("fd_read", "i32 i32 i32 i32", "#0 #16 #1 #0");
    let seeking = guest("fd_seek", "i32 i64 i32 i32", "#1 @0 #0 #64");
    let host = Host::with("reading.wat", reading).file("seeking.wat", seeking).start();
    let read = host.get("/reading").body;
    assert_eq!(read[..4], [0; 4], "bytes were read");
    assert_eq!(read[8..], [0; 4], "reading failed");
    let sought = host.get("/seeking").body;
    assert_ne!(sought[8..], [0; 4], "stdout could be sought");
    host.at_rest();
}

/// Proposals and interfaces that the host does not have are refused when the file is loaded.
#[test]
fn other_interfaces_are_not_linked() {
    let imports = [
        r#"(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
        r#"(import "wasi:sockets/tcp@0.2.0" "connect" (func))"#,
        r#"(import "wasi" "thread-spawn" (func (param i32) (result i32)))"#,
        r#"(import "wasi_snapshot_preview1" "sock_open" (func (param i32 i32 i32) (result i32)))"#,
    ];
    let mut setup = Host::with("good.wat", HELLO);
    for (index, import) in imports.iter().enumerate() {
        let text = format!(
            r#"(module {import}
                 (memory (export "memory") 1)
                 (func (export "handle_request") (result i64) (i64.const 0)))"#
        );
        setup = setup.file(&format!("import-{index}.wat"), text);
    }
    let host = setup.start();
    for index in 0..imports.len() {
        host.get(&format!("/import-{index}")).assert_problem(503);
        host.wait_log_with(&[&format!("import-{index}"), "does not have"]);
    }
    host.assert_serves("/good");
    host.at_rest();
}
