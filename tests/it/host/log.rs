//! The lines that a host writes to stderr, collected by a thread as they come.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One line of stderr.
#[derive(Clone, Debug)]
pub struct Line {
    /// As it was written.
    pub text: String,
    /// What was logged; `Null` for a line that is not of the log (a panic).
    pub json: Value,
}

/// The lines of a child's stderr, collected by a thread that ends with it.
#[derive(Default)]
pub struct Log {
    state: Mutex<LogState>,
    grown: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<Line>,
    is_ended: bool,
}

impl Line {
    fn new(text: String) -> Line {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Line { text, json }
    }

    /// What was logged; the whole line if it is not of the log.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or(&self.text)
    }

    /// `ERROR`, `WARN`, `INFO`; empty if the line is not of the log.
    pub fn level(&self) -> &str {
        self.json["level"].as_str().unwrap_or_default()
    }

    /// Whether all these words are in it, in any field.
    pub fn has(&self, words: &[&str]) -> bool {
        let fields = self.json.as_object().into_iter().flat_map(|it| it.values());
        let texts: Vec<&str> = fields.filter_map(Value::as_str).collect();
        let has = |word: &&str| {
            self.text.contains(*word) || texts.iter().any(|text| text.contains(*word))
        };
        words.iter().all(has)
    }
}

impl Log {
    pub fn collect(child: &mut Child) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let collected = log.clone();
        std::thread::spawn(move || {
            for bytes in stderr.split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                collected.lock().lines.push(Line::new(text));
                collected.grown.notify_all();
            }
            collected.lock().is_ended = true;
            collected.grown.notify_all();
        });
        log
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The first line from `start` on which is as wanted, with its index; or why there is none.
    pub fn wait(
        &self,
        start: usize,
        patience: Duration,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<(usize, Line), String> {
        let deadline = Instant::now() + patience;
        let mut seen = start;
        let mut state = self.lock();
        loop {
            if let Some(at) = state.lines[seen..].iter().position(&wanted) {
                return Ok((seen + at, state.lines[seen + at].clone()));
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.is_ended || left.is_zero() {
                let why = if state.is_ended { "stderr ended" } else { "time is up" };
                drop(state);
                return Err(format!("{why}; the log:\n{}", self.text()));
            }
            let woken = self.grown.wait_timeout(state, left);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    pub fn text(&self) -> String {
        let state = self.lock();
        let lines: Vec<&str> = state.lines.iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }
}
