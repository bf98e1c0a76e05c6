//! Limits on numbers: ready instances, requests in a handler, requests on their way to the
//! upstream. A request over the limit is refused at once, others do not notice, and all counts
//! return to zero.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::abi::probe::Probe;
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Line, until};
use crate::middleware::upstream::{Upstream, plain};
use crate::patience::patience;
use crate::wat;

/// The number of ready instances that one worker keeps, of all guests together.
const READY_MAX: u64 = 1024;
/// The number of requests to the upstream that one client or one handler may have on a worker:
/// three quarters of the places.
const UPSTREAM_MAX: usize = 192;

/// Raises the limit of this process to some thousand sockets.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
}

/// Guests with much data have few slots. A handler with calls that wait leaves some slots to
/// others.
#[test]
fn nobody_takes_every_slot() {
    leaves_slots(1);
}

/// An instance with four memories takes four slots.
#[test]
fn who_has_many_memories_takes_as_many_slots() {
    leaves_slots(4);
}

fn leaves_slots(memories: u64) {
    const LARGE_SLOTS: u64 = 250;
    raise_descriptor_limit();
    let data = format!("(data (i32.const 65536) \"{}\")", "x".repeat(70_000));
    let large = |text: String, memories: u64| {
        let memory = r#"(memory (export "memory") 2)"#;
        let more = "(memory 1)".repeat(memories as usize - 1);
        text.replace(memory, &format!(r#"(memory (export "memory") 4) {more} {data}"#))
    };
    let host = Host::with("hog.wat", large(wat::reads(), memories))
        .file("other.wat", large(wat::says("other"), 1))
        .args(["--workers", "2", "--deadline", "60s"])
        .start();
    host.settled();
    assert_eq!(host.get("/other").text(), "other");
    let head = message("POST", "/hog", &["content-length: 4"], b"");
    let waiting: Vec<Connection> = (0..LARGE_SLOTS + 40)
        .map(|_| {
            let mut connection = host.connect();
            connection.send(&head);
            connection
        })
        .collect();
    let all = LARGE_SLOTS / memories;
    let full = host.status_when("all in place", patience(), |status| {
        status.requests > LARGE_SLOTS + 40 && status.instances_out >= all / 2
    });
    for _ in 0..40 {
        assert_eq!(host.get("/other").text(), "other");
    }
    let full = host.status_when("no more", patience(), |status| {
        status.instances_out >= full.instances_out.min(all / 4 * 3 - 8)
    });
    assert!(full.instances_out <= LARGE_SLOTS / 4 * 3 / memories, "{full:?}");
    drop(waiting);
    host.at_rest();
}

/// Refused requests are logged, but not more than a hundred a second, no matter how many there are.
#[test]
fn what_a_client_can_have_logged_is_bounded() {
    const LINES_A_SECOND: usize = 100;
    const REFUSED: usize = 3_000;
    let host = Host::with("bad.wat", "(module)").args(["--workers", "1"]).start();
    host.settled();
    let mut connection = host.connect();
    let begun = Instant::now();
    for _ in 0..REFUSED {
        connection.get("/bad").assert_problem(503);
    }
    let seconds = begun.elapsed().as_secs() as usize + 2;
    let is_refusal = |line: &Line| line.has(&["could not be loaded", "not_loaded"]);
    let told = host.lines().iter().filter(|line| is_refusal(line)).count();
    assert!((1..=LINES_A_SECOND * seconds).contains(&told), "{told} in {seconds} s");
    assert!(told < REFUSED, "too slow to tell");
    // The other ones are counted, and the count is logged as soon as there is room for a line.
    until("the count", patience(), || {
        host.get("/bad").assert_problem(503);
        host.lines().iter().any(|line| line.has(&["more requests were refused"])).then_some(())
    });
    host.at_rest();
}

#[test]
fn ready_instances_are_a_budget_of_all_guests() {
    let mut setup = Host::with("good.wat", HELLO).args(["--workers", "1"]);
    let names: Vec<String> = (0..READY_MAX + 16).map(|number| format!("guest-{number}")).collect();
    for name in &names {
        setup = setup.file(&format!("{name}.wat"), wat::says(name));
    }
    let host = setup.start();
    // Twice, so that guests are requested again after their instances were evicted.
    for name in names.iter().chain(&names) {
        assert_eq!(host.get(&format!("/{name}")).text(), *name);
    }
    let rest = host.at_rest();
    assert_eq!(rest.instances_ready, READY_MAX, "{rest:?}");
}

#[test]
fn one_guest_cannot_take_every_place() {
    raise_descriptor_limit();
    let host = Host::with("good.wat", HELLO)
        .file("reads.wat", wat::reads())
        .args(["--workers", "1", "--deadline", "60s"])
        .start();
    host.settled();
    // Each waits for a body that does not come, and holds an instance.
    let head = "POST /reads HTTP/1.1\r\nhost: guest.test\r\ncontent-length: 5\r\n\r\n";
    let mut waiting: Vec<Connection> = Vec::new();
    let refused = loop {
        let mut connection = host.connect();
        connection.send(head);
        waiting.push(connection);
        assert!(waiting.len() < 4_000, "no bound was met");
        if waiting.len().is_multiple_of(50) {
            let placed = |status: &crate::host::Status| {
                // A refusal is held back for a while, without an instance.
                let settled = status.in_flight == status.instances_out;
                settled && status.in_flight + status.rejects("no_instance") == waiting.len() as u64
            };
            let status = host.status_when("all are in place or refused", patience(), placed);
            if status.rejects("no_instance") > 0 {
                break status.rejects("no_instance");
            }
        }
    };
    host.assert_serves("/good");
    let (mut answered, mut rejected) = (0, 0);
    for mut connection in waiting {
        // A refused request has its answer already, and its connection may have been closed after
        // it.
        if connection.try_send("hello").is_err() {
            rejected += 1;
            continue;
        }
        match connection.next("POST") {
            Ok(Some(answer)) if answer.status == 200 => answered += 1,
            Ok(Some(answer)) => {
                answer.assert_problem(503);
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                rejected += 1;
            }
            Ok(None) | Err(_) => rejected += 1,
        }
    }
    assert_eq!(rejected, refused, "{answered} were answered");
    host.at_rest();
    host.assert_serves("/good");
}

#[test]
fn requests_to_the_upstream_queue_up_to_a_bound() {
    // The queue is as short as it was when it was full, so that no request in it is evicted by one
    // more.
    const QUEUE_MAX: usize = 4;
    raise_descriptor_limit();
    let (upstream, release) = holding_upstream();
    let host = Host::with("good.wat", HELLO)
        .args(["--workers", "1", "--deadline", "60s", "--queue-timeout", "60s"])
        .args(["--queue-max", &QUEUE_MAX.to_string(), "--upstream", &upstream.url("")])
        .start();
    let ask = |_| ask(host.connect(), "/held");
    let mut waiting: Vec<Connection> = (0..UPSTREAM_MAX + QUEUE_MAX).map(ask).collect();
    let all = waiting.len() as u64;
    let placed = |status: &crate::host::Status| status.in_flight == all;
    let status = host.status_when("all are in place", patience(), placed);
    assert_eq!(status.rejects("upstream_busy"), 0, "{status:?}");
    for _ in 0..4 {
        let answer = ask(0).read();
        answer.assert_problem(503);
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    }
    host.assert_serves("/good");
    release.open();
    for connection in &mut waiting {
        assert_eq!(connection.read().text(), "ok");
    }
    assert_eq!(host.at_rest().rejects("upstream_busy"), 4);
}

/// However many requests a client or a handler has to the upstream, there is room for a request of
/// another.
#[test]
fn nobody_takes_every_place_before_the_upstream() {
    raise_descriptor_limit();
    let (upstream, release) = holding_upstream();
    let host = Host::empty()
        .file("one.wat", Probe::new("").next().wat())
        .file("other.wat", Probe::new("").next().wat())
        .args(["--workers", "1", "--deadline", "60s", "--queue-timeout", "60s"])
        .args(["--upstream", &upstream.url("")])
        .start();
    host.settled();
    let another = || Connection::open_from([127, 0, 0, 2].into(), host.addr());
    for path in ["/held", "/one/held"] {
        let many = UPSTREAM_MAX + 40;
        let mut waiting: Vec<_> = (0..many).map(|_| ask(host.connect(), path)).collect();
        let there = |status: &crate::host::Status| status.in_flight == many as u64;
        host.status_when("all are in place", patience(), there);
        assert_eq!(ask(host.connect(), "/other/quick").read().text(), "ok", "{path}");
        assert_eq!(ask(another(), "/other/quick").read().text(), "ok", "{path}");
        assert_eq!(ask(another(), "/quick").read().text(), "ok", "{path}");
        release.open();
        for connection in &mut waiting {
            assert_eq!(connection.read().text(), "ok");
        }
        drop(waiting);
        host.at_rest();
        release.close();
    }
}

fn ask(mut connection: Connection, path: &str) -> Connection {
    connection.send(message("GET", path, &[], b""));
    connection
}

/// Whether the requests that the upstream holds are answered.
#[derive(Default)]
struct Release(Mutex<bool>, Condvar);

impl Release {
    fn open(&self) {
        *self.0.lock().expect("nobody panics with it") = true;
        self.1.notify_all();
    }

    fn close(&self) {
        *self.0.lock().expect("nobody panics with it") = false;
    }

    fn wait(&self) {
        let is_open = self.0.lock().expect("nobody panics with it");
        drop(self.1.wait_while(is_open, |is_open| !*is_open));
    }
}

/// An upstream that answers "ok": at once, except for paths that end in `held`.
fn holding_upstream() -> (Upstream, Arc<Release>) {
    let release = Arc::new(Release::default());
    let held = release.clone();
    let upstream = Upstream::scripted(move |seen, stream| {
        if seen.target.ends_with("held") {
            held.wait();
        }
        stream.write_all(&plain("200 OK", "", "ok")).map(|()| true)
    });
    (upstream, release)
}
