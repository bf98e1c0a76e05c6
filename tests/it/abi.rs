//! The handler ABI as a guest sees it: one case for each row of its table in the contract.
//!
//! A case is a few lines of WebAssembly text that call the host and write the results (see
//! [`probe`]), and the response body that is expected.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use probe::Probe;

use crate::client::Response;
use crate::host::Host;

mod body;
mod fields;
pub mod probe;
mod words;

/// Serves the guests as `/g00`, `/g01` and so on, requests each, and compares the bodies.
///
/// `{path}` in an expected body stands for the guest's path.
#[track_caller]
fn check(cases: &[(Probe, String)], ask: impl Fn(&Host, &str) -> Response) {
    let numbered = cases.iter().enumerate();
    let setup = numbered.fold(Host::empty(), |setup, (number, (guest, _))| {
        setup.file(&format!("g{number:02}.wat"), guest.wat())
    });
    let host = setup.start();
    for (number, (_, expected)) in cases.iter().enumerate() {
        let path = format!("/g{number:02}");
        let answer = ask(&host, &path);
        assert_eq!(answer.status, 200, "case {number}: {}", answer.text());
        assert_eq!(answer.text(), expected.replace("{path}", &path), "case {number}");
    }
    host.at_rest();
}

fn case(code: &str, expected: &str) -> (Probe, String) {
    (Probe::new(code), expected.to_owned())
}

/// The results of a function for a buffer that is empty, one byte too small, just large enough, and
/// larger: the length each time. Nothing is written unless all of it fits.
///
/// `call` has `{limit}` in the place of its limit, and returns an i32.
fn with_every_limit(call: &str, value: &str) -> Vec<(Probe, String)> {
    let len = value.len();
    let one = |limit: usize| {
        let call = call.replace("{limit}", &format!("#{limit}"));
        let shown = len + 2;
        let code = format!("(call $clean) (call $int {call}) (call $show #{shown})");
        let written = if limit >= len { value } else { "" };
        let dots = ".".repeat(shown - written.len());
        case(&code, &format!("{len}\n{written}{dots}\n"))
    };
    let limits = [0, len.saturating_sub(1), len, len + 5];
    limits.into_iter().map(one).collect()
}

/// Spellings that a client may use in a path and a query.
const TARGET: &str = "/a%2Db/%C3%A4;v=1//c?q=1%202&q=%00&&x";

#[test]
fn the_request_line_is_given_as_the_client_sent_it() {
    let uri = with_every_limit("(call $get_uri #65536 {limit})", &format!("/g00{TARGET}"));
    let uri = uri.into_iter().map(|(probe, text)| (probe, text.replace("/g00", "{path}")));
    let mut cases: Vec<(Probe, String)> = uri.collect();
    cases.extend(with_every_limit("(call $get_method #65536 {limit})", "PROPFIND"));
    cases.extend(with_every_limit("(call $get_protocol_version #65536 {limit})", "HTTP/1.1"));
    cases.extend(with_every_limit("(call $get_config #65536 {limit})", ""));
    check(&cases, |host, path| host.request("PROPFIND", &format!("{path}{TARGET}"), &[], b""));
}

/// Text with the whole result of a buffer function.
fn show(function: &str) -> String {
    format!("(call $say #65536 (call ${function} #65536 #1000))")
}

#[test]
fn the_protocol_version_is_the_clients() {
    let host = Host::with("version.wat", Probe::new(&show("get_protocol_version")).wat()).start();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut connection = host.connect();
        connection.send(format!("GET /version {version}\r\nhost: guest.test\r\n\r\n"));
        assert_eq!(connection.read().text(), version);
    }
}

#[test]
fn the_source_address_is_the_clients_socket() {
    let host = Host::with("peer.wat", Probe::new(&show("get_source_addr")).wat()).start();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(host.addr()).expect("a connection");
        let own = stream.local_addr().expect("an address").to_string();
        // A proxy's header for the address is not trusted.
        let request = "GET /peer HTTP/1.1\r\nhost: guest.test\r\nconnection: close\r\n\
                       x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with(&format!("\r\n\r\n{own}")), "{own}: {answer}");
    }
    // An address with a port never fits into this buffer.
    let small =
        Probe::new("(call $clean) (drop (call $get_source_addr #65536 #8)) (call $show #9)");
    check(&[(small, ".........\n".to_owned())], Host::get);
}

#[test]
fn an_empty_path_is_a_slash() {
    let host = Host::with("index.wat", Probe::new(&show("get_uri")).wat()).start();
    for (target, expected) in
        [("http://guest.test", "/"), ("http://guest.test/", "/"), ("/", "/"), ("/?a", "/?a")]
    {
        let mut connection = host.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nhost: guest.test\r\n\r\n"));
        assert_eq!(connection.read().text(), expected, "{target}");
    }
}

#[test]
fn a_changed_request_line_is_read_back() {
    let uri = show("get_uri");
    let method = show("get_method");
    let cases = [
        case(&format!("(call $set_uri '/other?x=%20') {uri}"), "/other?x=%20"),
        case(&format!("(call $set_uri '') {uri}"), "/"),
        case(&format!("(call $set_uri '/1') (call $set_uri '/2') {uri}"), "/2"),
        case(&format!("(call $set_method 'PUT') {method}"), "PUT"),
        case(&format!("(call $set_method 'X-OWN') {method}"), "X-OWN"),
        // The route's part of the path stays as it was.
        case(
            "(call $set_uri '/other')
             (call $pair (call $get_header_values #0 'guesthouse-base-path' #65536 #64))
             (call $show #4)",
            "1/5\n{path}\n",
        ),
    ];
    check(&cases, |host, path| host.get(&format!("{path}/below")));
}

#[test]
fn the_status_is_read_back() {
    let cases = [
        case("(call $int (call $get_status_code))", "200\n"),
        case(
            "(call $set_status_code #418) (call $int (call $get_status_code))
             (call $set_status_code #200) (call $int (call $get_status_code))",
            "418\n200\n",
        ),
    ];
    check(&cases, Host::get);
}

#[test]
fn every_final_status_can_be_set() {
    let statuses = [200, 201, 299, 301, 404, 429, 499, 500, 503, 599];
    let guest = |status: u16| Probe::new(&format!("(call $set_status_code #{status})")).wat();
    let with = |setup: crate::host::Setup, status: &u16| {
        setup.file(&format!("{status}.wat"), guest(*status))
    };
    let host = statuses.iter().fold(Host::empty(), with).start();
    let mut connection = host.connect();
    for status in statuses {
        let answer = connection.get(&format!("/{status}"));
        assert_eq!(answer.status, status);
        // A status that the guest sets is its own, so there is no problem document.
        assert_eq!(answer.header("content-type"), None, "{answer:?}");
        assert_eq!(answer.header("content-length"), Some("0"), "{answer:?}");
    }
    host.at_rest();
}

#[test]
fn features_add_up_to_what_is_on() {
    let enable = |bits: &str| format!("(call $int (call $enable_features {bits}))");
    let cases = [
        case(&enable("#0"), "0\n"),
        case(&[enable("#1"), enable("#2"), enable("#0")].concat(), "1\n3\n3\n"),
        case(&enable("#7"), "7\n"),
        // Features that the host does not know stay off.
        case(&[enable("#12"), enable("#-1")].concat(), "4\n7\n"),
    ];
    check(&cases, Host::get);
}

#[test]
fn features_of_the_start_up_last_for_every_request() {
    let show = "(call $int (call $enable_features #0)) (drop (call $enable_features #1))";
    let start = "(drop (call $enable_features #2)) (drop (call $enable_features #4))";
    let random = format!("{start} (drop (call $random_get #65536 #8))");
    for isolation in ["fresh", "reuse"] {
        let host = Host::with("snapshot.wat", Probe::new(show).start(start).wat())
            .file("each.wat", Probe::new(show).start(&random).wat())
            .file("none.wat", Probe::new(show).wat())
            .args(["--workers", "1", "--isolation", isolation])
            .start();
        for _ in 0..3 {
            assert_eq!(host.get("/snapshot").text(), "6\n", "{isolation}");
            assert_eq!(host.get("/each").text(), "6\n", "{isolation}");
            // A feature that a request enables lasts for this request only.
            assert_eq!(host.get("/none").text(), "0\n", "{isolation}");
        }
        host.at_rest();
    }
}

/// The compile cache also has the features that the start-up code enabled.
#[test]
fn features_of_the_start_up_last_over_a_restart() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let show = "(call $int (call $enable_features #0))";
    let guest = Probe::new(show).start("(drop (call $enable_features #6))").wat();
    for _ in 0..2 {
        let host = Host::with("snapshot.wat", &guest).arg("--cache-dir").arg(cache.path()).start();
        assert_eq!(host.get("/snapshot").text(), "6\n");
    }
}
