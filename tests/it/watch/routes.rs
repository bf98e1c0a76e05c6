//! The routes of a running host: two files for one route, none at all, and a host that is told to
//! scan.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{ask, beside, errors, lines, look, path, put, remove, rename, wait_for, write};
use crate::host::{Host, until};
use crate::patience::patience;
use crate::wat;

/// Sends SIGHUP this many times, and waits until the host has handled each.
#[track_caller]
fn hang_up(host: &Host, count: usize) {
    for _ in 0..count {
        let before = lines(host, &["SIGHUP"]);
        host.signal(Signal::HUP);
        until("SIGHUP in the log", patience(), || {
            (lines(host, &["SIGHUP"]) > before).then_some(())
        });
    }
}

#[test]
fn two_files_for_one_route_leave_all_routes_as_they_are() {
    let host = Host::with("a.wat", wat::says("text")).file("b.wat", wat::says("b")).start();
    host.settled();
    let binary = ::wat::parse_str(wat::says("binary")).expect("a module");
    put(&host, "a.wasm", &binary);
    let told = host.wait_log_with(&["a.wasm", "a.wat", "the routes stay as they were"]);
    assert_eq!(told.level(), "ERROR");
    hang_up(&host, 5);
    // Files that have a route can change meanwhile. A new file has to wait.
    write(&host, "a.wat", wat::says("text 2"));
    wait_for(&host, "/a", "text 2");
    write(&host, "new.wat", wat::says("new"));
    write(&host, "b.wat", wat::says("b 2"));
    wait_for(&host, "/b", "b 2");
    hang_up(&host, 5);
    assert_eq!(ask(&host, "/new"), "404");
    assert_eq!(errors(&host, &["a.wasm", "a.wat"]), 1, "it is said once");
    assert_eq!(errors(&host, &[]), 1);
    assert_eq!(host.settled().handlers, 2);
    // Without the file that has the route ...
    remove(&host, "a.wat");
    wait_for(&host, "/a", "binary");
    wait_for(&host, "/new", "new");
    // ... and, the same again, without the file that came later.
    put(&host, "a.wat", wat::says("text"));
    until("a second error", patience(), || {
        (errors(&host, &["a.wasm", "a.wat"]) == 2).then_some(())
    });
    assert_eq!(ask(&host, "/a"), "binary");
    remove(&host, "a.wat");
    write(&host, "newer.wat", wat::says("newer"));
    wait_for(&host, "/newer", "newer");
    assert_eq!(ask(&host, "/a"), "binary");
    // Replacing one by the other is no conflict.
    remove(&host, "a.wasm");
    write(&host, "a.wat", wat::says("text again"));
    wait_for(&host, "/a", "text again");
    assert_eq!(errors(&host, &[]), 2);
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (4, 0), "{status:?}");
}

#[test]
fn two_names_for_one_pattern_are_a_conflict_until_one_goes() {
    let host = Host::with("users/[id].wat", wat::says("id")).start();
    host.settled();
    put(&host, "users/[name].wat", wat::says("name"));
    host.wait_log_with(&["users/[id].wat", "users/[name].wat"]);
    assert_eq!(ask(&host, "/users/7"), "id");
    rename(&host, "users/[name].wat", "users/name.wat");
    wait_for(&host, "/users/name", "name");
    assert_eq!(ask(&host, "/users/7"), "id");
    assert_eq!(host.at_rest().handlers, 2);
}

/// As long as two files claim one route, the routes and the handlers stay as they are. If the file
/// of another handler is removed and put back, its new contents are served.
#[test]
fn a_file_that_comes_back_beside_a_conflict_is_served_as_it_is_now() {
    let host = Host::with("users/[id].wat", wat::says("id")).file("a.wat", wat::says("a")).start();
    host.settled();
    put(&host, "users/[name].wat", wat::says("name"));
    host.wait_log_with(&["users/[id].wat", "users/[name].wat"]);
    remove(&host, "a.wat");
    // A later scan has seen that it is gone.
    put(&host, "later.cwasm", "");
    host.wait_log_with(&["later.cwasm", "precompiled"]);
    assert_eq!(ask(&host, "/a"), "a");
    put(&host, "a.wat", wat::says("a again"));
    wait_for(&host, "/a", "a again");
    remove(&host, "users/[name].wat");
    assert_eq!(ask(&host, "/a"), "a again");
    assert_eq!(host.at_rest().handlers, 2);
}

#[test]
fn the_landing_page_goes_with_the_first_handler_and_comes_with_the_end_of_the_last() {
    let host = Host::empty().start();
    let has_page = || ask(&host, "/").contains("guesthouse new").then_some(());
    for _ in 0..2 {
        until("landing page", patience(), has_page);
        host.get("/hello").assert_problem(404);
        write(&host, "hello.wat", wat::says("hello"));
        wait_for(&host, "/hello", "hello");
        host.get("/").assert_problem(404);
        write(&host, "index.wat", wat::says("index"));
        wait_for(&host, "/", "index");
        remove(&host, "index.wat");
        wait_for(&host, "/", "404");
        remove(&host, "hello.wat");
    }
    until("landing page", patience(), has_page);
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (0, 0), "{status:?}");
}

#[test]
fn a_signal_makes_the_host_look() {
    let host = Host::empty()
        .prepare(|folder| {
            let target = folder.with_file_name("target.wat");
            fs::write(&target, wat::says("one")).expect("a file");
            symlink(target, folder.join("page.wat")).expect("a link");
        })
        .start();
    host.settled();
    // Only a scan finds that a file elsewhere has changed, so each change would be 2 s late.
    let began = Instant::now();
    for number in 0..10 {
        let text = if number % 2 == 0 { "two" } else { "one" };
        fs::write(beside(&host, "target.wat"), wat::says(text)).expect("a file");
        host.signal(Signal::HUP);
        wait_for(&host, "/page", text);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The host also scans by itself.
    fs::write(beside(&host, "target.wat"), wat::says("three")).expect("a file");
    wait_for(&host, "/page", "three");
    // If nothing has changed, nothing happens.
    let before = lines(&host, &["handlers: "]);
    hang_up(&host, 3);
    assert_eq!(lines(&host, &["handlers: "]), before);
    look(&host);
    assert!(path(&host, "page.wat").is_symlink());
    host.at_rest();
}

#[test]
fn a_signal_means_nothing_to_a_demo() {
    let host = Host::demo().start();
    let all = host.settled().handlers;
    hang_up(&host, 3);
    host.assert_serves("/hello");
    assert_eq!(host.at_rest().handlers, all);
}
