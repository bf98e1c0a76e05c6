//! Scenarios: those of the repository in miniature, and the messages for wrong ones.
//!
//! A new file in `benches/scenarios` is tested without a change here. Peers take part if their
//! folder is named (`GUESTHOUSE_PEERS`); otherwise the report names each as left out.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::stub::{OK, Stub};
use super::{Bench, Outcome, assert_within, scenario};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a scenario of the repository. Whatever is slow to prepare stays for the next run.
fn bench(scenario: &Path) -> Bench {
    let peers = std::env::var_os("GUESTHOUSE_PEERS").map(|it| root().join(it).into_os_string());
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-cache");
    Bench::new(["--scenario".as_ref(), scenario.as_os_str()])
        .env("GUESTHOUSE_BENCH_CACHE", cache)
        .env("GUESTHOUSE_PEERS", peers.unwrap_or_else(|| OsString::from("/no/peers")))
}

#[test]
fn every_scenario_runs_in_miniature() {
    let folder = root().join("benches/scenarios");
    let entries = fs::read_dir(folder).expect("the scenarios");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        let began = Instant::now();
        let done = bench(&file).args(["--mini", "--html", "run.html", "--csv", "run.csv"]).run();
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        println!("{name}: {:?}", began.elapsed());
        assert_runs(&name, &done);
    }
}

#[track_caller]
fn assert_runs(name: &str, done: &Outcome) {
    assert_eq!(done.code, Some(0), "{name}: {}", done.text());
    // It names the servers that are prepared, and nothing else.
    assert!(done.err.lines().all(|line| line.contains("INFO")), "{name}: {}", done.text());
    assert!(!done.targets().is_empty(), "{name}: {}", done.text());
    for target in done.targets() {
        let what = format!("{name}: {}", target.name());
        assert_eq!(target.rounds().len(), 1, "{what}: {}", done.text());
        assert!(!target.notes().contains("failed"), "{what}: {}", done.text());
        let numbers = target.0["summary"].as_object().expect("an object");
        let is_beside = target.0["beside"] == true;
        assert!(numbers.len() > 1 || is_beside, "{what}: {}", done.text());
    }
    // The text also gives the reason for each target that was left out.
    for skipped in done.json["skipped"].as_array().expect("a list") {
        let [name, reason] = ["name", "reason"].map(|key| skipped[key].as_str().expect("a text"));
        assert!(!name.is_empty() && !reason.is_empty(), "{skipped}");
        assert!(done.out.contains(&format!("skipped: {name}")), "{}", done.text());
    }
    let page = fs::read_to_string(done.path("run.html")).expect("the page");
    assert!(page.contains("</html>"), "{name}");
}

#[test]
fn peers_that_are_missing_are_left_out_by_name() {
    let file = root().join("benches/scenarios/peers.toml");
    let bench = bench(&file).env("GUESTHOUSE_PEERS", "/no/peers");
    let done = bench.args(["--mini", "--html", "run.html"]).run();
    assert_runs("peers.toml", &done);
    for peer in ["wasmtime-serve-fresh", "go", "node", "workerd", "nginx", "granian", "uvicorn"] {
        let skipped = done.json["skipped"].as_array().expect("a list");
        let skipped = skipped.iter().find(|it| it["name"] == peer);
        let reason = skipped.unwrap_or_else(|| panic!("no {peer}: {}", done.text()));
        let reason = reason["reason"].as_str().expect("a text");
        assert!(reason.contains("just peers"), "{peer}: {reason}");
    }
}

#[test]
fn a_scenario_says_what_is_asked_and_how_often() {
    let missing = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    let stub = Stub::new(move |asked, client| match asked.request.target.as_str() {
        "/missing" => client.say(missing),
        _ => client.say(OK),
    });
    let text = r#"
        title = "A test"
        rounds = 2
        duration = "100ms"
        [load]
        connections = 2
        [[case]]
        name = "{what}"
        each.what = ["a", "b"]
        request = { method = "PUT", path = "/{what}", body = "{what}", headers = { x-y = "z" } }
        [[case.side]]
        name = "first"
        url = "http://ADDR"
        beside = [{ name = "other", request.path = "/missing", request.status = 404 }]
        [[case.side]]
        name = "second"
        url = "http://ADDR"
        request.paths = ["/{01..20}"]
        load = { rate = 200, pipeline = 2 }
        "#;
    let text = text.replace("ADDR", &stub.addr().to_string());
    let done = scenario(&text).args(["--rounds", "3", "--duration", "150ms"]).run();
    done.assert_good();
    let names: Vec<&str> = done.targets().iter().map(|target| target.name()).collect();
    assert_eq!(names, ["first", "first: other", "second", "first", "first: other", "second"]);
    assert!(done.targets().iter().all(|target| target.rounds().len() == 3), "{}", done.text());
    assert_within("answers", done.targets()[2].samples() as f64, 80.0, 90.0);
    assert!(stub.of_target("/20") > 0 && stub.of_target("/21") == 0);
    let put = stub
        .recorded_requests()
        .into_iter()
        .find(|request| request.target == "/a")
        .expect("one of them");
    assert_eq!((put.method.as_str(), put.body.as_slice()), ("PUT", &b"a"[..]));
    assert_eq!(put.all("x-y"), ["z"]);

    let done = scenario(&text).args(["--only", "second", "--connections", "1", "--mini"]).run();
    done.assert_good();
    assert!(done.targets().iter().all(|target| target.name() == "second"), "{}", done.text());
    assert!(done.out.contains("1 connection"), "{}", done.text());
    let done = scenario(&text).args(["--only", "third"]).run();
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.err.contains("third") && done.err.contains("the cases are"), "{}", done.text());
}

#[test]
fn failures_beside_may_be_expected() {
    let stub = Stub::new(|asked, client| match (asked.of_target, &*asked.request.target) {
        (0, _) | (_, "/good") => client.say(OK),
        _ => client.reset(),
    });
    let text = r#"
        title = "Hostile"
        duration = "200ms"
        rounds = 1
        [load]
        connections = 1
        rate = 100
        [[case]]
        name = "one"
        request.path = "/good"
        [[case.side]]
        url = "http://ADDR"
        beside = [{ name = "bad", request.path = "/bad" }]
        "#;
    let text = text.replace("ADDR", &stub.addr().to_string());
    let done = scenario(&text).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    let may_fail = text.replace("name = \"bad\"", "name = \"bad\", may_fail = true");
    let done = scenario(&may_fail).run();
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{}", done.text());
    let [good, bad] = done.targets()[..] else { panic!("{}", done.text()) };
    assert!(good.errors("total") == 0 && good.samples() > 10, "{}", done.text());
    // They are counted all the same.
    assert!(bad.errors("read") > 5, "{}", done.text());
    assert!(bad.0["beside"] == true && good.0["beside"] == false);
}

/// Requests that are due in the last moment of a load are not sent. They must not end the curve.
#[test]
fn a_curve_rises_as_long_as_the_server_keeps_up() {
    let stub = Stub::ok();
    let text = format!(
        r#"
        title = "A curve"
        rounds = 1
        duration = "50ms"
        load.connections = 8
        [[case]]
        name = "short and long"
        measure = "curve"
        curve = {{ loads = [0.05, 0.1, 0.15, 0.2], slowdown_max = 1_000_000 }}
        request.paths = [{{ path = "/short", times = 9 }}, "/long"]
        [[case.side]]
        url = "{}"
        "#,
        stub.url("")
    );
    let reached = || {
        let done = scenario(&text).run();
        done.assert_good();
        done.target().get("load_max_of_capacity")
    };
    // Other work of the machine may end it, too.
    let highest = (0..20).map(|_| reached()).find(|reached| *reached == 0.2);
    assert!(highest.is_some(), "the curve ends before its end");
}

/// Runs a scenario of two servers that run the command `first` when they start. Returns how often
/// each server did. `rest` follows the keys of the servers.
fn run_and_count_starts(
    names: [&str; 2],
    first: &str,
    rest: &str,
) -> (Outcome, impl Fn(&str) -> usize) {
    let started = tempfile::NamedTempFile::new().expect("a file");
    let text = r#"
        title = "Started"
        duration = "50ms"
        load.connections = 1
        request.path = "/native/hello"
        [[server]]
        name = "{name}"
        each.name = NAMES
        command = [
            "sh", "-c", "echo {name} >> STARTED; FIRST exec \"$0\" \"$@\"", "{guesthouse}", "demo",
            "--no-cache", "--workers", "1", "--listen", "127.0.0.1:{port}",
        ]
        ready = "/native/hello"
        ready_within = "60s"
        "#;
    let text = text.replace("NAMES", &format!("{names:?}")).replace("FIRST", first);
    let text = text.replace("STARTED", &started.path().to_string_lossy());
    let done = scenario(&(text + rest)).run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    let started = fs::read_to_string(started.path()).expect("the log");
    (done, move |word: &str| started.lines().filter(|line| *line == word).count())
}

#[test]
fn a_server_is_started_once_or_for_every_round() {
    let rest = r#"
        restart = "{name}"
        [[case]]
        name = "one"
        rounds = 3
        sides = ["case", "round"]
        "#;
    let (done, starts) = run_and_count_starts(["case", "round"], "", rest);
    done.assert_good();
    assert_eq!((starts("case"), starts("round")), (1, 3));
    for target in done.targets() {
        assert!(target.get("cpu_us_per_req") > 0.0, "{}", done.text());
    }
}

/// The server may still work on requests that were given up, which would slow down the next target.
#[test]
fn a_server_that_is_still_busy_after_a_timeout_is_started_anew() {
    let rest = r#"
        [[case]]
        name = "one"
        rounds = 2
        sides = ["done"]
        [[case.side]]
        server = "left"
        [[case.side.beside]]
        name = "too long"
        request.path = "/native/fib/36"
        load.timeout = "10ms"
        may_fail = true
        "#;
    let busy = "while :; do :; done &";
    let (_, starts) = run_and_count_starts(["left", "done"], busy, rest);
    assert_eq!((starts("left"), starts("done")), (2, 1));
}

#[test]
fn a_server_that_does_not_start_is_named() {
    let text = r#"
        title = "Broken"
        [[server]]
        name = "ends"
        command = ["sh", "-c", "echo its last words; exit 3"]
        [[server]]
        name = "is silent"
        command = ["sleep", "60"]
        ready_within = "200ms"
        [[server]]
        name = "missing"
        command = ["no-such-program"]
        needs = "a miracle"
        [[server]]
        name = "lacks a file"
        command = ["sleep", "60"]
        files = { "a.wasm" = "no-such-file.wasm" }
        [[server]]
        name = "lacks CPUs"
        command = ["sleep", "60"]
        cpus = [5000]
        [[case]]
        name = "all"
        sides = ["ends", "is silent", "missing", "lacks a file", "lacks CPUs"]
        [[case]]
        name = "nothing"
        sides = ["missing"]
        "#;
    let done = scenario(text).run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    let ends = done.target_named("ends").notes();
    assert!(ends.contains("has ended") && ends.contains("its last words"), "{ends}");
    let silent = done.target_named("is silent").notes();
    assert!(silent.contains("does not answer /hello in time"), "{silent}");
    assert_eq!(done.targets().len(), 2, "{}", done.text());
    for words in [
        "skipped: missing: there is no program `no-such-program` in the PATH; a miracle",
        "skipped: lacks a file: there is no {here}/no-such-file.wasm",
        "skipped: lacks CPUs: it takes 5001 CPUs",
        "skipped: nothing: none of its sides",
    ] {
        assert!(done.out.contains(words), "no {words}: {}", done.text());
    }
}
