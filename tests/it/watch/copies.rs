//! Files that are being written: slowly, by writers that pause, stop half-way, begin again or never
//! close. An incomplete file is never served.
//!
//! The pauses are what is tested. Any reader would notice that an ordinary file is cut off, so
//! these files are [`Vast`]: without their last part they are valid modules.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{
    LATE, STILL_SERVED, ask, data_start, errors, lines, path, remove, seen_during, until_in_time,
    wait_for, write,
};
use crate::host::Host;
use crate::wat;

/// Long enough for the host to scan, to load what there is, and to serve it.
const PAUSE: Duration = Duration::from_millis(400);

const MIB: usize = 1 << 20;

/// A module in parts that follow each other in its file.
struct Vast {
    /// All that it needs to be valid. It would answer with zeros.
    head: Vec<u8>,
    /// A custom section that nobody reads.
    padding: Vec<u8>,
    /// Its data, with the text of its answer.
    tail: Vec<u8>,
}

impl Vast {
    fn new(text: &str, padding_bytes: usize) -> Vast {
        let mut head = ::wat::parse_str(wat::says(text)).expect("a module");
        let tail = head.split_off(data_start(&head));
        let mut padding = vec![0];
        padding.extend(leb128(padding_bytes + 4));
        padding.extend(b"\x03pad");
        let end = padding.len() + padding_bytes;
        // Not zeros, which a file system might not store.
        padding.extend((0..=u8::MAX).cycle().take(padding_bytes));
        assert_eq!(padding.len(), end);
        Vast { head, padding, tail }
    }

    /// Half of its padding.
    fn half(&self) -> &[u8] {
        &self.padding[..self.padding.len() / 2]
    }

    fn whole(&self) -> Vec<u8> {
        [&self.head[..], &self.padding, &self.tail].concat()
    }

    /// Writes it like a slow copy, with pauses where it is valid, where it is cut off, and where it
    /// is valid again. Returns whether it was in time, see [`LATE`].
    #[must_use]
    fn copy_slowly(&self, host: &Host, file: &mut File) -> bool {
        let rest = &self.padding[self.half().len()..];
        let parts = [&self.head[..], self.half(), rest, &self.tail];
        write_slowly(file, parts, || host.signal(Signal::HUP))
    }
}

/// Writes one part after the other, with a pause after each, at the end of which `then` runs.
/// Returns whether it was in time, see [`LATE`].
#[must_use]
fn write_slowly<'a>(
    file: &mut File,
    parts: impl IntoIterator<Item = &'a [u8]>,
    then: impl Fn(),
) -> bool {
    let mut is_in_time = true;
    let mut written: Option<Instant> = None;
    for part in parts {
        if written.is_some() {
            std::thread::sleep(PAUSE);
            then();
        }
        for piece in part.chunks(MIB) {
            file.write_all(piece).expect("a write");
            is_in_time &= written.is_none_or(|at| at.elapsed() < LATE);
            written = Some(Instant::now());
        }
    }
    is_in_time
}

/// A number in LEB128.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn host() -> Host {
    let host = Host::with("big.wasm", Vast::new("old", 0).whole()).file("hello.wat", wat::says(""));
    let host = host.start();
    host.settled();
    host
}

#[test]
fn the_parts_of_a_vast_module_are_what_they_are_meant_to_be() {
    let vast = Vast::new("whole", 1000);
    let cut = [&vast.head[..], vast.half()].concat();
    let valid = [&vast.head[..], &vast.padding].concat();
    let host = Host::with("whole.wasm", vast.whole())
        .file("head.wasm", &vast.head)
        .file("cut.wasm", cut)
        .file("valid.wasm", valid)
        .start();
    assert_eq!(ask(&host, "/whole"), "whole");
    assert_eq!(ask(&host, "/head"), "\0\0\0\0\0");
    assert_eq!(ask(&host, "/valid"), "\0\0\0\0\0");
    assert_eq!(ask(&host, "/cut"), "503");
    host.wait_log_with(&["cut.wasm", "cut off"]);
}

#[test]
fn a_slow_copy_over_a_file_is_served_when_it_is_whole() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", 100 * MIB);
        let seen = seen_during(&host, "/big", || {
            let mut file = File::create(path(&host, "big.wasm")).expect("a file");
            is_in_time.set(vast.copy_slowly(&host, &mut file));
            drop(file);
            wait_for(&host, "/big", "new");
        });
        assert_eq!(seen, ["old", "new"]);
        assert_eq!(errors(&host, &["big.wasm"]), 0);
        assert_eq!(lines(&host, &["big.wasm", "a new version"]), 1);
        assert_eq!(host.at_rest().failed, 0);
    });
}

#[test]
fn a_slow_copy_of_a_new_file_is_waited_for() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", 100 * MIB);
        let seen = seen_during(&host, "/fresh", || {
            let mut file = File::create(path(&host, "fresh.wasm")).expect("a file");
            is_in_time.set(vast.copy_slowly(&host, &mut file));
            drop(file);
            wait_for(&host, "/fresh", "new");
        });
        // There is a route from the first byte on, and requests wait.
        assert_eq!(seen, ["404", "new"]);
        assert_eq!(errors(&host, &["fresh.wasm"]), 0);
        assert_eq!(ask(&host, "/big"), "old");
        assert_eq!(host.at_rest().failed, 0);
    });
}

#[test]
fn a_slow_copy_into_a_new_folder_is_waited_for() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", MIB);
        let seen = seen_during(&host, "/deep/er/fresh", || {
            std::fs::create_dir_all(path(&host, "deep/er")).expect("folders");
            let mut file = File::create(path(&host, "deep/er/fresh.wasm")).expect("a file");
            // The first bytes come before the folder can be watched.
            file.write_all(&vast.head[..vast.head.len() / 2]).expect("a write");
            std::thread::sleep(PAUSE);
            file.rewind().expect("a file");
            is_in_time.set(vast.copy_slowly(&host, &mut file));
            drop(file);
            wait_for(&host, "/deep/er/fresh", "new");
        });
        assert_eq!(seen, ["404", "new"]);
        assert_eq!(host.at_rest().failed, 0);
    });
}

#[test]
fn a_copy_of_a_module_with_its_padding_at_the_end_is_served() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", 100 * MIB);
        let seen = seen_during(&host, "/big", || {
            let mut file = File::create(path(&host, "big.wasm")).expect("a file");
            let whole = [&vast.head[..], &vast.tail].concat();
            let parts = vast.padding.chunks(vast.padding.len() / 3);
            let parts = [&whole[..]].into_iter().chain(parts);
            is_in_time.set(write_slowly(&mut file, parts, || {}));
            drop(file);
            wait_for(&host, "/big", "new");
        });
        assert_eq!(seen, ["old", "new"]);
        // A module that is complete before its end is not served before its end: it would be loaded
        // twice.
        assert_eq!(lines(&host, &["big.wasm", "a new version"]), 1);
        assert_eq!(errors(&host, &["big.wasm"]), 0);
        host.at_rest();
    });
}

#[test]
fn a_slow_copy_of_a_text_is_served_when_it_is_whole() {
    until_in_time(|is_in_time| {
        let host = Host::with("page.wat", wat::says("old")).start();
        host.settled();
        let seen = seen_during(&host, "/page", || {
            let mut file = File::create(path(&host, "page.wat")).expect("a file");
            let text = wat::says("new");
            let parts = text.as_bytes().chunks(text.len() / 3);
            is_in_time.set(write_slowly(&mut file, parts, || {}));
            drop(file);
            wait_for(&host, "/page", "new");
        });
        assert_eq!(seen, ["old", "new"]);
        assert_eq!(errors(&host, &["page.wat"]), 0);
        host.at_rest();
    });
}

#[test]
fn a_copy_that_stops_early_is_said_to_be_cut_off() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", MIB);
        let cut = [&vast.head[..], vast.half()].concat();
        let seen = seen_during(&host, "/big", || {
            write(&host, "big.wasm", &cut);
            host.wait_log_with(&["big.wasm", "cut off", STILL_SERVED]);
            let mut file = File::create(path(&host, "big.wasm")).expect("a file");
            is_in_time.set(vast.copy_slowly(&host, &mut file));
            drop(file);
            wait_for(&host, "/big", "new");
        });
        assert_eq!(seen, ["old", "new"]);
        assert_eq!(errors(&host, &["big.wasm"]), 1);
        // A file that was never served.
        write(&host, "fresh.wasm", &cut);
        wait_for(&host, "/fresh", "503");
        host.wait_log_with(&["fresh.wasm", "cut off", "503"]);
        // The rest of it is written.
        let mut file = File::options().append(true).open(path(&host, "fresh.wasm")).expect("it");
        file.write_all(&vast.whole()[cut.len()..]).expect("a write");
        drop(file);
        wait_for(&host, "/fresh", "new");
        assert_eq!(errors(&host, &["fresh.wasm"]), 1);
        assert_eq!(host.at_rest().failed, 0);
    });
}

#[test]
fn a_copy_that_goes_on_within_a_second_is_not_said_to_be_cut_off() {
    until_in_time(|is_in_time| {
        let host = host();
        let vast = Vast::new("new", MIB);
        let cut = [&vast.head[..], vast.half()].concat();
        let seen = seen_during(&host, "/big", || {
            let began = Instant::now();
            write(&host, "big.wasm", &cut);
            // It was tried and is bad, but not yet for long enough to be certain.
            std::thread::sleep(PAUSE);
            let mut file = File::options().append(true).open(path(&host, "big.wasm")).expect("it");
            file.write_all(&vast.whole()[cut.len()..]).expect("a write");
            drop(file);
            is_in_time.set(began.elapsed() < LATE);
            wait_for(&host, "/big", "new");
        });
        assert_eq!(seen, ["old", "new"]);
        assert_eq!(errors(&host, &["big.wasm"]), 0);
        host.at_rest();
    });
}

#[test]
fn a_writer_that_never_closes_its_file_is_not_waited_for_for_ever() {
    let host = host();
    let mut file = File::create(path(&host, "big.wasm")).expect("a file");
    let began = Instant::now();
    file.write_all(&Vast::new("new", MIB).whole()).expect("a write");
    wait_for(&host, "/big", "new");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // The writer goes on, with a section that changes nothing.
    file.write_all(b"\0\x04\x03pad").expect("a write");
    drop(file);
    host.wait_log(|line| line.has(&["big.wasm", "a new version"]));
    assert_eq!(ask(&host, "/big"), "new");
    assert_eq!(errors(&host, &["big.wasm"]), 0);
    host.at_rest();
}

#[test]
fn a_writer_that_begins_again_at_once_is_waited_for() {
    until_in_time(|is_in_time| {
        let host = host();
        let all = |text: &str| Vast::new(text, 1000).whole();
        let seen = seen_during(&host, "/big", || {
            for number in 0..20 {
                // Complete and closed, so that it is loaded now ...
                write(&host, "big.wasm", all(&format!("{number} one")));
                // ... while the next one is already being written.
                let text = format!("{number} two");
                let vast = Vast::new(&text, 1000);
                let mut file = File::create(path(&host, "big.wasm")).expect("a file");
                file.write_all(&vast.head).expect("a write");
                let written = Instant::now();
                std::thread::sleep(PAUSE / 4);
                file.write_all(&vast.padding).expect("a write");
                is_in_time.set(is_in_time.get() && written.elapsed() < LATE);
                file.write_all(&vast.tail).expect("a write");
                drop(file);
                wait_for(&host, "/big", &text);
            }
        });
        assert!(!seen.iter().any(|text| text.contains('\0')), "{seen:?}");
        remove(&host, "big.wasm");
        wait_for(&host, "/big", "404");
        host.at_rest();
    });
}
