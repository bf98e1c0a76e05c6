//! The stderr of a host, collected line by line by a thread.
//!
//! For a host that logs for minutes, only the last lines are kept.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The number of lines that are kept.
const LINES_MAX: usize = 20_000;

/// One line of stderr.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line as it was written.
    pub text: String,
    /// The JSON of the log. `Null` if the line is not one of the log, such as a panic.
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
    lines: VecDeque<Line>,
    /// The number of lines that were dropped.
    forgotten: usize,
    has_panic: bool,
    is_ended: bool,
}

impl Line {
    fn new(text: String) -> Line {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Line { text, json }
    }

    /// The message of the log. The whole line if it is not one of the log.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or(&self.text)
    }

    /// `ERROR`, `WARN` or `INFO`. Empty if the line is not one of the log.
    pub fn level(&self) -> &str {
        self.json["level"].as_str().unwrap_or_default()
    }

    /// Whether it contains all these words, in any field.
    pub fn has(&self, words: &[&str]) -> bool {
        let fields = self.json.as_object().into_iter().flat_map(|it| it.values());
        let texts: Vec<&str> = fields.filter_map(Value::as_str).collect();
        let has = |word: &&str| {
            self.text.contains(*word) || texts.iter().any(|text| text.contains(*word))
        };
        words.iter().all(has)
    }
}

impl LogState {
    fn push(&mut self, line: Line) {
        // A thread that panics takes its connections with it, which no answer shows.
        self.has_panic |= line.json.is_null() && line.text.contains("panicked at");
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        self.lines.push_back(line);
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
                collected.lock().push(Line::new(text));
                collected.grown.notify_all();
            }
            collected.lock().is_ended = true;
            collected.grown.notify_all();
        });
        log
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.iter().cloned().collect()
    }

    /// The number of lines so far.
    pub fn count(&self) -> usize {
        let state = self.lock();
        state.forgotten + state.lines.len()
    }

    /// Whether stderr has been closed.
    pub fn is_ended(&self) -> bool {
        self.lock().is_ended
    }

    /// Whether a thread of the host has panicked.
    pub fn has_panic(&self) -> bool {
        self.lock().has_panic
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The first wanted line from `start` on, which is a [`Log::count`]; or why there is none.
    pub fn wait(
        &self,
        start: usize,
        patience: Duration,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<Line, String> {
        let deadline = Instant::now() + patience;
        let mut seen = start;
        let mut state = self.lock();
        loop {
            let unseen = seen.saturating_sub(state.forgotten);
            if let Some(line) = state.lines.iter().skip(unseen).find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            seen = state.forgotten + state.lines.len();
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
