//! The cache of compiled guests: what a second start finds, and which entries it does not trust.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::host::{HELLO, Host, Setup, command};
use crate::loading::{PATIENTLY, assert_no_compilers, assert_says};
use crate::wat;

/// The file names in a cache, each with metadata that changes when the file is rewritten.
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

/// A host with two guests and this cache.
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
    // Another memory limit gives the same code, another text does not.
    let third = host(&cache).args(["--memory-max", "1MiB"]).start();
    assert_serves(&third);
    assert_eq!(entries(&cache), first);
    let fourth = host(&cache).file("hello.wat", wat::says("changed")).start();
    assert_eq!(fourth.get("/hello").text(), "changed");
    assert_eq!(entries(&cache).len(), 3);
}

#[test]
fn the_demo_is_cached_too() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let demo = || {
        let host = Host::demo().arg("--cache-dir").arg(&cache).start();
        host.settled();
        host
    };
    let page = demo().get("/render").text();
    let first = entries(&cache);
    assert_eq!(first.len(), 12, "{first:?}");
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
        // The cache is complete: a further start compiles nothing.
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
fn no_cache_is_written_where_none_is_wanted() {
    let host = Host::with("hello.wat", HELLO).arg("--no-cache").start();
    host.assert_serves("/hello");
    assert!(!host.cache().exists());
}

/// Hosts that start at the same moment, with guests that all have and one that only one has.
#[test]
fn hosts_may_share_a_cache() {
    const HOSTS: usize = 4;
    let folder = folder();
    let cache = folder.path().join("cache");
    let host =
        |at: usize| host_of_guests(&cache, 6).file("own.wat", wat::says(&format!("of host {at}")));
    let start = || -> Vec<Host> {
        std::thread::scope(|scope| {
            let start = |at: usize| scope.spawn(move || host(at).start());
            let starts: Vec<_> = (0..HOSTS).map(start).collect();
            starts.into_iter().map(|it| it.join().expect("a start")).collect()
        })
    };
    let check = |hosts: &[Host]| {
        for (at, host) in hosts.iter().enumerate() {
            assert_all_say(host, 6);
            assert_says(host, "/own", &format!("of host {at}"));
            host.at_rest();
            assert_no_complaint(host);
        }
    };
    check(&start());
    let first = entries(&cache);
    assert_eq!(first.len(), 6 + HOSTS, "{first:?}");
    let hosts = start();
    check(&hosts);
    for host in &hosts {
        assert_eq!(loads(host), (0, 7));
    }
    assert_eq!(entries(&cache), first, "an entry was made anew");
}

/// A host with this many guests. Each answers with its number.
fn host_of_guests(cache: &Path, count: usize) -> Setup {
    let file = |setup: Setup, at: usize| {
        setup.file(&format!("guest-{at}.wat"), wat::says(&format!("I am {at}")))
    };
    let setup = (0..count).fold(Host::empty(), file);
    setup.env("GUESTHOUSE_LOG", "debug").args(PATIENTLY).arg("--cache-dir").arg(cache)
}

#[track_caller]
fn assert_all_say(host: &Host, count: usize) {
    for at in 0..count {
        assert_says(host, &format!("/guest-{at}"), &format!("I am {at}"));
    }
}

/// How many guests a host has compiled, and how many it has loaded from its cache.
fn loads(host: &Host) -> (usize, usize) {
    host.at_rest();
    let count = |how: &str| host.lines().iter().filter(|line| line.has(&["loaded (", how])).count();
    (count("compiled"), count("from the cache"))
}

#[track_caller]
fn assert_no_complaint(host: &Host) {
    let complaint = host.lines().into_iter().find(|it| matches!(it.level(), "WARN" | "ERROR"));
    // Features that the machine lacks are logged at each start.
    let complaint = complaint.filter(|line| line.has(&["cache"]));
    assert!(complaint.is_none(), "{complaint:?}");
}

/// Fills a cache with many guests, changes each entry, and asserts that each guest is served right.
/// Returns the host, and the entries as they were.
#[track_caller]
fn change_each(
    cache: &Path,
    count: usize,
    change: impl Fn(usize, &Path, &[(String, Vec<u8>)]),
) -> Host {
    let host = host_of_guests(cache, count).start();
    assert_all_say(&host, count);
    drop(host);
    let good: Vec<(String, Vec<u8>)> = entries(cache)
        .into_keys()
        .map(|name| {
            let bytes = fs::read(cache.join(&name)).expect("an entry");
            (name, bytes)
        })
        .collect();
    assert_eq!(good.len(), count);
    for (at, (name, _)) in good.iter().enumerate() {
        change(at, &cache.join(name), &good);
    }
    let host = host_of_guests(cache, count).start();
    assert_all_say(&host, count);
    host
}

/// The same, and asserts that the new entries are complete.
#[track_caller]
fn assert_mended(count: usize, change: impl Fn(usize, &Path, &[(String, Vec<u8>)])) {
    let folder = folder();
    let cache = folder.path().join("cache");
    let host = change_each(&cache, count, change);
    assert_eq!(loads(&host), (count, 0));
    assert_no_compilers(&host);
    drop(host);
    let host = host_of_guests(&cache, count).start();
    assert_all_say(&host, count);
    assert_eq!(loads(&host), (0, count));
    assert_no_complaint(&host);
}

#[test]
fn an_entry_of_any_other_length_is_made_anew() {
    // The checksum has 32 bytes, followed by a length of 4 bytes.
    let lengths = [0, 1, 16, 31, 32, 33, 35, 36, 37, 64, 128, 200, 1000, 4096];
    assert_mended(lengths.len() + 4, |at, path, good| {
        let mut bytes = good[at].1.clone();
        match lengths.get(at) {
            Some(length) => bytes.truncate(*length),
            None if at % 2 == 0 => bytes.truncate(bytes.len() - (at - lengths.len() + 1)),
            None => bytes.extend([0; 7]),
        }
        fs::write(path, bytes).expect("an entry");
    });
}

#[test]
fn an_entry_with_any_bit_flipped_is_made_anew() {
    const COUNT: usize = 24;
    assert_mended(COUNT, |at, path, good| {
        let mut bytes = good[at].1.clone();
        // The first changes are in the checksum and in the length, the others spread over the code.
        let place = if at < 8 { at * 5 } else { bytes.len() / COUNT * at };
        bytes[place] ^= 1 << (at % 8);
        fs::write(path, bytes).expect("an entry");
    });
}

/// An intact entry under another entry's name still belongs to another guest.
#[test]
fn an_entry_of_another_guest_is_not_served() {
    const COUNT: usize = 4;
    assert_mended(COUNT, |at, path, good| {
        fs::write(path, &good[(at + 1) % COUNT].1).expect("an entry");
    });
}

/// An entry of another version of wasmtime, with a valid checksum.
#[test]
fn an_entry_of_another_version_is_made_anew() {
    let version = command().arg("--version").output().expect("the program runs").stdout;
    let version = String::from_utf8(version).expect("UTF-8");
    let (_, version) = version.split_once("wasmtime ").expect("it names its version");
    let (major, _) = version.split_once('.').expect("a version");
    // The length is before it.
    let mark = [&[major.len() as u8], major.as_bytes()].concat();
    let folder = folder();
    let host = change_each(&folder.path().join("cache"), 2, |at, path, good| {
        let mut bytes = good[at].1.clone();
        let place = bytes.windows(mark.len()).position(|it| it == mark).expect("a version");
        bytes[place + 1] ^= 1;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let key = blake3::Hash::from_hex(name).expect("it is named by its key");
        let sum = blake3::keyed_hash(key.as_bytes(), &bytes[32..]);
        bytes[..32].copy_from_slice(sum.as_bytes());
        fs::write(path, bytes).expect("an entry");
    });
    assert_eq!(loads(&host), (2, 0));
    host.wait_log_with(&["does not fit and is made anew"]);
    assert_no_complaint(&host);
}

/// Dangling links are replaced. Their targets are not touched.
#[test]
fn a_link_in_place_of_an_entry_is_replaced() {
    let elsewhere = folder();
    let other = elsewhere.path().join("other");
    fs::write(&other, "mine").expect("a file");
    let targets = [other.as_path(), Path::new("/dev/null"), Path::new("/not/there")];
    assert_mended(targets.len(), |at, path, _| {
        fs::remove_file(path).expect("an entry");
        symlink(targets[at], path).expect("a link");
    });
    assert_eq!(fs::read_to_string(&other).expect("a file"), "mine");
}

/// An entry cannot replace a folder, so the guest is compiled each time.
#[test]
fn a_folder_in_place_of_an_entry_is_done_without() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let host = change_each(&cache, 2, |at, path, _| {
        fs::remove_file(path).expect("an entry");
        fs::create_dir(path).expect("a folder");
        if at == 0 {
            fs::write(path.join("mine"), "mine").expect("a file");
        }
    });
    assert_eq!(loads(&host), (2, 0));
    host.wait_log(|line| line.level() == "WARN" && line.has(&["could not write to the cache"]));
    assert_eq!(entries(&cache).len(), 2, "something was left behind");
}

/// The cache folder may be removed while the host runs, with everything in it.
#[test]
fn a_cache_that_goes_away_is_done_without() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let host = host_of_guests(&cache, 2).start();
    assert_all_say(&host, 2);
    fs::remove_dir_all(&cache).expect("a folder");
    fs::write(host.handlers().join("late.wat"), wat::says("late")).expect("a file");
    host.wait_log(|line| line.level() == "WARN" && line.has(&["could not write to the cache"]));
    assert_says(&host, "/late", "late");
    assert_all_say(&host, 2);
    assert_no_compilers(&host);
    host.at_rest();
}

/// In a container each start has the same process id as the one before, which may have been killed
/// while it wrote.
#[test]
fn what_a_killed_host_has_left_unfinished_is_no_obstacle() {
    const LEAVE: &str = r#"cache="$0"; for at in 0 1 2 3 4 5; do
        echo unfinished > "$cache/.$$-$at.tmp"; done; exec "$@""#;
    let folder = folder();
    let cache = folder.path().join("cache");
    fs::DirBuilder::new().mode(0o700).create(&cache).expect("a folder");
    let words = ["sh", "-c", LEAVE, &cache.to_string_lossy()];
    let host = host_of_guests(&cache, 4).through(words).start();
    assert_all_say(&host, 4);
    assert_eq!(loads(&host), (4, 0));
    assert_no_complaint(&host);
    drop(host);
    let host = host_of_guests(&cache, 4).start();
    assert_all_say(&host, 4);
    assert_eq!(loads(&host), (0, 4));
}

/// A prefix for the program that puts its cache on a disk of 64 KiB. `None` if this process is not
/// allowed to mount one.
fn on_a_small_disk(cache: &Path) -> Option<Vec<String>> {
    const MOUNT: &str = r#"mount -t tmpfs -o size=64k,mode=0700 tmpfs "$0" && exec "$@""#;
    // As root, or as root of its own namespace.
    let ways = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let words = |options: &&[&str]| {
        let mut words = vec!["unshare".to_owned()];
        words.extend(options.iter().chain(&["sh", "-c", MOUNT]).map(|word| (*word).to_owned()));
        words.push(cache.to_string_lossy().into_owned());
        words
    };
    let works = |words: &Vec<String>| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ways.iter().map(words).find(works)
}

#[test]
fn a_full_disk_is_done_without() {
    const COUNT: usize = 16;
    let folder = folder();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).expect("a folder");
    let Some(words) = on_a_small_disk(&cache) else {
        // A cache that cannot be written is tested above as well, without this.
        eprintln!("NOT TESTED: a full disk, because no file system can be mounted here");
        return;
    };
    let host = host_of_guests(&cache, COUNT).through(words).start();
    assert_all_say(&host, COUNT);
    let full = host.wait_log(|line| line.level() == "WARN" && line.has(&["No space left"]));
    assert!(full.has(&["could not write to the cache"]), "{}", full.text);
    assert_eq!(loads(&host), (COUNT, 0));
    // Only the host sees the disk. No unfinished file is left on it.
    let pid = host.pid().as_raw_nonzero();
    let inside = entries(Path::new(&format!("/proc/{pid}/root{}", cache.display())));
    assert!(!inside.is_empty() && inside.len() < COUNT, "{inside:?}");
    assert!(!inside.keys().any(|name| name.starts_with('.')), "{inside:?}");
    assert_all_say(&host, COUNT);
    assert_no_compilers(&host);
    host.at_rest();
}
