//! The demo at scale: many synthetic guests, no two alike, and hostile ones among them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{PATIENTLY, assert_no_compilers, assert_says, get, read};
use crate::client::message;
use crate::host::{HELLO, Host, Setup, Status};
use crate::patience::patience;

/// The number of guests in these tests. The last of each hundred is hostile.
const COUNT: usize = 300;

/// The hostile guests, with the status of a GET: two that break, and one that cannot be loaded.
const HOSTILE: [(&str, u16); 3] = [
    ("/hostile/00099-data_out_of_bounds", 503),
    ("/hostile/00199-divide", 500),
    ("/hostile/00299-exit_three", 500),
];

fn demo(folder: &Path) -> Setup {
    let count = COUNT.to_string();
    Host::demo().args(PATIENTLY).args(["--many", count.as_str(), "--many-dir"]).arg(folder)
}

/// Every file below a folder, with metadata that changes when it is rewritten.
fn files(folder: &Path) -> BTreeMap<String, (u64, i64, i64, u64)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let about = entry.metadata().expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if about.is_dir() {
            all.extend(
                files(&entry.path()).into_iter().map(|(it, seen)| (name.clone() + "/" + &it, seen)),
            );
        }
        all.insert(name, (about.ino(), about.mtime(), about.mtime_nsec(), about.len()));
    }
    all
}

/// The answer of a good guest, which is in the last section of its file.
pub fn answer(file: &Path) -> String {
    let bytes = fs::read(file).expect("a guest");
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(64)..]);
    let (_, answer) = text.rsplit_once("\u{6}answer").expect("a section `answer`");
    assert!(answer.starts_with("stranger ") && answer.ends_with('\n'), "{answer:?}");
    answer.to_owned()
}

/// Requests each of the good guests in a folder, on one connection.
#[track_caller]
fn assert_all_good(host: &Host, folder: &Path) {
    let mut connection = host.connect();
    let mut good = 0;
    for at in (0..COUNT).filter(|at| at % 100 != 99) {
        let text = answer(&folder.join(format!("stranger/{at:05}.wasm")));
        connection.send(message("GET", &format!("/stranger/{at:05}"), &[], b""));
        let answer = read(&mut connection);
        assert_eq!((answer.status, answer.text()), (200, text), "{at}");
        good += 1;
    }
    assert_eq!(good, COUNT - COUNT / 100);
}

#[test]
fn many_strangers_answer_right_whatever_the_hostile_ones_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (dir, cache) = (folder.path().join("strangers"), folder.path().join("cache"));
    let host = demo(&dir).arg("--cache-dir").arg(&cache).start();
    // While they are still being loaded.
    for (path, status) in HOSTILE {
        get(&host, path).assert_problem(status);
    }
    assert_all_good(&host, &dir);
    for (path, status) in HOSTILE {
        host.get(path).assert_problem(status);
    }
    // Most guests have changed their state, and nothing of that may be left.
    assert_all_good(&host, &dir);
    let settled = |status: &Status| status.cold + status.loading == 0;
    let status = host.status_when("settled", patience(), settled);
    assert_eq!((status.handlers, status.failed), (COUNT as u64, 1), "{status:?}");
    assert_no_compilers(&host);
    host.at_rest();

    let (before, cached) = (files(&dir), files(&cache));
    assert_eq!(before.len(), COUNT + 3, "guests, two folders and a marker");
    assert_eq!(cached.len(), COUNT - 1);
    drop(host);
    let host = demo(&dir).arg("--cache-dir").arg(&cache).start();
    assert_all_good(&host, &dir);
    host.at_rest();
    assert_eq!(files(&dir), before, "a guest was written anew");
    assert_eq!(files(&cache), cached, "a guest was compiled anew");
}

#[test]
fn another_number_of_strangers_replaces_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("strangers");
    for (count, asked) in [("7", 6), ("3", 2), ("5", 4)] {
        let host =
            Host::demo().args(PATIENTLY).args(["--many", count, "--many-dir"]).arg(&dir).start();
        let path = format!("/stranger/{asked:05}");
        let text = answer(&dir.join(format!("stranger/{asked:05}.wasm")));
        assert_says(&host, &path, &text);
        host.get("/stranger/00007").assert_problem(404);
        let names = fs::read_dir(dir.join("stranger")).expect("a folder").count();
        assert_eq!(names.to_string(), count);
        host.at_rest();
    }
}

/// The program replaces only files that it wrote itself.
#[test]
fn a_folder_of_someone_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("mine");
    fs::create_dir_all(dir.join("stranger")).expect("a folder");
    fs::write(dir.join("stranger/00000.wasm"), HELLO).expect("a file");
    let before = files(&dir);
    let (code, text) = demo(&dir).fails();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is not empty") && text.contains("name another folder"), "{text}");
    assert_eq!(files(&dir), before);
    // This file is not replaced, either.
    let file = folder.path().join("file");
    fs::write(&file, "mine").expect("a file");
    let (code, text) = demo(&file).fails();
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine");
}
