//! Tests of how lines of other crates appear in the log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::{EscapingFormat, LINE_BYTES_MAX};
use crate::config::LogFormat;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that are logged in this format while the function runs.
fn logged(format: LogFormat, run: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
    match format {
        LogFormat::Text => {
            let log = builder.compact().map_event_format(|inner| EscapingFormat { inner, format });
            tracing::subscriber::with_default(log.finish(), run);
        }
        LogFormat::Json => {
            let log = builder.json().map_event_format(|inner| EscapingFormat { inner, format });
            tracing::subscriber::with_default(log.finish(), run);
        }
    }
    let bytes = lines.0.lock().expect("no writer panics").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_line_of_another_crate_is_escaped_and_cut() {
    let evil = format!("a\nWARN b\x1b[31m\u{202e}{}", "x".repeat(64 << 10));
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, || {
            tracing::warn!(target: "hyper_util::client", "stripping path: {evil}");
            tracing::warn!(target: "guesthouses", path = %evil, "another");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        for line in text.lines() {
            assert!(line.len() < LINE_BYTES_MAX + 500, "{} bytes", line.len());
            assert!(!line.contains(['\x1b', '\u{202e}']), "{line}");
            assert!(line.contains("more bytes"), "{line}");
        }
    }
}

#[test]
fn json_of_another_crate_stays_json() {
    let long = "\"\\\n".repeat(2_000);
    for what in ["short \"\n", &long] {
        let text = logged(LogFormat::Json, || {
            tracing::info!(target: "h2::frame", "{what}");
        });
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "h2::frame");
    }
}

#[test]
fn the_hosts_own_lines_are_left_alone() {
    let long = "y".repeat(3 * LINE_BYTES_MAX);
    let text = logged(LogFormat::Text, || {
        tracing::warn!(target: "guesthouse::serve", "{long}");
        tracing::warn!(target: "guesthouse_bench", "{long}");
        tracing::warn!(target: "handler", "{long}");
    });
    assert_eq!(text.matches(&long).count(), 3);
}
