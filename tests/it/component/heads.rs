//! What a component reads of a request, and what it may set in a response's head and trailers.

use super::{assert_as_new, is_03, probe, start, text};
use crate::host::Host;

/// Sends these bytes, and returns the lines of the answer.
#[track_caller]
fn lines(host: &Host, bytes: &str) -> Vec<String> {
    let mut connection = host.connect();
    connection.send(bytes);
    let answer = connection.read();
    assert_eq!(answer.status, 200, "{bytes:?}: {}", answer.text());
    answer.text().lines().map(str::to_owned).collect()
}

#[test]
fn a_component_is_told_all_of_the_head() {
    let host = start(&[]);
    let fields = "x-one: 1\r\nx-two: 2\r\nx-one: 3\r\nguesthouse-base-path: /evil\r\n";
    let target = "/probe/echo-head?a=b%20c&d=%2F";
    let request = format!("GET {target} HTTP/1.1\r\nhost: Guest.test:81\r\n{fields}\r\n");
    let lines = lines(&host, &request);
    assert_eq!(lines[..4], ["GET", "http", "Guest.test:81", target]);
    let fields = &lines[4..];
    let values = |name: &str| -> Vec<&str> {
        let pairs = fields.iter().map(|line| line.split_once(": ").expect("a field"));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    };
    assert_eq!(values("x-one"), ["1", "3"], "{fields:?}");
    assert_eq!(values("x-two"), ["2"], "{fields:?}");
    assert_eq!(values("guesthouse-base-path"), ["/probe"], "{fields:?}");
    assert_eq!(fields.len(), 4, "{fields:?}");
    assert_as_new(&host);
}

#[test]
fn a_component_is_told_its_matches() {
    let host = Host::with("of/[who].wasm", probe()).start();
    let lines = lines(&host, "GET /of/echo-head HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(lines.contains(&"guesthouse-match-who: echo-head".to_owned()), "{lines:?}");
    assert!(lines.contains(&"guesthouse-base-path: /of/echo-head".to_owned()), "{lines:?}");
    host.at_rest();
}

#[test]
fn a_component_is_told_the_method() {
    let host = start(&[]);
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let request = format!("{method} /probe/echo-head HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(lines(&host, &request)[0], method);
    }
    assert_as_new(&host);
}

#[test]
fn there_is_always_an_authority() {
    let host = start(&[]);
    let own = host.addr().to_string();
    for (request, authority) in [
        ("GET /probe/echo-head HTTP/1.0\r\n\r\n", &*own),
        ("GET /probe/echo-head HTTP/1.0\r\nhost: a.test\r\n\r\n", "a.test"),
        ("GET /probe/echo-head HTTP/1.1\r\nhost:\r\n\r\n", &own),
        ("GET /probe/echo-head HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", "[::1]:80"),
        ("GET /probe/echo-head HTTP/1.1\r\nhost: a_b~!$&'()*+,;=\r\n\r\n", "a_b~!$&'()*+,;="),
        ("GET http://b.test:1/probe/echo-head HTTP/1.1\r\nhost: a.test\r\n\r\n", "b.test:1"),
    ] {
        let lines = lines(&host, request);
        assert_eq!(lines[1..4], ["http", authority, "/probe/echo-head"], "{request:?}");
        let is_host = |line: &String| line.starts_with("host:");
        assert!(!lines[4..].iter().any(is_host), "{request:?}: {lines:?}");
    }
    // In 0.3 an authority has to be valid.
    let escaped = host.request("GET", "/probe/echo-head", &["host: a%20b"], b"");
    assert_eq!(escaped.status, if is_03() { 400 } else { 200 }, "{escaped:?}");
    assert_as_new(&host);
}

#[test]
fn a_component_chooses_the_status() {
    let host = start(&[]);
    let mut connection = host.connect();
    for status in [200, 201, 404, 418, 503, 599] {
        let answer = connection.get(&format!("/probe/status?{status}"));
        assert_eq!((answer.status, answer.text()), (status, status.to_string()));
    }
    for status in ["0", "99", "1000", "65736"] {
        let answer = connection.get(&format!("/probe/status?{status}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "refused"), "{status}");
    }
    // Fields of the connection itself, which no guest may send.
    for status in [100, 101, 103, 199] {
        host.get(&format!("/probe/status?{status}")).assert_problem(500);
    }
    assert_eq!(assert_as_new(&host).rejects("invalid_response"), 4);
}

#[test]
fn a_long_head_is_refused() {
    let host = start(&["--header-max", "16KiB"]);
    assert_eq!(text(&host, "/probe/long-head?15"), "long");
    host.get("/probe/long-head?17").assert_problem(500);
    assert_eq!(assert_as_new(&host).rejects("invalid_response"), 1);
}

#[test]
fn no_length_but_a_plain_number_is_taken() {
    let host = start(&[]);
    assert_eq!(text(&host, "/probe/bad-length"), "0");
    assert_as_new(&host);
}

#[test]
fn trailers_are_sent_to_who_takes_them() {
    let host = start(&[]);
    for path in ["/probe/trailers", "/probe/framing-trailers"] {
        let mut connection = host.connect();
        let with = connection.request("GET", path, &["te: trailers"], b"");
        assert_eq!((with.status, with.text().as_str()), (200, "body"), "{path}: {with:?}");
        assert_eq!(with.trailers, [("x-end".to_owned(), "yes".to_owned())], "{path}");
        let without = connection.get(path);
        assert_eq!((without.status, without.text().as_str()), (200, "body"), "{path}");
        assert_eq!(without.trailers, [], "{path}");
        connection.assert_silent();
    }
    assert_as_new(&host);
}

#[test]
fn fields_of_the_connection_are_refused() {
    let host = start(&[]);
    let told = text(&host, "/probe/bad-trailers");
    assert!(told.lines().count() > 5, "{told}");
    assert!(told.lines().all(|line| line.ends_with(": refused")), "{told}");
    assert_as_new(&host);
}

/// One request may have the host hold only so much. At the limit, the guest is stopped.
#[test]
fn fields_and_handles_are_bounded() {
    let host = start(&[]);
    for (path, most) in [("/probe/many-fields", 9_999), ("/probe/many-handles", 10_000)] {
        let answer = host.get(path);
        match answer.status {
            200 => {
                let count: u64 = answer.text().parse().expect("a number");
                assert!((100..=most).contains(&count), "{path}: {count}");
            }
            _ => answer.assert_problem(500),
        }
        assert_as_new(&host);
    }
}
