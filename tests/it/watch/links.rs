//! Symbolic links in the handler folder, to it and around it. They are followed to wherever they
//! lead at the moment.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;

use super::{
    ask, assert_in_order, beside, each_seen_during, errors, lines, look, path, put, remove, rename,
    seen_during, wait_for, write, write_in_parts,
};
use crate::host::Host;
use crate::wat;

/// Writes a file beside the handler folder, and makes its folders.
#[track_caller]
fn write_beside(host: &Host, name: &str, contents: impl AsRef<[u8]>) {
    let file = beside(host, name);
    fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(file, contents).expect("a file");
}

/// Changes the target of a link in one step, as `ln -sfn` does.
#[track_caller]
fn point(link: &Path, target: impl AsRef<Path>) {
    let temp = link.with_extension("link");
    symlink(target, &temp).expect("a link");
    fs::rename(temp, link).expect("a rename");
}

#[test]
fn a_linked_file_is_followed() {
    let host = Host::with("hello.wat", wat::says("hi")).start();
    host.settled();
    write_beside(&host, "releases/1.wat", wat::says("one"));
    symlink("../releases/1.wat", path(&host, "page.wat")).expect("a link");
    wait_for(&host, "/page", "one");
    let seen = seen_during(&host, "/page", || {
        // The target changes, in place and by a rename.
        write_beside(&host, "releases/1.wat", wat::says("one again"));
        wait_for(&host, "/page", "one again");
        write_beside(&host, "releases/1.tmp", wat::says("one more"));
        fs::rename(beside(&host, "releases/1.tmp"), beside(&host, "releases/1.wat")).expect("it");
        host.signal(Signal::HUP);
        wait_for(&host, "/page", "one more");
        // The link is changed to another target, and back.
        write_beside(&host, "releases/2.wat", wat::says("two"));
        point(&path(&host, "page.wat"), "../releases/2.wat");
        wait_for(&host, "/page", "two");
        point(&path(&host, "page.wat"), "../releases/1.wat");
        wait_for(&host, "/page", "one more");
        // To the same contents elsewhere, which is no new version.
        write_beside(&host, "releases/3.wat", wat::says("one more"));
        point(&path(&host, "page.wat"), "../releases/3.wat");
        look(&host);
        // A file replaces the link.
        put(&host, "page.wat", wat::says("a file"));
        wait_for(&host, "/page", "a file");
    });
    let expected = ["one", "one again", "one more", "two", "one more", "a file"];
    assert_in_order(&seen, &expected);
    assert_eq!(errors(&host, &[]), 0);
    assert_eq!(host.at_rest().handlers, 2);
}

#[test]
fn a_handler_folder_that_is_a_link_is_followed() {
    let release = |folder: &Path, number: &str| {
        let release = folder.with_file_name(number);
        fs::create_dir_all(release.join("sub")).expect("folders");
        for name in ["page", "sub/deep"] {
            let text = wat::says(&format!("{name} {number}"));
            fs::write(release.join(format!("{name}.wat")), text).expect("a file");
        }
        fs::write(release.join(format!("only{number}.wat")), wat::says("only")).expect("a file");
    };
    let host = Host::empty()
        .prepare(|folder| {
            for number in ["1", "2", "3"] {
                release(folder, number);
            }
            fs::remove_dir(folder).expect("an empty folder");
            symlink("1", folder).expect("a link");
        })
        .start();
    host.settled();
    for number in ["1", "2", "3", "1"] {
        point(&host.handlers(), number);
        if number != "1" {
            host.signal(Signal::HUP);
        }
        let seen = seen_during(&host, "/page", || {
            wait_for(&host, "/page", &format!("page {number}"));
            wait_for(&host, "/sub/deep", &format!("sub/deep {number}"));
            wait_for(&host, &format!("/only{number}"), "only");
        });
        assert!(seen.len() <= 2 && !seen.contains(&"404".to_owned()), "{seen:?}");
        let others = ["1", "2", "3"].into_iter().filter(|other| *other != number);
        for other in others {
            assert_eq!(ask(&host, &format!("/only{other}")), "404");
        }
        // Changes in the new release are seen, and changes in the others are not.
        write(&host, "sub/deep.wat", wat::says("changed"));
        wait_for(&host, "/sub/deep", "changed");
        write(&host, "sub/deep.wat", wat::says(&format!("sub/deep {number}")));
        wait_for(&host, "/sub/deep", &format!("sub/deep {number}"));
        assert_eq!(host.settled().handlers, 3);
    }
    assert_eq!(errors(&host, &[]), 0);
    host.at_rest();
}

#[test]
fn a_folder_that_is_a_link_is_followed() {
    let host = Host::with("hello.wat", wat::says("hi")).start();
    for number in ["1", "2"] {
        write_beside(&host, &format!("releases/{number}/page.wat"), wat::says(number));
        let only = format!("releases/{number}/only{number}.wat");
        write_beside(&host, &only, wat::says("only"));
    }
    symlink("../releases/1", path(&host, "app")).expect("a link");
    wait_for(&host, "/app/page", "1");
    point(&path(&host, "app"), "../releases/2");
    wait_for(&host, "/app/page", "2");
    wait_for(&host, "/app/only2", "only");
    assert_eq!(ask(&host, "/app/only1"), "404");
    // The target changes.
    write_beside(&host, "releases/2/page.wat", wat::says("changed"));
    wait_for(&host, "/app/page", "changed");
    // The same folder under two names, of which one is removed.
    symlink("../releases/2", path(&host, "alias")).expect("a link");
    wait_for(&host, "/alias/page", "changed");
    write(&host, "alias/page.wat", wat::says("by either name"));
    wait_for(&host, "/alias/page", "by either name");
    wait_for(&host, "/app/page", "by either name");
    remove(&host, "app");
    wait_for(&host, "/app/page", "404");
    write(&host, "alias/page.wat", wat::says("by one name"));
    wait_for(&host, "/alias/page", "by one name");
    assert_eq!(errors(&host, &[]), 0);
    assert_eq!(host.at_rest().handlers, 3);
}

#[test]
fn a_link_that_leads_back_harms_nobody() {
    let host = Host::with("sub/deep/page.wat", wat::says("page")).start();
    host.settled();
    // To its own folder, to the one above, to the top, to itself, and two to each other.
    let links = [
        ("sub/deep/here", "."),
        ("sub/deep/up", ".."),
        ("sub/top", ".."),
        ("sub/self", "self"),
        ("sub/self.wat", "self.wat"),
        ("sub/one", "two"),
        ("sub/two", "one"),
    ];
    for (link, target) in links {
        symlink(target, path(&host, link)).expect("a link");
    }
    for name in ["sub/deep/here", "sub/deep/up", "sub/top", "sub/self.wat"] {
        host.wait_log(|line| line.level() == "WARN" && line.has(&[name]));
    }
    look(&host);
    for name in ["/sub/top/sub/deep/page", "/sub/deep/up/deep/page", "/sub/self", "/sub/one/x"] {
        assert_eq!(ask(&host, name), "404", "{name}");
    }
    assert_eq!(ask(&host, "/sub/deep/page"), "page");
    write(&host, "sub/deep/page.wat", wat::says("changed"));
    wait_for(&host, "/sub/deep/page", "changed");
    write(&host, "sub/new.wat", wat::says("new"));
    wait_for(&host, "/sub/new", "new");
    // Each is logged once, however often the folder is scanned.
    assert_eq!(lines(&host, &["sub/top", "link"]), 1);
    for (link, _) in links {
        remove(&host, link);
    }
    look(&host);
    assert_eq!(host.at_rest().handlers, 2);
}

#[test]
fn a_link_that_leads_nowhere_is_followed_once_it_leads_somewhere() {
    let host = Host::with("hello.wat", wat::says("hi"))
        .prepare(|folder| {
            symlink("../target.wat", folder.join("page.wat")).expect("a link");
            symlink("../folder", folder.join("app")).expect("a link");
        })
        .start();
    host.wait_log_with(&["page.wat"]);
    assert_eq!((ask(&host, "/page").as_str(), ask(&host, "/app/x").as_str()), ("404", "404"));
    write_beside(&host, "target.wat", wat::says("target"));
    write_beside(&host, "folder/x.wat", wat::says("x"));
    wait_for(&host, "/page", "target");
    wait_for(&host, "/app/x", "x");
    // The target goes, and the route with it. Then it comes back.
    fs::remove_file(beside(&host, "target.wat")).expect("the file");
    wait_for(&host, "/page", "404");
    fs::remove_dir_all(beside(&host, "folder")).expect("the folder");
    wait_for(&host, "/app/x", "404");
    write_beside(&host, "target.wat", wat::says("target 2"));
    write_beside(&host, "folder/x.wat", wat::says("x 2"));
    host.signal(Signal::HUP);
    wait_for(&host, "/page", "target 2");
    wait_for(&host, "/app/x", "x 2");
    assert_eq!(errors(&host, &[]), 0);
    assert_eq!(host.at_rest().handlers, 3);
}

/// Writes files in parts, each of them reachable by all of these paths. Asserts that no client sees
/// a part.
#[track_caller]
fn assert_whole<const N: usize>(host: &Host, files: [&str; 3], paths: [&str; N]) {
    let (mut before, mut said) = ("old".to_owned(), 0);
    for file in files {
        for attempt in 0.. {
            let mut is_in_time = false;
            let said_before = errors(host, &[]);
            let text = format!("by {file}, {attempt}");
            let seen = each_seen_during(host, paths, || {
                is_in_time = write_in_parts(host, &path(host, file), &text);
                paths.into_iter().for_each(|name| wait_for(host, name, &text));
            });
            let expected = vec![before, text.clone()];
            let is_whole = seen.iter().all(|seen| *seen == expected);
            assert!(!is_in_time || is_whole, "{paths:?}, written as {file}: {seen:?}");
            before = text;
            // An incomplete file that stays unchanged for too long counts as complete.
            said += if is_in_time { errors(host, &[]) - said_before } else { 0 };
            if is_in_time {
                break;
            }
        }
    }
    assert_eq!(said, 0);
    host.at_rest();
}

#[test]
fn a_file_with_two_names_is_not_served_in_part_under_either() {
    let old = ::wat::parse_str(wat::says("old")).expect("a module");
    let host = Host::with("page.wasm", &old)
        .prepare(|folder| {
            symlink("page.wasm", folder.join("linked.wasm")).expect("a link");
            fs::hard_link(folder.join("page.wasm"), folder.join("hard.wasm")).expect("a link");
        })
        .start();
    host.settled();
    let files = ["page.wasm", "hard.wasm", "linked.wasm"];
    assert_whole(&host, files, ["/page", "/hard", "/linked"]);
    rename(&host, "page.wasm", "renamed.wasm");
    wait_for(&host, "/linked", "404");
    wait_for(&host, "/renamed", &ask(&host, "/hard"));
    host.at_rest();
}

#[test]
fn a_folder_with_two_names_has_no_file_served_in_part() {
    let old = ::wat::parse_str(wat::says("old")).expect("a module");
    let host = Host::with("sub/page.wasm", &old)
        .prepare(|folder| symlink("sub", folder.join("alias")).expect("a link"))
        .start();
    host.settled();
    let files = ["sub/page.wasm", "alias/page.wasm", "sub/page.wasm"];
    assert_whole(&host, files, ["/sub/page", "/alias/page"]);
}
