//! The output of a compiler process: lines of start-up code reach the host's log and cannot pass
//! for the host's own, and a user who calls the verb by hand is told what to do.

use std::io::Write as _;
use std::process::{Output, Stdio};

use super::{PATIENTLY, assert_no_compilers, assert_says};
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host, Line, command};

/// Output of start-up code that looks like lines of the host's log, in both formats.
const FORGED: [&str; 4] = [
    r"{\22timestamp\22:\222026-01-01\22,\22level\22:\22ERROR\22,\22message\22:\22forged\22}",
    r"2026-01-01T00:00:00.000000Z ERROR forged",
    r"begin\0d2026-01-01T00:00:00.000000Z ERROR forged",
    r"begin\1b[2K\e2\80\a8{\22level\22:\22ERROR\22,\22message\22:\22forged\22}",
];

/// A guest with start-up code that writes these lines to the log, to stdout and to stderr.
fn talker() -> String {
    let log = |line: &str| format!("(call $log #0 '{line}')\n");
    let write = |fd: usize, line: &str| {
        format!(
            "(call $vector '{line}\\0a')
             (drop (call $fd_write #{fd} #65536 #1 #65544))\n"
        )
    };
    let both = |line: &&str| [log(line), write(1, line), write(2, line)].concat();
    let lines: String = ["an honest line"].iter().chain(&FORGED).map(both).collect();
    // One call of `log` with a line break in it.
    let broken = log(&FORGED.join("\\0a"));
    let vector = "
        (func $vector (param $ptr i32) (param $len i32)
          (i32.store (i32.const 65536) (local.get $ptr))
          (i32.store (i32.const 65540) (local.get $len)))";
    Probe::new("(call $say 'started')").fields(vector).start(&(lines + &broken)).wat()
}

#[test]
fn start_up_code_is_heard_in_json_and_cannot_forge_a_line() {
    let host = Host::with("talker.wat", talker()).file("good.wat", HELLO).args(PATIENTLY).start();
    assert_says(&host, "/talker", "started");
    host.at_rest();
    let said: Vec<Line> =
        host.lines().into_iter().filter(|line| line.json["handler"] == "talker").collect();
    assert!(said.iter().filter(|line| line.message() == "an honest line").count() >= 3, "{said:?}");
    assert!(said.iter().filter(|line| line.has(&["forged"])).count() >= 3 * FORGED.len());
    for line in host.lines() {
        assert!(!line.json.is_null(), "not of the log: {}", line.text);
        let raw = ['\x1b', '\r', '\u{2028}'];
        assert!(!line.message().contains(raw), "{}", line.text);
        if line.has(&["forged"]) {
            assert_eq!(line.json["handler"], "talker", "{}", line.text);
            assert_eq!(line.level(), "INFO", "{}", line.text);
        }
    }
    assert_no_compilers(&host);
}

#[test]
fn start_up_code_is_heard_in_text_and_cannot_forge_a_line() {
    let host = Host::with("talker.wat", talker())
        .file("good.wat", HELLO)
        .args(["--log", "text"])
        .args(PATIENTLY)
        .start();
    assert_says(&host, "/talker", "started");
    assert_says(&host, "/good", "Hello, World!");
    host.wait_log_with(&["an honest line", "talker"]);
    host.wait_log_with(&["handlers:", "2 ready"]);
    for line in host.lines() {
        let (time, rest) = line.text.split_once(' ').expect("a time and words");
        assert!(time.ends_with('Z') && !time.starts_with("2026-01-01T"), "{}", line.text);
        let raw = ['\x1b', '\r', '\u{2028}'];
        assert!(!line.text.contains(raw), "{}", line.text);
        if line.text.contains("forged") {
            assert!(rest.trim_start().starts_with("INFO"), "{}", line.text);
            assert!(line.text.contains("talker"), "{}", line.text);
        }
    }
    assert_no_compilers(&host);
}

/// Runs the verb as the host does, with these bytes as the job.
fn compile(job: &[u8]) -> (Option<i32>, String, String) {
    let mut command = command();
    command.arg("compile").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // It may have ended before it has read all of it.
    let _ = stdin.write_all(job);
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_verb_that_compiles_is_not_for_use_by_hand() {
    let long = [&u32::MAX.to_le_bytes()[..], &[b'{'; 100]].concat();
    let empty = [&2_u32.to_le_bytes()[..], b"{}", HELLO.as_bytes()].concat();
    let jobs: [&[u8]; 5] = [b"", b"x", b"(module)", &long, &empty];
    for job in jobs {
        let (code, out, err) = compile(job);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("`compile`") && err.contains("`check FILE`"), "{err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    let mut help = command();
    let help = help.arg("--help").output().expect("the program runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let verbs = help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let verbs: Vec<&str> = verbs.collect();
    assert!(verbs.contains(&"check") && !verbs.contains(&"compile"), "{help}");
}
