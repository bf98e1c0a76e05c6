//! More guests than may be loaded at once: idle ones are unloaded and loaded again for the next
//! request, and no request fails.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{PATIENTLY, assert_no_compilers, assert_says, with};
use crate::host::{Host, Line, Setup, Status, until};
use crate::hostile::ISOLATIONS;
use crate::patience::patience;
use crate::random::Xorshift;
use crate::wat;

/// A dozen or so of these guests fit into a MiB.
const GUESTS: usize = 60;

fn text(at: usize) -> String {
    format!("I am {at}")
}

/// Answers with its number. Its memory has contents that have to be kept, so that its instances can
/// be reset.
fn guest(at: usize) -> String {
    let bytes = "x".repeat(48 * 1024);
    with(&wat::says(&text(at)), &format!(r#"(data (i32.const 1024) "{bytes}")"#))
}

fn host(count: usize) -> Setup {
    let file = |setup: Setup, at: usize| setup.file(&format!("guest-{at}.wat"), guest(at));
    let setup = (0..count).fold(Host::empty(), file);
    setup.args(PATIENTLY).args(["--loaded-max", "1MiB"]).env("GUESTHOUSE_LOG", "debug")
}

/// Waits until as many guests are loaded at the start as there is room for. The log line comes when
/// none is left to load; between two loads the status may also show none that is loading.
#[track_caller]
fn filled(host: &Host, count: usize) -> Status {
    host.wait_log_with(&["handlers: ", " cold, ", " ready"]);
    let is_full = |status: &Status| status.loading == 0 && status.ready > 0;
    let status = host.status_when("full", patience(), is_full);
    assert_eq!(status.handlers, count as u64);
    assert!(status.ready < status.handlers, "all are loaded: {status:?}");
    assert!(status.ready > 3, "hardly any is loaded: {status:?}");
    assert_eq!(status.cold + status.ready, status.handlers, "{status:?}");
    status
}

#[track_caller]
fn ask_all(host: &Host, count: usize) {
    for at in 0..count {
        assert_says(host, &format!("/guest-{at}"), &text(at));
    }
}

/// The number of log lines of loads, from the cache or not.
fn loads(host: &Host, how: &str) -> usize {
    let words = ["loaded (", how];
    host.lines().iter().filter(|line| line.has(&words)).count()
}

#[test]
fn guests_that_are_not_used_make_room_and_come_back_from_the_cache() {
    let host = host(GUESTS).start();
    let first = filled(&host, GUESTS);
    ask_all(&host, GUESTS);
    // The limit holds again, once most guests are idle.
    let trimmed = |status: &Status| status.ready <= first.ready;
    let status = host.status_when("trimmed", patience(), trimmed);
    assert!(status.ready > 0, "{status:?}");
    // No worker keeps instances of unloaded guests.
    let swept = |status: &Status| status.instances_ready <= status.ready * status.workers;
    host.status_when("swept", patience(), swept);
    assert_eq!((status.cold + status.ready, status.failed), (GUESTS as u64, 0), "{status:?}");
    let compiled = loads(&host, "compiled");
    assert_eq!(compiled, GUESTS, "each is compiled once");
    for _ in 0..2 {
        let (cold, before) = (host.status().cold as usize, loads(&host, "from the cache"));
        ask_all(&host, GUESTS);
        let again = || (loads(&host, "from the cache") - before >= cold).then_some(());
        until("load of all that were cold", patience(), again);
        host.status_when("trimmed", patience(), trimmed);
    }
    assert_eq!(loads(&host, "compiled"), compiled, "compiled again");
    let status = host.at_rest();
    assert!(status.rejects.is_empty(), "{status:?}");
    assert_no_compilers(&host);
}

#[test]
fn without_a_cache_what_was_unloaded_is_compiled_again() {
    const COUNT: usize = 20;
    let host = host(COUNT).arg("--no-cache").start();
    let first = filled(&host, COUNT);
    ask_all(&host, COUNT);
    host.status_when("trimmed", patience(), |status| status.ready <= first.ready);
    ask_all(&host, COUNT);
    assert!(loads(&host, "compiled") > COUNT, "{}", loads(&host, "compiled"));
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    assert_no_compilers(&host);
}

/// If the file has become bad, the version that is served could not be loaded again.
#[test]
fn a_guest_whose_file_has_gone_bad_is_not_unloaded() {
    let host = host(GUESTS).start();
    let first = filled(&host, GUESTS);
    assert_says(&host, "/guest-7", "I am 7");
    let file = host.handlers().join("guest-7.wat");
    fs::write(&file, "(module this is none").expect("a file");
    host.wait_log_with(&["guest-7.wat", "the version before it is still served"]);
    // Loading each of the others unloads some.
    for _ in 0..2 {
        ask_all(&host, GUESTS);
    }
    host.status_when("trimmed", patience(), |status| status.ready <= first.ready);
    assert_says(&host, "/guest-7", "I am 7");
    fs::write(&file, wat::says("I am well")).expect("a file");
    host.wait_log_with(&["guest-7.wat", "a new version is served"]);
    assert_says(&host, "/guest-7", "I am well");
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    // Now it is unloaded like any other.
    ask_all_but(&host, 7);
    assert_says(&host, "/guest-7", "I am well");
    assert_no_compilers(&host);
}

#[track_caller]
fn ask_all_but(host: &Host, but: usize) {
    for at in (0..GUESTS).filter(|at| *at != but) {
        assert_says(host, &format!("/guest-{at}"), &text(at));
    }
}

/// An unloaded guest is read from its file again when it is requested.
#[test]
fn a_cold_guest_comes_back_as_its_file_is_then() {
    let host = host(GUESTS).start();
    filled(&host, GUESTS);
    ask_all(&host, GUESTS);
    ask_all(&host, GUESTS);
    let cold = host.status_when("trimmed", patience(), |status| status.cold > 0).cold;
    for at in 0..GUESTS {
        let file = host.handlers().join(format!("guest-{at}.wat"));
        fs::write(file, wat::says(&format!("I was {at}"))).expect("a file");
    }
    for at in 0..GUESTS {
        let path = format!("/guest-{at}");
        until("new version", patience(), || {
            let answer = super::get(&host, &path);
            assert_eq!(answer.status, 200, "{answer:?}");
            (answer.text() == format!("I was {at}")).then_some(())
        });
    }
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{cold} were cold: {status:?}");
}

/// Clients decide which guests are loaded and unloaded, so these events must not be logged.
#[test]
fn guests_that_come_and_go_do_not_fill_the_log() {
    let host = host(GUESTS).env("GUESTHOUSE_LOG", "info").start();
    let first = filled(&host, GUESTS);
    ask_all(&host, GUESTS);
    host.status_when("trimmed", patience(), |status| status.ready <= first.ready);
    let is_status = |line: &Line| line.message().starts_with("status:");
    let before = host.lines().len();
    ask_all(&host, GUESTS);
    host.at_rest();
    let lines: Vec<Line> =
        host.lines().split_off(before).into_iter().filter(|line| !is_status(line)).collect();
    assert!(lines.len() < GUESTS / 4, "{} lines, such as {}", lines.len(), lines[0].text);
}

/// Far more guests are in use than may be loaded, so each is unloaded and loaded again while it
/// gets requests.
#[test]
fn requests_for_more_guests_than_fit_are_all_answered() {
    for isolation in ISOLATIONS {
        press(&host(GUESTS).args(["--isolation", isolation]).start());
    }
}

fn press(host: &Host) {
    const CLIENTS: u64 = 8;
    const WINDOW: Duration = Duration::from_secs(2);
    ask_all(host, GUESTS);
    let is_over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (is_over, answered) = (&is_over, &answered);
            scope.spawn(move || {
                let mut connection = host.connect();
                let mut random = Xorshift(client + 1);
                while !is_over.load(Ordering::Relaxed) {
                    let at = random.below(GUESTS);
                    let path = format!("/guest-{at}");
                    connection.send(crate::client::message("GET", &path, &[], b""));
                    let answer = super::read(&mut connection);
                    assert_eq!((answer.status, answer.text()), (200, text(at)), "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = Instant::now() + WINDOW;
        let _ = host.status_when("over", patience(), |_| Instant::now() > end);
        is_over.store(true, Ordering::Relaxed);
    });
    let status = host.at_rest();
    assert_eq!((status.failed, status.rejects.len()), (0, 0), "{status:?}");
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > GUESTS, "{answered} answers");
    assert!(loads(host, "from the cache") > GUESTS, "nothing was unloaded");
    assert_eq!(loads(host, "compiled"), GUESTS, "each is compiled once");
    assert_no_compilers(host);
}
