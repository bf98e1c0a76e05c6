//! Header fields and trailers, of the request and of the response.

use super::probe::Probe;
use super::{case, check};
use crate::client::Response;
use crate::host::Host;

/// Sends fields in several spellings, one of them twice.
fn ask(host: &Host, path: &str) -> Response {
    let fields = ["X-Two: one", "x-empty:", "X-TWO:  two ", "X-Other: \u{e4}"];
    host.request("GET", path, &fields, b"")
}

#[test]
fn names_are_lower_case_and_come_once() {
    let code = "(call $pair (call $get_header_names #0 #65536 #1000)) (call $show #100)";
    let host = Host::with("names.wat", Probe::new(code).wat()).start();
    let text = ask(&host, "/names").text();
    let (packed, list) = text.split_once('\n').expect("two lines");
    let mut names: Vec<&str> = list.split('\0').filter(|name| !name.is_empty()).collect();
    assert_eq!(names.pop(), Some("\n"), "the buffer ends in zeros: {text:?}");
    let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    assert_eq!(packed, format!("{}/{bytes}", names.len()));
    names.sort_unstable();
    let expected = ["guesthouse-base-path", "host", "x-empty", "x-other", "x-two"];
    assert_eq!(names, expected);
}

#[test]
fn names_are_written_whole_or_not_at_all() {
    let names = |limit: usize| {
        format!(
            "(call $set_header_value #1 'X-One' '1')
             (call $add_header_value #1 'x-two' '2')
             (call $clean)
             (call $pair (call $get_header_names #1 #65536 #{limit}))
             (call $show #14)"
        )
    };
    let nothing = "2/12\n..............\n";
    let cases = [
        case(&names(0), nothing),
        // The first name would fit, and the second one would without its terminator.
        case(&names(6), nothing),
        case(&names(11), nothing),
        case(&names(12), "2/12\nx-one\0x-two\0..\n"),
        case(&names(100), "2/12\nx-one\0x-two\0..\n"),
    ];
    check(&cases, Host::get);
}

#[test]
fn values_are_written_whole_or_not_at_all() {
    let values = |name: &str, limit: usize| {
        format!(
            "(call $clean)
             (call $pair (call $get_header_values #0 '{name}' #65536 #{limit}))
             (call $show #10)"
        )
    };
    let nothing = "2/8\n..........\n";
    let cases = [
        case(&values("x-two", 0), nothing),
        case(&values("x-two", 7), nothing),
        case(&values("x-two", 8), "2/8\none\0two\0..\n"),
        case(&values("X-Two", 99), "2/8\none\0two\0..\n"),
        // One empty value is not the same as no value.
        case(&values("x-empty", 9), "1/1\n\0.........\n"),
        case(&values("x-none", 9), "0/0\n..........\n"),
        case(&values("not a name", 9), "0/0\n..........\n"),
        case(&values("", 9), "0/0\n..........\n"),
        case(&values("x-other", 9), "1/3\n\u{e4}\0.......\n"),
        case(&values("host", 99), "1/11\nguest.test\n"),
        case(&values("guesthouse-base-path", 9), "1/5\n{path}\0.....\n"),
    ];
    check(&cases, ask);
}

#[test]
fn a_clients_word_for_what_the_host_makes_is_removed() {
    let values = |name: &str| {
        format!("(call $pair (call $get_header_values #0 '{name}' #65536 #64)) (call $show #4)")
    };
    let guest = [values("guesthouse-base-path"), values("guesthouse-match-id")].concat();
    let host = Host::with("users/[id].wat", Probe::new(&guest).wat())
        .file("plain.wat", Probe::new(&guest).wat())
        .start();
    let forged = [
        "guesthouse-base-path: /forged",
        "Guesthouse-Match-Id: forged",
        "guesthouse-match-other: forged",
    ];
    let answer = host.request("GET", "/users/a%20b", &forged, b"");
    assert_eq!(answer.text(), "1/13\n/use\n1/6\na%20\n");
    let answer = host.request("GET", "/plain", &forged, b"");
    assert_eq!(answer.text(), "1/7\n/pla\n0/0\n/pla\n");
}

#[test]
fn request_fields_can_be_changed() {
    let values = "(call $clean)
        (call $pair (call $get_header_values #0 'x-two' #65536 #64)) (call $show #8)";
    let cases = [
        case(&format!("(call $set_header_value #0 'X-Two' 'x') {values}"), "1/2\nx\0......\n"),
        case(
            &format!(
                "(call $set_header_value #0 'x-two' 'x')
                 (call $add_header_value #0 'x-TWO' 'y') {values}"
            ),
            "2/4\nx\0y\0....\n",
        ),
        case(&format!("(call $remove_header #0 'X-two') {values}"), "0/0\n........\n"),
        case(&format!("(call $remove_header #0 'x-none') {values}"), "2/8\none\0two\0\n"),
    ];
    check(&cases, ask);
}

#[test]
fn response_fields_reach_the_client() {
    let guest = Probe::new(
        "(call $set_header_value #1 'X-Set' 'lost')
         (call $add_header_value #1 'x-set' 'lost, too')
         (call $set_header_value #1 'x-set' 'held')
         (call $add_header_value #1 'Set-Cookie' 'a=1')
         (call $add_header_value #1 'set-cookie' 'b=2')
         (call $add_header_value #1 'x-gone' '1')
         (call $remove_header #1 'X-Gone')
         (call $set_header_value #1 'x-empty' '')
         (call $set_header_value #1 'x-latin' '\\e4')
         (call $set_header_value #1 'content-type' 'text/x-own')
         (call $set_header_value #1 'date' 'Thu, 01 Jan 1970 00:00:00 GMT')",
    );
    let host = Host::with("fields.wat", guest.wat()).start();
    let answer = host.get("/fields");
    assert_eq!(answer.header("x-set"), Some("held"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("x-gone"), None);
    assert_eq!(answer.header("x-empty"), Some(""));
    assert_eq!(answer.header("x-latin"), Some("\u{fffd}"));
    assert_eq!(answer.header("content-type"), Some("text/x-own"));
    assert_eq!(answer.header("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    host.at_rest();
}

/// The head may be as large as the limit, and not one byte larger.
#[test]
fn response_fields_are_limited() {
    let sized = |bytes: u32| {
        // A field counts as its name, its value and four bytes more.
        let value = bytes - 5;
        Probe::new(&format!(
            "(memory.fill #65536 #118 #65536)
             (call $set_header_value #1 'x' #65536 #{value})"
        ))
        .wat()
    };
    let host = Host::with("all.wat", sized(8192))
        .file("more.wat", sized(8193))
        .args(["--header-max", "8KiB"])
        .start();
    let answer = host.get("/all");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x").map(str::len), Some(8187));
    host.get("/more").assert_problem(500);
    host.wait_log_with(&["more", "--header-max"]);
    host.at_rest();
}

const TRAILERS: &str = "
    (drop (call $enable_features #4))
    (call $add_header_value #3 'X-Sum' '42')
    (call $add_header_value #3 'x-gone' '1')
    (call $remove_header #3 'x-gone')
    (call $say 'with trailers')";

#[test]
fn response_trailers_go_to_who_takes_them() {
    let host = Host::with("trailers.wat", Probe::new(TRAILERS).wat()).start();
    let mut connection = host.connect();
    let answer = connection.request("GET", "/trailers", &["TE: trailers"], b"");
    assert_eq!(answer.text(), "with trailers");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("trailer"), Some("x-sum"));
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    // A client that does not ask for trailers gets a plain body.
    let answer = connection.get("/trailers");
    assert_eq!(answer.text(), "with trailers");
    assert_eq!(answer.header("content-length"), Some("13"));
    assert_eq!(answer.header("trailer"), None);
    let head = connection.request("HEAD", "/trailers", &["TE: trailers"], b"");
    assert_eq!(head.status, 200);
    connection.assert_silent();
    // HTTP/1.0 has no chunks.
    connection.send("GET /trailers HTTP/1.0\r\nhost: guest.test\r\nte: trailers\r\n\r\n");
    let answer = connection.read();
    assert_eq!(answer.text(), "with trailers");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.closes(), "{answer:?}");
    host.at_rest();
}

/// Trailers that would change how a message is framed or routed are not passed on.
#[test]
fn response_trailers_frame_nothing() {
    let guest = Probe::new(
        "(drop (call $enable_features #4))
         (call $add_header_value #3 'content-length' '3')
         (call $add_header_value #3 'transfer-encoding' 'chunked')
         (call $add_header_value #3 'connection' 'close')
         (call $add_header_value #3 'x-sum' '42')
         (call $say 'body')",
    );
    let host = Host::with("trailers.wat", guest.wat()).start();
    let mut connection = host.connect();
    for _ in 0..2 {
        let answer = connection.request("GET", "/trailers", &["TE: trailers"], b"");
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
        assert_eq!(answer.text(), "body");
        connection.assert_silent();
    }
}

#[test]
fn request_trailers_are_there_once_the_body_was_read() {
    let names = "(call $pair (call $get_header_names #2 #65536 #64))";
    let value = "(call $clean)
        (call $pair (call $get_header_values #2 'X-End' #65536 #64)) (call $show #4)";
    let read = "(loop $more
        (br_if $more (i64.eqz (i64.shr_u (call $read_body #0 #65536 #4) (i64.const 32)))))";
    let enable = "(drop (call $enable_features #4))";
    let cases = [
        case(&[enable, names, read, names, value].concat(), "0/0\n1/6\n1/4\nend\0\n"),
        // Without the feature there are none.
        case(&[read, names, value].concat(), "0/0\n0/0\n....\n"),
    ];
    check(&cases, |host, path| {
        let body = b"5\r\nhello\r\n3\r\nyou\r\n0\r\nX-End: end\r\n\r\n";
        let fields = ["transfer-encoding: chunked", "trailer: x-end"];
        host.request("POST", path, &fields, body)
    });
}
