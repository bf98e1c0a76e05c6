//! Mistakes on the command line: each has a message that says what to write instead.
//!
//! With a mistake, nothing is measured.

use super::Bench;
use super::stub::Stub;

const URL: &str = "http://127.0.0.1:9/";

/// Flags after a URL, and the message for them.
const MISTAKES: [(&[&str], &str); 48] = [
    (&["--connections", "0"], "--connections"),
    (&["--connections=-1"], "--connections"),
    (&["--connections", "many"], "--connections"),
    (&["--threads", "0"], "--threads"),
    (&["--threads", "1025"], "1..=1024"),
    (&["--duration", "0s"], "choose from 1ms to 24h"),
    (&["--duration", "25h"], "choose from 1ms to 24h"),
    (&["--duration", "5"], "not a time; write 500ms, 10s or 2m"),
    (&["--duration", "soon"], "not a time"),
    (&["--duration=-5s"], "--duration"),
    (&["--duration", ""], "not a time"),
    (&["--rounds", "0"], "--rounds"),
    (&["--rate", "0"], "not a rate; write how many requests a second, as in 4000 or 0.5"),
    (&["--rate=-5"], "not a rate"),
    (&["--rate", "nan"], "not a rate"),
    (&["--rate", "inf"], "not a rate"),
    (&["--rate", "fast"], "not a rate"),
    (&["--poisson"], "--rate <REQ_PER_S>"),
    (&["--pipeline", "0"], "--pipeline"),
    (&["--pipeline", "65537"], "1..=65536"),
    (&["--timeout", "0ms"], "choose from 1ms to 24h"),
    (&["--timeout", "never"], "not a time"),
    (&["--cpus", "one"], "--cpus"),
    (&["--seed=-1"], "--seed"),
    (&["--seed", "x"], "--seed"),
    (&["--method", "GET /"], "not a method; write GET, POST, ..."),
    (&["--method", ""], "not a method"),
    (&["--header", "no colon"], "write NAME: VALUE"),
    (&["--header", "a b: c"], "not a header field"),
    (&["--header", ": c"], "not a header field"),
    (&["--header", "a: b\r\nc: d"], "not a header field"),
    (&["--header", "Content-Length: 5"], "give the body with --body"),
    (&["--header", "transfer-encoding: chunked"], "give the body with --body"),
    (&["--zipf", "1"], "--paths <FILE>"),
    (&["--paths", "x", "--zipf=-1"], "choose from 0 (all alike) to 10; 1 is usual"),
    (&["--paths", "x", "--zipf", "11"], "choose from 0"),
    (&["--paths", "x", "--zipf", "nan"], "choose from 0"),
    (&["--status", "199"], "200..=599"),
    (&["--status", "600"], "200..=599"),
    (&["--status", "ok"], "--status"),
    (&["--pid", "me"], "--pid"),
    (&["--mini"], "cannot be used with"),
    (&["--quick"], "cannot be used with"),
    (&["--check"], "cannot be used with"),
    (&["--only", "x"], "cannot be used with"),
    (&["--scenario", "x"], "cannot be used with"),
    (&["--no-such-flag"], "--no-such-flag"),
    (&["--json"], "--json <FILE>"),
];

/// Flags that are not for a file which says what is measured, because it sets these things itself.
const WITH_FILE: [&[&str]; 14] = [
    &["--rate", "5"],
    &["--poisson"],
    &["--paths", "x"],
    &["--zipf", "1"],
    &["--threads", "2"],
    &["--pipeline", "2"],
    &["--timeout", "1s"],
    &["--cpus", "0"],
    &["--spin"],
    &["--method", "POST"],
    &["--header", "a: b"],
    &["--body", "x"],
    &["--status", "200"],
    &["--pid", "1"],
];

/// Flags that mean nothing where nothing is measured.
const WITH_TABLES: [&[&str]; 11] = [
    &["--connections", "5"],
    &["--duration", "1s"],
    &["--rounds", "2"],
    &["--seed", "1"],
    &["--only", "x"],
    &["--quick"],
    &["--json", "x"],
    &["--html", "x"],
    &["--csv", "x"],
    &["--out", "x"],
    &["--allow-errors"],
];

#[test]
fn each_bad_flag_has_its_words() {
    let mut wrong = Vec::new();
    for (flags, words) in MISTAKES {
        let done = Bench::new([URL]).args(flags).run();
        let is_told = done.err.starts_with("error: ") && done.err.contains(words);
        if done.code != Some(2) || !done.out.is_empty() || !is_told {
            wrong.push(format!("{flags:?}: {}", done.text()));
        }
    }
    let files = ["--scenario", "--figures", "--tables"];
    let with_file = files.iter().flat_map(|file| WITH_FILE.map(|flags| (*file, flags)));
    for (file, flags) in with_file.chain(WITH_TABLES.map(|flags| ("--tables", flags))) {
        let done = Bench::new([file, "no-such-file.toml"]).args(flags).run();
        // Either the flag must not be there, or a flag that it needs is missing.
        let words = ["cannot be used with", "required arguments were not provided"];
        if done.code != Some(2) || !words.iter().any(|it| done.err.contains(it)) {
            wrong.push(format!("{file} FILE {flags:?}: {}", done.text()));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_bad_url_has_its_words() {
    for (url, words) in [
        ("https://127.0.0.1:8443/", "only http is measured"),
        ("ftp://127.0.0.1/", "only http is measured"),
        ("https:/127.0.0.1/", "only http is measured"),
        ("FTP:/127.0.0.1/", "only http is measured"),
        ("http://", "not a URL"),
        ("http:///hello", "not a URL"),
        ("http://user:secret@127.0.0.1/", "give user and password as a header"),
        ("http://[::1/", "not a URL"),
        ("http://127.0.0.1/a b", "not a URL: there is a space in it, which is written %20"),
        ("http://127.0.0.1/\x1b[31m", "not a URL"),
        ("http://127.0.0.1/\r\nX: y", "not a URL"),
        ("http://::1:80/", "not a URL: an IPv6 address stands in brackets"),
        ("", "not a URL"),
        ("/hello", "not a URL"),
    ] {
        let done = Bench::new([url]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{url:?}: {}", done.text());
        assert!(done.err.contains(words), "{url:?}: {}", done.text());
        assert!(!done.err.contains('\x1b'), "{:?}", done.err);
        assert!(done.err.contains(&format!("{url:?}")), "{url:?}: {}", done.text());
    }
    // If one of the URLs is wrong, nothing is measured.
    let stub = Stub::ok();
    let done = Bench::new([&stub.url("/"), "https://127.0.0.1/"]).run();
    assert_eq!((done.code, stub.requests()), (Some(2), 0), "{}", done.text());
    // If two are wrong, both are reported.
    let done = Bench::new(["http://:80/", "https://127.0.0.1/"]).run();
    assert_eq!(done.err.matches("error: ").count(), 2, "{}", done.text());
}

/// The path that is requested if a URL has no path, or ends in a part that is not sent to servers.
#[test]
fn a_url_is_asked_for_as_curl_asks() {
    let stub = Stub::ok();
    let base = stub.url("");
    let bare = base.trim_start_matches("http://");
    for (url, target) in [
        (format!("{base}?x=1"), "/?x=1"),
        (base.clone(), "/"),
        (bare.to_owned(), "/"),
        (format!("HTTP://{bare}/hello#part"), "/hello"),
    ] {
        let before = stub.requests();
        Bench::new([&url]).args(["--duration", "20ms", "--rate", "50"]).run().assert_good();
        let seen = &stub.recorded_requests()[before];
        assert_eq!(seen.target, target, "{url}");
        assert_eq!(seen.all("host"), [bare], "{url}");
    }
}

#[test]
fn a_port_that_is_none_is_not_taken_for_another() {
    for url in ["http://127.0.0.1:99999/", "127.0.0.1:99999", "http://127.0.0.1:port/"] {
        let done = Bench::new([url]).run();
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{url}: {}", done.text());
        assert!(done.err.contains(&format!("{url:?}")), "{}", done.text());
    }
}

#[test]
fn a_name_that_nobody_knows_is_named() {
    let done = Bench::new(["http://no-such-host.invalid/"]).run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    let notes = done.target().notes();
    assert!(notes.contains("cannot resolve no-such-host.invalid:80"), "{notes}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let stub = Stub::ok();
    let bench = || Bench::new([stub.url("/")]).file("empty", "\n\n").file("bad", "/a\nb\n");
    for (flags, words) in [
        (&["--paths", "no-such-file"][..], "cannot read paths from no-such-file"),
        (&["--paths", "empty"], "there is no path in it"),
        (&["--paths", "bad"], "bad:2: a path begins with /"),
        (&["--body", "@no-such-file"], "cannot read the body from no-such-file"),
        (&["--pid", "1", "--pid", "2"], "more --pid than URLs"),
    ] {
        let done = bench().args(flags).run();
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{flags:?}: {}", done.text());
        assert!(done.err.contains(words), "{flags:?}: {}", done.text());
    }
    assert_eq!(stub.requests(), 0);
}

#[test]
fn help_names_every_flag() {
    let done = Bench::new(["--help"]).run();
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    let flags = MISTAKES.iter().flat_map(|(flags, _)| *flags);
    for flag in flags.filter(|flag| flag.starts_with("--") && **flag != "--no-such-flag") {
        let flag = flag.split('=').next().expect("a first part");
        assert!(done.out.contains(flag), "{flag}: {}", done.text());
    }
    assert!(done.out.lines().all(|line| line.chars().count() <= 100), "{}", done.text());
}
