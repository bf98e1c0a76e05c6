//! The cache of compiled guests: what a second start finds, and what it does not trust.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;

use crate::host::{HELLO, Host, Setup};
use crate::wat;

/// The file names in a cache, each with what changes when it is written anew.
fn entries(cache: &Path) -> BTreeMap<String, (u64, i64, u64)> {
    let files = fs::read_dir(cache).expect("a cache");
    let entry = |file: std::io::Result<fs::DirEntry>| {
        let file = file.expect("an entry");
        let about = file.metadata().expect("an entry");
        let name = file.file_name().to_string_lossy().into_owned();
        (name, (about.ino(), about.mtime_nsec(), about.len()))
    };
    files.map(entry).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A host with two guests, whose cache is here.
fn host(cache: &Path) -> Setup {
    Host::with("hello.wat", HELLO).file("reader.wat", wat::reads()).arg("--cache-dir").arg(cache)
}

#[track_caller]
fn assert_serves(host: &Host) {
    assert_eq!(host.get("/hello").text(), "Hello, World!");
    assert_eq!(host.request("POST", "/reader", &[], b"body").text(), "read");
}

#[test]
fn a_second_start_compiles_nothing() {
    let folder = folder();
    let cache = folder.path().join("not/there/yet");
    assert_serves(&host(&cache).start());
    let first = entries(&cache);
    assert_eq!(first.len(), 2, "{first:?}");
    let mode = fs::metadata(&cache).expect("the cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for name in first.keys() {
        let mode = fs::metadata(cache.join(name)).expect("an entry").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    let second = host(&cache).start();
    assert_serves(&second);
    assert_eq!(entries(&cache), first, "an entry was made anew");
    second.at_rest();
    // Another limit is another guest; so is another text.
    let third = host(&cache).args(["--memory-max", "1MiB"]).start();
    assert_serves(&third);
    assert_eq!(entries(&cache).len(), 4);
    let fourth = host(&cache).file("hello.wat", wat::says("changed")).start();
    assert_eq!(fourth.get("/hello").text(), "changed");
    assert_eq!(entries(&cache).len(), 5);
}

#[test]
fn the_demo_is_cached_too() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let demo = || Host::demo().arg("--cache-dir").arg(&cache).start();
    let page = demo().get("/render").text();
    let first = entries(&cache);
    assert_eq!(first.len(), 6, "{first:?}");
    assert_eq!(demo().get("/render").text(), page);
    assert_eq!(entries(&cache), first);
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let folder = folder();
    let cache = folder.path().join("cache");
    assert_serves(&host(&cache).start());
    let good: Vec<(String, Vec<u8>)> = entries(&cache)
        .into_keys()
        .map(|name| {
            let bytes = fs::read(cache.join(&name)).expect("an entry");
            (name, bytes)
        })
        .collect();
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(16),
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.push(0),
        |bytes| bytes[0] ^= 1,
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
        },
    ];
    for (at, damage) in damages.iter().enumerate() {
        for (name, bytes) in &good {
            let mut bytes = bytes.clone();
            damage(&mut bytes);
            fs::write(cache.join(name), bytes).expect("an entry");
        }
        let host = host(&cache).start();
        assert_serves(&host);
        for (name, bytes) in &good {
            let now = fs::read(cache.join(name)).expect("an entry");
            assert_eq!(now.len(), bytes.len(), "damage {at} is still there");
        }
        // And it is whole: nothing is made anew once more.
        let before = entries(&cache);
        assert_serves(&self::host(&cache).start());
        assert_eq!(entries(&cache), before, "damage {at}");
    }
}

#[test]
fn a_folder_that_others_can_write_is_not_trusted() {
    let folder = folder();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).expect("a folder");
    for mode in [0o777, 0o755, 0o770] {
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("chmod");
        let host = host(&cache).start();
        assert_serves(&host);
        let told = host.wait_log(|line| line.level() == "WARN" && line.has(&["0700"]));
        assert!(told.has(&["--cache-dir"]), "{}", told.text);
        assert!(entries(&cache).is_empty(), "{mode:o}");
    }
}

#[test]
fn a_cache_that_cannot_be_made_is_done_without() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("a file");
    let host = host(&file.join("cache")).start();
    assert_serves(&host);
    host.wait_log(|line| line.level() == "WARN" && line.has(&["cache"]));
}

#[test]
fn a_cache_is_not_kept_where_none_is_wanted() {
    let host = Host::with("hello.wat", HELLO).arg("--no-cache").start();
    host.assert_serves("/hello");
    assert!(!host.cache().exists());
}

#[test]
fn two_hosts_may_share_a_cache() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let hosts: Vec<Host> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| host(&cache).start())).collect();
        starts.into_iter().map(|it| it.join().expect("a start")).collect()
    });
    for host in &hosts {
        assert_serves(host);
    }
    let names: Vec<String> = entries(&cache).into_keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
