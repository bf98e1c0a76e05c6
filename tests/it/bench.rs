//! `guesthouse bench`: that its numbers are right, and what it reports of servers that misbehave.
//!
//! The servers are stubs with a script, so a test knows their delays and mistakes; or the demo. On
//! a busy machine everything takes longer, so times have exact lower bounds, and generous upper
//! ones.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::command;
use crate::patience::patience;

mod beside;
mod claims;
mod demo;
mod failures;
mod figure_names;
mod figures;
mod framing;
mod mistakes;
mod reports;
mod rounds;
mod scenarios;
mod sending;
mod stub;
mod tables;
mod usage;

/// The most time for one call. The longest ones do some seconds of work.
fn one_call() -> Duration {
    patience() * 2
}

/// A call of `guesthouse bench` in a folder of its own.
struct Bench {
    dir: TempDir,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

/// A call that has not ended yet.
struct Running {
    dir: TempDir,
    child: Child,
}

/// The outcome of a call.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
    /// The JSON report. `Null` if none was written.
    json: Value,
    /// The peak of the resident memory.
    peak_kib: u64,
    dir: TempDir,
}

/// The JSON report of one target.
#[derive(Clone, Copy)]
struct Target<'a>(&'a Value);

/// A call for a scenario of a test.
fn scenario(text: &str) -> Bench {
    Bench::new(["--scenario", "test.toml"]).file("test.toml", text)
}

impl Bench {
    /// A call with one round of 300 ms, unless the arguments or a scenario say otherwise.
    fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Bench {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Bench { dir, args: Vec::new(), env: Vec::new() }.args(args)
    }

    fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Bench {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Bench {
        self.env.push((name, value.into()));
        self
    }

    /// Writes a file into the folder of the call.
    fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Bench {
        fs::write(self.dir.path().join(name), contents).expect("a file");
        self
    }

    /// Runs the call to its end.
    #[track_caller]
    fn run(self) -> Outcome {
        self.start().end()
    }

    fn start(self) -> Running {
        let is_given = |flag: &str| self.args.iter().any(|arg| arg == flag);
        let folder = self.dir.path();
        let mut command = command();
        command.current_dir(folder).arg("bench").args(&self.args);
        for (flag, value) in [("--json", "run.json"), ("--duration", "300ms"), ("--rounds", "1")] {
            let is_told = is_given("--figures")
                || is_given("--tables")
                || (flag != "--json" && is_given("--scenario"));
            if !is_given(flag) && !is_told {
                command.arg(flag).arg(value);
            }
        }
        let file = |name| File::create(folder.join(name)).expect("a file");
        command.stdout(file("stdout")).stderr(file("stderr")).env("COLUMNS", "100");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().expect("the program starts");
        Running { dir: self.dir, child }
    }
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// A number of the process from the kernel. `None` once it has ended.
    fn status(&self, key: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    #[track_caller]
    fn end(mut self) -> Outcome {
        let (status, peak_kib) = self.wait();
        let read = |name: &str| {
            let bytes = fs::read(self.dir.path().join(name)).expect("its output");
            String::from_utf8(bytes).expect("UTF-8")
        };
        let json = fs::read(self.dir.path().join("run.json")).unwrap_or_default();
        Outcome {
            code: status.code(),
            out: read("stdout"),
            err: read("stderr"),
            json: serde_json::from_slice(&json).unwrap_or_default(),
            peak_kib,
            dir: self.dir,
        }
    }

    #[track_caller]
    fn wait(&mut self) -> (ExitStatus, u64) {
        let deadline = Instant::now() + one_call();
        let mut peak_kib = 0;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                return (status, peak_kib);
            }
            peak_kib = self.status("VmHWM:").unwrap_or(peak_kib);
            sleep(Duration::from_millis(2));
        }
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child of this process");
        panic!("it did not end in {:?}", one_call());
    }
}

impl Outcome {
    fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// All output, for the message of a failed test.
    fn text(&self) -> String {
        format!("exit code {:?}\n-- stdout\n{}-- stderr\n{}", self.code, self.out, self.err)
    }

    /// Asserts that every request was answered, and that the report has no complaint.
    #[track_caller]
    fn assert_good(&self) {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.text());
        for target in self.targets() {
            assert_eq!(target.errors("total"), 0, "{}", self.text());
            assert!(target.samples() > 0, "{}", self.text());
        }
    }

    fn cases(&self) -> &[Value] {
        self.json["cases"].as_array().map_or(&[], |cases| cases)
    }

    /// The targets of all cases.
    fn targets(&self) -> Vec<Target<'_>> {
        let lists = self.cases().iter().filter_map(|case| case["targets"].as_array());
        lists.flatten().map(Target).collect()
    }

    /// The target, if there is one only.
    #[track_caller]
    fn target(&self) -> Target<'_> {
        let [target] = self.targets()[..] else { panic!("{}", self.text()) };
        target
    }

    /// The target with a name that ends like this.
    #[track_caller]
    fn target_named(&self, name: &str) -> Target<'_> {
        let found = self.targets().into_iter().find(|target| target.name().ends_with(name));
        found.unwrap_or_else(|| panic!("no {name}: {}", self.text()))
    }
}

impl<'a> Target<'a> {
    fn name(self) -> &'a str {
        self.0["name"].as_str().expect("a name")
    }

    /// A number of the summary.
    #[track_caller]
    fn get(self, key: &str) -> f64 {
        self.find(key).unwrap_or_else(|| panic!("no {key}: {:#}", self.0["summary"]))
    }

    fn find(self, key: &str) -> Option<f64> {
        self.0["summary"][key].as_f64()
    }

    #[track_caller]
    fn errors(self, kind: &str) -> u64 {
        self.0["summary"]["errors"][kind].as_u64().expect("a count")
    }

    /// The number of latencies.
    #[track_caller]
    fn samples(self) -> u64 {
        self.0["samples"].as_u64().expect("a count")
    }

    /// All notes, joined.
    fn notes(self) -> String {
        let notes = self.0["notes"].as_array().expect("a list");
        notes.iter().map(|note| format!("{}\n", note.as_str().expect("a text"))).collect()
    }

    fn rounds(self) -> &'a [Value] {
        self.0["rounds"].as_array().expect("a list")
    }
}

/// Asserts that a number is in a range. `what` names it.
#[track_caller]
fn assert_within(what: &str, value: f64, low: f64, high: f64) {
    assert!((low..=high).contains(&value), "{what} is {value}, which is not in {low}..={high}");
}
