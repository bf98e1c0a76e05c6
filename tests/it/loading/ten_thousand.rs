//! Ten thousand handlers with an empty cache. Fifty clients request each of them once, and one in a
//! hundred misbehaves.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use super::many::answer;
use super::read;
use crate::client::message;
use crate::host::Host;
use crate::random::Xorshift;

const HANDLERS: usize = 10_000;
const HOSTILE: usize = HANDLERS / 100;
const CONNECTIONS: usize = 50;
/// A guest that never ends is stopped soon. Requests that wait for a load have more time, because
/// the machine may be busy.
const LIMITS: [&str; 4] = ["--cpu-max", "1s", "--deadline", "45s"];

/// The paths of the files in a folder below the handler folder.
fn paths(folder: &Path, kind: &str) -> Vec<String> {
    let files = fs::read_dir(folder.join(kind)).expect("a folder").flatten();
    let name = |file: fs::DirEntry| {
        let path = file.path();
        format!("/{kind}/{}", path.file_stem().expect("a name").to_string_lossy())
    };
    files.map(name).collect()
}

/// Requests the paths, one after another, until none is left.
fn ask(host: &Host, folder: &Path, paths: &Mutex<Vec<String>>) {
    let mut connection = host.connect();
    let next = || paths.lock().expect("no other has panicked").pop();
    while let Some(path) = next() {
        if path.starts_with("/hostile/") {
            // Any result is fine.
            let mut connection = host.connect();
            connection.send(message("GET", &path, &[], b""));
            let _ = connection.next("GET");
            continue;
        }
        connection.send(message("GET", &path, &[], b""));
        let found = read(&mut connection);
        let expected = answer(&folder.join(format!("{}.wasm", &path[1..])));
        assert_eq!((found.status, found.text()), (200, expected), "{path}");
    }
}

#[test]
fn ten_thousand_handlers_are_each_asked_for_once_and_every_good_one_answers_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("many");
    let count = HANDLERS.to_string();
    let host = Host::demo().args(["--many", &count, "--many-dir"]).arg(&dir).args(LIMITS).start();
    let (mut all, mut random) = (paths(&dir, "stranger"), Xorshift(42));
    assert_eq!(all.len(), HANDLERS - HOSTILE);
    all.extend(paths(&dir, "hostile"));
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at + 1));
    }
    let (began, all) = (Instant::now(), Mutex::new(all));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| ask(&host, &dir, &all));
        }
    });
    let took = began.elapsed();
    let status = host.status();
    // Written past the test harness, which hides the output of a test that passes.
    let line = format!(
        "{HANDLERS} handlers, nothing compiled before: each asked for once in {:.1} s; {} of {} \
         mappings\n",
        took.as_secs_f64(),
        status.mappings_used,
        status.mappings_max
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(status.mappings_used < status.mappings_max, "{status:?}");
    assert!(status.failed <= HOSTILE as u64, "{status:?}");
    assert_eq!((status.rejects("no_instance"), status.rejects("panic")), (0, 0), "{status:?}");
}
