//! Folders that come, go, move and come back, including the handler folder itself.

use std::fs;

use rustix::process::Signal;

use super::{
    ask, beside, errors, lines, look, path, put, remove, rename, seen_during, wait_for, write,
    write_in_parts,
};
use crate::host::Host;
use crate::wat;

fn host() -> Host {
    let host = Host::with("hello.wat", wat::says("hi"))
        .file("sub/page.wat", wat::says("page"))
        .file("sub/deep/leaf.wat", wat::says("leaf"))
        .start();
    host.settled();
    host
}

/// Asserts that `hello` and two handlers below this path are served, and nothing else.
#[track_caller]
fn assert_serves(host: &Host, path: &str) {
    wait_for(host, &format!("{path}/page"), "page");
    wait_for(host, &format!("{path}/deep/leaf"), "leaf");
    assert_eq!(ask(host, "/hello"), "hi");
    let status = host.settled();
    assert_eq!((status.handlers, status.ready, status.failed), (3, 3, 0), "{status:?}");
    assert_eq!(errors(host, &[]), 0);
}

/// Asserts that the host is notified of events in this folder: a file that is being written there
/// does not count as complete, which only notifications can tell.
#[track_caller]
fn assert_watched(host: &Host, folder: &str) {
    let route = format!("/{folder}/watched").replace("//", "/");
    let file = path(host, folder).join("watched.wasm");
    let mut is_in_time = false;
    while !is_in_time {
        fs::write(&file, ::wat::parse_str(wat::says("old")).expect("a module")).expect("a file");
        wait_for(host, &route, "old");
        let seen = seen_during(host, &route, || {
            is_in_time = write_in_parts(host, &file, "new");
            wait_for(host, &route, "new");
        });
        assert!(!is_in_time || seen == ["old", "new"], "{route} is not watched: {seen:?}");
    }
    fs::remove_file(file).expect("the file");
    wait_for(host, &route, "404");
}

#[test]
fn new_folders_are_served_and_watched() {
    let host = host();
    // Made and filled at once: the host may be too late to see any of the events.
    for round in 0..5 {
        let names = ["a.wat", "b/c.wat", "b/d/e/f.wat", "b/d/e/[g].wat"];
        for name in names {
            let file = path(&host, &format!("new{round}/{name}"));
            fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("folders");
            fs::write(file, wat::says(name)).expect("a file");
        }
        for (route, name) in ["a", "b/c", "b/d/e/f", "b/d/e/x"].into_iter().zip(names) {
            wait_for(&host, &format!("/new{round}/{route}"), name);
        }
    }
    assert_watched(&host, "new4");
    assert_watched(&host, "new4/b/d");
    // And removed, all at once.
    for round in 0..5 {
        fs::remove_dir_all(path(&host, &format!("new{round}"))).expect("the folder");
    }
    for round in 0..5 {
        wait_for(&host, &format!("/new{round}/b/d/e/f"), "404");
    }
    look(&host);
    assert_serves(&host, "/sub");
    host.at_rest();
}

#[test]
fn a_rename_of_a_folder_moves_all_routes_in_it() {
    let host = host();
    for (from, to) in [("sub", "moved"), ("moved", "[any]"), ("[any]", "sub")] {
        rename(&host, from, to);
        let at = to.replace("[any]", "some");
        assert_serves(&host, &format!("/{at}"));
        if !from.contains('[') && !to.contains('[') {
            assert_eq!(ask(&host, &format!("/{from}/page")), "404");
        }
    }
    assert_watched(&host, "sub");
    assert_watched(&host, "sub/deep");
    // Into another folder, and out of the handler folder.
    fs::create_dir(path(&host, "outer")).expect("a folder");
    rename(&host, "sub", "outer/sub");
    assert_serves(&host, "/outer/sub");
    fs::rename(path(&host, "outer/sub"), beside(&host, "sub")).expect("a rename");
    wait_for(&host, "/outer/sub/page", "404");
    wait_for(&host, "/outer/sub/deep/leaf", "404");
    assert_eq!(host.settled().handlers, 1);
    // Events there are no longer watched.
    fs::write(beside(&host, "sub/page.wat"), "(module").expect("a file");
    look(&host);
    fs::write(beside(&host, "sub/page.wat"), wat::says("page")).expect("a file");
    fs::rename(beside(&host, "sub"), path(&host, "sub")).expect("a rename");
    assert_serves(&host, "/sub");
    host.at_rest();
}

#[test]
fn a_folder_that_is_away_for_a_moment_is_still_watched() {
    let host = host();
    for _ in 0..3 {
        // Away and back, before the host can scan.
        rename(&host, "sub", "away");
        rename(&host, "away", "sub");
        look(&host);
        assert_serves(&host, "/sub");
        assert_watched(&host, "sub");
        assert_watched(&host, "sub/deep");
    }
    host.at_rest();
}

#[test]
fn a_folder_that_is_made_again_at_once_is_still_watched() {
    let host = host();
    for _ in 0..3 {
        fs::remove_dir_all(path(&host, "sub")).expect("the folder");
        fs::create_dir_all(path(&host, "sub/deep")).expect("folders");
        write(&host, "sub/page.wat", wat::says("page"));
        write(&host, "sub/deep/leaf.wat", wat::says("leaf"));
        look(&host);
        assert_serves(&host, "/sub");
        assert_watched(&host, "sub");
        assert_watched(&host, "sub/deep");
    }
    host.at_rest();
}

#[test]
fn the_handler_folder_may_go_and_be_made_again() {
    let host = host();
    for round in 1..=2 {
        fs::remove_dir_all(host.handlers()).expect("the folder");
        wait_for(&host, "/hello", "404");
        wait_for(&host, "/sub/deep/leaf", "404");
        host.wait_log_with(&["the folder", "has gone"]);
        assert_eq!(host.settled().handlers, 0);
        assert!(ask(&host, "/").contains("guesthouse new"), "no landing page");
        fs::create_dir(host.handlers()).expect("a folder");
        write(&host, "hello.wat", wat::says("hi"));
        fs::create_dir_all(path(&host, "sub/deep")).expect("folders");
        write(&host, "sub/page.wat", wat::says("page"));
        write(&host, "sub/deep/leaf.wat", wat::says("leaf"));
        // The first time, the host scans by itself.
        if round > 1 {
            host.signal(Signal::HUP);
        }
        wait_for(&host, "/hello", "hi");
        wait_for(&host, "/sub/page", "page");
        wait_for(&host, "/sub/deep/leaf", "leaf");
        // Once for each time that it went, however often the host scanned.
        assert_eq!(lines(&host, &["has gone"]), round);
    }
    assert_watched(&host, "");
    assert_watched(&host, "sub/deep");
    host.at_rest();
}

#[test]
fn the_handler_folder_may_be_made_again_at_once() {
    let host = host();
    for round in 0..3 {
        fs::remove_dir_all(host.handlers()).expect("the folder");
        fs::create_dir(host.handlers()).expect("a folder");
        let name = format!("new{round}");
        put(&host, &format!("{name}.wat"), wat::says(&name));
        wait_for(&host, &format!("/{name}"), &name);
        wait_for(&host, "/hello", "404");
        assert_watched(&host, "");
    }
    assert_eq!(host.settled().handlers, 1);
    host.at_rest();
}

#[test]
fn the_handler_folder_may_move_away_and_come_back() {
    let host = host();
    let away = beside(&host, "away");
    for round in 0..2 {
        fs::rename(host.handlers(), &away).expect("a rename");
        wait_for(&host, "/hello", "404");
        wait_for(&host, "/sub/page", "404");
        // Changes that are made meanwhile count.
        fs::write(away.join("new.wat"), wat::says("new")).expect("a file");
        fs::rename(&away, host.handlers()).expect("a rename");
        if round > 0 {
            host.signal(Signal::HUP);
        }
        wait_for(&host, "/new", "new");
        remove(&host, "new.wat");
        wait_for(&host, "/new", "404");
        wait_for(&host, "/sub/deep/leaf", "leaf");
        assert_watched(&host, "");
        assert_watched(&host, "sub");
    }
    // Another folder in its place, and then the first one back, each at once.
    fs::create_dir(beside(&host, "other")).expect("a folder");
    fs::write(beside(&host, "other/page.wat"), wat::says("other")).expect("a file");
    fs::rename(host.handlers(), &away).expect("a rename");
    fs::rename(beside(&host, "other"), host.handlers()).expect("a rename");
    wait_for(&host, "/page", "other");
    wait_for(&host, "/hello", "404");
    assert_watched(&host, "");
    fs::rename(host.handlers(), beside(&host, "other")).expect("a rename");
    fs::rename(&away, host.handlers()).expect("a rename");
    wait_for(&host, "/page", "404");
    wait_for(&host, "/hello", "hi");
    assert_watched(&host, "sub/deep");
    // A file in its place is a mistake, and everything is still served.
    fs::rename(host.handlers(), &away).expect("a rename");
    fs::write(host.handlers(), "a file").expect("a file");
    host.wait_log_with(&["not a folder", "the handlers stay as they were"]);
    fs::remove_file(host.handlers()).expect("the file");
    fs::rename(&away, host.handlers()).expect("a rename");
    host.signal(Signal::HUP);
    wait_for(&host, "/hello", "hi");
    host.at_rest();
}
