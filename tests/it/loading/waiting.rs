//! Requests for guests that are not loaded yet: they wait, up to their deadline and up to a number,
//! and are then answered as usual.

use std::net::IpAddr;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::{
    PATIENTLY, WHILE, assert_ended, assert_no_compilers, assert_says, burner, read, slow_starter,
    slowly, stopped_compiler, stopped_compiler_beside,
};
use crate::client::{Connection, message};
use crate::host::{HELLO, Host, Setup};
use crate::patience::patience;
use crate::wat;

/// The most requests that may wait for one guest.
const WAITING_MAX: usize = 512;
/// The most requests of one client that may wait on one worker, for all guests: seven eighths of
/// 1,024.
const WAITING_OF_CLIENT_MAX: usize = 896;

/// Sends a GET on a connection of its own.
fn ask(host: &Host, path: &str) -> Connection {
    let mut connection = host.connect();
    connection.send(message("GET", path, &[], b""));
    connection
}

/// Sends this many requests that wait for a guest, in addition to those that wait already. A few at
/// a time, so that the host can accept them.
#[track_caller]
fn connect_many(host: &Host, path: &str, count: usize, others: usize) -> Vec<Connection> {
    let mut waiting = Vec::new();
    while waiting.len() < count {
        waiting.extend((0..64).map(|_| ask(host, path)));
        let all = (others + waiting.len()) as u64;
        host.status_when("waiting", patience(), |status| status.in_flight == all);
    }
    waiting
}

/// Asserts that one more request may not wait.
#[track_caller]
fn assert_full(host: &Host, path: &str) {
    let answer = host.get(path);
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
}

/// Raises this process's limit of open files as far as possible.
fn raise_the_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
}

#[test]
fn a_burst_at_a_cold_start_is_answered_when_the_guests_are_loaded() {
    const GUESTS: usize = 10;
    const EACH: usize = 20;
    raise_the_limit_of_open_files();
    let file = |setup: Setup, at: usize| {
        let text = slow_starter(&format!("I am {at}"), 50_000_000);
        setup.file(&format!("guest-{at}.wat"), text)
    };
    let setup = (0..GUESTS).fold(Host::empty(), file);
    let host = setup.args(PATIENTLY).start();
    let guests = (0..GUESTS * EACH).map(|at| at % GUESTS);
    let mut waiting: Vec<(usize, Connection)> =
        guests.map(|guest| (guest, ask(&host, &format!("/guest-{guest}")))).collect();
    let status = host.status();
    assert!(status.ready < GUESTS as u64, "nobody had to wait: {status:?}");
    for (guest, connection) in &mut waiting {
        let answer = read(connection);
        let (status, text) = (answer.status, answer.text());
        assert_eq!((status, text), (200, format!("I am {guest}")), "{answer:?}");
    }
    let status = host.at_rest();
    assert_eq!((status.requests, status.ready), ((GUESTS * EACH) as u64, GUESTS as u64));
    assert!(status.rejects.is_empty(), "{status:?}");
    assert_no_compilers(&host);
}

#[test]
fn a_request_waits_for_a_guest_up_to_its_deadline() {
    let host =
        Host::with("slow.wat", burner("slow")).args(["--deadline", "2s", "--workers", "1"]).start();
    let slow = stopped_compiler(&host);
    std::fs::write(host.handlers().join("good.wat"), HELLO).expect("a file");
    host.status_when("a good neighbour", patience(), |status| status.ready == 1);
    let mut waiting = ask(&host, "/slow");
    host.status_when("waiting", patience(), |status| status.in_flight == 1);
    let mut others = host.connect();
    for _ in 0..20 {
        assert_eq!(others.get("/good").text(), "Hello, World!");
    }
    let answer = read(&mut waiting);
    answer.assert_problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    // The connection stays open. Another request on it may wait, and is not answered, either.
    waiting.send(message("GET", "/slow", &[], b""));
    read(&mut waiting).assert_problem(503);
    let status = host.at_rest();
    assert_eq!((status.rejects("loading"), status.loading), (2, 1), "{status:?}");
    host.assert_serves("/good");
    slow.signal(Signal::KILL);
}

/// A client that disconnects leaves nothing behind, and its place is free for another.
#[test]
fn a_client_that_gives_up_waiting_leaves_its_place() {
    let host = Host::with("slow.wat", slow_starter("slow", WHILE))
        .args(PATIENTLY)
        .args(["--workers", "1"])
        .start();
    let slow = stopped_compiler(&host);
    raise_the_limit_of_open_files();
    let waiting = connect_many(&host, "/slow", WAITING_MAX, 0);
    assert_full(&host, "/slow");
    drop(waiting);
    host.status_when("given up", patience(), |status| status.in_flight == 0);
    let mut waiting = ask(&host, "/slow");
    host.status_when("waiting", patience(), |status| status.in_flight == 1);
    waiting.assert_silent();
    slow.signal(Signal::CONT);
    assert_eq!(read(&mut waiting).text(), "slow");
    let status = host.at_rest();
    assert_eq!(status.rejects("loading"), 1, "{status:?}");
}

/// When as many requests wait for one guest as may, others can still wait for another guest. When
/// as many of one client wait, another client's can.
#[test]
fn more_requests_than_may_wait_are_told_to_come_back() {
    const MORE: usize = 20;
    raise_the_limit_of_open_files();
    let file =
        |setup: Setup, name: &str| setup.file(&format!("{name}.wat"), slow_starter(name, WHILE));
    let setup = ["one", "two", "three"].into_iter().fold(Host::empty(), file);
    let host = setup.args(PATIENTLY).args(["--workers", "1"]).start();
    let mut stopped = Vec::new();
    while stopped.len() < 3 {
        stopped.push(stopped_compiler_beside(&host, &stopped));
    }
    std::fs::write(host.handlers().join("good.wat"), HELLO).expect("a file");
    host.status_when("a good neighbour", patience(), |status| status.ready == 1);
    let all = WAITING_OF_CLIENT_MAX;
    let mut ones = connect_many(&host, "/one", WAITING_MAX, 0);
    for _ in 0..MORE {
        assert_full(&host, "/one");
    }
    let mut twos = connect_many(&host, "/two", all - WAITING_MAX, WAITING_MAX);
    for path in ["/one", "/two", "/three"] {
        assert_full(&host, path);
    }
    // Other requests are not held up by those that wait.
    host.assert_serves("/good");
    let other = IpAddr::from([127, 0, 0, 2]);
    let mut another = Connection::open_from(other, host.addr());
    another.send(message("GET", "/three", &[], b""));
    host.status_when("another client's", patience(), |status| status.in_flight == all as u64 + 1);
    for connection in ones.iter_mut().chain(&mut twos) {
        connection.assert_silent();
    }
    for compiler in &stopped {
        compiler.signal(Signal::CONT);
    }
    for (name, connections) in [("one", &mut ones), ("two", &mut twos)] {
        for connection in connections {
            let answer = read(connection);
            assert_eq!((answer.status, answer.text().as_str()), (200, name), "{answer:?}");
        }
    }
    assert_eq!(read(&mut another).text(), "three");
    let status = host.at_rest();
    assert_eq!(status.rejects("loading"), MORE as u64 + 3, "{status:?}");
    assert_eq!(status.rejects.len(), 1, "{status:?}");
    assert_says(&host, "/three", "three");
    assert_no_compilers(&host);
}

#[test]
fn a_request_with_a_body_waits_with_it() {
    let host = Host::with("reader.wat", slowly(&wat::reads(), WHILE))
        .args(PATIENTLY)
        .args(["--workers", "1"])
        .start();
    let reader = stopped_compiler(&host);
    let body = vec![b'x'; 1 << 20];
    let mut waiting: Vec<Connection> = (0..5).map(|_| host.connect()).collect();
    std::thread::scope(|scope| {
        for connection in &mut waiting {
            // More than the sockets hold, so that sending waits as well.
            let request = message("POST", "/reader", &[], &body);
            scope.spawn(move || {
                connection.send(request);
                assert_eq!(read(connection).text(), "read");
            });
        }
        host.status_when("waiting", patience(), |status| status.in_flight == 5);
        reader.signal(Signal::CONT);
    });
    let status = host.at_rest();
    assert!(status.rejects.is_empty(), "{status:?}");
}

/// A host that drains answers waiting requests if their guest is loaded in time.
#[test]
fn who_waits_while_the_host_stops_is_answered() {
    let slow = slow_starter("slow", WHILE);
    let host = Host::with("slow.wat", slow).args(PATIENTLY).start();
    let compiler = stopped_compiler(&host);
    let mut waiting = ask(&host, "/slow");
    host.status_when("waiting", patience(), |status| status.in_flight == 1);
    host.signal(Signal::TERM);
    host.wait_log_with(&["SIGTERM"]);
    compiler.signal(Signal::CONT);
    let answer = read(&mut waiting);
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"), "{answer:?}");
    assert!(answer.closes(), "{answer:?}");
    assert!(host.wait_exit().success());
    assert_ended(&[compiler]);
}

/// A guest that a request waits for is loaded next, whatever else is in the queue.
#[test]
fn a_guest_that_is_asked_for_is_loaded_first() {
    const GUESTS: usize = 60;
    let file = |setup: Setup, at: usize| {
        let text = slow_starter(&format!("I am {at}"), 200_000_000);
        setup.file(&format!("guest-{at:02}.wat"), text)
    };
    let host = (0..GUESTS).fold(Host::empty(), file).arg("--no-cache").args(PATIENTLY).start();
    for at in [GUESTS - 1, GUESTS / 2] {
        let status = host.status();
        assert_says(&host, &format!("/guest-{at:02}"), &format!("I am {at}"));
        // Apart from those that were being loaded already, and those that finished at the same
        // time.
        let others = host.status().ready - status.ready;
        assert!(others < 10, "{others} others were loaded before");
    }
    assert!(host.status().cold > 0, "none was left to be asked for");
    host.at_rest();
}

/// If the file of a guest is removed, requests that wait for it get a 404.
#[test]
fn a_guest_that_is_removed_while_it_is_waited_for_is_not_there() {
    let host =
        Host::with("slow.wat", burner("slow")).file("good.wat", HELLO).args(PATIENTLY).start();
    assert_says(&host, "/good", "Hello, World!");
    let slow = stopped_compiler(&host);
    let mut waiting = ask(&host, "/slow");
    host.status_when("waiting", patience(), |status| status.in_flight == 1);
    std::fs::remove_file(host.handlers().join("slow.wat")).expect("a file");
    read(&mut waiting).assert_problem(404);
    host.get("/slow").assert_problem(404);
    host.at_rest();
    host.assert_serves("/good");
    assert_ended(&[slow]);
    // The end of its compiler changes nothing.
    let status = host.at_rest();
    assert_eq!((status.handlers, status.ready), (1, 1), "{status:?}");
}

/// If start-up code runs in each instance, the instances for many requests are made at once.
#[test]
fn a_burst_for_a_guest_that_starts_up_for_each_request_is_answered() {
    let guest = crate::hostile::text("start_random");
    let host = Host::with("random.wat", guest).args(PATIENTLY).start();
    let mut waiting: Vec<Connection> = (0..100).map(|_| ask(&host, "/random")).collect();
    for connection in &mut waiting {
        let answer = read(connection);
        assert_eq!((answer.status, answer.body.len()), (200, 16), "{answer:?}");
    }
    let status = host.at_rest();
    assert!(status.rejects.is_empty(), "{status:?}");
}
