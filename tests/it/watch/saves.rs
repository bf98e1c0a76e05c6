//! Files that come, go and change in the ways that editors, builds and people use.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};

use super::{
    ask, assert_in_order, lines, look, path, put, remove, rename, seen_during, wait_for, write,
};
use crate::host::Host;
use crate::wat;

fn host() -> Host {
    let host = Host::with("page.wat", wat::says("one")).file("other.wat", wat::says("other"));
    let host = host.start();
    host.settled();
    host
}

/// Asserts that there is no fault, and that this many handlers are served.
#[track_caller]
fn assert_rests(host: &Host, handlers: u64) {
    assert_eq!(ask(host, "/other"), "other");
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (handlers, 0), "{status:?}");
    host.settled();
}

#[test]
fn a_file_that_comes_is_served_until_it_goes() {
    let host = host();
    assert_eq!(ask(&host, "/new"), "404");
    write(&host, "new.wat", wat::says("new"));
    wait_for(&host, "/new", "new");
    host.wait_log_with(&["new.wat", "a new route"]);
    remove(&host, "new.wat");
    wait_for(&host, "/new", "404");
    host.wait_log_with(&["new.wat", "gone"]);
    put(&host, "new.wat", wat::says("new"));
    wait_for(&host, "/new", "new");
    assert_rests(&host, 3);
    // Removed and put back within one scan, with other contents.
    for text in ["b", "c", "d"] {
        remove(&host, "new.wat");
        write(&host, "new.wat", wat::says(text));
        wait_for(&host, "/new", text);
    }
    // And with the same contents.
    remove(&host, "new.wat");
    write(&host, "new.wat", wat::says("d"));
    look(&host);
    assert_eq!(ask(&host, "/new"), "d");
    assert_rests(&host, 3);
}

#[test]
fn a_rename_over_a_file_is_one_step() {
    let host = host();
    let texts = ["two", "three", "four", "five"];
    let seen = seen_during(&host, "/page", || {
        for text in texts {
            // From beside the folder, and from a name in it that is no handler's.
            put(&host, "page.wat", wat::says(text));
            wait_for(&host, "/page", text);
            let other = format!("{text} again");
            write(&host, ".page.wat.tmp", wat::says(&other));
            rename(&host, ".page.wat.tmp", "page.wat");
            wait_for(&host, "/page", &other);
        }
    });
    let expected = "one, two, two again, three, three again, four, four again, five, five again";
    assert_in_order(&seen, &expected.split(", ").collect::<Vec<_>>());
    assert_rests(&host, 2);
}

#[test]
fn what_editors_do_to_save_a_file_is_one_step() {
    let host = host();
    let seen = seen_during(&host, "/page", || {
        // Truncate and write: `>`, nano, many others.
        write(&host, "page.wat", wat::says("truncated"));
        wait_for(&host, "/page", "truncated");
        // A backup copy first, then in place: vim with `backupcopy=yes`, emacs.
        fs::copy(path(&host, "page.wat"), path(&host, "page.wat~")).expect("a copy");
        write(&host, "page.wat", wat::says("copied"));
        wait_for(&host, "/page", "copied");
        // In place over the old contents, and truncated at the end.
        let mut file = File::options().write(true).open(path(&host, "page.wat")).expect("it");
        let text = wat::says("over");
        file.write_all(text.as_bytes()).expect("a write");
        file.set_len(text.len() as u64).expect("a cut");
        drop(file);
        wait_for(&host, "/page", "over");
        // By small writes, as a compiler does.
        let mut file = File::create(path(&host, "page.wat")).expect("it");
        for piece in wat::says("pieces").as_bytes().chunks(64) {
            file.write_all(piece).expect("a write");
        }
        drop(file);
        wait_for(&host, "/page", "pieces");
        // A swap file beside it, and a temporary file that is renamed over it: vim, gedit, sed -i.
        write(&host, ".page.wat.swp", "b0VIM 9.1");
        write(&host, "4913", "");
        remove(&host, "4913");
        write(&host, "page.wat.tmp", wat::says("moved"));
        rename(&host, "page.wat.tmp", "page.wat");
        wait_for(&host, "/page", "moved");
    });
    assert_in_order(&seen, &["one", "truncated", "copied", "over", "pieces", "moved"]);
    assert_eq!(ask(&host, "/page.wat~"), "404");
    assert_rests(&host, 2);
}

#[test]
fn a_backup_by_a_rename_may_be_seen_but_nothing_wrong_is() {
    let host = host();
    // vim with `backupcopy=no`: for a moment the file does not exist.
    let seen = seen_during(&host, "/page", || {
        for text in ["two", "three", "four"] {
            rename(&host, "page.wat", "page.wat~");
            write(&host, "page.wat", wat::says(text));
            wait_for(&host, "/page", text);
            remove(&host, "page.wat~");
        }
    });
    // After each of them, the file may be missing for a moment.
    let expected = ["one", "404", "one", "two", "404", "two", "three", "404", "three", "four"];
    assert_in_order(&seen, &expected);
    assert_rests(&host, 2);
}

#[test]
fn a_rename_moves_the_route() {
    let host = host();
    rename(&host, "page.wat", "leaf.wat");
    wait_for(&host, "/leaf", "one");
    assert_eq!(ask(&host, "/page"), "404");
    rename(&host, "leaf.wat", "page.wat");
    wait_for(&host, "/page", "one");
    assert_eq!(ask(&host, "/leaf"), "404");
    // Two files change places, and each name serves the other's contents.
    rename(&host, "page.wat", "swap.tmp");
    rename(&host, "other.wat", "page.wat");
    rename(&host, "swap.tmp", "other.wat");
    wait_for(&host, "/page", "other");
    wait_for(&host, "/other", "one");
    // A file with a parameter in its name is renamed like any other.
    rename(&host, "other.wat", "[any].wat");
    wait_for(&host, "/whatever", "one");
    rename(&host, "[any].wat", "other.wat");
    wait_for(&host, "/whatever", "404");
    // Out of the folder, and to an extension without a meaning.
    rename(&host, "page.wat", "page.wat.off");
    wait_for(&host, "/page", "404");
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (1, 0), "{status:?}");
}

#[test]
fn a_file_that_grows_while_it_is_read_is_read_again() {
    let host = host();
    let mut file = File::create(path(&host, "page.wat")).expect("it");
    // Each complete text is another module. All but the last are overwritten at once.
    for number in 0..200 {
        file.rewind().expect("a file");
        let text = wat::says(&format!("{number:03}"));
        file.write_all(text.as_bytes()).expect("a write");
        file.set_len(text.len() as u64).expect("a cut");
    }
    drop(file);
    wait_for(&host, "/page", "199");
    look(&host);
    assert_eq!(ask(&host, "/page"), "199");
    assert_eq!(lines(&host, &["page.wat", "a new version is served"]), 1);
    assert_rests(&host, 2);
}
