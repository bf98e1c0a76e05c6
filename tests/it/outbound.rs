//! Outbound requests of guests: which destinations are allowed, and the error if there is no
//! response.

use std::net::TcpListener;

use crate::client::message;
use crate::component::assert_as_new;
use crate::host::{Host, Setup};
use crate::hostile::ISOLATIONS;
use crate::middleware::upstream::{Upstream, plain};

#[path = "outbound/flow.rs"]
mod flow;
#[path = "outbound/lengths.rs"]
mod lengths;
#[path = "outbound/tls.rs"]
mod tls;

/// Whether these are the tests of the whole probe.
fn is_whole() -> bool {
    module_path!().ends_with("_whole")
}

/// Whether these are the tests of the probe of wasi:http 0.3, which sends requests only as a whole
/// component.
fn is_03() -> bool {
    module_path!().ends_with("_03_whole")
}

fn probe() -> &'static [u8] {
    match (is_03(), is_whole()) {
        (true, _) => crate::component_03_whole::probe(),
        (false, true) => crate::component_whole::probe(),
        (false, false) => crate::component::probe(),
    }
}

fn setup(flags: &[&str]) -> Setup {
    Host::with("probe.wasm", probe()).args(flags)
}

#[track_caller]
fn start(flags: &[&str]) -> Host {
    let host = setup(flags).start();
    host.settled();
    host
}

/// A host whose probe may send requests to these destinations.
#[track_caller]
pub fn allowing(allowed: &[&str], flags: &[&str]) -> Host {
    let allowed = allowed.iter().flat_map(|allow| ["--allow-outbound", allow]);
    let flags: Vec<&str> = allowed.chain(flags.iter().copied()).collect();
    start(&flags)
}

/// A server that answers `ok` to everything.
pub fn good() -> Upstream {
    Upstream::saying(plain("200 OK", "", "ok"))
}

/// The probe's answer for a request to this URL, with fields for the behaviour.
#[track_caller]
pub fn fetch_with(host: &Host, behaviour: &str, url: &str, fields: &[&str]) -> String {
    let url = format!("x-url: {url}");
    let fields = [&[url.as_str()], fields].concat();
    let answer = host.request("GET", &format!("/probe/{behaviour}"), &fields, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[track_caller]
pub fn fetch(host: &Host, url: &str) -> String {
    fetch_with(host, "fetch", url, &[])
}

/// Asserts that a request failed for this reason.
#[track_caller]
pub fn assert_code(told: &str, code: &str) {
    // The generated bindings decide how the name of an error code is written.
    assert!(told.contains(code), "{told:?} is not {code}");
}

#[test]
fn a_guest_gets_where_it_is_allowed_to() {
    let server = good();
    let url = server.url("");
    let host = allowing(&[&format!("probe={url}")], &[]);
    assert_eq!(fetch(&host, &format!("{url}/some/path?and=query")), "200 ok");
    let seen = server.one();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/some/path?and=query"));
    assert_eq!(seen.all("host"), [url.trim_start_matches("http://")]);
    assert_eq!(seen.all("cdn-loop"), ["guesthouse"]);
    // A URL may have a query without a path, but the target of a request needs one.
    assert_eq!(fetch(&host, &url), "200 ok");
    assert_eq!(server.seen()[1].target, "/");
    assert_as_new(&host);
}

#[test]
fn a_guest_does_not_get_anywhere_else() {
    let (server, other) = (good(), good());
    let url = server.url("");
    let allow = format!("probe={url}");
    let host = allowing(&[&allow, &format!("other={}", other.url(""))], &["--workers", "1"]);
    let port = url.rsplit(':').next().expect("a port");
    let secure = url.replace("http://", "https://");
    let user = url.replace("http://", "http://user@");
    let urls = [other.url(""), secure, format!("http://localhost:{port}"), "http://a.test".into()];
    for url in &urls {
        for _ in 0..3 {
            assert_code(&fetch(&host, url), "HttpRequestDenied");
        }
    }
    assert_code(&fetch(&host, &user), "HttpRequestUriInvalid");
    assert_eq!(other.connections(), (0, 0));
    // Logged once for each destination, with the flag that would allow it.
    for url in &urls {
        let line = host.wait_log_with(&[&format!("--allow-outbound 'probe={url}'")]);
        assert_eq!(line.json["handler"], "probe", "{}", line.text);
    }
    let hints = host.lines().into_iter().filter(|line| line.has(&["--allow-outbound 'probe="]));
    assert_eq!(hints.count(), 4);
    assert_as_new(&host);
}

#[test]
fn an_allowance_may_be_for_many() {
    let server = good();
    let url = server.url("");
    let port = url.rsplit(':').next().expect("a port");
    let told = |allow: String, url: &str| {
        let host = allowing(&[&allow], &[]);
        let told = fetch_with(&host, "fetch", url, &["x-connect: 3000"]);
        assert_as_new(&host);
        told
    };
    assert_eq!(told(format!("*={url}/"), &url), "200 ok");
    assert_eq!(told("probe=http://127.0.0.1:*".into(), &url), "200 ok");
    assert_eq!(told(format!("probe=HTTP://*:{port},127.0.0.0/8"), &url), "200 ok");
    let local = format!("http://LocalHost:{port}");
    assert_eq!(told(format!("probe=http://localhost:{port}"), &local), "200 ok");
    // No such host exists, but that is found out only by asking.
    let below = "probe=http://*.guests.invalid";
    for name in ["a.guests.invalid", "a.b.Guests.Invalid."] {
        assert_code(&told(below.into(), &format!("http://{name}/")), "Dns");
    }
    for name in ["guests.invalid", "otherguests.invalid", "guests.invalid.test"] {
        assert_code(&told(below.into(), &format!("http://{name}/")), "HttpRequestDenied");
    }
}

/// A name never leads to an address that no flag allows.
#[test]
fn what_is_not_public_has_to_be_named() {
    let server = good();
    let url = server.url("");
    let port = url.rsplit(':').next().expect("a port");
    let host = allowing(&[&format!("probe=http://*:{port}")], &["--workers", "1"]);
    // Resolvers take the third and the fourth for 127.0.0.1.
    let names = ["127.0.0.1", "localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"];
    for name in names {
        let told = fetch(&host, &format!("http://{name}:{port}/"));
        assert_code(&told, "DestinationIpProhibited");
    }
    host.wait_log_with(&["not at a public address", "NETWORK", "http://127.1:"]);
    assert_as_new(&host);
    let host = allowing(&[&format!("probe=http://*:{port},10.0.0.0/8,127.0.0.1")], &[]);
    assert_eq!(fetch(&host, &format!("http://127.1:{port}/")), "200 ok");
    assert_eq!(fetch(&host, &format!("http://localhost:{port}/")), "200 ok");
    let told = fetch(&host, &format!("http://127.0.0.2:{port}/"));
    assert_code(&told, "DestinationIpProhibited");
    assert_eq!(server.seen().len(), 2);
    assert_as_new(&host);
}

#[test]
fn a_guest_is_told_what_went_wrong() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let host = allowing(&["probe=http://127.0.0.1:*"], &["--header-max", "8KiB"]);
    assert_code(&fetch(&host, &format!("http://{closed}/")), "ConnectionRefused");
    let large = format!("x-large: {}\r\n", "x".repeat(10_000));
    let cases: [(Vec<u8>, &str); 6] = [
        (Vec::new(), "ConnectionTerminated"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart".into(), "HttpResponseIncomplete"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart".into(), "Incomplete"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n".into(), "HttpProtocolError"),
        (plain("200 OK", &large, ""), "HttpResponseHeaderSectionSize"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".into(),
            "HttpUpgradeFailed",
        ),
    ];
    for (answer, code) in cases {
        let server = Upstream::saying_once(answer);
        assert_code(&fetch(&host, &server.url("/")), code);
        host.assert_serves("/probe/exact");
    }
    let server = good();
    let told = fetch_with(&host, "fetch", &server.url("/"), &["x-method: CONNECT"]);
    assert_code(&told, "HttpRequestMethodInvalid");
    let long = format!("x-method: {}", "A".repeat(65));
    assert_code(
        &fetch_with(&host, "fetch", &server.url("/"), &[&long]),
        "HttpRequestMethodInvalid",
    );
    assert_eq!(server.connections(), (0, 0));
    assert_as_new(&host);
}

/// A guest may not set fields that belong to one connection or to the host.
#[test]
fn some_fields_are_not_for_guests() {
    let fields =
        "connection: x-own, keep-alive\r\nx-own: 1\r\nx-kept: 2\r\nkeep-alive: timeout=5\r\n";
    let server = Upstream::saying(plain("200 OK", fields, "ok"));
    let host = allowing(&[&format!("probe={}", server.url(""))], &[]);
    let told = fetch_with(&host, "fetch-forbidden", "", &[]);
    assert_eq!(told.matches("Forbidden").count(), 5, "{told}");
    let told = fetch_with(&host, "fetch-head", &server.url("/"), &[]);
    assert_eq!(told, "x-kept: 2\ncontent-length: 2\n");
    assert_as_new(&host);
}

#[test]
fn a_circle_ends() {
    let host = allowing(&["probe=http://127.0.0.1:*"], &[]);
    let url = format!("x-url: http://{}/probe/fetch-again", host.addr());
    let answer = host.request("GET", "/probe/fetch-again", &[&url], b"");
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert_eq!(assert_as_new(&host).rejects("loop"), 1);
    // A client can claim that a request has been here before, which harms only itself.
    let hops = |times: usize| format!("cdn-loop: {}", ["guesthouse"; 20][..times].join(", "));
    host.request("GET", "/probe/exact", &[&hops(8)], b"").assert_problem(508);
    let others = "cdn-loop: other; q=1, guesthouses,guest house";
    let answer = host.request("GET", "/probe/exact", &[&hops(7), others], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_as_new(&host);
}

/// The hop counter of each request goes on, both in a new instance and in a reused one.
#[test]
fn hops_are_counted_on() {
    for isolation in ISOLATIONS {
        let server = good();
        let allow = format!("probe={}", server.url(""));
        let host = allowing(&[&allow], &["--workers", "1", "--isolation", isolation]);
        assert_eq!(fetch(&host, &server.url("/")), "200 ok");
        let hops = ["cdn-loop: guesthouse"];
        assert_eq!(fetch_with(&host, "fetch", &server.url("/"), &hops), "200 ok");
        let seen = server.seen();
        assert_eq!(seen[0].all("cdn-loop"), ["guesthouse"], "{isolation}");
        assert_eq!(seen[1].all("cdn-loop"), ["guesthouse, guesthouse"], "{isolation}");
        assert_as_new(&host);
    }
}

#[test]
fn two_guests_do_not_share_connections() {
    let server = good();
    let allow = format!("*={}", server.url(""));
    let host = setup(&["--allow-outbound", &allow, "--workers", "1"]);
    let host = host.file("second.wasm", probe()).start();
    host.settled();
    let url = format!("x-url: {}", server.url("/"));
    let mut connection = host.connect();
    for path in ["/probe/fetch", "/second/fetch", "/probe/fetch", "/second/fetch"] {
        connection.send(message("GET", path, &[&url], b""));
        assert_eq!(connection.read().text(), "200 ok");
    }
    assert_eq!(server.connections().0, 2);
    assert_as_new(&host);
}
