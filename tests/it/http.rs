//! HTTP/1.1 as a well-behaved client sees it: connections, order, framing and interim responses.

use crate::client::{Response, message};
use crate::host::{HELLO, Host};
use crate::patience::{patience, soon};
use crate::wat;

fn hello_and_reader() -> Host {
    Host::with("hello.wat", HELLO).file("reader.wat", wat::reads()).arg("--native").start()
}

/// The guest and its twin, which take the same path through the host.
const HELLOS: [&str; 2] = ["/hello", "/native/hello"];

#[test]
fn a_connection_has_keep_alive() {
    let host = hello_and_reader();
    let mut connection = host.connect();
    for path in HELLOS.repeat(5) {
        let answer = connection.get(path);
        assert_eq!((answer.status, answer.closes()), (200, false), "{answer:?}");
        assert_eq!(answer.text(), "Hello, World!");
    }
    let status = host.at_rest();
    assert_eq!((status.connections, status.requests), (1, 10), "{status:?}");
    drop(connection);
    host.status_when("without connections", soon(), |it| it.connections == 0);
}

#[test]
fn pipelined_answers_come_in_order() {
    let host = Host::demo().start_settled();
    for prefix in ["", "/native"] {
        let mut connection = host.connect();
        let mut all = Vec::new();
        // The numbers fall, so that the first request takes the longest.
        for n in (0..24).rev() {
            all.extend(message("GET", &format!("{prefix}/fib/{n}"), &[], b""));
            all.extend(message("HEAD", &format!("{prefix}/hello"), &[], b""));
            let body = format!("body {n}");
            all.extend(message("POST", &format!("{prefix}/echo"), &[], body.as_bytes()));
        }
        connection.send(all);
        let mut pair = (0_u64, 1_u64);
        let numbers: Vec<u64> = std::iter::repeat_with(|| {
            let first = pair.0;
            pair = (pair.1, pair.0 + pair.1);
            first
        })
        .take(24)
        .collect();
        for n in (0..24).rev() {
            assert_eq!(connection.read().text(), format!("{}\n", numbers[n]));
            let head = connection.read_to("HEAD");
            assert_eq!((head.status, head.body.len()), (200, 0));
            let echoed = connection.read().text();
            assert!(echoed.ends_with(&format!("\nbody {n}")), "{echoed}");
        }
        connection.assert_silent();
    }
}

#[test]
fn an_answer_leaves_before_a_slow_one_behind_it() {
    let host = hello_and_reader();
    for hello in HELLOS {
        let mut connection = host.connect();
        let mut both = message("GET", hello, &[], b"");
        // The second request cannot be answered until its body is sent.
        both.extend(message("POST", "/reader", &["content-length: 4"], b""));
        connection.send(both);
        assert_eq!(connection.read().text(), "Hello, World!");
        connection.assert_silent();
        connection.send("body");
        assert_eq!(connection.read().text(), "read");
        assert_eq!(connection.get(hello).status, 200);
    }
    host.at_rest();
}

#[test]
fn a_busy_guest_holds_up_nobody_else() {
    let host = Host::with("hello.wat", HELLO)
        .file("spin.wat", wat::spins())
        .args(["--workers", "1", "--deadline", "3s"])
        .start();
    let mut slow = host.connect();
    let mut both = message("GET", "/hello", &[], b"");
    both.extend(message("GET", "/spin", &[], b""));
    slow.send(both);
    // The first answer is sent while the request behind it computes.
    assert_eq!(slow.read().text(), "Hello, World!");
    // So are the answers to other clients, by the same worker.
    for _ in 0..20 {
        host.assert_serves("/hello");
    }
    slow.assert_silent();
    slow.read().assert_problem(504);
    let status = host.at_rest();
    assert_eq!(status.requests, 22, "{status:?}");
}

/// Making a fresh instance runs compiled code, too, and an epoch tick must not stop it. With more
/// busy workers than cores, the kernel interrupts them in the middle of it.
#[test]
fn a_tick_while_an_instance_is_made_harms_nobody() {
    let host = Host::with("hello.wat", HELLO)
        .file("spin.wat", wat::spins())
        .args(["--workers", "8", "--deadline", "3s"])
        .start();
    let pipeline = message("GET", "/hello", &[], b"").repeat(32);
    std::thread::scope(|scope| {
        // Ticks come only while guests run.
        scope.spawn(|| host.get("/spin").assert_problem(504));
        for _ in 0..16 {
            scope.spawn(|| {
                let mut connection = host.connect();
                for _ in 0..100 {
                    connection.send(&pipeline);
                    for _ in 0..32 {
                        assert_eq!(connection.read().text(), "Hello, World!");
                    }
                }
            });
        }
    });
    let status = host.at_rest();
    assert_eq!((status.requests, status.rejects("deadline")), (51_201, 1), "{status:?}");
}

#[test]
fn head_has_the_length_of_get_and_no_body() {
    let host = hello_and_reader();
    for path in [HELLOS[0], HELLOS[1], "/nothing", "/native/fib/x"] {
        let mut connection = host.connect();
        let get = connection.get(path);
        let head = connection.request("HEAD", path, &[], b"");
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        // A body would be read as the next answer.
        assert_eq!(connection.get("/hello").text(), "Hello, World!", "{path}");
        connection.assert_silent();
    }
}

#[test]
fn some_statuses_have_no_body() {
    let host = Host::with("hello.wat", HELLO)
        .file("204.wat", wat::status(204))
        .file("304.wat", wat::status(304))
        .start();
    let mut connection = host.connect();
    let empty = connection.get("/204");
    assert_eq!(empty.status, 204);
    assert_eq!(empty.header("content-length"), None, "{empty:?}");
    assert_eq!(empty.header("transfer-encoding"), None, "{empty:?}");
    assert_eq!(connection.get("/hello").text(), "Hello, World!");
    let unchanged = connection.get("/304");
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.header("transfer-encoding"), None, "{unchanged:?}");
    assert_eq!(connection.get("/hello").text(), "Hello, World!");
    assert_eq!(connection.request("HEAD", "/204", &[], b"").status, 204);
    assert_eq!(connection.get("/hello").text(), "Hello, World!");
}

#[test]
fn an_interim_status_is_not_an_answer() {
    let mut setup = Host::with("hello.wat", HELLO);
    for code in [100, 101, 103, 199] {
        setup = setup.file(&format!("{code}.wat"), wat::status(code));
    }
    let host = setup.start();
    for code in [100, 101, 103, 199] {
        host.get(&format!("/{code}")).assert_problem(500);
        host.assert_serves("/hello");
    }
    assert_eq!(host.at_rest().rejects("invalid_response"), 4);
}

#[test]
fn continue_is_sent_only_when_the_body_is_read() {
    let host = hello_and_reader();
    let expect = ["expect: 100-continue", "content-length: 4"];
    for path in ["/reader", "/native/echo"] {
        let mut connection = host.connect();
        connection.send(message("POST", path, &expect, b""));
        assert_eq!(connection.read_interim(), 100, "{path}");
        connection.assert_silent();
        connection.send("body");
        let answer = connection.read();
        assert_eq!((answer.status, answer.interim.len()), (200, 0), "{answer:?}");
    }
    for path in [HELLOS[0], HELLOS[1], "/nothing"] {
        let mut connection = host.connect();
        connection.send(message("POST", path, &expect, b""));
        let answer = connection.read();
        assert_eq!(answer.interim, [0; 0], "{path} asked for a body which nobody reads");
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 });
    }
    host.at_rest();
}

#[test]
fn every_worker_serves() {
    let host = Host::with("hello.wat", HELLO).args(["--workers", "3"]).start();
    // The kernel spreads connections by chance. With 64 of them, one of three workers gets none
    // once in 10^11 runs.
    let mut connections: Vec<_> = (0..64).map(|_| host.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.get("/hello").status, 200);
    }
    let status = host.at_rest();
    assert_eq!(status.workers, 3, "{status:?}");
    assert_eq!(status.requests_by_worker.len(), 3, "{status:?}");
    assert!(status.requests_by_worker.iter().all(|it| *it > 0), "{status:?}");
    assert_eq!(status.requests_by_worker.iter().sum::<u64>(), 64, "{status:?}");
    assert_eq!((status.requests, status.connections), (64, 64), "{status:?}");
}

#[test]
fn a_client_may_close() {
    let host = hello_and_reader();
    for path in [HELLOS[0], HELLOS[1], "/nothing"] {
        let mut connection = host.connect();
        let answer = connection.request("GET", path, &["connection: close"], b"");
        assert!(answer.closes(), "{path}: {answer:?}");
        assert_eq!(connection.read_to_close(), b"", "{path}");
    }
}

#[test]
fn http_1_0_is_served() {
    let host = hello_and_reader();
    for path in HELLOS {
        let mut connection = host.connect();
        connection.send(format!("GET {path} HTTP/1.0\r\nhost: guest.test\r\n\r\n"));
        let answer = connection.read();
        assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, World!"));
        assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
        assert!(answer.closes(), "{answer:?}");
        assert_eq!(connection.read_to_close(), b"");

        let fields = "connection: keep-alive\r\nhost: guest.test\r\n\r\n";
        let mut connection = host.connect();
        for _ in 0..2 {
            connection.send(format!("GET {path} HTTP/1.0\r\n{fields}"));
            let answer = connection.read();
            assert_eq!((answer.status, answer.closes()), (200, false), "{answer:?}");
        }
    }
}

#[test]
fn a_guest_does_not_choose_the_framing() {
    let framing = [
        ("content-length", "2"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "x-after"),
        ("upgrade", "websocket"),
        ("x-kept", "yes"),
    ];
    let host = Host::with("sets.wat", wat::sets(&framing)).start();
    let mut connection = host.connect();
    for _ in 0..3 {
        let answer = connection.get("/sets");
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"), "{answer:?}");
        assert_eq!(answer.header("content-length"), Some("4"));
        assert_eq!(answer.header("x-kept"), Some("yes"));
        for (name, _) in &framing[1..8] {
            assert_eq!(answer.all(name), [""; 0], "{name}: {answer:?}");
        }
    }
}

#[test]
fn a_body_nobody_reads_is_no_obstacle() {
    let host = hello_and_reader();
    for (path, size) in HELLOS.iter().flat_map(|path| [(path, 1), (path, 1000), (path, 300_000)]) {
        let mut connection = host.connect();
        connection.send(message("POST", path, &[], &vec![b'x'; size]));
        let answer = connection.read();
        assert_eq!(answer.status, 200, "{path}, {size} bytes: {answer:?}");
        // Either the connection ends, or the next request begins here.
        match connection.try_send(message("GET", "/hello", &[], b"")) {
            Ok(()) => {
                if let Ok(Some(next)) = connection.next("GET") {
                    assert_eq!(next.text(), "Hello, World!", "{path}, {size} bytes");
                }
            }
            Err(_) => assert!(size > 1000, "a short body should not cost the connection"),
        }
    }
    host.at_rest();
}

#[test]
fn bodies_have_a_limit() {
    let host = Host::with("hello.wat", HELLO)
        .file("reader.wat", wat::reads())
        .args(["--native", "--body-max", "1KiB"])
        .start();
    let status = |answer: Response| answer.status;
    for path in ["/reader", "/native/echo"] {
        assert_eq!(status(host.request("POST", path, &[], &[b'x'; 1024])), 200, "{path}");
        host.request("POST", path, &[], &[b'x'; 1025]).assert_problem(413);
        // Announced and never sent.
        host.request("POST", path, &["content-length: 1000000000000"], b"").assert_problem(413);
        // Not announced.
        let chunked = ["transfer-encoding: chunked"];
        let mut body = b"400\r\n".to_vec();
        body.extend([b'x'; 1024]);
        body.extend(b"\r\n0\r\n\r\n");
        assert_eq!(status(host.request("POST", path, &chunked, &body)), 200, "{path}");
        body.truncate(body.len() - 5);
        body.extend(b"1\r\nx\r\n0\r\n\r\n");
        host.request("POST", path, &chunked, &body).assert_problem(413);
        host.assert_serves("/hello");
    }
    let rejects = host.at_rest().rejects("body_too_large");
    assert_eq!(rejects, 6);
}

#[test]
fn a_client_that_leaves_frees_what_it_held() {
    let host = hello_and_reader();
    for _ in 0..3 {
        let mut gone = host.connect();
        gone.send(message("POST", "/reader", &["content-length: 4"], b""));
        host.status_when("busy", patience(), |status| status.in_flight == 1);
        drop(gone);
        let status = host.at_rest();
        assert_eq!(status.in_flight, 0, "{status:?}");
    }
    host.status_when("without connections", soon(), |it| it.connections == 0);
    host.assert_serves("/hello");
}
