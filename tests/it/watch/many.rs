//! Ten thousand files at once.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::{ask, beside, errors, footprint, path, wait_footprint, wait_for};
use crate::host::{Host, until};
use crate::patience::patience;
use crate::wat;

const FILES: usize = 10_000;
/// Half of them come in a folder that is moved there, the others one by one.
const MOVED: usize = FILES / 2;
/// The number of different contents. The same contents are compiled once.
const KINDS: usize = 200;

/// A module in which a number of five digits is filled in.
struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    fn new() -> Template {
        let bytes = ::wat::parse_str(wat::says("#####")).expect("a module");
        let at = bytes.windows(5).position(|it| it == b"#####").expect("its data");
        Template { bytes, at }
    }

    fn write(&mut self, path: &Path, number: usize) {
        self.bytes[self.at..][..5].copy_from_slice(format!("{number:05}").as_bytes());
        fs::write(path, &self.bytes).expect("a file");
    }
}

/// The path of a handler below the handler folder.
fn name(number: usize) -> String {
    let folder = if number < MOVED { "moved" } else { "single" };
    format!("{folder}/{}/{number:05}", number % 10)
}

#[test]
fn ten_thousand_files_come_and_go_and_nobody_waits_for_them() {
    let host = Host::with("hello.wat", wat::says("hi")).start();
    host.settled();
    host.assert_serves("/hello");
    let before = footprint(&host);
    let mut template = Template::new();
    let staged = beside(&host, "moved");
    for tens in 0..10 {
        fs::create_dir_all(staged.join(tens.to_string())).expect("folders");
        fs::create_dir_all(path(&host, &format!("single/{tens}"))).expect("folders");
    }
    for number in 0..FILES {
        let file = format!("{}.wasm", name(number));
        let folder = if number < MOVED { staged.with_file_name("") } else { host.handlers() };
        template.write(&folder.join(file), number % KINDS);
    }
    // The last of all, for which the cache has nothing.
    let last = name(MOVED - 1);
    template.write(&staged.with_file_name(format!("{last}.wasm")), 99_999);
    fs::rename(staged, path(&host, "moved")).expect("a rename");
    let began = Instant::now();
    wait_for(&host, &format!("/{last}"), "99999");
    let took = began.elapsed();
    let status = host.status();
    let waiting = status.cold + status.loading;
    assert!(waiting > 1000, "it came with the others, after {took:?}: {status:?}");
    assert_eq!(ask(&host, "/hello"), "hi");

    let all = FILES as u64 + 1;
    let loaded = |status: &crate::host::Status| status.handlers == all && status.ready == all;
    let status = host.status_when("loaded", patience() * 2, loaded);
    assert_eq!(status.failed, 0, "{status:?}");
    let mut connection = host.connect();
    for number in (0..FILES).step_by(37) {
        let answer = connection.get(&format!("/{}", name(number)));
        assert_eq!(answer.text(), format!("{:05}", number % KINDS), "{number}");
    }
    drop(connection);

    fs::remove_dir_all(path(&host, "moved")).expect("the folder");
    fs::rename(path(&host, "single"), beside(&host, "single")).expect("a rename");
    let alone = |status: &crate::host::Status| status.handlers == 1;
    host.status_when("alone", patience(), alone);
    for number in (0..FILES).step_by(997) {
        assert_eq!(ask(&host, &format!("/{}", name(number))), "404");
    }
    assert_eq!(ask(&host, "/hello"), "hi");
    assert_eq!(errors(&host, &[]), 0);
    let status = until("an end of instances", patience(), || {
        // The instances of guests that are gone are dropped at the next tick.
        Some(host.at_rest()).filter(|status| status.instances_ready <= 2)
    });
    assert!(status.rejects.keys().all(|reason| reason == "no_route"), "{status:?}");
    wait_footprint(&host, before);
}
