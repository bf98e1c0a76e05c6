//! Loads with something beside them, and what is asked of their answers: bodies, swaps, programs,
//! paths that are asked for once, more requests than there is time for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};

use super::stub::{OK, Stub};
use super::{Bench, Outcome, assert_within};

/// Answers with the number that the tests put into it.
pub const NUMBERED: &str = r#"(module
  (import "http_handler" "write_body" (func $write (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "VERSION")
  (func (export "handle_request") (result i64)
    (call $write (i32.const 1) (i32.const 0) (i32.const 5))
    (i64.const 0)))"#;

/// A call for a scenario; raw.csv is written.
fn scenario(text: &str) -> Bench {
    super::scenario(text).args(["--csv", "raw.csv"])
}

/// The same with a stub's address in the place of `ADDR`.
fn scenario_of(stub: &Stub, text: &str) -> Bench {
    scenario(&text.replace("ADDR", &stub.addr().to_string()))
}

/// The server `host`, which serves these `files`, for the end of a scenario.
fn host(files: &str, ready: &str) -> String {
    let command = ["{guesthouse}", "serve", "{dir}", "--listen", "127.0.0.1:{port}", "--no-cache"];
    let head = format!("[[server]]\nname = \"host\"\ncommand = {command:?}\n");
    format!("{head}files = {{ {files} }}\nready = {ready:?}\n")
}

/// The numbers of that name in raw.csv, by row.
fn raw(done: &Outcome, name: &str) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(done.path("raw.csv")).expect("the raw numbers");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        if fields[4] == name {
            found.insert(fields[1].to_owned(), fields[5].parse().expect("a number"));
        }
    }
    found
}

#[test]
fn each_path_is_asked_for_once() {
    let seen = std::sync::Arc::new(Mutex::new(BTreeMap::new()));
    let counted = std::sync::Arc::clone(&seen);
    let stub = Stub::new(move |asked, client| {
        *counted.lock().expect("no panic").entry(asked.request.target.clone()).or_insert(0) += 1;
        client.say(OK)
    });
    let text = r#"
        title = "Once"
        duration = "60s"
        rounds = 1
        [[case]]
        name = "all"
        request = { paths = ["/{000..199}"], spread = "once" }
        load = { connections = 7, threads = 2 }
        [[case.side]]
        name = "it"
        url = "http://ADDR"
        "#;
    let done = scenario_of(&stub, text).run();
    done.assert_good();
    assert_eq!(raw(&done, "answers")["it"], 200.0, "{}", done.text());
    let seen = seen.lock().expect("no panic");
    // One request comes ahead of the round.
    let more: Vec<_> =
        seen.iter().filter(|(path, count)| **count != 1 && *path != "/000").collect();
    assert!(seen.len() == 200 && more.is_empty() && seen["/000"] == 2, "{more:?}");
}

/// What was not asked for is not answered.
#[test]
fn paths_that_there_was_no_time_for_are_errors() {
    let stub = Stub::after(Duration::from_millis(20));
    let text = r#"
        title = "Cut short"
        duration = "200ms"
        rounds = 1
        [[case]]
        name = "all"
        request = { paths = ["/{000..999}"], spread = "once" }
        load.connections = 2
        [[case.side]]
        name = "it"
        url = "http://ADDR"
        "#;
    let done = scenario_of(&stub, text).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    let (answers, unsent) = (raw(&done, "answers")["it"], raw(&done, "errors_timeout")["it"]);
    assert_eq!(answers + unsent, 1000.0, "{}", done.text());
    assert!(done.out.contains("paths were not asked for in time"), "{}", done.text());
}

/// How long a call that its limit has ended took is what a figure of limits is about.
#[test]
fn callers_that_may_fail_have_a_latency() {
    let stub = Stub::new(|asked, client| match asked.request.target.as_str() {
        "/ended" => {
            sleep(Duration::from_millis(30));
            client.say(b"HTTP/1.1 504 No\r\nContent-Length: 0\r\n\r\n")
        }
        _ => client.say(OK),
    });
    let text = r#"
        title = "Limits"
        duration = "300ms"
        rounds = 1
        [[case]]
        name = "all"
        load.connections = 1
        [[case.side]]
        name = "it"
        url = "http://ADDR"
        [[case.side.beside]]
        name = "callers"
        request.path = "/ended"
        load.connections = 1
        may_fail = true
        "#;
    let done = scenario_of(&stub, text).run();
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert!(raw(&done, "max_us")["it: callers"] >= 30_000.0, "{}", done.text());
}

#[test]
fn another_body_than_before_is_an_error() {
    let stub = Stub::new(|asked, client| match asked.request.target.as_str() {
        "/wrong" if asked.of_target % 10 == 9 => {
            client.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHELLO")
        }
        "/chunked" => client.say(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ),
        _ => client.say(OK),
    });
    let text = r#"
        title = "Bodies"
        duration = "200ms"
        rounds = 1
        [[case]]
        name = "all"
        request.bodies = "BODIES"
        load = { connections = 2, pipeline = 3 }
        [[case.side]]
        name = "right"
        url = "http://ADDR"
        request.paths = ["/right", "/chunked"]
        [[case.side]]
        name = "wrong"
        url = "http://ADDR"
        request.path = "/wrong"
        "#;
    let done = scenario_of(&stub, &text.replace("BODIES", "as before")).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    let (wrong, answers) = (raw(&done, "errors_body"), raw(&done, "answers"));
    assert_eq!(wrong["right"], 0.0, "{}", done.text());
    assert_within("a tenth", wrong["wrong"] / (answers["wrong"] + wrong["wrong"]), 0.05, 0.15);
    assert!(done.out.contains("GET /wrong had another body"), "{}", done.text());
    scenario_of(&stub, &text.replace("BODIES", "any")).run().assert_good();
}

/// The handler's file says in a custom section what it has to answer.
#[test]
fn what_a_handler_says_that_it_answers_is_what_it_has_to_answer() {
    let text = r#"
        title = "Answers"
        duration = "100ms"
        rounds = 1
        [[case]]
        name = "all"
        request.bodies = "answer"
        request.paths_folder = { folder = "handlers", prefix = "/handlers/" }
        load.connections = 2
        sides = ["host"]
        "#;
    let text = format!("{text}{}", host(r#""handlers" = "handlers""#, "/handlers/00001"));
    let handlers = |answers: [&str; 2]| {
        let bench = scenario(&text);
        fs::create_dir(bench.dir.path().join("handlers")).expect("a folder");
        answers.into_iter().zip(1..).fold(bench, |bench, (answer, number)| {
            let mut wasm = wat::parse_str(NUMBERED.replace("VERSION", &format!("{number:05}")))
                .expect("a module");
            wasm.extend([0, 1 + 6 + answer.len() as u8, 6]);
            wasm.extend(b"answer");
            wasm.extend(answer.as_bytes());
            bench.file(&format!("handlers/{number:05}.wasm"), wasm)
        })
    };
    handlers(["00001", "00002"]).run().assert_good();
    let done = handlers(["00001", "00003"]).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(done.out.contains("GET /handlers/00002 had another body"), "{}", done.text());
    assert!(!done.out.contains("GET /handlers/00001 had"), "{}", done.text());
}

/// Measures a host of which one handler is swapped. The second round finds a version in place that
/// the first has left. `swaps` are more keys of the swaps, and `keys` more keys of the host.
fn swapped_on_a_host(duration: &str, swaps: &str, keys: &str) -> Outcome {
    let text = format!(
        r#"
        title = "Swaps"
        duration = "{duration}"
        rounds = 2
        [[case]]
        name = "all"
        request = {{ path = "/swapped", bodies = "as before" }}
        load.connections = 2
        [[case.side]]
        server = "host"
        swaps = {{ template = "version.wat", count = 4, path = "swapped.wat", {swaps} }}
        "#
    );
    let host = host(r#""swapped.wat" = "version.wat""#, "/swapped");
    let done = scenario(&format!("{text}{host}{keys}")).file("version.wat", NUMBERED).run();
    done.assert_good();
    // As many as the machine had the time for.
    assert!(raw(&done, "swaps")["host"] >= 2.0, "{}", done.text());
    done
}

#[test]
fn versions_may_be_swapped_faster_than_they_are_seen() {
    swapped_on_a_host("300ms", "every = \"2ms\"", "");
}

#[test]
fn versions_are_swapped_as_fast_as_they_are_seen() {
    // Each of them was seen, or the run had failed.
    let counters = "counters = [\"ready\", \"no_such_counter\"]\n";
    let done = swapped_on_a_host("2s", "every = \"seen\", in_place = true", counters);
    assert_eq!(raw(&done, "counter_ready")["host"], 1.0, "{}", done.text());
    assert!(raw(&done, "counter_no_such_counter").is_empty());
}

/// The bodies of the answers on each connection of a stub so far.
type Told = BTreeMap<usize, Vec<Vec<u8>>>;

/// Measures a stub that answers by a file whose four versions are swapped. `answer` gets what the
/// connection was told so far, whether the load has begun, and the contents of the file.
fn swapped(
    bodies: &str,
    answer: impl Fn(&[Vec<u8>], bool, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let served = folder.path().join("served");
    fs::write(&served, "00000").expect("a file");
    let (file, told) = (served.clone(), Mutex::new(Told::new()));
    let stub = Stub::new(move |asked, client| {
        let mut told = told.lock().expect("no panic");
        // Each request of the swapper has a connection of its own.
        let is_loaded = told.values().any(|bodies| bodies.len() > 10);
        let told = told.entry(asked.connection).or_default();
        let said = answer(told, is_loaded, fs::read(&file)?);
        told.push(said[said.len() - 5..].to_vec());
        client.say(said)
    });
    let text = r#"
        title = "Swaps"
        duration = "500ms"
        rounds = 1
        [[case]]
        name = "all"
        request = { path = "/it", bodies = "BODIES" }
        load = { connections = 1, timeout = "2s" }
        [[case.side]]
        name = "it"
        url = "http://ADDR"
        swaps = { template = "version", count = 4, path = "SERVED", every = "seen" }
        "#;
    let text = text.replace("BODIES", bodies).replace("SERVED", &served.to_string_lossy());
    scenario_of(&stub, &text).file("version", "VERSION").run()
}

fn ok(body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", body].concat()
}

#[test]
fn an_answer_that_goes_back_to_an_older_version_is_an_error() {
    swapped("as before", |_, _, now| ok(&now)).assert_good();
    let done = swapped("as before", |told, _, now| {
        // The client has had an answer of this version, on this connection. Of the four versions,
        // the one before the last is older, or comes after the next.
        let is_known = told.len() % 10 == 9 && told.last() == Some(&now);
        let number = now[4] - b'0';
        let older = format!("0000{}", (number + 2) % 4);
        ok(if is_known { older.as_bytes() } else { &now })
    });
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(raw(&done, "errors_body")["it"] > 0.0, "{}", done.text());
    let words = "GET /it was answered by an older version, after a newer one had answered";
    assert!(done.target().notes().contains(words), "{}", done.text());
}

/// The load asks on a connection that stays, and the swapper on new ones.
#[test]
fn a_request_of_the_swapper_that_fails_is_an_error() {
    for (kind, bad, words) in [
        ("status", "HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nsorry", "answered with 503"),
        ("read", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello", "its Content-Length is not"),
        ("body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "by none of the versions"),
        ("timeout", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "no answer in time"),
    ] {
        let left = AtomicUsize::new(3);
        let done = swapped("any", move |told, is_loaded, now| {
            let is_bad = told.is_empty() && is_loaded;
            let one_less = |left: usize| left.checked_sub(1).filter(|_| is_bad);
            let is_bad = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
            if is_bad { bad.as_bytes().to_vec() } else { ok(&now) }
        });
        assert_eq!(done.code, Some(1), "{kind}: {}", done.text());
        assert_eq!(raw(&done, &format!("errors_{kind}"))["it"], 3.0, "{}", done.text());
        assert_eq!(done.target().errors("total"), 3, "{}", done.text());
        assert!(done.target().notes().contains(words), "{}", done.text());
    }
}

/// The first request of the load is slow, and the warm-up waits for its answer.
#[test]
fn swaps_of_the_warm_up_do_not_count() {
    let stub = Stub::new(|asked, client| {
        if asked.number == 1 {
            sleep(Duration::from_secs(2));
        }
        client.say(OK)
    });
    let text = r#"
        title = "Swaps"
        duration = "300ms"
        rounds = 1
        [[case]]
        name = "all"
        load.connections = 1
        [[case.side]]
        name = "it"
        url = "http://ADDR"
        swaps = { template = "version", path = "served", every = "20ms" }
        "#;
    let done = scenario_of(&stub, text).file("version", "VERSION").run();
    done.assert_good();
    // A disk that is busy makes them fewer.
    assert_within("swaps in 300 ms", raw(&done, "swaps")["it"], 0.0, 50.0);
}

#[test]
fn a_program_runs_beside_a_side_and_ends_with_it() {
    let stub = Stub::ok();
    let text = r#"
        title = "Along"
        duration = "100ms"
        rounds = 1
        [[case]]
        name = "all"
        load.connections = 2
        [[case.side]]
        name = "beside it"
        url = "http://ADDR"
        along.lead = "300ms"
        along.command = ["sh", "-c", "echo {port} $$ > FOLDER/along; exec sleep 60"]
        [[case.side]]
        name = "failed"
        url = "http://ADDR"
        along = { command = ["sh", "-c", "echo no luck >&2; exit 3"], lead = "300ms" }
        # Somebody else holds its stderr open.
        [[case.side]]
        name = "ended"
        url = "http://ADDR"
        along = { command = ["sh", "-c", "sleep 61 & exit 0"], lead = "300ms" }
        # What it has started heeds no SIGTERM.
        [[case.side]]
        name = "leaves one"
        url = "http://ADDR"
        along.lead = "300ms"
        along.command = ["sh", "-c", "trap '' TERM; sleep 62 & echo $! > FOLDER/left; wait"]
        [[case.side]]
        name = "missing"
        url = "http://ADDR"
        along = { command = ["no-such-program"], needs = "it is not for sale" }
        "#;
    let folder = tempfile::tempdir().expect("a folder");
    let done = scenario_of(&stub, &text.replace("FOLDER", &folder.path().to_string_lossy())).run();
    assert_eq!(done.code, Some(1), "{}", done.text());
    let said = fs::read_to_string(folder.path().join("along")).expect("it ran");
    let (port, pid) = said.trim().split_once(' ').expect("two words");
    assert_eq!(port, stub.addr().port().to_string());
    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a process");
    assert!(test_kill_process(pid).is_err(), "it still runs");
    assert_eq!(done.target_named("beside it").errors("total"), 0, "{}", done.text());
    assert!(done.target_named("failed").notes().contains("no luck"), "{}", done.text());
    let ended = done.target_named("ended").notes();
    assert!(ended.contains("has ended before the measurement"), "{}", done.text());
    let left = fs::read_to_string(folder.path().join("left")).expect("it ran");
    // Where nobody reaps it, it stays as a zombie.
    let stat = fs::read_to_string(format!("/proc/{}/stat", left.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "what it has started still runs: {stat}");
    let skipped = "skipped: all: missing: there is no program `no-such-program` in the PATH; it is \
                   not for sale";
    assert!(done.out.replace("\n  ", " ").contains(skipped), "{}", done.text());
}

/// The stub takes 10 ms for each request, however many there are.
#[test]
fn an_overload_is_offered_on_top_of_the_capacity() {
    let busy = AtomicUsize::new(0);
    let stub = Stub::new(move |asked, client| {
        let is_busy = busy.fetch_add(1, Ordering::SeqCst) > 2 && asked.request.target == "/three";
        if !is_busy {
            sleep(Duration::from_millis(10));
        }
        busy.fetch_sub(1, Ordering::SeqCst);
        client.say(if is_busy { b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" } else { OK })
    });
    let text = r#"
        title = "Overload"
        duration = "300ms"
        rounds = 1
        [[case]]
        name = "all"
        measure = "overload"
        overload = { times = 2, unloaded = 0.2, capacity_connections = 2, longer = 2 }
        load.connections = 20
        [[case.side]]
        name = "served"
        url = "http://ADDR"
        request.path = "/served"
        "#;
    let done = scenario_of(&stub, text).run();
    done.assert_good();
    let goodput = done.target().get("goodput_of_capacity");
    assert_within("of the capacity of two connections", goodput, 1.5, 2.5);
    assert!(done.target().get("p99_to_unloaded") > 0.0, "{}", done.text());
    assert_eq!(raw(&done, "refused")["served"], 0.0);
    // Who serves three requests at a time refuses some of what comes twice as fast as two of them.
    let done = scenario_of(&stub, &text.replace("/served", "/three")).run();
    done.assert_good();
    assert!(raw(&done, "refused")["served"] > 0.0, "{}", done.text());
    assert!(!done.out.contains("status error"), "{}", done.text());
}

#[test]
fn files_of_a_server_may_be_many_by_one_name() {
    let text = r#"
        title = "Files"
        duration = "50ms"
        rounds = 1
        [[case]]
        name = "all"
        request = { paths = ["/many/{08..11}"], bodies = "as before" }
        load = { connections = 1, nice = 19 }
        sides = ["host"]
        "#;
    let host = host(r#""many/{08..11}.wat" = "version.wat""#, "/many/11");
    scenario(&format!("{text}{host}")).file("version.wat", NUMBERED).run().assert_good();
}
