//! An upstream over TLS, with HTTP/1.1 or HTTP/2.

use std::path::Path;

use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, Setup, until};
use crate::patience::patience;
use crate::secure::{Said, Secure, Then, trust};

const H1: &[&[u8]] = &[b"http/1.1"];
const H2: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A host with one worker and this upstream, whose certificate it trusts.
fn before(server: &Secure, folder: &Path) -> Setup {
    let host = Host::with("good.wat", HELLO).args(["--workers", "1", "--upstream"]);
    trust(host.arg(format!("{}base", server.url("localhost"))), &server.pem, folder)
}

#[test]
fn requests_go_on_by_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let guest = Probe::new("(call $set_uri '/echo/changed')").next();
    for (protocols, version) in [(H2, "HTTP/2.0"), (H1, "HTTP/1.1"), (&[][..], "HTTP/1.1")] {
        let server = Secure::start("localhost", protocols);
        let host = before(&server, folder.path()).file("guest.wat", guest.wat()).start();
        let has_host = version == "HTTP/1.1";
        let said = |asked: &str, framing: &str, body: &str| {
            format!(
                "{version} guest.test {has_host}\n{asked}{framing}\nx-forwarded-proto: http\n\
                 via: 1.1 guesthouse\n\n{body}"
            )
        };
        let path = "/echo/%20there?q=1";
        assert_eq!(host.get(path).text(), said(&format!("GET /base{path}"), "", ""));
        // With a length, and without.
        let answer = host.request("PUT", path, &["content-length: 4"], b"body");
        let asked = format!("PUT /base{path}");
        assert_eq!(answer.text(), said(&asked, "\ncontent-length: 4", "body"));
        let chunked = ["transfer-encoding: chunked"];
        let answer = host.request("PUT", path, &chunked, b"4\r\nbody\r\n0\r\n\r\n");
        let framing = if has_host { "\ntransfer-encoding: chunked" } else { "" };
        assert_eq!(answer.text(), said(&asked, framing, "body"));
        // A request that a guest passes on.
        let asked = "GET /base/echo/changed";
        assert_eq!(host.get("/guest").text(), said(asked, "", ""));
        // A request without a host gets the upstream's name.
        let mut old = host.connect();
        old.send("GET / HTTP/1.0\r\n\r\n");
        let own = server.url("localhost");
        let own = own.trim_start_matches("https://").trim_end_matches('/');
        assert_eq!(old.read().text(), format!("{version} {own} {has_host}"));
        assert_eq!(server.connections(), 1, "{version}");
        host.at_rest();
    }
}

#[test]
fn an_upstream_has_to_be_who_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (Secure::start("localhost", H2), Secure::start("other.test", H2));
    for (trusted, server) in [(&wrong, &right), (&wrong, &wrong)] {
        let host = Host::with("good.wat", HELLO).args(["--upstream", &server.url("localhost")]);
        let host = trust(host, &trusted.pem, folder.path()).start();
        host.get("/").assert_problem(502);
        host.wait_log_with(&["upstream localhost", "certificate", "SSL_CERT_FILE"]);
        host.at_rest();
    }
}

/// A bad body is the client's fault, whatever the connection reports.
#[test]
fn a_body_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for protocols in [H2, H1] {
        let server = Secure::start("localhost", protocols);
        let host = before(&server, folder.path()).args(["--body-max", "1KiB"]).start();
        let mut connection = host.connect();
        let head = "POST /echo HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.send(format!("{head}401\r\n{}\r\n0\r\n\r\n", "a".repeat(0x401)));
        connection.read().assert_problem(413);
        assert!(host.get("/echo").text().contains("GET /base/echo"));
        host.at_rest();
    }
}

/// A stream that is reset without an error has not ended (RFC 9113, 8.1).
#[test]
fn an_answer_that_breaks_off_is_broken_for_the_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\0\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    let whole = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\x01\0\0\0\x01hel\
        \0\0\x04\x03\0\0\0\0\x01\0\0\0\0";
    for (frames, is_whole) in [(broken, false), (whole, true)] {
        let server = Secure::saying(&[Said { frames, then: Then::Stay }]);
        let host = before(&server, folder.path()).start();
        let mut connection = host.connect();
        connection.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
        let answer = connection.next("GET");
        assert_eq!(answer.is_ok(), is_whole, "{answer:?}");
        host.at_rest();
    }
}

/// An upload that goes on after a complete answer has a connection for itself, until the upstream
/// reads nothing of it for too long.
#[test]
fn an_upload_that_nobody_takes_gives_its_connection_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\x01\0\0\0\x01hel";
    let server = Secure::saying(&[Said { frames, then: Then::Stay }]);
    let host = before(&server, folder.path()).args(["--stall-timeout", "1s"]).start();
    host.settled();
    let before = host.descriptors().len();
    // More than the upstream's window has room for.
    let body = vec![b'a'; 200_000];
    let answer = host.request("POST", "/", &["content-length: 200000"], &body);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hel"));
    let is_closed = || (host.descriptors().len() == before).then_some(());
    until("its connection is closed", patience(), is_closed);
    assert_eq!(host.get("/").text(), "hel");
    assert_eq!(server.connections(), 2);
    host.at_rest();
}

/// A stream that is reset is not a closed connection: its request is not sent again.
#[test]
fn what_is_reset_is_not_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02";
    let server = Secure::saying(&[Said { frames, then: Then::Stay }]);
    let host = before(&server, folder.path()).start();
    for asked in 1..4 {
        host.get("/").assert_problem(502);
        assert_eq!(server.connections(), asked);
    }
    host.at_rest();
}

/// If the server says that it has not processed a request, the request is sent again, whatever its
/// method. If the server may have processed it, the method decides.
#[test]
fn what_was_not_looked_at_is_sent_again() {
    const REFUSED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    const GOING_BEFORE_IT: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const GOING_BEHIND_IT: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";
    const WHOLE: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x03\0\x01\0\0\0\x01hel";
    let folder = tempfile::tempdir().expect("a folder");
    for (first, then, is_again) in [
        (REFUSED, Then::Stay, true),
        (GOING_BEFORE_IT, Then::Stay, true),
        (GOING_BEFORE_IT, Then::Close, true),
        (GOING_BEHIND_IT, Then::Close, false),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let first = Said { frames: first, then };
            let server = Secure::saying(&[first, Said { frames: WHOLE, then: Then::Stay }]);
            let host = before(&server, folder.path()).start();
            let answer = host.request(method, "/", &[], b"");
            assert_eq!(answer.status, if is_again { 200 } else { 502 }, "{method}");
            assert_eq!(server.connections(), if is_again { 2 } else { 1 }, "{method}");
            host.at_rest();
        }
    }
}

/// An answer is whole once all announced bytes are there, even if the end of the stream comes in a
/// later frame. Its connection stays open.
#[test]
fn an_answer_whose_end_comes_behind_it_costs_no_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::start("localhost", H2);
    let host = before(&server, folder.path()).start();
    for _ in 0..10 {
        assert!(host.get("/late").text().starts_with("HTTP/2.0"));
        assert_eq!(host.request("HEAD", "/late", &[], b"").status, 200);
        assert_eq!(host.get("/late/nothing").status, 204);
    }
    assert_eq!(server.connections(), 1);
    host.at_rest();
}

/// Forty requests need three connections, and open them at once: this server is silent on all
/// connections until there are three.
#[test]
fn as_many_connections_are_opened_as_are_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::reluctant(0, 3);
    let host = before(&server, folder.path()).start();
    assert_eq!(asked_at_once(&host, 40), [200; 40]);
    assert_eq!(server.connections(), 3);
    host.at_rest();
}

/// A connection that breaks off before anything was sent does not count against the next one.
#[test]
fn a_connection_that_breaks_off_fails_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::reluctant(1, 0);
    let host = before(&server, folder.path()).start();
    assert_eq!(asked_at_once(&host, 16), [200; 16]);
    assert_eq!(server.connections(), 2);
    // A request with a body has a connection for itself.
    let server = Secure::reluctant(1, 0);
    let host = before(&server, folder.path()).start();
    assert_eq!(host.request("POST", "/echo", &["content-length: 4"], b"body").status, 200);
    assert_eq!(server.connections(), 2);
    host.at_rest();
}

/// The statuses of this many requests, all of which are sent before any is answered.
fn asked_at_once(host: &Host, count: usize) -> Vec<u16> {
    let ask = |_| {
        let mut connection = host.connect();
        connection.send("GET /echo HTTP/1.1\r\nhost: a.test\r\n\r\n");
        connection
    };
    let connections: Vec<_> = (0..count).map(ask).collect();
    connections.into_iter().map(|mut connection| connection.read().status).collect()
}

/// Clients that do not read their answers do not hold up the answers of others.
#[test]
fn who_does_not_read_blocks_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::start("localhost", H2);
    let host = before(&server, folder.path()).args(["--stall-timeout", "60s"]).start();
    let ask = |path: &str| {
        let mut connection = host.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        connection
    };
    let readers: Vec<_> = (0..40).map(|_| ask("/much")).collect();
    host.status_when("begun", patience(), |status| status.requests == 40 && status.in_flight == 0);
    for _ in 0..50 {
        assert!(host.get("/echo").text().contains("GET /base/echo"));
    }
    // Sixteen requests share a connection.
    assert_eq!(server.connections(), 3);
    drop(readers);
    host.at_rest();
}

/// A server may never read what was sent to it. No further request is sent on that connection.
#[test]
fn what_was_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::start("localhost", H2);
    let host = before(&server, folder.path()).start();
    let mut gone = host.connect();
    gone.send("POST /never HTTP/1.1\r\nhost: a.test\r\ncontent-length: 100000\r\n\r\nabc");
    host.status_when("begun", patience(), |status| status.in_flight == 1);
    until("asked", patience(), || (server.connections() == 1).then_some(()));
    drop(gone);
    host.status_when("given up", patience(), |status| status.in_flight == 0);
    for _ in 0..3 {
        let answer = host.request("POST", "/echo", &["content-length: 4"], b"body");
        assert!(answer.text().ends_with("body"), "{}", answer.text());
    }
    assert_eq!(server.connections(), 2);
    host.at_rest();
}

/// A message that HTTP/2 cannot carry is the fault of whoever has set its `Host`: the client, also
/// if a guest passes it on, or the guest.
#[test]
fn a_host_that_is_in_no_url_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Secure::start("localhost", H2);
    let passes_on = Probe::new("(call $set_uri '/echo')").next();
    let sets_host = Probe::new("(call $set_header_value #0 'host' 'a%41b')").next();
    let host = before(&server, folder.path())
        .file("passes.wat", passes_on.wat())
        .file("sets.wat", sets_host.wat())
        .start();
    for (path, sent, status) in [
        ("/", "a%41b", 400),
        ("/passes", "a%41b", 400),
        ("/passes", "a.test", 200),
        ("/sets", "a.test", 500),
    ] {
        let mut connection = host.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: {sent}\r\n\r\n"));
        assert_eq!(connection.read().status, status, "{path} {sent}");
    }
    let status = host.at_rest();
    assert_eq!((status.rejects("bad_host"), status.rejects("invalid_request")), (2, 1));
}
