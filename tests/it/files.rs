//! The handler folder, from files to answers: which file serves which route, and that a bad file
//! harms only its own route.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::host::{HELLO, Host};
use crate::patience::patience;
use crate::wat;

/// Asserts the answer of each path: its text, or an empty text for a 404.
#[track_caller]
fn check(host: &Host, expected: &[(&str, &str)]) {
    for (path, text) in expected {
        let answer = host.get(path);
        let status = if text.is_empty() { 404 } else { 200 };
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if !text.is_empty() {
            assert_eq!(answer.text(), *text, "{path}");
        }
    }
}

#[test]
fn a_file_serves_the_path_of_its_name() {
    let mut setup = Host::empty();
    for file in [
        "index",
        "hello",
        "docs/index",
        "docs/faq",
        "users/me",
        "users/[id]",
        "blog/[year]/[slug]",
        "static/[...rest]",
        "a b",
        "caf\u{e9}",
    ] {
        setup = setup.file(&format!("{file}.wat"), wat::says(file));
    }
    let host = setup.start();
    check(
        &host,
        &[
            ("/", "index"),
            ("/?a=b", "index"),
            ("/hello", "hello"),
            ("/hello/", "hello"),
            ("/hello/and/below", "hello"),
            ("/hello?a=/docs", "hello"),
            ("/hell", ""),
            ("/hello.wat", ""),
            ("/Hello", ""),
            ("/index", ""),
            ("/docs", "docs/index"),
            ("/docs/", "docs/index"),
            ("/docs/other", ""),
            ("/docs/faq", "docs/faq"),
            ("/docs/faq/3", "docs/faq"),
            ("/users/me", "users/me"),
            ("/users/me/x", "users/me"),
            ("/users/you", "users/[id]"),
            ("/users", ""),
            ("/blog/2026/first", "blog/[year]/[slug]"),
            ("/blog/2026", ""),
            ("/static/a/b/c.css", "static/[...rest]"),
            ("/a%20b", "a b"),
            ("/caf%C3%A9", "caf\u{e9}"),
            ("/%68ello", "hello"),
        ],
    );
    assert_eq!(host.at_rest().rejects("no_route"), 7);
}

#[test]
fn a_folder_may_serve_one_host() {
    let host = Host::with("index.wat", wat::says("every"))
        .file("also.wat", wat::says("also"))
        .file("@example.com/index.wat", wat::says("example"))
        .file("@example.com/[page].wat", wat::says("page"))
        .start();
    let get = |name: &str, path: &str| {
        let answer = host.request("GET", path, &[&format!("host: {name}")], b"");
        answer.text()
    };
    for name in ["example.com", "EXAMPLE.com", "example.com:8080", "example.com."] {
        assert_eq!(get(name, "/"), "example", "{name}");
        assert_eq!(get(name, "/x"), "page", "{name}");
    }
    assert_eq!(get("example.org", "/"), "every");
    assert_eq!(get("www.example.com", "/"), "every");
    assert_eq!(get("example.org", "/also"), "also");
    // If the host of the request has no such route, the routes for all hosts serve.
    assert_eq!(get("example.com", "/also/below"), "also");
}

#[test]
fn a_guest_learns_what_its_route_matched() {
    let seen = ["guesthouse-base-path", "guesthouse-match-id", "guesthouse-match-rest"];
    let host = Host::with("users/[id].wat", wat::tells(&seen))
        .file("files/[id]/[...rest].wat", wat::tells(&seen))
        .file("plain.wat", wat::tells(&seen))
        .file("index.wat", wat::tells(&seen))
        .start();
    check(
        &host,
        &[
            ("/users/7?x=y", "/users/7?x=y\n/users/7\n7\n-"),
            ("/users/a%20b", "/users/a%20b\n/users/a%20b\na%20b\n-"),
            ("/files/7/a/b%C3%A9", "/files/7/a/b%C3%A9\n/files/7\n7\na/b%C3%A9"),
            ("/plain/below?q", "/plain/below?q\n/plain\n-\n-"),
        ],
    );
    // No client can send such a host.
    let forged = [
        "guesthouse-base-path: /forged",
        "Guesthouse-Match-Id: forged",
        "guesthouse-match-rest: forged",
        "GUESTHOUSE-MATCH-ANY: forged",
    ];
    for (path, told) in
        [("/users/7", "/users/7\n/users/7\n7\n-"), ("/plain", "/plain\n/plain\n-\n-")]
    {
        assert_eq!(host.request("GET", path, &forged, b"").text(), told);
    }
    let twins = Host::demo().start_settled();
    for path in ["/echo", "/native/echo"] {
        let echoed = twins.request("GET", path, &forged, b"").text();
        assert!(!echoed.contains("forged") && !echoed.contains("match-"), "{echoed}");
        assert!(echoed.contains(&format!("guesthouse-base-path: {path}\n")), "{echoed}");
    }
}

/// These bytes, followed by a hole of 100 MiB.
fn vast(path: &Path, head: &[u8]) {
    fs::write(path, head).expect("a file");
    let file = File::options().write(true).open(path).expect("the file");
    file.set_len(100 << 20).expect("a hole");
}

#[test]
fn a_file_that_does_not_load_answers_503() {
    let module = b"\0asm\x01\0\0\0";
    let truncated = [&module[..], b"\x01\x20\x05\x60"].concat();
    let noise: Vec<u8> =
        (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let host = Host::with("hello.wat", HELLO)
        .file("empty.wasm", b"")
        .file("emptytext.wat", b"")
        .file("magic.wasm", b"\0asm")
        .file("nothing.wasm", module)
        .file("truncated.wasm", truncated)
        .file("noise.wasm", &noise)
        .file("noisetext.wat", &noise)
        .file("open.wat", "(module")
        .file("component.wasm", b"\0asm\x0d\0\x01\0")
        .file("text.wasm", "#!/bin/sh\necho hello\n")
        .file("elf.wasm", b"\x7fELF\x02\x01\x01\0")
        .prepare(|folder| {
            vast(&folder.join("hole.wasm"), b"");
            vast(&folder.join("vast.wasm"), module);
            vast(&folder.join("vasttext.wat"), b"(module)");
        })
        .start();
    let names = [
        "empty",
        "emptytext",
        "magic",
        "nothing",
        "truncated",
        "noise",
        "noisetext",
        "open",
        "component",
        "text",
        "elf",
        "hole",
        "vast",
        "vasttext",
    ];
    for name in names {
        host.get(&format!("/{name}")).assert_problem(503);
        host.get(&format!("/{name}/below?q")).assert_problem(503);
        let told = host.wait_log(|line| {
            matches!(line.level(), "WARN" | "ERROR") && line.has(&[&format!("{name}.wa")])
        });
        assert!(told.text.len() < 4096, "{name}: a log line of {} bytes", told.text.len());
        host.assert_serves("/hello");
    }
    assert_eq!(host.at_rest().rejects("not_loaded"), 2 * names.len() as u64);
}

#[test]
fn a_file_that_cannot_be_read_harms_no_other() {
    let host = Host::with("hello.wat", HELLO)
        .file("secret.wat", HELLO)
        .file("native.cwasm", b"\x7fELF")
        .file("loud.WAT", HELLO)
        .prepare(|folder| {
            let secret = folder.join("secret.wat");
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("chmod");
            if File::open(&secret).is_ok() {
                // Root can read every file that exists.
                fs::remove_file(&secret).expect("the file");
                symlink("missing.wat", &secret).expect("a link");
            }
            let pipe = folder.join("pipe.wasm");
            rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a pipe");
        })
        .start();
    for (name, file) in [
        ("secret", "secret.wat"),
        ("native", "native.cwasm"),
        ("pipe", "pipe.wasm"),
        ("loud", "loud.WAT: it ends in .WAT, and handlers end in .wat: rename it"),
    ] {
        let answer = host.get(&format!("/{name}"));
        assert!(matches!(answer.status, 404 | 503), "{name}: {answer:?}");
        host.wait_log(|line| matches!(line.level(), "WARN" | "ERROR") && line.has(&[file]));
        host.assert_serves("/hello");
    }
}

#[test]
fn names_that_mean_nothing_are_passed_over() {
    let host = Host::with("hello.wat", HELLO)
        .file(".hidden.wat", HELLO)
        .file(".git/object.wat", HELLO)
        .file("README.md", "# Handlers")
        .file("hello.wat.orig", "(module")
        .file("sub/deep.wat", wat::says("deep"))
        .file("[bad.wat", HELLO)
        .file("wat", "no extension")
        .prepare(|folder| {
            symlink("..", folder.join("sub/loop")).expect("a link");
            symlink("hello.wat", folder.join("alias.wat")).expect("a link");
            symlink("sub", folder.join("other")).expect("a link");
        })
        .start();
    check(
        &host,
        &[
            ("/hello", "Hello, World!"),
            ("/alias", "Hello, World!"),
            ("/sub/deep", "deep"),
            ("/other/deep", "deep"),
            ("/hidden", ""),
            ("/.hidden", ""),
            ("/.git/object", ""),
            ("/README", ""),
            ("/README.md", ""),
            ("/wat", ""),
            ("/sub/loop/hello", ""),
            ("/sub/loop/sub/deep", ""),
            ("/[bad", ""),
        ],
    );
    host.wait_log_with(&["sub/loop"]);
    host.wait_log_with(&["[bad.wat"]);
}

#[test]
fn two_files_for_one_route_stop_the_start() {
    for (one, other) in [
        ("hello.wat", "hello.wasm"),
        ("users/[id].wat", "users/[name].wat"),
        ("@a.test/x.wat", "@A.test/x.wat"),
    ] {
        let (code, told) = Host::with(one, HELLO).file(other, HELLO).file("ok.wat", HELLO).fails();
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(one) && told.contains(other), "{told}");
        assert!(!told.contains("ok.wat"), "{told}");
    }
}

#[test]
fn a_folder_that_is_not_there_stops_the_start() {
    let (code, told) =
        Host::empty().prepare(|folder| fs::remove_dir(folder).expect("an empty folder")).fails();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("handlers") && told.contains("guesthouse demo"), "{told}");
    let (code, told) = Host::empty()
        .prepare(|folder| {
            fs::remove_dir(folder).expect("an empty folder");
            fs::write(folder, "a file").expect("a file");
        })
        .fails();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("not a folder"), "{told}");
}

#[test]
fn an_empty_folder_serves_a_page_that_says_what_to_do() {
    let host = Host::empty().start();
    let page = host.get("/");
    assert_eq!(page.status, 200, "{page:?}");
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{page:?}");
    assert!(page.text().contains("guesthouse new"), "{}", page.text());
    let head = host.request("HEAD", "/", &[], b"");
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.header("content-length"), page.header("content-length"));
    for path in ["/hello", "/index.html", "/a/b", "/native/hello"] {
        host.get(path).assert_problem(404);
    }
    // As soon as there is a handler, there is no landing page.
    let host = Host::with("hello.wat", HELLO).start();
    host.get("/").assert_problem(404);
}

#[test]
fn the_start_says_what_is_served() {
    let host = Host::with("hello.wat", HELLO)
        .file("users/[id].wat", HELLO)
        .args(["--isolation", "reuse"])
        .start();
    for (pattern, file) in [("/hello", "hello.wat"), ("/users/[id]", "users/[id].wat")] {
        host.wait_log_with(&[pattern, file, "reuse"]);
    }
}

/// A link can lead to a file that claims to be ordinary and empty, but has no end, or has data only
/// at times.
#[test]
fn a_link_to_what_has_no_end_is_not_read() {
    const ENDLESS: [&str; 3] = ["/proc/self/pagemap", "/proc/kmsg", "/proc/self/mem"];
    /// More than there are loader threads.
    const OF_EACH: usize = 24;
    let host = Host::with("good.wat", HELLO)
        .prepare(|folder| {
            for (at, target) in ENDLESS.iter().enumerate() {
                for number in 0..OF_EACH {
                    symlink(target, folder.join(format!("{at}-{number}.wasm"))).expect("a link");
                }
            }
        })
        .start();
    let all = (ENDLESS.len() * OF_EACH) as u64;
    host.status_when("loaded", patience(), |status| status.ready == 1 && status.failed == all);
    fs::write(host.handlers().join("late.wat"), wat::says("late")).expect("a file");
    host.status_when("loaded", patience(), |status| status.ready == 2);
    check(&host, &[("/good", "Hello, World!"), ("/late", "late")]);
    // Reading one of them would take a hundred times as much.
    let peak = host.peak_bytes();
    assert!(peak < 1 << 30, "{peak} bytes");
    for verb in ["check", "routes"] {
        let mut command = crate::host::command();
        command.arg(verb);
        if verb == "check" {
            command.args([host.handlers().join("0-0.wasm"), host.handlers().join("1-0.wasm")]);
        } else {
            command.arg(host.handlers());
        }
        let output = command.output().expect("the program starts");
        assert_eq!(output.status.code(), Some(i32::from(verb == "check")), "{output:?}");
    }
    host.at_rest();
}
