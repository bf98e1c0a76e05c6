//! The output of a guest: `log`, stdout and stderr are in the host's log, with the guest's name and
//! the request's id.

use super::probe::Probe;
use super::{case, check};
use crate::host::{Host, Line};

#[test]
fn levels_are_enabled_as_the_log_is() {
    let all = "(call $int (call $log_enabled #-1)) (call $int (call $log_enabled #0))
               (call $int (call $log_enabled #1)) (call $int (call $log_enabled #2))
               (call $int (call $log_enabled #3))";
    check(&[case(all, "0\n1\n1\n1\n0\n")], Host::get);
    for (filter, expected) in [
        ("debug", "1\n1\n1\n1\n0\n"),
        ("info,handler=warn", "0\n0\n1\n1\n0\n"),
        ("guesthouse=info,handler=error", "0\n0\n0\n1\n0\n"),
    ] {
        let host =
            Host::with("all.wat", Probe::new(all).wat()).env("GUESTHOUSE_LOG", filter).start();
        assert_eq!(host.get("/all").text(), expected, "{filter}");
    }
}

#[test]
fn a_message_has_its_level_the_guests_name_and_the_request() {
    let code = "(call $log #-1 'not shown') (call $log #0 'at level info')
                (call $log #1 'at level warn') (call $log #2 'at level error')
                (call $log #3 'shown neither')";
    let host = Host::with("users/loud.wat", Probe::new(code).wat()).start();
    host.assert_serves("/users/loud");
    let mut requests = Vec::new();
    for (text, level) in
        [("at level info", "INFO"), ("at level warn", "WARN"), ("at level error", "ERROR")]
    {
        let line = host.wait_log(|line| line.message() == text);
        assert_eq!(line.level(), level, "{}", line.text);
        assert_eq!(line.json["handler"], "users/loud", "{}", line.text);
        assert_eq!(line.json["from"], "log", "{}", line.text);
        requests.push(request(&line));
    }
    requests.dedup();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(!host.lines().iter().any(|line| line.has(&["not shown"])));
    assert!(!host.lines().iter().any(|line| line.has(&["shown neither"])));
    host.at_rest();
}

/// The id of the request that wrote a line.
#[track_caller]
fn request(line: &Line) -> String {
    let id = line.json["request"].as_str();
    id.unwrap_or_else(|| panic!("no request in {}", line.text)).to_owned()
}

/// Writes a text to a WASI stream. The buffer's address and length are at 512.
fn print(stream: u32, text: &str) -> String {
    format!(
        "(call $buffer '{text}')
         (drop (call $fd_write #{stream} #512 #1 #520))"
    )
}

const BUFFER: &str = "
    (func $buffer (param $ptr i32) (param $len i32)
      (i32.store #512 (local.get $ptr))
      (i32.store #516 (local.get $len)))";

#[test]
fn stdout_and_stderr_are_cut_into_lines() {
    let code = [
        print(1, "the first line\\0athe sec"),
        print(2, "on stderr"),
        print(1, "ond line\\0a\\0a"),
        print(1, "without an end"),
    ];
    let guest = Probe::new(&code.concat()).fields(BUFFER);
    for isolation in ["fresh", "reuse"] {
        let host = Host::with("loud.wat", guest.wat())
            .args(["--workers", "1", "--isolation", isolation])
            .start();
        for _ in 0..2 {
            host.assert_serves("/loud");
        }
        host.at_rest();
        let said = |line: &Line| !line.json["from"].is_null();
        let lines: Vec<Line> = host.lines().into_iter().filter(said).collect();
        let texts: Vec<(&str, &str)> = lines
            .iter()
            .map(|line| (line.json["from"].as_str().unwrap_or_default(), line.message()))
            .collect();
        let once = [
            ("stdout", "the first line"),
            ("stdout", "the second line"),
            ("stdout", ""),
            ("stdout", "without an end"),
            ("stderr", "on stderr"),
        ];
        assert_eq!(texts, once.repeat(2), "{isolation}");
        let (first, second) = lines.split_at(once.len());
        assert!(first.iter().all(|line| request(line) == request(&first[0])));
        assert!(second.iter().all(|line| request(line) == request(&second[0])));
        assert_ne!(request(&first[0]), request(&second[0]));
        assert!(lines.iter().all(|line| line.json["handler"] == "loud"));
    }
}

/// A panic writes its text to stderr and traps. The log has the text, with the id that the client
/// got.
#[test]
fn a_panic_text_reaches_the_log_and_not_the_client() {
    let code = print(2, "thread main panicked at handler.rs:7: a secret\\0anote: no\\0a");
    let guest = Probe::new(&format!("{code} (unreachable)")).fields(BUFFER);
    let host = Host::with("panics.wat", guest.wat()).start();
    let answer = host.get("/panics");
    answer.assert_problem(500);
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    let line = host.wait_log_with(&["a secret", "panics"]);
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!(request(&line), id);
    let line = host.wait_log_with(&["stopped", "unreachable", "panics"]);
    assert_eq!(request(&line), id);
    host.at_rest();
}

/// The log also has output without a line break that the guest wrote before it broke.
#[test]
fn the_last_words_of_a_guest_reach_the_log() {
    let code = print(2, "last words");
    let guest = Probe::new(&format!("{code} (unreachable)")).fields(BUFFER);
    let host = Host::with("breaks.wat", guest.wat()).start();
    let answer = host.get("/breaks");
    let line = host.wait_log_with(&["last words", "breaks"]);
    assert_eq!(answer.header("x-request-id"), Some(request(&line).as_str()));
    host.at_rest();
}
