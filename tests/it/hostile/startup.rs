//! Start-up code: of some guests the host can keep a snapshot after it, the others run it in each
//! instance.

use std::collections::BTreeSet;

use super::{ISOLATIONS, host};
use crate::abi::probe::Probe;
use crate::host::{HELLO, Host};
use crate::patience::patience;

/// The hostile guests that this file tests.
pub const GUESTS: &[&str] = &[
    "start_clock",
    "start_data_drop",
    "start_elem_drop",
    "start_exits_zero",
    "start_grows",
    "start_random",
    "start_table_set",
    "start_twice",
    "start_vector",
];

fn started(isolation: &str) -> Host {
    host(GUESTS.iter().copied(), isolation).args(["--workers", "1"]).start()
}

/// Each instance has run its start-up code once before each request, in both modes of isolation and
/// for any number of requests.
#[test]
fn start_up_code_runs_once_for_each_instance() {
    let answers: &[(&str, &[u8])] = &[
        ("start_data_drop", b"from the segment"),
        ("start_elem_drop", b"through the table"),
        ("start_exits_zero", b"started!"),
        ("start_grows", b"\x03\0\0\0\x07\0\0\0"),
        ("start_table_set", b"through the table"),
        ("start_twice", b"\x7b\0\0\0"), // 123
        ("start_vector", b"1234567890abcdef"),
    ];
    for isolation in ISOLATIONS {
        let host = started(isolation);
        for (name, body) in answers {
            for _ in 0..3 {
                let answer = host.get(&format!("/{name}"));
                assert_eq!(answer.status, 200, "{name} {isolation}: {}", answer.text());
                assert_eq!(answer.body, *body, "{name} {isolation}: {}", answer.text());
            }
        }
        host.assert_serves("/good");
        host.at_rest();
    }
}

/// With a snapshot, every instance would have the same seed for its hash maps.
#[test]
fn random_bytes_at_start_up_differ_between_instances() {
    let host = started("fresh");
    let seeds: BTreeSet<Vec<u8>> = (0..8).map(|_| host.get("/start_random").body).collect();
    assert_eq!(seeds.len(), 8);
    assert!(seeds.iter().all(|seed| seed.len() == 16 && seed != &[0; 16]));
    host.at_rest();

    let host = started("reuse");
    let seeds: BTreeSet<Vec<u8>> = (0..8).map(|_| host.get("/start_random").body).collect();
    assert_eq!(seeds.len(), 1);
    host.at_rest();
}

/// With a snapshot, every instance would believe that it began when its file was loaded.
#[test]
fn the_time_at_start_up_is_that_of_the_instance() {
    let host = started("fresh");
    let times = || {
        let body = host.get("/start_clock").body;
        let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        (half(&body[..8]), half(&body[8..]))
    };
    let (began, answered) = times();
    assert!(began > 0 && began <= answered, "{began} {answered}");
    let (began_next, answered_next) = times();
    assert!(began_next <= answered_next, "{began_next} {answered_next}");
    assert!(began_next > began, "{began} {began_next}");
    host.at_rest();
}

/// The log has the lines of start-up code, with the guest's name and without a request.
#[test]
fn start_up_code_can_log() {
    let guest = Probe::new("").start("(call $log #0 'logged by the start-up code')");
    let host = Host::with("early.wat", guest.wat()).start();
    host.assert_serves("/early");
    let line = host.wait_log_with(&["logged by the start-up code"]);
    assert_eq!(line.json["handler"], "early", "{}", line.text);
    assert!(line.json["request"].is_null(), "{}", line.text);
}

/// A start function may call the host before its instance is complete.
#[test]
fn a_start_function_can_log() {
    let guest =
        Probe::new("").fields("(start $logs) (func $logs (call $log #0 'a start function'))");
    let host = Host::with("early.wat", guest.wat()).start();
    host.assert_serves("/early");
    host.wait_log_with(&["a start function", "early"]);
    host.at_rest();
}

/// During start-up there is no request: functions that read it return nothing, functions that
/// change it stop the guest.
#[test]
fn start_up_code_sees_no_request() {
    let reading = Probe::new("(call $show #40)").start(
        "(call $clean)
         (i32.store #65536 (call $get_uri #0 #64))
         (i32.store #65540 (call $get_method #0 #64))
         (i32.store #65544 (call $get_source_addr #0 #64))",
    );
    let changes = [
        "(call $set_uri '/x')",
        "(call $set_method 'PUT')",
        "(call $write_body #1 'x')",
        "(call $write_body #0 'x')",
        "(call $set_status_code #200)",
        "(call $remove_header #0 'x')",
        "(call $add_header_value #1 'x' 'x')",
        "(drop (call $read_body #0 #65536 #8))",
        "(drop (call $read_body #1 #65536 #8))",
        "(drop (call $get_status_code))",
        "(drop (call $get_header_names #0 #65536 #8))",
        "(drop (call $get_header_values #0 'x' #65536 #8))",
    ];
    let mut setup = Host::with("good.wat", HELLO).file("reading.wat", reading.wat());
    for (index, change) in changes.iter().enumerate() {
        let guest = Probe::new("").start(change);
        setup = setup.file(&format!("change-{index}.wat"), guest.wat());
    }
    let host = setup.start();
    let body = host.get("/reading").body;
    assert_eq!(&body[..12], [0; 12], "{body:?}");
    for (index, change) in changes.iter().enumerate() {
        let answer = host.get(&format!("/change-{index}"));
        assert_eq!(answer.status, 503, "{change}: {}", answer.text());
        host.wait_log_with(&[&format!("change-{index}"), "start-up"]);
    }
    host.assert_serves("/good");
    host.at_rest();
}

/// Only the first request waits for start-up code that runs in each instance. The others find an
/// instance that was made while no client waited.
#[test]
fn renewal_with_start_up_code_comes_to_rest() {
    let host = started("fresh");
    let mut connection = host.connect();
    for _ in 0..20 {
        assert_eq!(connection.get("/start_random").status, 200);
    }
    // The instance is made after the last answer.
    host.status_when("renewed", patience(), |status| status.instances_ready > 0);
    host.at_rest();
}
