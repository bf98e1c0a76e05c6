//! Guests that change the request before they pass it on, and the answer when it comes back.

use super::before;
use super::upstream::{Upstream, plain};
use crate::abi::probe::Probe;
use crate::client::Response;
use crate::host::{HELLO, Host};

/// The upstream of these tests answers with a status, fields and a body that guests change.
fn answering() -> Upstream {
    Upstream::saying(plain("203 Changed", "x-up: 1\r\nx-up: 2\r\nserver: up\r\n", "from above"))
}

fn start(upstream: &Upstream, guest: &Probe) -> Host {
    before(upstream).file("guest.wat", guest.wat()).start()
}

/// The client's answer if a guest runs this in `handle_response`, after it has enabled `features`.
fn answer(features: u32, response: &str) -> Response {
    let upstream = answering();
    let guest = Probe::new(&format!("(drop (call $enable_features #{features}))"));
    let host = start(&upstream, &guest.next().response(response));
    let answer = host.get("/guest");
    host.assert_serves("/good");
    host.at_rest();
    answer
}

#[test]
fn a_request_is_passed_on_as_it_came() {
    let upstream = answering();
    let host = start(&upstream, &Probe::new("").next());
    let answer = host.request("PUT", "/guest/a%20b?c", &["x-mine: 1", "x-mine: 2"], b"body");
    assert_eq!((answer.status, answer.text()), (203, "from above".to_owned()));
    assert_eq!(answer.all("x-up"), ["1", "2"]);
    let seen = upstream.one();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/guest/a%20b?c"));
    assert_eq!(seen.all("x-mine"), ["1", "2"]);
    assert_eq!(seen.all("host"), ["guest.test"]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("content-length"), ["4"]);
    assert_eq!(seen.body, b"body");
    host.at_rest();
}

#[test]
fn a_changed_request_is_passed_on() {
    let upstream = answering();
    let guest = Probe::new(
        "(call $set_method 'PUT')
         (call $set_uri '/other%20place?x=1')
         (call $set_header_value #0 'X-Mine' 'set')
         (call $add_header_value #0 'x-more' 'one')
         (call $add_header_value #0 'x-more' 'two')
         (call $remove_header #0 'x-secret')
         (call $write_body #0 'another ')
         (call $write_body #0 'body')",
    );
    let host = start(&upstream, &guest.next());
    let fields = ["x-mine: 1", "x-mine: 2", "x-secret: 3"];
    for (framing, body) in
        [("content-length: 3", "old"), ("transfer-encoding: chunked", "3\r\nold\r\n0\r\n\r\n")]
    {
        let fields = [fields.as_slice(), &[framing]].concat();
        let mut connection = host.connect();
        let answer = connection.request("POST", "/guest/below?y", &fields, body.as_bytes());
        assert_eq!(answer.status, 203, "{}", answer.text());
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/other%20place?x=1"));
        assert_eq!(seen.all("x-mine"), ["set"]);
        assert_eq!(seen.all("x-more"), ["one", "two"]);
        assert_eq!(seen.all("x-secret"), [""; 0]);
        assert_eq!(seen.body, b"another body");
        let framed = [seen.all("content-length"), seen.all("transfer-encoding")].concat();
        assert_eq!(framed, ["12"]);
        if !answer.closes() {
            assert_eq!(connection.get("/good").status, 200);
        }
    }
    host.at_rest();
}

/// A request without a body gets one.
#[test]
fn a_body_may_be_added() {
    let upstream = answering();
    let host = start(&upstream, &Probe::new("(call $write_body #0 'added')").next());
    assert_eq!(host.get("/guest").status, 203);
    let seen = upstream.one();
    assert_eq!((seen.method.as_str(), seen.body.as_slice()), ("GET", b"added".as_slice()));
    host.at_rest();
}

/// A guest cannot frame the request that is passed on. The host does that.
#[test]
fn a_guest_cannot_frame_a_request() {
    let upstream = answering();
    let guest = Probe::new(
        "(call $set_header_value #0 'content-length' '2')
         (call $set_header_value #0 'transfer-encoding' 'chunked')
         (call $set_header_value #0 'connection' 'close, x-named')
         (call $set_header_value #0 'x-named' '1')",
    );
    let host = start(&upstream, &guest.next());
    let answer = host.request("POST", "/guest", &[], b"smuggled?");
    assert_eq!(answer.status, 203, "{}", answer.text());
    let seen = upstream.one();
    assert_eq!(seen.body, b"smuggled?");
    let framed = [seen.all("content-length"), seen.all("transfer-encoding")].concat();
    assert_eq!(framed.len(), 1, "{seen:?}");
    assert_eq!(seen.all("x-named"), [""; 0]);
    assert_eq!(host.get("/").status, 203);
    assert_eq!(upstream.seen().len(), 2);
    host.at_rest();
}

/// Reads this many bytes of the request's body, and passes the request on.
fn reading(features: u32, bytes: u32) -> Probe {
    Probe::new(&format!(
        "(drop (call $enable_features #{features}))
         (drop (call $read_body #0 #65536 #{bytes}))"
    ))
    .next()
}

#[test]
fn a_buffered_body_is_seen_again() {
    let framings = [
        ("content-length: 9", "onetwosix"),
        ("transfer-encoding: chunked", "4\r\nonet\r\n5\r\nwosix\r\n0\r\n\r\n"),
    ];
    for (features, bytes, expected) in [
        (1, 3, "onetwosix"),
        (1, 9, "onetwosix"),
        (1, 20, "onetwosix"),
        // Without the feature, the part that the guest has read is gone.
        (0, 3, "twosix"),
    ] {
        let upstream = answering();
        let host = start(&upstream, &reading(features, bytes));
        for (framing, body) in framings {
            let answer = host.request("POST", "/guest", &[framing], body.as_bytes());
            let what = format!("{features} {bytes} {framing}");
            assert_eq!(answer.status, 203, "{what}: {}", answer.text());
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!(String::from_utf8_lossy(&seen.body), expected, "{what}");
        }
        host.at_rest();
    }
}

#[test]
fn an_answer_can_be_looked_at() {
    // Without the feature a guest may still read, and logs what it sees.
    let look =
        "(call $log #0 #65536 (i32.wrap_i64 (call $get_header_values #1 'server' #65536 #99)))
        (if (i32.eq (call $get_status_code) #203) (then (call $log #0 'it is a 203')))
        (if (i32.and (i32.eq (local.get $context) #7) (i32.eqz (local.get $is_error)))
          (then (call $log #0 'the seventh')))
        (call $log #0 #65536 (call $get_uri #65536 #99))";
    let upstream = answering();
    let host = start(&upstream, &Probe::new("").next().response(look));
    let answer = host.get("/guest/below");
    assert_eq!((answer.status, answer.text()), (203, "from above".to_owned()));
    assert_eq!(answer.all("x-up"), ["1", "2"]);
    for said in ["up\\x00", "it is a 203", "the seventh", "/guest/below"] {
        host.wait_log(|line| line.json["from"] == "log" && line.message() == said);
    }
    host.at_rest();
}

#[test]
fn a_buffered_answer_can_be_rewritten() {
    let same = answer(2, "");
    assert_eq!((same.status, same.text()), (203, "from above".to_owned()));
    assert_eq!(same.all("x-up"), ["1", "2"]);
    assert_eq!(same.header("content-length"), Some("10"));

    let changed = answer(
        2,
        "(call $set_status_code #201)
         (call $set_header_value #1 'x-up' 'changed')
         (call $add_header_value #1 'x-new' '1')
         (call $remove_header #1 'server')
         (call $say 'rewritten')
         (call $say ', all of it')",
    );
    assert_eq!((changed.status, changed.text()), (201, "rewritten, all of it".to_owned()));
    assert_eq!(changed.header("x-up"), Some("changed"));
    assert_eq!(changed.header("x-new"), Some("1"));
    assert_eq!(changed.header("server"), None);
    assert_eq!(changed.header("content-length"), Some("20"));
}

/// The answer's body can be read in pieces, and rewritten from what was read.
#[test]
fn a_buffered_answer_can_be_read() {
    let copied = answer(
        2,
        "(call $clean)
         (drop (call $read_body #1 #65536 #4))
         (drop (call $read_body #1 #65540 #100))
         (call $say 'was: ')
         (call $show #11)
         (call $pair (call $read_body #1 #65536 #4))
         (call $int (call $get_status_code))
         (call $pair (call $get_header_values #1 'X-UP' #65536 #9))",
    );
    assert_eq!(copied.text(), "was: from above.\n1/0\n203\n2/4\n");
}

/// A guest reads the original body, even if it writes before it has read all.
#[test]
fn a_buffered_answer_can_be_read_and_rewritten_by_turns() {
    let bracketed = answer(
        2,
        "(local $got i64)
         (loop $more
           (local.set $got (call $read_body #1 #65536 #4))
           (call $say '<')
           (call $say #65536 (i32.wrap_i64 (local.get $got)))
           (call $say '>')
           (br_if $more (i64.eqz (i64.shr_u (local.get $got) (i64.const 32)))))",
    );
    assert_eq!(bracketed.text(), "<from>< abo><ve>");
}

#[test]
fn an_answer_that_is_not_buffered_cannot_be_changed() {
    for change in [
        "(call $set_status_code #200)",
        "(call $set_header_value #1 'x-a' 'a')",
        "(call $add_header_value #1 'x-a' 'a')",
        "(call $remove_header #1 'server')",
        "(call $write_body #1 'a')",
        "(drop (call $read_body #1 #65536 #4))",
        "(call $set_header_value #3 'x-a' 'a')",
    ] {
        let answer = answer(0, change);
        assert_eq!(answer.status, 500, "{change}: {}", answer.text());
        answer.assert_problem(500);
    }
}

#[test]
fn a_request_that_was_passed_on_cannot_be_changed() {
    for change in [
        "(call $set_method 'PUT')",
        "(call $set_uri '/other')",
        "(call $set_header_value #0 'x-a' 'a')",
        "(call $add_header_value #0 'x-a' 'a')",
        "(call $remove_header #0 'x-a')",
        "(call $write_body #0 'a')",
    ] {
        for features in [0, 7] {
            let answer = answer(features, change);
            assert_eq!(answer.status, 500, "{change}: {}", answer.text());
            answer.assert_problem(500);
        }
    }
}

/// A guest that breaks while it handles the answer costs its own request only, and the instance is
/// dropped.
#[test]
fn a_guest_that_breaks_at_the_response_is_contained() {
    for isolation in ["fresh", "reuse"] {
        let upstream = answering();
        let breaking = Probe::new("").next().response("(unreachable)");
        let looping = Probe::new("").next().response("(loop $more (br $more))");
        let host = before(&upstream)
            .file("breaking.wat", breaking.wat())
            .file("looping.wat", looping.wat())
            .args(["--deadline", "300ms", "--isolation", isolation])
            .start();
        host.settled();
        for _ in 0..2 {
            host.get("/breaking").assert_problem(500);
            host.get("/looping").assert_problem(504);
            host.assert_serves("/good");
        }
        host.at_rest();
    }
}

/// Fields that a guest has set on the response before it passed the request on reach the client,
/// unless the upstream sets the same.
#[test]
fn fields_set_before_next_are_retained() {
    let upstream = answering();
    let guest = Probe::new(
        "(call $set_header_value #1 'x-before' 'kept')
         (call $set_header_value #1 'server' 'below')",
    );
    let host = start(&upstream, &guest.next());
    let answer = host.get("/guest");
    assert_eq!(answer.header("x-before"), Some("kept"));
    assert_eq!(answer.header("server"), Some("up"));
    host.at_rest();
}

/// A guest may not ask for anything that a client may not ask for. Anything that is not a valid
/// HTTP/1.1 request never reaches the upstream.
#[test]
fn a_guest_passes_on_requests_of_http_alone() {
    let upstream = answering();
    let mut setup = Host::with("good.wat", HELLO).args(["--upstream", &upstream.url("/base")]);
    let changes = [
        "(call $set_method 'CONNECT')",
        "(call $set_method '')",
        "(call $set_method 'A B')",
        "(call $set_method 'GET / HTTP/1.1\\0d\\0a')",
        "(call $set_uri '/../admin')",
        "(call $set_uri '/a/..')",
        "(call $set_uri '/./a')",
        "(call $set_uri '/%2e%2E/admin')",
        "(call $set_uri '/a%2f..')",
        "(call $set_uri '/a%5cb')",
        "(call $set_uri '/a%00')",
        "(call $set_uri '/a%zz')",
        "(call $set_uri '/a#b')",
        "(call $set_uri '/a b')",
        "(call $set_uri '/a\\0d\\0ab')",
        "(call $set_uri '*')",
        "(call $set_uri 'http://other.test/')",
        "(call $set_uri 'other.test:80')",
        "(call $set_header_value #0 'host' 'a b')",
        "(call $set_header_value #0 'host' 'a.test/b')",
        "(call $add_header_value #0 'host' 'other.test')",
    ];
    for (at, change) in changes.iter().enumerate() {
        setup = setup.file(&format!("guest{at}.wat"), Probe::new(change).next().wat());
    }
    let host = setup.start();
    for (at, change) in changes.iter().enumerate() {
        let answer = host.request("POST", &format!("/guest{at}"), &[], b"GET /hidden HTTP/1.1\r\n");
        assert_eq!(answer.status, 500, "{change}: {}", answer.text());
        answer.assert_problem(500);
    }
    assert_eq!(upstream.connections().0, 0);
    assert_eq!(host.at_rest().rejects("invalid_request"), 3);
}

/// Fields by which a guest could frame a message or control a connection have no effect.
#[test]
fn a_guest_does_not_frame_what_it_passes_on() {
    let upstream = answering();
    let guest = Probe::new(
        "(call $set_method 'POST')
         (call $set_header_value #0 'transfer-encoding' 'gzip, chunked')
         (call $set_header_value #0 'content-length' '1')
         (call $add_header_value #0 'content-length' '2')
         (call $set_header_value #0 'connection' 'upgrade, x-named, host')
         (call $set_header_value #0 'upgrade' 'h2c')
         (call $set_header_value #0 'te' 'gzip')
         (call $set_header_value #0 'x-named' '1')
         (call $write_body #0 'body')",
    );
    let host = start(&upstream, &guest.next());
    assert_eq!(host.get("/guest").status, 203);
    let seen = upstream.one();
    for name in ["transfer-encoding", "connection", "upgrade", "te", "x-named"] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    assert_eq!(seen.all("content-length"), ["4"]);
    assert_eq!(seen.all("host"), ["guest.test"]);
    assert_eq!((seen.version.as_str(), seen.body.as_slice()), ("HTTP/1.1", &b"body"[..]));
    host.at_rest();
}

/// There is a limit on the number of fields, even if the limit on their size allows more.
#[test]
fn a_guest_sets_so_many_fields() {
    let upstream = answering();
    // Names of four letters, from aaaa on.
    let fields = |kind: &str, count: u32| {
        format!(
            "(local $at i32) (local $rest i32) (local $place i32)
             (loop $more
               (local.set $rest (local.get $at))
               (local.set $place #4)
               (loop $letter
                 (local.set $place (i32.sub (local.get $place) #1))
                 (i32.store8 (i32.add #65536 (local.get $place))
                   (i32.add #97 (i32.rem_u (local.get $rest) #26)))
                 (local.set $rest (i32.div_u (local.get $rest) #26))
                 (br_if $letter (local.get $place)))
               (call $set_header_value {kind} #65536 #4 #65536 #1)
               (local.set $at (i32.add (local.get $at) #1))
               (br_if $more (i32.lt_u (local.get $at) #{count})))"
        )
    };
    let host = before(&upstream)
        .file("many.wat", Probe::new(&fields("#1", 9_000)).next().wat())
        .file("asks.wat", Probe::new(&fields("#0", 30_000)).next().wat())
        .file("answers.wat", Probe::new(&fields("#1", 30_000)).wat())
        .args(["--header-max", "256KiB"])
        .start();
    host.get("/asks").assert_problem(500);
    host.get("/answers").assert_problem(500);
    assert_eq!(host.get("/many").status, 203);
    host.wait_log_with(&["more than 10000 header fields"]);
    assert_eq!(host.at_rest().rejects("panic"), 0);
}
