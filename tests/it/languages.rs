//! Guests in Python and JavaScript, built by their recipes: `guests/python/build.sh` and
//! `guests/javascript/build.sh`.
//!
//! The tools may be missing. Then a test says what is missing and passes; with
//! `GUESTHOUSE_TOOLCHAINS=1` in the environment, as in CI, it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::client::message;
use crate::host::{HELLO, Host, Status, command};
use crate::patience::patience;

/// The most time for large guests to compile, at a low priority.
fn compiling() -> Duration {
    patience() * 15
}

/// A language, and what is known about the memory of its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    JavaScript,
}

use Language::{JavaScript, Python};

impl Language {
    fn name(self) -> &'static str {
        match self {
            Python => "python",
            JavaScript => "javascript",
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Python => "py",
            JavaScript => "js",
        }
    }

    /// The text that an uncaught exception writes to the log.
    fn complaint(self) -> &'static str {
        match self {
            Python => "ValueError: it was asked to fail",
            JavaScript => "it was asked to fail",
        }
    }

    /// The bytes by which two guests that have served thousands of requests may still grow. A
    /// runtime with reference counting settles early; a garbage collector lets the heap grow once,
    /// by some tens of MiB.
    fn grows_by(self) -> u64 {
        match self {
            Python => 8 << 20,
            JavaScript => 64 << 20,
        }
    }

    /// The folder of its sources.
    fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(self.name())
    }

    /// Its guests, built once for all tests. `None` if they cannot be built.
    fn guests(self) -> Option<&'static [(&'static str, Vec<u8>)]> {
        static PYTHON: OnceLock<Guests> = OnceLock::new();
        static JAVASCRIPT: OnceLock<Guests> = OnceLock::new();
        let built = match self {
            Python => &PYTHON,
            JavaScript => &JAVASCRIPT,
        };
        match built.get_or_init(|| self.build()) {
            Ok(guests) => Some(guests),
            Err(reason) => {
                skip(&format!("the guests in {self:?} are not built: {reason}"));
                None
            }
        }
    }

    /// Builds the guests. Those that are newer than their sources are kept, so that later runs are
    /// short.
    fn build(self) -> Guests {
        let newest = sources(&self.folder());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(self.name());
        let mut guests = Vec::new();
        for name in ["hello", "fib", "probe"] {
            let out = target.join(name).with_extension("wasm");
            let is_current =
                fs::metadata(&out).and_then(|it| it.modified()).is_ok_and(|at| at > newest);
            if !is_current {
                let source = self.folder().join(name).with_extension(self.ending());
                let mut recipe = Command::new(self.folder().join("build.sh"));
                let done = recipe.arg(&source).arg(&out).output();
                let done = done.map_err(|error| format!("the recipe does not start: {error}"))?;
                if !done.status.success() {
                    return Err(String::from_utf8_lossy(&done.stderr).into_owned());
                }
            }
            let wasm = fs::read(&out).map_err(|error| format!("{}: {error}", out.display()))?;
            guests.push((name, wasm));
        }
        Ok(guests)
    }

    /// A host that has loaded its guests. `None` if they cannot be built.
    fn start(self, isolation: &str) -> Option<Host> {
        let mut setup = Host::demo();
        for (name, wasm) in self.guests()? {
            setup = setup.file(&format!("{}/{name}.wasm", self.name()), wasm);
        }
        // The cache is kept for the next host. Compiling takes long.
        static COMPILING: Mutex<()> = Mutex::new(());
        let _one_host = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages/compiled");
        let cache = cache.to_str().expect("a path in UTF-8");
        let host = setup
            .args(["--isolation", isolation, "--workers", "1"])
            .args(["--compile-max", "10m", "--cache-dir", cache])
            .start();
        let is_loaded = |status: &Status| status.cold == 0 && status.loading == 0;
        host.status_when("loaded", compiling(), is_loaded);
        Some(host)
    }

    fn path(self, rest: &str) -> String {
        format!("/{}/{rest}", self.name())
    }
}

type Guests = Result<Vec<(&'static str, Vec<u8>)>, String>;

/// The time of the newest file in a folder.
fn sources(folder: &Path) -> SystemTime {
    let files = fs::read_dir(folder).expect("the sources of the guests");
    let times = files.map(|file| {
        let file = file.expect("a file").path();
        if file.is_dir() { sources(&file) } else { written(&file) }
    });
    times.max().expect("a folder with files")
}

fn written(file: &Path) -> SystemTime {
    fs::metadata(file).and_then(|about| about.modified()).expect("the time of a file")
}

/// Whether a test that cannot run has to fail.
fn is_complete() -> bool {
    std::env::var_os("GUESTHOUSE_TOOLCHAINS").is_some_and(|value| value == "1")
}

/// Says that a test does not run, and why. Fails if all tests have to run.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(!is_complete(), "{reason}");
    eprintln!("skipped: {reason}");
}

/// In both modes of isolation: the same bytes as the native twins, and as the guests in Rust if a
/// request is refused.
fn answers_as_its_twin(language: Language) {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = language.start(isolation) else { return };
        for rest in [
            "hello",
            "hello/",
            "hello?x",
            "fib/0",
            "fib/1",
            "fib/20",
            "fib/20?n=/41&7",
            "fib",
            "fib/",
            "fib/41",
            "fib/007",
            "fib/+5",
            "fib/-1",
            "fib/3/4",
            "fib/%33",
            "fib/0x3",
            "fib/99999999999999999999",
            "fib/%D9%A3",
        ] {
            // Twice, so that the second request finds a used instance.
            for _ in 0..2 {
                let path = language.path(rest);
                let (guest, twin) = (host.get(&path), host.get(&format!("/native/{rest}")));
                assert_eq!(guest.status, twin.status, "{isolation} {path}: {guest:?}");
                assert_eq!(guest.text(), twin.text(), "{isolation} {path}");
                let name = "content-type";
                assert_eq!(guest.header(name), twin.header(name), "{isolation} {path}");
            }
        }
        let head = host.connect().request("HEAD", &language.path("hello"), &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        host.at_rest();
    }
}

fn takes_and_gives_bodies(language: Language) {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = language.start(isolation) else { return };
        let body: Vec<u8> =
            (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for size in [0, 1, 4096, 4097, body.len()] {
            let echo = host.request("POST", &language.path("probe/echo"), &[], &body[..size]);
            assert_eq!(echo.status, 200, "{isolation} {size}");
            assert!(echo.body == body[..size], "{isolation} {size}: {} bytes", echo.body.len());
            let length = host.request("POST", &language.path("probe/length"), &[], &body[..size]);
            assert_eq!(length.text(), size.to_string(), "{isolation}");
        }
        let mut chunked = host.connect();
        let path = language.path("probe/echo");
        chunked.send(format!(
            "POST {path} HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        chunked.send("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(chunked.read_to("POST").text(), "hello");
        assert_eq!(host.get(&language.path("probe/long")).body, b"0123456789".repeat(10_000));
        host.at_rest();
    }
}

/// Exceptions, early and late, and a full heap: each is a 500 with its cause in the log, and an
/// instance without traces of it answers the next request.
fn an_exception_is_a_500(language: Language) {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = language.start(isolation) else { return };
        for what in ["fail", "fail-late", "no-such-behaviour", "allocate"] {
            host.assert_serves(&language.path("probe/say"));
            host.at_rest();
            let mut connection = host.connect();
            let path = language.path(&format!("probe/{what}"));
            connection.send(message("GET", &path, &[], b""));
            match connection.next("GET") {
                Ok(Some(answer)) => {
                    assert_eq!(answer.status, 500, "{isolation} {what}: {answer:?}");
                    assert!(!answer.text().contains("asked to fail"), "{}", answer.text());
                }
                // Bytes that were sent cannot be taken back, but the answer is visibly cut off.
                Err(error) => assert!(what == "fail-late", "{isolation} {what}: {error}"),
                Ok(None) => panic!("{isolation} {what}: no answer"),
            }
            let count = host.get(&language.path("probe/count")).text();
            assert_eq!(count, "1", "{isolation}: an instance whose call ended badly is used");
            host.at_rest();
        }
        for said in [language.complaint(), "said on stdout", "said on stderr"] {
            let guest = language.path("probe");
            host.wait_log_with(&[said, guest.trim_start_matches('/')]);
        }
    }
}

/// Under `reuse` alone the next request sees what an instance has seen. Random numbers come from
/// the host: no state of them was frozen at the build.
fn isolation_holds(language: Language) {
    for isolation in ["fresh", "reuse"] {
        let Some(host) = language.start(isolation) else { return };
        let text = |rest: &str| {
            let text = host.get(&language.path(rest)).text();
            // An instance that comes back late is not there for the next request.
            host.at_rest();
            text
        };
        let counts: Vec<String> = (0..4).map(|_| text("probe/count")).collect();
        let expected = if isolation == "fresh" { ["1"; 4] } else { ["1", "2", "3", "4"] };
        assert_eq!(counts, expected, "{isolation}");
        let secrets: Vec<String> = (0..4).map(|_| text("probe/secret")).collect();
        for (at, secret) in secrets.iter().enumerate() {
            assert!(secret.len() >= 16 && !secrets[..at].contains(secret), "{secrets:?}");
        }
    }
}

/// Thousands of requests to one instance: neither the guest nor the host's memory for it grows.
fn memory_stays_flat(language: Language) {
    let Some(host) = language.start("reuse") else { return };
    let (hello, echo) = (language.path("hello"), language.path("probe/echo"));
    let serve = |rounds: usize| {
        let mut connection = host.connect();
        for _ in 0..rounds {
            assert_eq!(connection.get(&hello).text(), "Hello, World!");
            assert_eq!(connection.request("POST", &echo, &[], b"back").text(), "back");
        }
        host.at_rest();
        host.rss_bytes()
    };
    let mut seen = vec![serve(5_000)];
    // A heap that grows once has not leaked. A leak grows each time.
    let flat = (0..3).any(|_| {
        seen.push(serve(10_000));
        seen[seen.len() - 1].saturating_sub(seen[seen.len() - 2]) < language.grows_by()
    });
    assert!(flat, "bytes after each 20,000 requests more: {seen:?}");
    // The instance is not renewed for leaks, either, because the guests free what they took. (A
    // guest that reads bodies leaks a little now and then, and is renewed after a thousand of
    // them.)
    let spent = || host.at_rest().instances("spent");
    let before = spent();
    let count = language.path("probe/count");
    (0..1_000).for_each(|_| assert_eq!(host.get(&count).status, 200));
    assert_eq!(spent(), before, "new instances for 1,000 requests");
}

/// The messages of the recipes for users who do not have the tools.
#[test]
fn a_missing_tool_is_named() {
    for (language, tool) in [(Python, "python3"), (JavaScript, "node")] {
        let bin = tempfile::tempdir().expect("a folder");
        for name in ["bash", "env", "dirname", "realpath"] {
            let found = ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(name));
            let found = found.into_iter().find(|path| path.exists()).expect("a basic program");
            std::os::unix::fs::symlink(found, bin.path().join(name)).expect("a link");
        }
        let mut recipe = Command::new(language.folder().join("build.sh"));
        let done = recipe.env("PATH", bin.path()).output().expect("the recipe starts");
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("there is no {tool}; install")), "{told}");
    }
}

/// The output of `new` builds by exactly the commands that it prints, and serves.
fn a_new_project_builds_and_serves(language: Language) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut new = command();
    new.current_dir(folder.path()).args(["new", language.name(), "greeter"]);
    let done = new.output().expect("the program runs");
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}{}", String::from_utf8_lossy(&done.stderr));
    let again = new.output().expect("the program runs");
    let refused = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{refused}");
    assert!(refused.contains("already there"), "{refused}");
    if !is_complete() {
        return skip("a new project fetches its tools; GUESTHOUSE_TOOLCHAINS=1 has it built");
    }
    let next = told.lines().skip_while(|line| *line != "Next:").skip(2);
    let commands = next.take_while(|line| !line.is_empty() && !line.contains(" serve "));
    for line in commands {
        let mut shell = Command::new("sh");
        let done = shell.current_dir(folder.path()).args(["-c", line]).output().expect("a shell");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {told}");
    }
    let wasm = fs::read(folder.path().join("handlers/greeter.wasm")).expect("what was built");
    let host = Host::with("greeter.wasm", wasm).args(["--compile-max", "10m"]).start();
    let is_loaded = |status: &Status| status.cold == 0 && status.loading == 0;
    host.status_when("loaded", compiling(), is_loaded);
    let answer = host.get("/greeter");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, World!\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let refused = host.request("POST", "/greeter", &[], b"body");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    host.at_rest();
}

/// The demo serves the folder that it is given, beside its own guests.
#[test]
fn the_demo_serves_the_folder_that_it_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("python")).expect("a folder");
    fs::write(folder.path().join("python/hello.wat"), HELLO).expect("a file");
    let also = folder.path().to_str().expect("a path in UTF-8");
    let host = Host::demo().args(["--also", also]).start();
    for path in ["/hello", "/python/hello", "/native/hello"] {
        assert_eq!(host.get(path).text(), "Hello, World!", "{path}");
    }
    // It is watched like any folder of handlers.
    fs::write(folder.path().join("later.wat"), HELLO).expect("a file");
    host.wait_log_with(&["later.wat", "a new route"]);
    host.assert_serves("/later");
    let done = command().args(["demo", "--also", "no-such-folder"]).output().expect("it ends");
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("no-such-folder"), "{told}");
}

macro_rules! tests {
    ($module:ident, $language:expr) => {
        mod $module {
            #[test]
            fn answers_as_its_twin() {
                super::answers_as_its_twin($language);
            }

            #[test]
            fn takes_and_gives_bodies() {
                super::takes_and_gives_bodies($language);
            }

            #[test]
            fn an_exception_is_a_500() {
                super::an_exception_is_a_500($language);
            }

            #[test]
            fn isolation_holds() {
                super::isolation_holds($language);
            }

            #[test]
            fn a_new_project_builds_and_serves() {
                super::a_new_project_builds_and_serves($language);
            }

            #[test]
            fn memory_stays_flat() {
                super::memory_stays_flat($language);
            }
        }
    };
}

tests!(python, super::Python);
tests!(javascript, super::JavaScript);
