//! Which answers of a server are accepted, and which are errors.
//!
//! The first answer to each path is always good, because it checks the target.

use std::io::Write as _;

use super::stub::{OK, Setup, Stub};
use super::{Bench, assert_within};

/// How a request is answered: a name, and the bytes.
type Answer = (&'static str, &'static [u8]);

/// Each of these is one answer, and the connection stays open.
const GOOD: [Answer; 19] = [
    ("/length", OK),
    ("/empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("/no-reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    ("/any-case", b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:   5  \r\n\r\nhello"),
    ("/bare-lines", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    ("/body-like-a-head", b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nHTTP/1.1 500 No\r\n\r\n"),
    (
        "/chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ),
    ("/chunked-empty", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"),
    (
        "/chunked-extensions",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          005;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
    ),
    (
        "/chunked-trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          A\r\n0123456789\r\n0\r\nX-One: 1\r\nX-Two: 2\r\n\r\n",
    ),
    (
        "/chunked-and-length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "/continue",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "/hints",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    ("/204", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("/204-with-length", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    ("/304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
    ("/1.0-kept", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"),
    ("/kept", b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"),
    ("/close-in-a-value", b"HTTP/1.1 200 OK\r\nX-Connection: close\r\nContent-Length: 0\r\n\r\n"),
];

/// Each of these ends with the connection.
const LAST: [Answer; 7] = [
    ("/until-close", b"HTTP/1.1 200 OK\r\n\r\nhello"),
    ("/until-close-empty", b"HTTP/1.1 200 OK\r\n\r\n"),
    ("/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello"),
    ("/1.0-length", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    (
        "/close-among-others",
        b"HTTP/1.1 200 OK\r\nConnection: te, close\r\nContent-Length: 0\r\n\r\n",
    ),
    ("/close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"),
    (
        "/close-chunked",
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
    ),
];

/// None of these is an answer.
const NONSENSE: [Answer; 20] = [
    ("/noise", b"\x00\x01\x02\xff\xfe\r\n\r\n"),
    ("/text", b"hello\r\n\r\n"),
    ("/http2", b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("/tls", b"\x15\x03\x01\x00\x02\x02\x46"),
    ("/no-status", b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
    ("/bad-field", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    ("/length-text", b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello"),
    ("/length-minus", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    ("/length-plus", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
    ("/length-empty", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"),
    ("/length-huge", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
    ("/lengths-differ", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello"),
    ("/gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"),
    ("/chunk-text", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n"),
    ("/chunk-empty", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n"),
    (
        "/chunk-plus",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "/chunk-huge",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n",
    ),
    (
        "/chunk-without-end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    ),
    ("/two-for-one", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("/more-than-said", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello"),
];

fn find(answers: &[Answer], target: &str) -> Option<&'static [u8]> {
    answers.iter().find(|(name, _)| *name == target).map(|(_, bytes)| *bytes)
}

/// Sends one request every 10 ms to each target, on one connection.
fn bench(stub: &Stub, answers: &[Answer]) -> Bench {
    Bench::new(answers.iter().map(|(name, _)| stub.url(name)))
        .args(["--connections", "1", "--rate", "100", "--duration", "150ms"])
        // The timeout for answers that never complete.
        .args(["--timeout", "1s"])
}

#[test]
fn every_framing_is_understood() {
    let stub = Stub::new(|asked, client| match find(&LAST, &asked.request.target) {
        Some(bytes) => client.say(bytes).map(|_| false),
        None => client.say(find(&GOOD, &asked.request.target).expect("one of them")),
    });
    let all: Vec<Answer> = GOOD.into_iter().chain(LAST).collect();
    let done = bench(&stub, &all).run();
    done.assert_good();
    for (name, bytes) in all {
        let target = done.target_named(name);
        let samples = target.samples();
        assert_within(name, samples as f64, 10.0, 15.0);
        // One request to check the target, and one or two to warm up.
        let others = stub.of_target(name) as u64 - samples;
        assert_within(name, others as f64, 1.0, 3.0);
        let mb_per_s = target.get("req_per_s") * bytes.len() as f64 / 1e6;
        assert_within(name, target.get("mb_per_s"), 0.99 * mb_per_s, 1.01 * mb_per_s);
    }
    // One connection to check the target and one to measure it; or one for each answer.
    let last: usize = LAST.iter().map(|(name, _)| stub.of_target(name)).sum();
    let expected = 2 * GOOD.len() + last;
    // Connections that the server closed were opened once more, for a request that never came.
    let expected = expected as f64;
    let again = LAST.len() as f64;
    assert_within("connections", stub.connections() as f64, expected, expected + again);
}

#[test]
fn answers_may_come_byte_by_byte() {
    let stub = Stub::new(|asked, client| {
        client.dribble(find(&GOOD, &asked.request.target).expect("one of them"))
    });
    let done = bench(&stub, &GOOD).run();
    done.assert_good();
    for (name, _) in GOOD {
        // There are fewer than were due if the client had to wait for a CPU. None of them got lost.
        let others = stub.of_target(name) as u64 - done.target_named(name).samples();
        assert_within(name, others as f64, 1.0, 3.0);
    }
}

#[test]
fn answers_may_come_all_at_once() {
    // Twelve requests deep. Each batch is one segment, with every framing in it.
    let stub = Stub::with(Setup { waits: true, ..Setup::default() }, |asked, client| {
        client.say(GOOD[asked.number % GOOD.len()].1)
    });
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "2", "--pipeline", "12", "--duration", "1s"])
        .run();
    done.assert_good();
    assert!(done.target().samples() >= 48, "{}", done.text());
    assert_eq!(stub.connections(), 3);
}

#[test]
fn a_large_body_is_counted_in_bytes() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    let answer = [head.as_bytes(), &vec![b'x'; 1 << 20]].concat();
    let bytes = answer.len() as f64;
    let stub = Stub::new(move |_, client| client.say(&answer));
    let done = Bench::new([stub.url("/")])
        .args(["--connections", "2", "--rate", "40", "--duration", "500ms"])
        .run();
    done.assert_good();
    let target = done.target();
    let mb_per_s = target.get("req_per_s") * bytes / 1e6;
    // At the end there are parts of answers, which do not count.
    assert_within("MB/s", target.get("mb_per_s"), mb_per_s * 0.999, mb_per_s + 4.2);
}

#[test]
fn answers_to_head_have_no_body() {
    let stub = Stub::new(|asked, client| {
        assert_eq!(asked.request.method, "HEAD");
        let target = &asked.request.target;
        let bytes = find(&GOOD, target).expect("one of them");
        let text = String::from_utf8_lossy(bytes);
        let heads = text.split_inclusive("\r\n\r\n").filter(|part| part.starts_with("HTTP/"));
        let heads: String = heads.filter(|head| !head.starts_with("HTTP/1.1 500")).collect();
        client.say(heads)
    });
    let heads: Vec<Answer> = GOOD.into_iter().filter(|(name, _)| *name != "/bare-lines").collect();
    let done = bench(&stub, &heads).args(["--method", "HEAD"]).run();
    done.assert_good();
    for (name, _) in heads {
        assert_within(name, done.target_named(name).samples() as f64, 10.0, 15.0);
    }
}

#[test]
fn nonsense_is_a_read_error() {
    let stub = Stub::new(|asked, client| match asked.of_target {
        0 => client.say(OK),
        _ => client.say(find(&NONSENSE, &asked.request.target).expect("one of them")),
    });
    let done = bench(&stub, &NONSENSE).run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    let wrong: Vec<String> = NONSENSE
        .iter()
        .map(|(name, _)| done.target_named(name))
        .filter(|it| it.errors("read") == 0 || it.errors("read") != it.errors("total"))
        .map(|it| format!("{}: {}", it.name(), it.0["summary"]["errors"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nonsense_from_the_start_is_named() {
    let stub = Stub::new(|_, client| client.say(b"220 mail.test ESMTP\r\n\r\n"));
    let done = Bench::new([stub.url("/")]).run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.target().notes().contains("not HTTP/1.1"), "{}", done.text());
}

/// A head of `bytes` in `fields` fields, followed by an answer.
fn head_of(fields: usize, bytes: usize) -> Vec<u8> {
    let value = "x".repeat(bytes / fields);
    let lines: String = (0..fields).map(|number| format!("X-{number}: {value}\r\n")).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{lines}\r\nhello").into_bytes()
}

#[test]
fn a_large_head_is_read_or_named() {
    let stub = Stub::new(|asked, client| {
        client.say(match &*asked.request.target {
            "/long" => head_of(20, 200_000),
            "/many" => head_of(300, 3_000),
            "/too-long" => head_of(20, 300_000),
            "/too-many" => head_of(1_100, 11_000),
            other => panic!("{other}"),
        })
    });
    let paths = ["/long", "/many", "/too-long", "/too-many"];
    let done = Bench::new(paths.map(|path| stub.url(path)))
        .args(["--connections", "1", "--rate", "20", "--duration", "200ms"])
        .run();
    for path in ["/long", "/many"] {
        assert!(done.target_named(path).samples() > 0, "{}", done.text());
        assert_eq!(done.target_named(path).errors("total"), 0, "{}", done.text());
    }
    for (path, words) in
        [("/too-long", "longer than the 256 KiB"), ("/too-many", "the 1024 fields")]
    {
        let notes = done.target_named(path).notes();
        assert!(notes.contains(words) && !notes.contains("not HTTP/1.1"), "{notes}");
    }
}

#[test]
fn what_has_no_end_takes_no_memory() {
    let stub = Stub::new(|asked, client| {
        let (start, more): (&[u8], &[u8]) = match (asked.of_target, &*asked.request.target) {
            (0, _) => return client.say(OK),
            (_, "/head") => (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
            (_, "/field") => (b"HTTP/1.1 200 OK\r\nX-More: ", b"more and more and"),
            (_, "/status") => (b"HTTP/1.1 200 ", b"OK and more and "),
            (_, "/interim") => (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (_, "/chunk-line") => {
                (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"more=and;more")
            }
            (_, "/trailer") => {
                (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"and more")
            }
            (_, "/body") => (b"HTTP/1.1 200 OK\r\n\r\n", b"hello"),
            (_, other) => panic!("{other}"),
        };
        client.stream.write_all(start)?;
        let more = more.repeat(1000);
        loop {
            client.stream.write_all(&more)?;
        }
    });
    let refused = ["/head", "/field", "/status", "/chunk-line", "/trailer"];
    let endless = ["/interim", "/body"];
    let urls = refused.iter().chain(&endless).map(|path| stub.url(path));
    let done = Bench::new(urls)
        .args(["--connections", "1", "--rate", "20", "--duration", "200ms", "--timeout", "200ms"])
        .run();
    assert_eq!((done.code, done.err.as_str()), (Some(1), ""), "{}", done.text());
    assert!(done.peak_kib < 200_000, "{} KiB: {}", done.peak_kib, done.text());
    for path in refused {
        assert!(done.target_named(path).errors("read") > 0, "{path}: {}", done.text());
    }
    for path in endless {
        assert!(done.target_named(path).errors("timeout") > 0, "{path}: {}", done.text());
    }
}
