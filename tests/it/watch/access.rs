//! Files and folders that the host may not read for a while. The host runs as nobody here, because
//! root may read everything.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Instant;

use super::{
    LATE, STILL_SERVED, ask, beside, errors, lines, look, path, seen_during, until_in_time,
    wait_for, write,
};
use crate::host::{Host, Setup, until};
use crate::patience::patience;
use crate::wat;

/// A host that serves two files, and two more in a folder.
fn setup() -> Setup {
    Host::with("hello.wat", wat::says("hi"))
        .file("page.wat", wat::says("page"))
        .file("sub/one.wat", wat::says("one"))
        .file("sub/two.wat", wat::says("two"))
        .unprivileged()
}

fn host() -> Host {
    let host = setup().start();
    assert_eq!(host.settled().ready, 4);
    host
}

#[track_caller]
fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_file_that_is_served_is_served_when_it_cannot_be_read_any_more() {
    let host = host();
    let page = path(&host, "page.wat");
    let seen = seen_during(&host, "/page", || {
        allow(&page, 0o000);
        host.wait_log(|line| {
            line.level() == "ERROR" && line.has(&["page.wat", "cannot be read", STILL_SERVED])
        });
        look(&host);
        assert_eq!(host.settled().ready, 4);
        // Readable again, it is unchanged.
        allow(&page, 0o644);
        look(&host);
        assert_eq!(host.settled().ready, 4);
        assert_eq!(lines(&host, &["page.wat", "a new version"]), 0);
        // Changed while the host could not read it.
        allow(&page, 0o000);
        until("a second error", patience(), || (errors(&host, &["page.wat"]) == 2).then_some(()));
        fs::write(beside(&host, "new"), wat::says("changed")).expect("a file");
        allow(&beside(&host, "new"), 0o000);
        fs::rename(beside(&host, "new"), &page).expect("a rename");
        until("a third error", patience(), || (errors(&host, &["page.wat"]) == 3).then_some(()));
        allow(&page, 0o444);
        wait_for(&host, "/page", "changed");
    });
    assert_eq!(seen, ["page", "changed"]);
    assert_eq!(errors(&host, &[]), 3);
    assert_eq!(host.at_rest().rejects("not_loaded"), 0);
}

#[test]
fn a_file_that_could_not_be_read_is_served_once_it_can() {
    let host = setup()
        .file("locked.wat", wat::says("locked"))
        .prepare(|folder| allow(&folder.join("locked.wat"), 0o000))
        .start();
    assert_eq!(ask(&host, "/locked"), "503");
    host.wait_log_with(&["locked.wat", "cannot be read", "503"]);
    look(&host);
    assert_eq!(errors(&host, &["locked.wat"]), 1);
    allow(&path(&host, "locked.wat"), 0o644);
    wait_for(&host, "/locked", "locked");
    // A new one.
    let temp = beside(&host, "temp");
    fs::write(&temp, wat::says("new")).expect("a file");
    allow(&temp, 0o000);
    fs::rename(&temp, path(&host, "new.wat")).expect("a rename");
    wait_for(&host, "/new", "503");
    host.wait_log_with(&["new.wat", "cannot be read", "503"]);
    allow(&path(&host, "new.wat"), 0o600);
    // The file is root's own, or the user's. Then this was enough.
    allow(&path(&host, "new.wat"), 0o644);
    wait_for(&host, "/new", "new");
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (6, 0), "{status:?}");
}

#[test]
fn a_folder_that_cannot_be_read_keeps_its_routes() {
    let host = host();
    let sub = path(&host, "sub");
    // Names cannot be listed and files not be opened; names can, but not files; files can, but not
    // names.
    for (mode, told) in [(0o000, "sub:"), (0o444, "sub/one.wat:"), (0o311, "sub:")] {
        allow(&sub, mode);
        let seen = seen_during(&host, "/sub/one", || {
            look(&host);
            assert_eq!(ask(&host, "/sub/two"), "two");
            // The other files are served and watched as before.
            write(&host, "page.wat", wat::says("changed"));
            wait_for(&host, "/page", "changed");
            write(&host, "page.wat", wat::says("page"));
            wait_for(&host, "/page", "page");
            allow(&sub, 0o755);
            look(&host);
        });
        assert_eq!(seen, ["one"], "{mode:o}");
        assert_eq!(host.settled().handlers, 4, "{mode:o}");
        host.wait_log_with(&[told, "cannot be read"]);
    }
    // Changes that were made meanwhile are seen once they can be.
    allow(&sub, 0o000);
    look(&host);
    fs::rename(&sub, beside(&host, "sub")).expect("a rename");
    allow(&beside(&host, "sub"), 0o755);
    fs::write(beside(&host, "sub/one.wat"), wat::says("changed")).expect("a file");
    fs::write(beside(&host, "sub/new.wat"), wat::says("new")).expect("a file");
    fs::remove_file(beside(&host, "sub/two.wat")).expect("the file");
    allow(&beside(&host, "sub"), 0o000);
    fs::rename(beside(&host, "sub"), &sub).expect("a rename");
    allow(&sub, 0o755);
    wait_for(&host, "/sub/new", "new");
    wait_for(&host, "/sub/one", "changed");
    wait_for(&host, "/sub/two", "404");
    assert_eq!(errors(&host, &[]), 0);
    host.at_rest();
}

#[test]
fn a_file_that_fails_because_of_its_folder_is_tried_again_when_that_is_well() {
    until_in_time(|is_in_time| {
        let host = host();
        let sub = path(&host, "sub");
        // The file does not count as complete until its folder is locked.
        let began = Instant::now();
        let mut new = File::create(sub.join("new.wat")).expect("a file");
        new.write_all(wat::says("new").as_bytes()).expect("a write");
        host.wait_log_with(&["new.wat", "a new route"]);
        allow(&sub, 0o000);
        is_in_time.set(began.elapsed() < LATE);
        host.wait_log(|line| {
            line.level() == "ERROR" && line.has(&["sub/new.wat", "cannot be read"])
        });
        assert_eq!(ask(&host, "/sub/new"), "503");
        // Nothing about the file itself changes.
        allow(&sub, 0o755);
        wait_for(&host, "/sub/new", "new");
        drop(new);
        look(&host);
        assert_eq!(ask(&host, "/sub/one"), "one");
        let status = host.at_rest();
        assert_eq!((status.handlers, status.failed), (5, 0), "{status:?}");
    });
}

#[test]
fn a_handler_folder_that_cannot_be_read_keeps_all_routes() {
    let host = host();
    for mode in [0o000, 0o444, 0o311] {
        let seen = seen_during(&host, "/sub/one", || {
            allow(&host.handlers(), mode);
            host.signal(rustix::process::Signal::HUP);
            host.wait_log(|line| line.has(&["cannot be read"]));
            fs::write(beside(&host, "new.wat"), wat::says(&format!("{mode:o}"))).expect("a file");
            fs::rename(beside(&host, "new.wat"), path(&host, "page.wat")).expect("a rename");
            allow(&host.handlers(), 0o755);
            wait_for(&host, "/page", &format!("{mode:o}"));
        });
        assert_eq!(seen, ["one"], "{mode:o}");
        assert_eq!(host.settled().handlers, 4);
    }
    look(&host);
    assert_eq!(ask(&host, "/sub/two"), "two");
    host.at_rest();
}

#[test]
fn a_link_to_where_the_host_may_not_look_is_followed_once_it_may() {
    let host = host();
    let vault = beside(&host, "vault");
    fs::create_dir(&vault).expect("a folder");
    fs::write(vault.join("page.wat"), wat::says("vault")).expect("a file");
    allow(&vault, 0o000);
    symlink("../vault/page.wat", path(&host, "linked.wat")).expect("a link");
    host.wait_log_with(&["linked.wat", "cannot be read"]);
    assert_eq!(ask(&host, "/linked"), "404");
    allow(&vault, 0o755);
    wait_for(&host, "/linked", "vault");
    let seen = seen_during(&host, "/linked", || {
        allow(&vault, 0o000);
        look(&host);
        look(&host);
        allow(&vault, 0o755);
        fs::write(vault.join("page.wat"), wat::says("changed")).expect("a file");
        wait_for(&host, "/linked", "changed");
    });
    assert_eq!(seen, ["vault", "changed"]);
    assert_eq!(host.at_rest().handlers, 5);
}
