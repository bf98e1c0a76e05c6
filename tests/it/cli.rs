//! The command line: the output and the exit code of each verb.
//!
//! The expected texts are in `tests/golden/`; `UPDATE=1 cargo test --test it cli` rewrites them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::host::{HELLO, Host, command, program};
use crate::wat;

/// The outcome of a call of the program.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: Output) -> Done {
        Done {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            err: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// All output, for a golden text.
    fn text(&self) -> String {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        format!("exit code {code}\n-- stdout\n{}-- stderr\n{}", self.out, self.err)
    }
}

/// A folder with these files, to call the program in.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, contents) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, contents).expect("a file");
    }
    folder
}

/// Calls the program in a folder. The path is relative, because the texts have it in them.
fn call(folder: &Path, args: &[&str]) -> Done {
    let mut command = command();
    command.current_dir(folder).args(args).env("COLUMNS", "100");
    Done::of(command.output().expect("the program runs"))
}

/// Compares with the text in `tests/golden/`, or rewrites it.
#[track_caller]
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    // The program's name in the text is the path of the build.
    let actual = actual.replace(&program().to_string_lossy().into_owned(), "guesthouse");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, actual).expect("the golden text");
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{name}: {error}; make it with UPDATE=1"));
    assert!(
        expected == actual,
        "tests/golden/{name} differs; if it should, UPDATE=1 writes it anew\n\
         -- expected\n{expected}\n-- actual\n{actual}"
    );
}

#[test]
fn the_version_names_commit_and_wasmtime() {
    for flag in ["--version", "-V"] {
        let done = call(Path::new("."), &[flag]);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        let words: Vec<&str> = done.out.split_whitespace().collect();
        let [name, version, commit, wasmtime, engine] = words[..] else { panic!("{}", done.out) };
        assert_eq!((name, wasmtime), ("guesthouse", "wasmtime"));
        assert_eq!(version.split('.').count(), 3, "{version}");
        let commit = commit.trim_start_matches('(').trim_end_matches(',');
        let is_commit = commit.len() >= 7 && commit.starts_with(|c: char| c.is_ascii_hexdigit());
        assert!(is_commit || commit == "unknown", "{commit}");
        assert!(engine.starts_with(|c: char| c.is_ascii_digit()), "{engine}");
    }
}

#[test]
fn help_is_complete() {
    for (name, args) in [
        ("help.txt", &["--help"][..]),
        ("help-serve.txt", &["serve", "--help"]),
        ("help-demo.txt", &["demo", "--help"]),
        ("help-check.txt", &["check", "--help"]),
        ("help-routes.txt", &["routes", "--help"]),
        ("help-new.txt", &["new", "--help"]),
    ] {
        let done = call(Path::new("."), args);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(done.out.lines().all(|line| line.chars().count() <= 100), "{}", done.out);
        golden(name, &done.out);
    }
    let done = call(Path::new("."), &[]);
    assert_eq!(done.code, Some(2), "{}", done.text());
    assert!(done.err.contains("Usage: guesthouse"), "{}", done.text());
}

/// Each of these flags is wrong.
const BAD_FLAGS: [&str; 53] = [
    "serve",
    "--listen",
    "nowhere",
    "--listen",
    "127.0.0.1:99999",
    "--workers",
    "0",
    "--isolation",
    "none",
    "--upstream",
    "ftp://a.test",
    "--memory-max",
    "lots",
    "--deadline",
    "10",
    "--cpu-max",
    "0s",
    "--body-max",
    "-",
    "--body-max",
    "one=-",
    "--body-max",
    "=1KiB",
    "--body-max",
    "two=none",
    "--body-max",
    "two=1KiB",
    "--env",
    "NAME=value",
    "--env",
    "guest:=value",
    "--env",
    "guest:NAME=one",
    "--env",
    "guest:NAME=two",
    "--config-var",
    "guest:value",
    "--response-max",
    "9999GiB",
    "--header-max",
    "1KiB",
    "--memory-total",
    "512KiB",
    "--allow-outbound",
    "https://example.com",
    "--outbound-max",
    "none",
    "--outbound-timeout",
    "2h",
    "--log",
    "xml",
    "--cache-dir",
    "/dev/null",
];

#[test]
fn bad_flags_are_all_reported_at_once() {
    let done = call(Path::new("."), &BAD_FLAGS);
    assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{}", done.text());
    for flag in BAD_FLAGS.iter().filter(|flag| flag.starts_with("--")) {
        assert!(done.err.contains(&format!("error: {flag}: ")), "{flag}: {}", done.text());
    }
    golden("bad-flags.txt", &done.text());
    for args in [
        &["serve", "--no-such-flag"][..],
        &["serve", "one", "two"],
        &["serve", "--workers"],
        &["no-such-verb"],
        &["check"],
        &["new", "fortran", "x"],
        &["demo", "folder"],
    ] {
        let done = call(Path::new("."), args);
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{args:?}: {}", done.text());
        assert!(done.err.starts_with("error: "), "{args:?}: {}", done.text());
    }
}

#[test]
fn a_bad_allowance_is_explained() {
    for (allowance, words) in [
        ("example.com", "does not say which handler"),
        ("=https://example.com", "names no handler"),
        ("api=ftp://example.com", "does not begin with http:// or https://"),
        ("api=example.com", "does not begin with http:// or https://"),
        ("api=https://", "is not a host"),
        ("api=https://a.*.example.com", "is not a host"),
        ("api=https://exa mple.com", "is not a host"),
        ("api=https://example.com/path", "has a path"),
        ("api=https://example.com?a", "has a path"),
        ("api=https://user@example.com", "has a user name"),
        ("api=https://example.com:0", "is not a port"),
        ("api=https://example.com:http", "is not a port"),
        ("api=http://127.1", "write all four numbers"),
        ("api=http://::1", "[::1] for IPv6"),
        ("api=http://[127.0.0.1]", "is not a host"),
        ("api=http://db,10.0.0.0/33", "no prefix of 0 to 32 bits"),
        ("api=http://db,internal", "is not a network"),
    ] {
        let done = call(Path::new("."), &["serve", "--allow-outbound", allowance]);
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{allowance}: {}", done.text());
        assert!(done.err.starts_with("error: --allow-outbound: "), "{}", done.text());
        assert!(done.err.contains(words), "{allowance}: {}", done.text());
    }
}

#[test]
fn good_flags_are_taken() {
    let host = Host::with("hello.wat", HELLO)
        .args(["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--workers", "1"])
        .args(["--upstream", "http://127.0.0.1:9", "--isolation", "FRESH"])
        .args(["--memory-max", "65536", "--deadline", "2m", "--cpu-max", "500ms"])
        .args(["--body-max", "0", "--response-max", "1 MiB", "--header-max", "8KiB"])
        .args(["--log", "JSON"])
        .start();
    host.assert_serves("/hello");
    host.wait_log_with(&["listening on http://[::1]:"]);
}

#[test]
fn a_port_in_use_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (code, told) = Host::with("hello.wat", HELLO).args(["--listen", &addr]).fails();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&addr) && told.contains("--listen"), "{told}");
    // Another host does not share the port, although the host's own workers do.
    let first = Host::with("hello.wat", HELLO).start();
    let addr = first.addr().to_string();
    let (code, told) = Host::with("hello.wat", HELLO).args(["--listen", &addr]).fails();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&addr), "{told}");
    first.assert_serves("/hello");
}

#[test]
fn check_says_what_would_be_served() {
    let hello = ("hello.wat", HELLO.as_bytes());
    let folder = folder(&[hello]);
    let done = call(folder.path(), &["check", "hello.wat"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    golden("check-ok.txt", &done.text());
}

#[test]
fn check_says_why_a_file_would_not_be_served() {
    let unknown = r#"(module (import "env" "abort" (func (param i32)))
        (memory (export "memory") 1) (func (export "handle_request") (result i64) (i64.const 0)))"#;
    let signature = r#"(module (memory (export "memory") 1)
        (func (export "handle_request") (param i32) (result i32) (local.get 0)))"#;
    let no_memory = r#"(module (func (export "handle_request") (result i64) (i64.const 0)))"#;
    let traps = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable)
        (func (export "handle_request") (result i64) (i64.const 0)))"#;
    let files: [(&str, &[u8]); 10] = [
        ("hello.wat", HELLO.as_bytes()),
        ("broken.wat", b"(module (func"),
        ("component.wasm", b"\0asm\x0d\0\x01\0"),
        ("empty.wasm", b""),
        ("import.wat", unknown.as_bytes()),
        ("memory.wat", no_memory.as_bytes()),
        ("module.wat", b"(module)"),
        ("signature.wat", signature.as_bytes()),
        ("start.wat", traps.as_bytes()),
        ("text.wasm", b"#!/bin/sh\n"),
    ];
    let folder = folder(&files);
    let mut args = vec!["check"];
    args.extend(files.iter().map(|(name, _)| *name));
    args.push("missing.wasm");
    let done = call(folder.path(), &args);
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert_eq!(done.out.matches("error: ").count(), 10, "{}", done.out);
    assert_eq!(done.out.matches("ok: ").count(), 1, "{}", done.out);
    golden("check-failed.txt", &done.text());
}

#[test]
fn check_lets_no_file_write_to_the_terminal() {
    let import = b"(module (import \"\\1b[31mevil\\0a\" \"x\\e2\\80\\ae\" (func)))";
    let folder = folder(&[("evil.wat", import)]);
    let done = call(folder.path(), &["check", "evil.wat"]);
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(!done.text().contains(['\x1b', '\u{202e}']), "{:?}", done.text());
    // The words are escaped once: the message names what is in the list.
    let name = r"\x1b[31mevil\n::x\u{202e}";
    assert!(done.out.contains(&format!("imports {name} ")), "{}", done.text());
    assert!(done.out.contains(&format!("    {name} ")), "{}", done.text());
}

#[test]
fn routes_are_listed_the_most_specific_first() {
    let files = [
        "index",
        "hello",
        "users/me",
        "users/[id]",
        "static/[...rest]",
        "@example.com/index",
        "[...rest]",
        "docs/index",
    ];
    let files: Vec<(String, String)> =
        files.iter().map(|file| (format!("{file}.wat"), wat::says("x"))).collect();
    let mut named: Vec<(&str, &[u8])> =
        files.iter().map(|(file, text)| (file.as_str(), text.as_bytes())).collect();
    named.push(("broken.wasm", b"noise"));
    let handlers = folder(&named);
    let done = call(handlers.path(), &["routes", "."]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    golden("routes.txt", &done.out);

    let done = call(folder(&[]).path(), &["routes", "."]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{}", done.text());
    assert!(done.err.contains("no routes"), "{}", done.text());
    let done = call(folder(&[]).path(), &["routes"]);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
    golden("routes-no-folder.txt", &done.text());
    let two = folder(&[("a.wat", HELLO.as_bytes()), ("a.wasm", b"")]);
    let done = call(two.path(), &["routes", "."]);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
    golden("routes-conflict.txt", &done.text());
}

#[test]
fn new_writes_a_wat_handler_that_serves() {
    let folder = folder(&[]);
    let done = call(folder.path(), &["new", "wat", "greeter"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    golden("new-wat.txt", &done.out);
    let checked = call(folder.path(), &["check", "greeter.wat"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    let text = fs::read(folder.path().join("greeter.wat")).expect("the handler");
    let host = Host::with("greeter.wat", text).start();
    assert_eq!(host.get("/greeter").text(), "Hello, World!\n");
    // Existing files stay.
    let again = call(folder.path(), &["new", "wat", "greeter"]);
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""), "{}", again.text());
    assert!(again.err.contains("already there"), "{}", again.text());
    for name in ["", "../up", "a/b", "Upper", "a b", ".hidden", "-x"] {
        let done = call(folder.path(), &["new", "wat", "--", name]);
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{name}: {}", done.text());
    }
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
}

#[test]
fn new_writes_a_rust_project_that_builds_and_serves() {
    let folder = folder(&[]);
    let done = call(folder.path(), &["new", "rust", "greeter"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    golden("new-rust.txt", &done.out);
    let Some(wasm) = build(&folder.path().join("greeter")) else { return };
    let host = Host::with("greeter.wasm", fs::read(wasm).expect("the handler")).start();
    let answer = host.get("/greeter");
    assert_eq!(answer.text(), "Hello, World!\n");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let refused = host.request("POST", "/greeter", &[], b"body");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    host.at_rest();
}

/// `languages` tests that the projects build and serve.
#[test]
fn new_writes_projects_in_python_and_javascript() {
    for (language, source) in [("python", "handler.py"), ("javascript", "handler.js")] {
        let folder = folder(&[]);
        let done = call(folder.path(), &["new", language, "greeter"]);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
        golden(&format!("new-{language}.txt"), &done.out);
        assert!(folder.path().join("greeter/src").join(source).exists());
        for name in ["README.md", "wit/http.wit"] {
            let text = fs::read_to_string(folder.path().join("greeter").join(name));
            assert!(!text.expect("a file of the project").contains("{{"), "{name}");
        }
    }
}

/// Builds a project from `new rust` without the network. `None` if a crate would have to be
/// fetched. The target folder is kept, so that later runs are short.
fn build(project: &Path) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-rust");
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let built = Command::new(cargo)
        .current_dir(project)
        .args(["build", "--release", "--offline", "--target-dir"])
        .arg(&target)
        // A guest must not be built with the flags of the build that runs this test.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTC_BOOTSTRAP")
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() && told.contains("--offline") {
        eprintln!("not built, because a crate would have to be fetched:\n{told}");
        return None;
    }
    assert!(built.status.success(), "the project does not build:\n{told}");
    assert!(!told.contains("warning"), "{told}");
    Some(target.join("wasm32-wasip1/release/greeter.wasm"))
}
