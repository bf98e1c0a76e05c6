//! Files that cannot be loaded: the version before is still served, the log says why, once, and a
//! good version is then served as usual.

use std::fs::{File, FileTimes};
use std::time::{Duration, Instant, SystemTime};

use super::{
    LATE, STILL_SERVED, ask, errors, look, path, put, remove, seen_during, until_in_time, wait_for,
    write,
};
use crate::host::{Host, until};
use crate::patience::patience;
use crate::wat;

fn host() -> Host {
    let host = Host::with("page.wat", wat::says("good")).file("hello.wat", wat::says("hi"));
    let host = host.start();
    host.settled();
    host
}

#[test]
fn a_bad_version_leaves_the_one_before_it_and_says_why_once() {
    let bad = [
        ("", "at least one module field"),
        ("(module", "expected `)`"),
        ("(module (memory 1))", "handle_request"),
    ];
    let host = host();
    let seen = seen_during(&host, "/page", || {
        for (at, (text, why)) in bad.into_iter().enumerate() {
            write(&host, "page.wat", text);
            until(why, patience(), || (errors(&host, &["page.wat"]) > at).then_some(()));
            assert!(errors(&host, &["page.wat", why, STILL_SERVED]) > 0, "{why}");
            // The folder is scanned again and again, and the file is as it was.
            look(&host);
            look(&host);
            assert_eq!(errors(&host, &["page.wat"]), at + 1);
            assert_eq!(host.settled().failed, 0);
        }
        put(&host, "page.wat", wat::says("better"));
        wait_for(&host, "/page", "better");
        // It becomes bad, and then again what is served: that is no new version.
        put(&host, "page.wat", "(module");
        until("another error", patience(), || {
            (errors(&host, &["page.wat"]) == bad.len() + 1).then_some(())
        });
        put(&host, "page.wat", wat::says("better"));
        look(&host);
    });
    assert_eq!(seen, ["good", "better"]);
    assert_eq!(errors(&host, &["page.wat"]), bad.len() + 1);
    assert_eq!(errors(&host, &[]), bad.len() + 1);
    assert_eq!(ask(&host, "/hello"), "hi");
    let status = host.at_rest();
    assert_eq!((status.ready, status.failed), (2, 0), "{status:?}");
    assert!(status.rejects("not_loaded") == 0, "{status:?}");
}

#[test]
fn a_file_that_is_bad_from_the_start_is_served_once_it_is_good() {
    let host = Host::with("page.wat", "(module").file("hello.wat", wat::says("hi")).start();
    assert_eq!(ask(&host, "/page"), "503");
    host.wait_log_with(&["page.wat", "503"]);
    assert_eq!(host.settled().failed, 1);
    // Still bad, but for another reason.
    write(&host, "page.wat", "(module)");
    until("another error", patience(), || (errors(&host, &["page.wat"]) == 2).then_some(()));
    assert_eq!(ask(&host, "/page"), "503");
    look(&host);
    assert_eq!(errors(&host, &["page.wat"]), 2);
    write(&host, "page.wat", wat::says("good"));
    wait_for(&host, "/page", "good");
    let status = host.settled();
    assert_eq!((status.ready, status.failed), (2, 0), "{status:?}");
    // The same for a new file.
    write(&host, "new.wat", "(module");
    wait_for(&host, "/new", "503");
    host.wait_log_with(&["new.wat", "503"]);
    put(&host, "new.wat", wat::says("new"));
    wait_for(&host, "/new", "new");
    // The same for a file that is removed while it is bad.
    write(&host, "gone.wat", "(module");
    wait_for(&host, "/gone", "503");
    remove(&host, "gone.wat");
    wait_for(&host, "/gone", "404");
    assert_eq!(ask(&host, "/hello"), "hi");
    let status = host.at_rest();
    assert_eq!((status.handlers, status.ready, status.failed), (3, 3, 0), "{status:?}");
}

#[test]
fn an_empty_file_is_filled_later() {
    until_in_time(|is_in_time| {
        let host = host();
        // As `touch` makes it: it is closed, and empty.
        write(&host, "new.wasm", "");
        wait_for(&host, "/new", "503");
        host.wait_log_with(&["new.wasm", "empty", "503"]);
        write(&host, "new.wasm", ::wat::parse_str(wat::says("new")).expect("a module"));
        wait_for(&host, "/new", "new");
        // As a download makes it: it is there, and filled a little later.
        let seen = seen_during(&host, "/later", || {
            let began = Instant::now();
            let file = File::create(path(&host, "later.wat")).expect("a file");
            std::thread::sleep(Duration::from_millis(500));
            drop(file);
            write(&host, "later.wat", wat::says("later"));
            is_in_time.set(began.elapsed() < LATE);
            wait_for(&host, "/later", "later");
        });
        assert_eq!(seen, ["404", "later"]);
        assert_eq!(errors(&host, &["later.wat"]), 0);
        assert_eq!(host.at_rest().failed, 0);
    });
}

#[test]
fn a_version_is_told_by_more_than_its_time_and_its_size() {
    let host = host();
    let page = path(&host, "page.wat");
    let about = || page.metadata().expect("the file");
    let set_modified = |at: SystemTime| {
        let file = File::options().append(true).open(&page).expect("the file");
        file.set_times(FileTimes::new().set_modified(at)).expect("a time");
    };
    let first = about().modified().expect("a time");
    let size = about().len();
    let year = Duration::from_secs(365 * 24 * 3600);
    let times = [
        ("1970", SystemTime::UNIX_EPOCH),
        ("2100", SystemTime::UNIX_EPOCH + 130 * year),
        ("last", SystemTime::now() - Duration::from_secs(1)),
        ("same", first),
    ];
    for (text, at) in times {
        // In place, so that only its time differs, and by a rename.
        for text in [text.to_owned(), text.to_uppercase(), format!("{text:.3}.")] {
            if text.ends_with('.') {
                let temp = path(&host, "temp");
                std::fs::write(&temp, wat::says(&text)).expect("a file");
                let file = File::options().append(true).open(&temp).expect("the file");
                file.set_times(FileTimes::new().set_modified(at)).expect("a time");
                std::fs::rename(temp, &page).expect("a rename");
            } else {
                write(&host, "page.wat", wat::says(&text));
                set_modified(at);
            }
            wait_for(&host, "/page", &text);
            assert_eq!((about().modified().expect("a time"), about().len()), (at, size));
        }
    }
    // The modification time goes back and forth, and nothing else changes.
    for (_, at) in times {
        set_modified(at);
        look(&host);
        assert_eq!(ask(&host, "/page"), "sam.");
    }
    assert_eq!(errors(&host, &[]), 0);
    host.at_rest();
}
