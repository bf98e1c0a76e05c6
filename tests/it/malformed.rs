//! Requests that no good client sends, byte by byte: each is refused, no second request is smuggled
//! in it, and the host goes on.

use crate::client::{Connection, Response, message};
use crate::host::{HELLO, Host};
use crate::random::Xorshift;
use crate::wat;

fn host() -> Host {
    Host::with("hello.wat", HELLO).file("reader.wat", wat::reads()).arg("--native").start()
}

/// Sends the bytes. Asserts that the one answer has one of these statuses, and that the host goes
/// on. The status 0 stands for a connection that is closed without an answer.
#[track_caller]
fn refused(host: &Host, what: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) -> Option<Response> {
    let mut connection = host.connect();
    // The host may answer and close before it has all of it.
    let _ = connection.try_send(bytes);
    let answer = match connection.next("GET") {
        Ok(answer) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{what}: {error}"),
    };
    let status = answer.as_ref().map_or(0, |answer| answer.status);
    assert!(statuses.contains(&status), "{what}: {status} instead of {statuses:?}, {answer:?}");
    connection.finish();
    let rest = connection.read_to_close();
    assert!(rest.is_empty(), "{what}: then {:?}", String::from_utf8_lossy(&rest));
    host.assert_serves("/hello");
    answer
}

#[test]
fn a_request_names_one_host() {
    let host = host();
    let refused = |what: &str, lines: &str| {
        let bytes = format!("GET /hello HTTP/1.1\r\n{lines}\r\n");
        let answer = refused(&host, what, bytes, &[400]);
        answer.expect("a 400").assert_problem(400);
    };
    refused("no Host", "");
    refused("no Host among others", "accept: */*\r\n");
    refused("two Hosts", "host: a.test\r\nhost: b.test\r\n");
    refused("the same Host twice", "host: a.test\r\nhost: a.test\r\n");
    for value in [
        "a b",
        "a/b",
        "user@a.test",
        "a.test:port",
        "[::1",
        "a.test?q",
        "a.test#f",
        "<a>",
        "a.test:1:2",
        "a\\b",
        "http://a.test",
    ] {
        refused(value, &format!("host: {value}\r\n"));
    }
    for value in ["a.test", "a.test:80", "127.0.0.1:1", "[::1]:8080", "A.TEST", "a_b.test"] {
        let answer = host.request("GET", "/hello", &[&format!("host: {value}")], b"");
        assert_eq!(answer.status, 200, "{value}: {answer:?}");
    }
    assert_eq!(host.at_rest().rejects("bad_host"), 15);
}

#[test]
fn paths_that_could_mean_another_are_refused() {
    let host = host();
    for path in [
        "/..",
        "/.",
        "/../hello",
        "/hello/..",
        "/hello/../hello",
        "/hello/.",
        "/./hello",
        "/%2e%2e/hello",
        "/hello/%2E%2e",
        "/hello/.%2e",
        "/%2e/hello",
        "/hello/%2E",
        "/a%2fb",
        "/hello%2F",
        "/hello/%2F..%2F",
        "/a%5cb",
        "/a%5Cb",
        "/hello%00",
        "/%00",
        "/hello/%",
        "/%4",
        "/hello/%zz",
        "/%2",
        "/hello/%%32",
        "/native/hello/..",
        "/nothing/../hello",
        "/hello/..?a=b",
        "/hello/%2e%2e?/",
    ] {
        let bytes = message("GET", path, &[], b"");
        refused(&host, path, bytes, &[400]).expect("a 400").assert_problem(400);
    }
    // Requests that look similar and are valid.
    for path in ["/hello/...", "/hello/..a", "/hello?../%2f%zz", "/hello/a%20b", "/hel%6Co"] {
        assert_eq!(host.get(path).status, 200, "{path}");
    }
    assert_eq!(host.at_rest().rejects("bad_path"), 28);
}

#[test]
fn targets_that_are_no_path_are_refused() {
    let host = host();
    let host_line = "host: guest.test\r\n\r\n";
    for line in ["OPTIONS *", "GET *", "CONNECT a.test:443", "CONNECT /hello", "GET hello"] {
        refused(&host, line, format!("{line} HTTP/1.1\r\n{host_line}"), &[400]);
    }
    for line in ["GET /a\\b", "GET /a b", "GET /hello#part", "GET /a\x7fb", "GET /a\x01b", "GET "] {
        let statuses = if line.contains('#') { &[200, 400][..] } else { &[400] };
        refused(&host, line, format!("{line} HTTP/1.1\r\n{host_line}"), statuses);
    }
}

#[test]
fn an_absolute_target_says_the_host() {
    let host = Host::with("@one.test/index.wat", wat::says("one"))
        .file("@two.test/index.wat", wat::says("two"))
        .file("index.wat", wat::tells(&[]))
        .start();
    let mut connection = host.connect();
    let mut get = |target: &str, named: &str| {
        connection.send(format!("GET {target} HTTP/1.1\r\nhost: {named}\r\n\r\n"));
        connection.read().text()
    };
    assert_eq!(get("/", "one.test"), "one");
    assert_eq!(get("http://one.test/", "two.test"), "one");
    assert_eq!(get("http://TWO.test:81/", "one.test"), "two");
    assert_eq!(get("http://two.test", "one.test"), "two");
    assert_eq!(get("http://three.test/?a=b", "one.test"), "/?a=b");
    let mut twice = b"GET http://one.test/ HTTP/1.1\r\n".to_vec();
    twice.extend(b"host: one.test\r\nhost: two.test\r\n\r\n");
    let mut connection = host.connect();
    connection.send(twice);
    assert_eq!(connection.read().status, 400);
}

#[test]
fn heads_that_break_the_grammar_are_refused() {
    let host = host();
    let head = |lines: &str| format!("GET /hello HTTP/1.1\r\nhost: a.test\r\n{lines}\r\n");
    for (what, bytes) in [
        ("a bare CR in a value", head("x: a\rb\r\n")),
        ("a bare CR at the end", head("x: a\r\r\n")),
        ("NUL in a value", head("x: a\0b\r\n")),
        ("NUL in a name", head("x\0y: a\r\n")),
        ("a folded line", head("x: a\r\n b\r\n")),
        ("a folded first line", "GET /hello HTTP/1.1\r\n host: a.test\r\n\r\n".into()),
        ("a space before the colon", head("x : a\r\n")),
        ("a tab before the colon", head("x\t: a\r\n")),
        ("no colon", head("nothing\r\n")),
        ("no name", head(": a\r\n")),
        ("a space in a name", head("x y: a\r\n")),
        ("a control character in a value", head("x: a\x01b\r\n")),
        ("DEL in a value", head("x: a\x7fb\r\n")),
        ("no method", " /hello HTTP/1.1\r\nhost: a.test\r\n\r\n".into()),
        ("a bad method", "G(T /hello HTTP/1.1\r\nhost: a.test\r\n\r\n".into()),
        ("two spaces", "GET /hello  HTTP/1.1\r\nhost: a.test\r\n\r\n".into()),
        ("no version", "GET /hello\r\nhost: a.test\r\n\r\n".into()),
        ("version 9", "GET /hello HTTP/9.9\r\nhost: a.test\r\n\r\n".into()),
        ("version 2", "GET /hello HTTP/2.0\r\nhost: a.test\r\n\r\n".into()),
        ("a version in small letters", "GET /hello http/1.1\r\nhost: a.test\r\n\r\n".into()),
        ("HTTP/2 as it begins", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("TLS as it begins", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".into()),
    ] {
        refused(&host, what, bytes, &[400, 0]);
    }
    // An empty line before a request has to be ignored (RFC 9112, 2.2).
    let mut connection = host.connect();
    connection.send(format!("\r\n{}", head("")));
    assert_eq!(connection.read().status, 200);
}

#[test]
fn a_length_is_one_plain_number() {
    let host = host();
    for path in ["/hello", "/reader", "/native/echo"] {
        for value in ["+4", "-4", "4a", "0x4", "4.0", " ", "4 4", "99999999999999999999", "4, 5"] {
            let bytes = message("POST", path, &[&format!("content-length: {value}")], b"body");
            refused(&host, &format!("length {value:?}"), bytes, &[400, 0]);
        }
        let bytes = message("POST", path, &["content-length: 4", "content-length: 5"], b"body");
        refused(&host, "two lengths", bytes, &[400, 0]);
        let bytes = message("POST", path, &["content-length: 5", "content-length: 4"], b"body");
        refused(&host, "two lengths, the longer first", bytes, &[400, 0]);
    }
}

/// The request that would be the second one on its connection if the first were misread.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Asserts that the host answers once, and never for the hidden path, which has no route.
#[track_caller]
fn assert_hidden(host: &Host, what: &str, request: &str) {
    let answers = exchange(host, format!("{request}{HIDDEN}").as_bytes());
    // An interim answer does not count: it only checks whether the client is still there.
    let interim = answers.matches("HTTP/1.1 100 ").count();
    let count = answers.matches("HTTP/1.1 ").count() - interim;
    assert!(count <= 1, "{what}: {count} answers, {answers}");
    assert_eq!(host.status().rejects("no_route"), 0, "{what}: {answers}");
    host.assert_serves("/hello");
}

#[test]
fn nothing_is_smuggled_behind_two_framings() {
    let host = host();
    for path in ["/hello", "/reader", "/native/hello", "/native/echo"] {
        for lines in [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "content-length: 0\r\ntransfer-encoding: chunked",
            "content-length: 200\r\ntransfer-encoding: chunked",
            "content-length: 5\r\ntransfer-encoding: xchunked",
            "content-length: 5\r\ntransfer-encoding: identity",
            "content-length: 5\r\ntransfer-encoding: chunked, identity",
            "content-length: 5\r\ntransfer-encoding : chunked",
            "content-length: 5\r\ntransfer-encoding: \x0bchunked",
            "content-length: 5\r\ntransfer-encoding:\r\n chunked",
            "content-length: 5\r\nx: y\rtransfer-encoding: chunked",
            "content-length: 5\r\ntransfer_encoding\0: chunked",
            "content-length: 0\r\ncontent-length: 5",
            "content-length: 5\r\ncontent-length: 0",
            "transfer-encoding: gzip",
            "transfer-encoding: chunked, gzip",
        ] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: a.test\r\n{lines}\r\n\r\n");
            assert_hidden(&host, &format!("{path}, {lines:?}"), &format!("{head}0\r\n\r\n"));
        }
        let old = "HTTP/1.0\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_hidden(&host, "chunked in HTTP/1.0", &format!("POST {path} {old}"));
    }
}

#[test]
fn a_body_nobody_reads_is_not_a_request() {
    let host = host();
    for (path, is_route) in [("/hello", true), ("/native/hello", true), ("/nothing", false)] {
        let before = host.at_rest();
        let mut connection = host.connect();
        connection.send(message("POST", path, &[], HIDDEN.as_bytes()));
        assert_eq!(connection.read().status, if is_route { 200 } else { 404 });
        connection.finish();
        assert_eq!(connection.read_to_close(), b"", "{path}");
        let missed = host.at_rest().rejects("no_route") - before.rejects("no_route");
        assert_eq!(missed, u64::from(!is_route), "{path}");
    }
}

#[test]
fn a_broken_body_is_not_a_whole_one() {
    let host = host();
    let chunked = ["transfer-encoding: chunked"];
    for path in ["/reader", "/native/echo"] {
        for body in [
            "zz\r\nbody\r\n0\r\n\r\n",
            "-4\r\nbody\r\n0\r\n\r\n",
            "4\r\nbodyX\r\n0\r\n\r\n",
            "4\r\nbody0\r\n\r\n",
            "fffffffffffffffff\r\nbody",
            "10000000000000004\r\nbody\r\n0\r\n\r\n",
            "\r\n4\r\nbody\r\n0\r\n\r\n",
            "4 4\r\nbody\r\n0\r\n\r\n",
            "0x4\r\nbody\r\n0\r\n\r\n",
            "4\rbody\r\n0\r\n\r\n",
        ] {
            let bytes = message("POST", path, &chunked, body.as_bytes());
            refused(&host, body, bytes, &[400, 0]);
        }
        // These end too early.
        for (headers, body) in [
            (&["content-length: 10"][..], "five."),
            (&["content-length: 10"], ""),
            (&chunked, "4\r\nbo"),
            (&chunked, "4\r\nbody\r\n"),
            (&chunked, "4"),
            (&chunked, ""),
        ] {
            let mut connection = host.connect();
            connection.send(message("POST", path, headers, body.as_bytes()));
            connection.finish();
            let answer = String::from_utf8_lossy(&connection.read_to_close()).into_owned();
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
                "{path} {headers:?} {body:?}: {answer}"
            );
            host.assert_serves("/hello");
        }
    }
    host.at_rest();
}

#[test]
fn heads_have_a_limit() {
    let host = host();
    let long = format!("x-long: {}", "x".repeat(40 << 10));
    let bytes = message("GET", "/hello", &[&long], b"");
    refused(&host, "a header of 40 KiB", bytes, &[431]);
    let many: Vec<String> = (0..101).map(|at| format!("x-{at}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(&host, "102 headers", message("GET", "/hello", &many, b""), &[431]);
    assert_eq!(host.request("GET", "/hello", &many[..90], b"").status, 200);
    let uri = format!("/hello/{}", "u".repeat(70_000));
    refused(&host, "a URI of 70 kB", message("GET", &uri, &[], b""), &[414, 431]);
    // Within the limit that the flag sets.
    let long = format!("x-long: {}", "x".repeat(20 << 10));
    assert_eq!(host.request("GET", "/hello", &[&long], b"").status, 200);
    let uri = format!("/hello/{}", "u".repeat(20 << 10));
    assert_eq!(host.get(&uri).status, 200);

    let host = Host::with("hello.wat", HELLO).args(["--header-max", "8KiB"]).start();
    refused(&host, "over 8 KiB", message("GET", "/hello", &[&long], b""), &[431]);
    let host = Host::with("hello.wat", HELLO).args(["--header-max", "128KiB"]).start();
    let uri = format!("/hello/{}", "u".repeat(70_000));
    refused(&host, "a URI of 70 kB", message("GET", &uri, &[], b""), &[414]);
}

/// Sends the bytes and nothing more. Returns what comes back.
fn exchange(host: &Host, bytes: &[u8]) -> String {
    let mut connection = Connection::open(host.addr());
    let _ = connection.try_send(bytes);
    connection.finish();
    String::from_utf8_lossy(&connection.read_to_close()).into_owned()
}

#[test]
fn noise_is_no_request() {
    let host = host();
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    for _ in 0..100 {
        let size = 1 + random.below(2000);
        let noise: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
        let answer = exchange(&host, &noise);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{noise:?}: {answer}");
    }
    host.assert_serves("/hello");
    host.at_rest();
}

#[test]
fn no_slip_of_a_good_request_breaks_the_host() {
    let host = host();
    let mut random = Xorshift(0x2545_f491_4f6c_dd1d);
    let good = [
        message("GET", "/hello?a=b", &["accept: */*", "cookie: a=b"], b""),
        message("POST", "/reader", &["content-type: text/plain"], b"a body of some bytes"),
        message("POST", "/native/echo", &["transfer-encoding: chunked"], b"4\r\nbody\r\n0\r\n\r\n"),
    ];
    for round in 0..300 {
        let mut bytes = good[round % good.len()].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\0 :/%.\xff"[random.below(9)]),
            }
        }
        let answer = exchange(&host, &bytes);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!answer.contains("HTTP/1.1 5"), "{shown:?}: {answer}");
    }
    host.assert_serves("/hello");
    host.at_rest();
}
