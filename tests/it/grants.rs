//! The grants of one handler: each limit is set for one of two handlers that have the same file,
//! and holds for this handler only. So for every form of guest.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::client::{Connection, Response, message};
use crate::host::{HELLO, Host, Setup, Status, command, until};
use crate::middleware::upstream::{Upstream, plain};
use crate::patience::patience;

/// One form of guest, and the contents of its file.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    probe: fn() -> Vec<u8>,
}

const CORE: &str = "core";
const FLAT_03: &str = "0.3, one module";

const FORMS: [Form; 5] = [
    Form { name: CORE, probe: || core().into_bytes() },
    Form { name: "0.2, one module", probe: || crate::component::probe().to_vec() },
    Form { name: "0.2", probe: || crate::component_whole::probe().to_vec() },
    Form { name: FLAT_03, probe: || crate::component_03::probe().to_vec() },
    Form { name: "0.3", probe: || crate::component_03_whole::probe().to_vec() },
];

impl Form {
    fn is_core(self) -> bool {
        self.name == CORE
    }

    /// Two handlers of this form, `one` and `two`, on one worker.
    fn setup(self) -> Setup {
        let ending = if self.is_core() { "wat" } else { "wasm" };
        let probe = (self.probe)();
        Host::with(&format!("one.{ending}"), &probe)
            .file(&format!("two.{ending}"), &probe)
            .args(["--workers", "1"])
    }

    #[track_caller]
    fn start(self, flags: &[&str]) -> Host {
        self.setup().args(flags).start_settled()
    }
}

/// A core guest. The first letter after its name in the path says what it does.
fn core() -> String {
    r#"(module
      (import "http_handler" "get_uri" (func $get_uri (param i32 i32) (result i32)))
      (import "http_handler" "read_body" (func $read_body (param i32 i32 i32) (result i64)))
      (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
      (import "http_handler" "set_header_value" (func $set (param i32 i32 i32 i32 i32)))
      (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 2)
      (data (i32.const 1000) "x-longdone")
      (global $count (mut i32) (i32.const 0))
      (func $is (param i32) (result i32)
        (i32.eq (i32.load8_u (i32.const 5)) (local.get 0)))
      (func (export "handle_request") (result i64)
        (drop (call $get_uri (i32.const 0) (i32.const 64)))
        (memory.fill (i32.const 65536) (i32.const 120) (i32.const 16384))
        (if (call $is (i32.const 109)) ;; memory
          (then (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))))
        (if (call $is (i32.const 115)) ;; sleep, a second
          (then
            (i32.store (i32.const 2016) (i32.const 1))
            (i64.store (i32.const 2024) (i64.const 1000000000))
            (drop (call $poll_oneoff
              (i32.const 2000) (i32.const 3000) (i32.const 1) (i32.const 4000)))))
        (if (call $is (i32.const 99)) ;; compute
          (then (loop $again (br $again))))
        (if (call $is (i32.const 117)) ;; upload
          (then (loop $more
            (br_if $more (i64.eqz (i64.shr_u
              (call $read_body (i32.const 0) (i32.const 4096) (i32.const 4096))
              (i64.const 32)))))))
        (if (call $is (i32.const 104)) ;; head
          (then (call $set (i32.const 1) (i32.const 1000) (i32.const 6)
            (i32.const 65536) (i32.const 10240))))
        (if (call $is (i32.const 119)) ;; write
          (then (call $write_body (i32.const 1) (i32.const 65536) (i32.const 16384))))
        (if (call $is (i32.const 110)) ;; number
          (then
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.store8 (i32.const 1006) (i32.add (global.get $count) (i32.const 48)))
            (call $write_body (i32.const 1) (i32.const 1006) (i32.const 1)))
          (else (call $write_body (i32.const 1) (i32.const 1006) (i32.const 4))))
        (i64.const 0)))"#
        .to_owned()
}

/// The statuses of the same request to `one` and to `two`.
#[track_caller]
fn both(host: &Host, core: &str, component: &str, form: Form) -> [u16; 2] {
    let path = if form.is_core() { core } else { component };
    ["one", "two"].map(|name| host.get(&format!("/{name}/{path}")).status)
}

fn send(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    connection
}

#[track_caller]
fn in_flight(host: &Host, count: u64) -> Status {
    host.status_when("in flight", patience(), |status| status.in_flight == count)
}

#[test]
fn memory_is_of_one_handler() {
    for form in FORMS {
        let host = form.start(&["--memory-max", "one=4MiB"]);
        assert_eq!(both(&host, "memory", "memory?8", form), [500, 200], "{}", form.name);
        host.at_rest();
    }
}

#[test]
fn the_deadline_is_of_one_handler() {
    for form in FORMS {
        let host = form.start(&["--deadline", "one=100ms", "--deadline", "30s"]);
        assert_eq!(both(&host, "sleep", "sleep?1000", form), [504, 200], "{}", form.name);
        assert_eq!(host.at_rest().rejects("deadline"), 1);
    }
}

/// The other handler is stopped by its deadline, which comes before its CPU limit.
#[test]
fn cpu_time_is_of_one_handler() {
    for form in FORMS {
        let flags = ["--cpu-max", "one=20ms", "--cpu-max", "1h", "--deadline", "two=1s"];
        let host = form.start(&[&flags[..], &["--deadline", "30s"]].concat());
        assert_eq!(both(&host, "compute", "spin", form), [504, 504], "{}", form.name);
        let status = host.at_rest();
        let rejects = (status.rejects("cpu_time"), status.rejects("deadline"));
        assert_eq!(rejects, (1, 1), "{}", form.name);
    }
}

#[test]
fn the_size_of_a_body_is_of_one_handler() {
    for form in FORMS {
        let host = form.start(&["--body-max", "one=1KiB"]);
        let post = |name: &str| {
            let path = format!("/{name}/upload");
            host.request("POST", &path, &[], &[b'x'; 2000]).status
        };
        assert_eq!((post("one"), post("two")), (413, 200), "{}", form.name);
        host.at_rest();
    }
}

/// A component of 0.2 waits if it has written too much before it sets its response. A component of
/// 0.3 cannot write before that.
#[test]
fn the_size_of_a_response_is_of_one_handler() {
    for form in FORMS.into_iter().filter(|form| !form.name.starts_with("0.3")) {
        let (size, status) = if form.is_core() { ("one=1KiB", 500) } else { ("one=4MiB", 504) };
        let host = form.start(&["--response-max", size, "--deadline", "one=1s"]);
        let statuses = both(&host, "write", "write-first?5000", form);
        assert_eq!(statuses, [status, 200], "{}", form.name);
        host.at_rest();
    }
}

#[test]
fn the_size_of_a_head_is_of_one_handler() {
    let field = format!("x-long: {}", "x".repeat(9 << 10));
    for form in FORMS {
        let host = form.start(&["--header-max", "one=8KiB"]);
        assert_eq!(both(&host, "head", "long-head?10", form), [500, 200], "{}", form.name);
        let path = if form.is_core() { "done" } else { "exact" };
        let ask = |name: &str| host.request("GET", &format!("/{name}/{path}"), &[&field], b"");
        ask("one").assert_problem(431);
        assert_eq!(ask("two").status, 200, "{}", form.name);
        assert_eq!(host.at_rest().rejects("head_too_large"), 1);
        // One handler may also have more than all others.
        let host = form.start(&["--header-max", "two=32KiB", "--header-max", "8KiB"]);
        let status =
            |name: &str| host.request("GET", &format!("/{name}/{path}"), &[&field], b"").status;
        assert_eq!((status("one"), status("two"), status("nobody")), (431, 200, 431));
        host.at_rest();
    }
}

#[test]
fn isolation_is_of_one_handler() {
    for form in FORMS {
        let host = form.start(&["--isolation", "one=reuse"]);
        let path = if form.is_core() { "number" } else { "count" };
        let count = |name: &str| {
            let count = host.get(&format!("/{name}/{path}")).text();
            // If this instance is kept, the next request finds it.
            host.at_rest();
            count
        };
        // Some forms give up an instance that had no request for a second, or that had to move to
        // the slow lane.
        let given_up = || {
            let status = host.at_rest();
            status.instances("idle") + status.calls("moved")
        };
        let counts = until("counts in time", patience(), || {
            let before = given_up();
            let counts = [count("one"), count("two"), count("one"), count("two")];
            (given_up() == before).then_some(counts)
        });
        let number = |text: &String| text.parse::<u32>().expect("a number");
        assert_eq!(number(&counts[2]), number(&counts[0]) + 1, "{}: {counts:?}", form.name);
        assert_eq!((&*counts[1], &*counts[3]), ("1", "1"), "{}", form.name);
    }
}

/// Neither handler takes the other's places. A handler with one place and no queue refuses the next
/// request.
#[test]
fn places_and_the_queue_are_of_one_handler() {
    for form in FORMS {
        let flags = ["--handler-in-flight-max", "one=1", "--queue-max", "one=0"];
        let host = form.start(&[&flags[..], &["--deadline", "1h", "--cpu-max", "1h"]].concat());
        let (long, quick) =
            if form.is_core() { ("compute", "done") } else { ("sleep?3600000", "exact") };
        let held = ["one", "two"].map(|name| send(&host, &format!("/{name}/{long}")));
        in_flight(&host, 2);
        host.get(&format!("/one/{quick}")).assert_problem(503);
        assert_eq!(host.get(&format!("/two/{quick}")).status, 200, "{}", form.name);
        drop(held);
        assert_eq!(host.at_rest().rejects("no_instance"), 1, "{}", form.name);
    }
}

#[test]
fn the_wait_in_a_queue_is_of_one_handler() {
    for form in FORMS {
        let flags = ["--handler-in-flight-max", "1", "--queue-timeout", "one=10ms"];
        let more = ["--queue-timeout", "1h", "--deadline", "one=1h", "--cpu-max", "1h"];
        let host = form.start(&[&flags[..], &more].concat());
        let (long, sleep, quick) = if form.is_core() {
            ("compute", "sleep", "done")
        } else {
            ("sleep?3600000", "sleep?1000", "exact")
        };
        let held = send(&host, &format!("/one/{long}"));
        in_flight(&host, 1);
        assert_eq!(host.get(&format!("/one/{quick}")).status, 503, "{}", form.name);
        drop(held);
        host.at_rest();
        // It is answered, whether it waits for the first one or comes after it.
        let mut held = send(&host, &format!("/two/{sleep}"));
        in_flight(&host, 1);
        assert_eq!(host.get(&format!("/two/{quick}")).status, 200, "{}", form.name);
        assert_eq!(held.read().status, 200);
        assert_eq!(host.at_rest().rejects("no_instance"), 1);
    }
}

/// A component that sends requests.
#[test]
fn waits_for_servers_are_of_one_handler() {
    for form in FORMS.into_iter().filter(|form| !form.is_core() && form.name != FLAT_03) {
        let server = Upstream::scripted(|_, stream| {
            // The server is slow.
            std::thread::sleep(Duration::from_millis(600));
            stream.write_all(&plain("200 OK", "", "ok"))?;
            Ok(true)
        });
        let host = form.start(&[
            "--allow-outbound",
            "*=http://127.0.0.1:*",
            "--outbound-timeout",
            "one=100ms",
            "--outbound-max",
            "two=1",
        ]);
        let url = format!("x-url: {}", server.url("/"));
        let ask = |path: &str| host.request("GET", path, &[&url, "x-times: 3"], b"").text();
        assert!(ask("/one/fetch").contains("ConnectionReadTimeout"), "{}", form.name);
        assert_eq!(ask("/two/fetch"), "200 ok", "{}", form.name);
        // One request is being sent, one waits, and the third one is refused.
        let told = ask("/two/fetch-many");
        assert!(told.contains("2 x 200 ok"), "{}: {told}", form.name);
        assert!(told.contains("1 x ") && told.contains("ConnectionLimitReached"), "{told}");
        assert!(!ask("/one/fetch-many").contains("ConnectionLimitReached"), "{}", form.name);
        host.at_rest();
    }
}

/// A twin has the grants of its guest.
#[test]
fn a_twin_has_the_limits_of_its_guest() {
    let host = Host::demo().args(["--body-max", "echo=1KiB", "--header-max", "hello=8KiB"]);
    let host = host.args(["--response-max", "echo=1KiB"]).start_settled();
    let echo = |path: &str, bytes| host.request("POST", path, &[], &vec![b'x'; bytes]).status;
    for path in ["/echo", "/native/echo"] {
        assert_eq!(echo(path, 1025), 413, "{path}");
        assert_eq!(echo(path, 1020), 500, "{path}: it answers with the head as well");
    }
    let field = format!("x-long: {}", "x".repeat(9 << 10));
    for path in ["/hello", "/native/hello"] {
        host.request("GET", path, &[&field], b"").assert_problem(431);
    }
    for path in ["/json", "/native/json", "/fib/1", "/native/fib/1"] {
        assert_eq!(host.request("GET", path, &[&field], b"").status, 200, "{path}");
    }
    host.at_rest();
}

/// The limits for compiling are per handler, too: `huge` would compile with those of the others.
#[test]
fn the_memory_of_compiling_is_of_one_handler() {
    let functions = "(func (param i64) (result i64) local.get 0)".repeat(60_000);
    let huge = HELLO.replace("(memory (export", &format!("{functions}(memory (export"));
    let huge = wat::parse_str(huge).expect("a module");
    let host = Host::with("one.wasm", &huge)
        .file("two.wasm", &huge)
        .args(["--compile-memory-max", "one=256MiB", "--memory-max", "1MiB"])
        .start_settled();
    host.wait_log_with(&["one.wasm", "--compile-memory-max", "256 MiB"]);
    assert_eq!((host.get("/one").status, host.get("/two").status), (503, 200));
}

/// A value for one handler takes precedence over the value for all, in any order.
#[test]
fn one_goes_before_all_in_any_order() {
    let flags = ["--body-max", "one=2KiB", "--body-max", "*=1KiB", "--body-max", "a=b=1MiB"];
    for flags in [flags, [flags[2], flags[3], flags[4], flags[5], flags[0], flags[1]]] {
        let host = Host::with("one.wat", crate::wat::reads())
            .file("two.wat", crate::wat::reads())
            .file("a=b.wat", crate::wat::reads())
            .args(flags)
            .start_settled();
        let post = |path: &str, bytes| host.request("POST", path, &[], &vec![0; bytes]).status;
        assert_eq!((post("/one", 2048), post("/one", 2049)), (200, 413));
        assert_eq!((post("/two", 1024), post("/two", 1025)), (200, 413));
        assert_eq!((post("/a=b", 1 << 20), post("/a=b", 1 + (1 << 20))), (200, 413));
    }
}

/// Each flag says what is wrong with a value for one handler.
#[test]
fn a_wrong_limit_of_one_handler_is_named() {
    let cases = [
        (
            "--deadline",
            " slow =soon",
            "\"soon\" is not a time; write 250ms, 10s, 2m or 1h (for \"slow\")",
        ),
        ("--memory-max", "slow=1KiB", "1KiB is out of range; choose from 64KiB to 4GiB"),
        ("--cpu-max", "=1s", "names no handler; write HANDLER=VALUE, or VALUE for all"),
        ("--isolation", "slow=none", "\"none\" is not a choice; write fresh or reuse"),
        ("--handler-in-flight-max", "slow=0", "\"0\" is not a count"),
        ("--queue-max", "slow=-1", "\"-1\" is not a count"),
        ("--outbound-timeout", "slow=0ms", "0ms is out of range"),
        ("--compile-max", "slow=1ms", "1ms is out of range"),
    ];
    for (flag, value, why) in cases {
        let output = command().args(["serve", flag, value]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(&format!("error: {flag}: ")) && said.contains(why), "{said}");
        assert_eq!(output.status.code(), Some(2), "{flag}");
    }
    let twice = ["serve", "--deadline", "slow=1s", "--deadline", "slow=2s"];
    let output = command().args(twice).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--deadline: \"slow\" is set twice; leave one out"), "{said}");
}

/// One file under two names with different limits and environments is compiled once.
#[test]
fn one_file_with_many_settings_is_compiled_once() {
    let cache = tempfile::tempdir().expect("a folder");
    let mut before = Vec::new();
    let flags = ["--memory-max", "one=1MiB", "--deadline", "one=1s", "--env", "one:KEY=1"];
    for flags in [&flags[..], &["--memory-max", "two=2MiB", "--isolation", "two=reuse"], &[]] {
        let host = Host::with("one.wat", HELLO)
            .file("two.wat", HELLO)
            .args(flags)
            .arg("--cache-dir")
            .arg(cache.path().join("cache"))
            .start_settled();
        for path in ["/one", "/two"] {
            host.assert_serves(path);
        }
        let now = entries(&cache);
        assert_eq!(now.len(), 1);
        // Both may have been compiled at once the first time, and never again.
        assert!(before.is_empty() || before == now, "an entry was made anew");
        before = now;
    }
}

/// The entries of a cache, each with metadata that changes when it is rewritten.
fn entries(cache: &tempfile::TempDir) -> Vec<(std::ffi::OsString, u64)> {
    let entries = std::fs::read_dir(cache.path().join("cache")).expect("a cache");
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name(), entry.metadata().expect("a file").ino())
    };
    let mut entries: Vec<_> = entries.map(entry).collect();
    entries.sort();
    entries
}

/// Start-up code that asks for more memory than its handler may have is refused it. Its snapshot is
/// then only for handlers with these limits, no matter which one was compiled first.
#[test]
fn a_snapshot_is_of_the_memory_that_its_start_up_got() {
    // It asks for 1 MiB, and answers whether it got it. One variant reads its environment before.
    const GROWS: &str = r#"(module
      (import "http_handler" "write_body" (func $write_body (param i32 i32 i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get"
        (func $sizes (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "got itrefused")
      (func (export "_initialize")
        LOOK
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1))
          (then (i32.store (i32.const 100) (i32.const 6)))))
      (func (export "handle_request") (result i64)
        (if (i32.load (i32.const 100))
          (then (call $write_body (i32.const 1) (i32.const 6) (i32.const 7)))
          (else (call $write_body (i32.const 1) (i32.const 0) (i32.const 6))))
        (i64.const 0)))"#;
    let little = ["--memory-max", "grows=1MiB"];
    let orders = [[&little[..], &[]], [&[], &little[..]]];
    let looks = ["", "(drop (call $sizes (i32.const 200) (i32.const 204)))"];
    for (flags, look) in orders.into_iter().flat_map(|order| looks.map(|look| (order, look))) {
        let cache = tempfile::tempdir().expect("a folder");
        let ask = |flags: &[&str]| {
            let setup = Host::with("grows.wat", GROWS.replace("LOOK", look)).args(flags);
            let host = setup.arg("--cache-dir").arg(cache.path().join("cache")).start_settled();
            let told = if flags.is_empty() { "got it" } else { "refused" };
            assert_eq!(host.get("/grows").text(), told, "{flags:?}, {look}");
        };
        // Only with the third start the cache knows what start-up code reads under each limit.
        [flags[0], flags[1], flags[0]].into_iter().for_each(ask);
        let before = entries(&cache);
        [flags[1], flags[0]].into_iter().for_each(ask);
        assert_eq!(entries(&cache), before, "an entry was made anew");
    }
}

#[test]
fn isolation_is_said_for_each_route() {
    let host = Host::with("one.wat", HELLO)
        .file("two.wat", HELLO)
        .args(["--isolation", "two=reuse"])
        .start_settled();
    host.wait_log_with(&["/one", "fresh"]);
    host.wait_log_with(&["/two", "reuse"]);
    host.wait_log_with(&["isolation reuse: a request can see"]);
    let answers: Vec<Response> = ["/one", "/two"].map(|path| host.get(path)).into();
    assert!(answers.iter().all(|answer| answer.status == 200));
}
