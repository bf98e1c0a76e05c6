//! Hosts that were started in a terminal, and what they do when the terminal is closed.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::host::{HELLO, program, until};
use crate::patience::patience;

/// A host in a terminal of its own.
struct InTerminal {
    /// The program that is the terminal (util-linux's `script`).
    terminal: Child,
    /// The output in the terminal.
    shown: Lines<BufReader<ChildStdout>>,
    host: Pid,
    _folder: TempDir,
}

impl InTerminal {
    /// Starts a host. `None` if there is no such program. The shell runs `before` and then becomes
    /// the host.
    fn start(before: &str) -> Option<InTerminal> {
        let version = Command::new("script").arg("--version").stdout(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no `script` on this machine");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("good.wat"), HELLO).expect("a file");
        let (program, handlers) = (program(), folder.path().display());
        let command = format!(
            "{before} exec '{}' serve '{handlers}' --listen 127.0.0.1:0 --no-cache --workers 1",
            program.display()
        );
        // If the tests were started with nohup, SIGHUP is ignored, and no shell undoes that.
        let started = Command::new("env")
            .args(["--default-signal=HUP", "script", "-q", "-f", "-c", &command, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut terminal = started.expect("env");
        let shown = BufReader::new(terminal.stdout.take().expect("a pipe")).lines();
        let id = terminal.id();
        let host = until("host", patience(), || child_of(id));
        let mut started = InTerminal { terminal, shown, host, _folder: folder };
        started.wait_shown("listening on");
        Some(started)
    }

    fn wait_shown(&mut self, words: &str) {
        let found = self.shown.by_ref().map_while(Result::ok).any(|line| line.contains(words));
        assert!(found, "the terminal has never shown {words:?}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.host, signal).expect("the host");
    }

    fn close(&mut self) {
        self.terminal.kill().expect("the terminal");
        self.terminal.wait().expect("the terminal");
    }

    /// The state of the host's threads, to find out why it does not end.
    fn say_threads(&self) {
        let folder = format!("/proc/{}/task", self.host.as_raw_nonzero());
        for thread in fs::read_dir(folder).into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            eprintln!("{}, at {}", read("stat").trim_end(), read("wchan"));
        }
    }

    fn runs(&self) -> bool {
        stat(self.host).is_some_and(|(state, _)| !matches!(&*state, "Z" | "X"))
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
        if self.runs() {
            if std::thread::panicking() {
                self.say_threads();
            }
            let _ = kill_process(self.host, Signal::KILL);
        }
    }
}

/// A process's state and its parent (proc_pid_stat(5)).
fn stat(pid: Pid) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn child_of(parent: u32) -> Option<Pid> {
    let names = fs::read_dir("/proc").expect("the processes").flatten();
    let mut pids = names.filter_map(|it| Pid::from_raw(it.file_name().to_str()?.parse().ok()?));
    pids.find(|pid| stat(*pid).is_some_and(|(_, found)| found == parent))
}

#[test]
fn a_host_ends_with_its_terminal() {
    let Some(mut host) = InTerminal::start("") else { return };
    host.signal(Signal::HUP);
    host.wait_shown("SIGHUP: looking for changes");
    host.close();
    until("end of the host", patience(), || (!host.runs()).then_some(()));
}

/// As `nohup` does.
#[test]
fn a_host_that_is_to_outlive_its_terminal_does_so() {
    let Some(mut host) = InTerminal::start("trap '' HUP;") else { return };
    host.close();
    host.signal(Signal::HUP);
    // The host handles the signals in this order.
    host.signal(Signal::USR1);
    assert!(host.runs());
    host.signal(Signal::TERM);
    until("end of the host", patience(), || (!host.runs()).then_some(()));
}
