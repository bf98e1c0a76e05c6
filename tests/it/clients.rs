//! Clients that take too much or too long: limits on connections, in all and from one address, and
//! the timeouts of a connection.
//!
//! Flags make the timeouts short. Expected states are polled; the only pauses are the pace of a
//! slow client.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::abi::probe::Probe;
use crate::client::{Connection, Response, message};
use crate::host::{HELLO, Host, Setup, until};
use crate::patience::soon;
use crate::{hostile, wat};

/// Much longer than any timeout of these tests, so that the deadline never ends a request first.
const LONG: [&str; 4] = ["--deadline", "10m", "--cpu-max", "10m"];

/// The addresses of two clients.
const ONE: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];

fn setup(flags: &[&str]) -> Setup {
    Host::with("good.wat", HELLO)
        .file("reads.wat", wat::reads())
        .file("large.wat", large().wat())
        .args(["--native"])
        .args(LONG)
        .args(flags)
}

/// More bytes than the sockets between host and client hold.
const LARGE: usize = 16 << 20;

fn large() -> Probe {
    Probe::new(
        "(local $left i32)
         (local.set $left #256)
         (loop $more
           (call $write_body #1 #65536 #65536)
           (br_if $more (local.tee $left (i32.sub (local.get $left) #1))))",
    )
}

fn from(host: &Host, client: [u8; 4]) -> Connection {
    Connection::open_from(client.into(), host.addr())
}

/// Asserts that a connection is served now.
#[track_caller]
fn assert_good(connection: &mut Connection) {
    assert_eq!(connection.get("/good").text(), "Hello, World!");
}

/// Asserts that a connection is refused as a whole: a 503 to its first request, then it is closed.
#[track_caller]
fn assert_refused(mut connection: Connection) {
    // It may have been refused, and closed, before this is sent.
    let _ = connection.try_send(message("GET", "/good", &[], b""));
    let answer = connection.read();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.closes(), "{answer:?}");
    assert_eq!(connection.read_to_close(), b"");
}

/// A request whose body does not come, so that its connection is not idle.
#[track_caller]
fn occupy(mut connection: Connection) -> Connection {
    connection.send(message("POST", "/reads", &["content-length: 4"], b""));
    connection
}

#[track_caller]
fn wait_in_flight(host: &Host, count: u64) {
    host.status_when("so many in flight", soon(), |status| status.in_flight == count);
}

#[track_caller]
fn wait_connections(host: &Host, count: u64) {
    host.status_when("so many connections", soon(), |status| status.connections == count);
}

/// Connects until one of the others has been idle long enough to be evicted.
#[track_caller]
fn wait_room(host: &Host) -> Connection {
    until("room", soon(), || {
        let mut connection = host.connect();
        connection.try_send(message("GET", "/good", &[], b"")).ok()?;
        let answer = connection.next("GET").ok()??;
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        (answer.status == 200).then_some(connection)
    })
}

#[test]
fn the_connection_that_is_idle_longest_makes_room() {
    let host =
        setup(&["--workers", "1", "--connections-max", "3", "--client-connections-max", "100"])
            .start();
    let mut open: Vec<Connection> = (0..3).map(|_| host.connect()).collect();
    for connection in &mut open {
        assert_good(connection);
        // So that the host's clock tells them apart.
        sleep(Duration::from_millis(250));
    }
    // The first connection is no longer the one that was idle longest.
    assert_good(&mut open[0]);
    let mut new = wait_room(&host);
    assert_eq!(open.remove(1).read_to_close(), b"");
    for connection in open.iter_mut().chain([&mut new]) {
        assert_good(connection);
    }
    assert_eq!(host.at_rest().connections, 3);
}

#[test]
fn without_an_idle_connection_a_new_one_is_refused() {
    let host =
        setup(&["--workers", "1", "--connections-max", "3", "--client-connections-max", "100"])
            .start();
    let mut busy: Vec<Connection> = (0..3).map(|_| occupy(host.connect())).collect();
    wait_in_flight(&host, 3);
    for _ in 0..3 {
        assert_refused(host.connect());
    }
    for connection in &mut busy {
        connection.send("body");
        assert_eq!(connection.read_to("POST").status, 200);
    }
    // All are idle now, and are evicted one by one.
    let new: Vec<Connection> = (0..3).map(|_| wait_room(&host)).collect();
    for connection in &mut busy {
        assert_eq!(connection.read_to_close(), b"");
    }
    drop(new);
    wait_connections(&host, 0);
    host.at_rest();
}

/// The limit is for all workers together.
#[test]
fn connections_of_all_workers_count() {
    let host =
        setup(&["--workers", "2", "--connections-max", "8", "--client-connections-max", "100"])
            .start();
    let mut busy: Vec<Connection> = (0..8).map(|_| occupy(host.connect())).collect();
    wait_in_flight(&host, 8);
    for _ in 0..8 {
        assert_refused(host.connect());
    }
    for connection in &mut busy {
        connection.send("body");
        assert_eq!(connection.read_to("POST").status, 200);
    }
    // All are idle now. Whichever workers get the new ones, there is room for them.
    let new: Vec<Connection> = (0..8).map(|_| wait_room(&host)).collect();
    let most = |status: &crate::host::Status| status.connections <= 8;
    host.status_when("at the bound", soon(), most);
    drop((busy, new));
    wait_connections(&host, 0);
    host.at_rest();
}

#[test]
fn a_client_has_so_many_connections_and_another_its_own() {
    for workers in ["1", "2"] {
        let host = setup(&["--workers", workers, "--client-connections-max", "4"]).start();
        let mut ones: Vec<Connection> = (0..4).map(|_| from(&host, ONE)).collect();
        for connection in &mut ones {
            assert_good(connection);
        }
        // Its own idle connections do not make room.
        for _ in 0..3 {
            assert_refused(from(&host, ONE));
        }
        let mut others: Vec<Connection> = (0..4).map(|_| from(&host, OTHER)).collect();
        for connection in others.iter_mut().chain(&mut ones) {
            assert_good(connection);
        }
        assert_refused(from(&host, OTHER));
        // One connection closes, and there is room for one.
        drop(ones.pop());
        wait_connections(&host, 7);
        let mut again = from(&host, ONE);
        assert_good(&mut again);
        assert_refused(from(&host, ONE));
        drop((ones, others, again));
        wait_connections(&host, 0);
        assert_good(&mut from(&host, ONE));
    }
}

/// However the connections of a client end, none of them is counted afterwards.
#[test]
fn connections_that_ended_badly_do_not_count() {
    let host = setup(&["--workers", "1", "--client-connections-max", "2"]).start();
    for bytes in ["", "GET", "nonsense\r\n\r\n", "POST /reads HTTP/1.1\r\nhost: a\r\n"] {
        for _ in 0..8 {
            let mut connection = from(&host, ONE);
            connection.send(bytes);
            drop(connection);
            wait_connections(&host, 0);
        }
        let mut both = [from(&host, ONE), from(&host, ONE)];
        both.iter_mut().for_each(assert_good);
        drop(both);
        wait_connections(&host, 0);
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let host = setup(&["--idle-timeout", "300ms"])
        .file("sleep.wat", hostile::text("sleep").replace("3600000000000", "1500000000"))
        .start();
    let mut idle = host.connect();
    assert_good(&mut idle);
    assert_eq!(idle.read_to_close(), b"");
    // A connection with a request in flight is not idle.
    let mut busy = host.connect();
    assert_eq!(busy.get("/sleep").status, 200);
    assert_eq!(busy.read_to_close(), b"");
    wait_connections(&host, 0);
}

/// What the client gets on a connection that is closed for being late: nothing, or a 408.
#[track_caller]
fn assert_timed_out(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let host = setup(&["--head-timeout", "300ms"]).start();
    let request = message("GET", "/good", &[], b"");
    for bytes in [&b""[..], b"G", &request[..request.len() - 1]] {
        let mut connection = host.connect();
        connection.send(bytes);
        assert_timed_out(&connection.read_to_close());
        // After another request as well, unless the head has not begun.
        let mut connection = host.connect();
        assert_good(&mut connection);
        if !bytes.is_empty() {
            connection.send(bytes);
            assert_timed_out(&connection.read_to_close());
        }
    }
    host.assert_serves("/good");
    wait_connections(&host, 0);
}

/// Also for a request that begins in the same segment as the end of the one before, and after an
/// answer that was passed on as it came.
#[test]
fn a_head_that_begins_behind_a_request_is_not_waited_for() {
    let host = setup(&["--head-timeout", "300ms"]).start();
    for request in [
        message("GET", "/good", &[], b""),
        message("POST", "/native/stream/upper", &[], b"body"),
        message("POST", "/reads", &[], b"body"),
    ] {
        let mut connection = host.connect();
        connection.send([&request[..], b"GET /good HT"].concat());
        assert_eq!(connection.read().status, 200);
        assert_timed_out(&connection.read_to_close());
    }
    host.assert_serves("/good");
    wait_connections(&host, 0);
}

/// The timeout is for the whole head, no matter how its bytes trickle in.
#[test]
fn a_head_that_trickles_is_not_waited_for() {
    let host = setup(&["--head-timeout", "300ms"]).start();
    let mut connection = host.connect();
    connection.send("GET /good HTTP/1.1\r\nhost: a\r\nx-slow: ");
    let deadline = Instant::now() + soon();
    while connection.try_send("x").is_ok() {
        assert!(Instant::now() < deadline, "the head is still waited for");
        sleep(Duration::from_millis(20));
    }
    wait_connections(&host, 0);
    host.assert_serves("/good");
}

/// A body that stops, in both framings, for guest and twin.
#[test]
fn a_body_that_stalls_is_a_408() {
    let host = setup(&["--stall-timeout", "300ms"]).start();
    for path in ["/reads", "/native/echo"] {
        for (framing, part) in
            [("content-length: 10", "part"), ("transfer-encoding: chunked", "4\r\npart\r\n")]
        {
            for part in ["", part] {
                let mut connection = host.connect();
                connection.send(message("POST", path, &[framing], part.as_bytes()));
                assert_late(connection, path);
                host.assert_serves("/good");
            }
        }
    }
    host.at_rest();
    wait_connections(&host, 0);
}

#[track_caller]
fn assert_late(mut connection: Connection, path: &str) {
    let answer: Response = connection.read_to("POST");
    assert_eq!(answer.status, 408, "{path}: {answer:?}");
    answer.assert_problem(408);
    assert!(answer.closes(), "{path}: {answer:?}");
    assert_eq!(connection.read_to_close(), b"");
}

#[test]
fn a_body_that_trickles_is_a_408() {
    let host = setup(&["--stall-timeout", "300ms"]).start();
    for path in ["/reads", "/native/echo"] {
        let mut connection = host.connect();
        connection.send(message("POST", path, &["content-length: 100000"], b""));
        // It never pauses for as long as it may, but is below the minimum rate.
        wait_in_flight(&host, 1);
        let deadline = Instant::now() + soon();
        while host.status().in_flight > 0 && connection.try_send("x").is_ok() {
            assert!(Instant::now() < deadline, "it is still waited for");
            sleep(Duration::from_millis(20));
        }
        assert_late(connection, path);
    }
    host.at_rest();
}

/// An upload that is slow but above the minimum rate is served, for many times the grace period.
#[test]
fn a_body_that_is_merely_slow_is_read() {
    let host = setup(&["--stall-timeout", "500ms"]).start();
    let piece = [b'x'; 1000];
    let mut connection = host.connect();
    let length = format!("content-length: {}", 100 * piece.len());
    connection.send(message("POST", "/reads", &[&length], b""));
    for _ in 0..100 {
        connection.send(piece);
        sleep(Duration::from_millis(20));
    }
    assert_eq!(connection.read_to("POST").text(), "read");
    host.at_rest();
}

/// A connection that has sent this request, and whose client has a small receive buffer.
fn reader(host: &Host, path: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.connect(&host.addr().into()).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(soon())).expect("a socket");
    stream.write_all(&message("GET", path, &[], b"")).expect("a request");
    stream
}

/// Reads to the end of a connection. Returns the number of bytes.
fn rest_of(mut stream: TcpStream) -> usize {
    let (mut bytes, mut count) = ([0; 64 << 10], 0);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return count,
            Ok(read) => count += read,
        }
    }
}

#[test]
fn an_answer_that_is_not_read_is_cut_off() {
    let host = setup(&["--stall-timeout", "300ms", "--response-max", "32MiB"]).start();
    let stream = reader(&host, "/large");
    wait_connections(&host, 1);
    wait_connections(&host, 0);
    let came = rest_of(stream);
    assert!(came < LARGE, "all of it came: {came}");
    // A client that reads gets all of it.
    assert_eq!(host.get("/large").body.len(), LARGE);
    host.at_rest();
}

#[test]
fn an_answer_that_is_read_too_slowly_is_cut_off() {
    let host = setup(&["--stall-timeout", "300ms", "--response-max", "32MiB"]).start();
    let mut stream = reader(&host, "/large");
    wait_connections(&host, 1);
    until("end of the connection", soon(), || {
        // An error means that the connection was reset.
        let _ = (&stream).read(&mut [0; 1]);
        (host.status().connections == 0).then_some(())
    });
    let _ = stream.flush();
    let came = rest_of(stream);
    assert!(came < LARGE, "all of it came: {came}");
    host.assert_serves("/good");
    host.at_rest();
}
