//! The log on stderr: text or JSON lines, written by a thread of its own.
//!
//! A slow or stuck stderr never blocks a worker: what does not fit into the queue is dropped and
//! counted. Text from outside (guests, clients, file contents) goes through [`escape`] before it
//! is logged; this module cannot tell it from the host's own. Lines of other crates go through it
//! as a whole.

mod foreign;

mod quota;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use quota::Quota;

use crate::config::{LogFormat, Mistakes};
use foreign::Guarded;

/// The environment variable that chooses what is logged, in the syntax of `EnvFilter`.
pub const FILTER: &str = "GUESTHOUSE_LOG";

/// Lines waiting for stderr. Guest lines are bounded by [`escape`], so this bounds memory.
const QUEUE_LINES_MAX: usize = 8192;
/// Bytes of the longest character in UTF-8.
const CHAR_BYTES_MAX: usize = 4;

/// Keeps the log alive. Dropping it writes what is queued, for about a second at most.
pub struct Guard {
    _writer: WorkerGuard,
}

/// Sends `tracing` to stderr for the rest of the process, down to `level` unless
/// `GUESTHOUSE_LOG` says otherwise. To be called once.
pub fn start(format: LogFormat, level: &str) -> Result<Guard, Mistakes> {
    let filter = filter(level)?;
    let counter = Arc::new(OnceLock::new());
    let stderr = Stderr { lost: counter.clone(), lines_reported: 0 };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES_MAX)
        .thread_name("log")
        .finish(io::BufWriter::new(stderr));
    counter.get_or_init(|| writer.error_counter());
    install(format, filter, writer);
    Ok(Guard { _writer: guard })
}

/// The same without a thread, for a process whose stderr never keeps it waiting: each line is
/// written by whoever has it to say.
pub fn start_unthreaded(format: LogFormat, level: &str) -> Result<(), Mistakes> {
    install(format, filter(level)?, io::stderr);
    Ok(())
}

fn install<W>(format: LogFormat, filter: EnvFilter, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let installed = match format {
        LogFormat::Text => log
            .with_ansi(is_colourful())
            .with_target(false)
            .compact()
            .map_event_format(|inner| Guarded { inner, format })
            .try_init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|inner| Guarded { inner, format })
            .try_init(),
    };
    installed.expect("the log is started once, before anything else could install a subscriber");
}

/// `text` made safe for one line of a log or a terminal, in at most `bytes_max` bytes, not
/// counting the note `…(N more bytes)` about input that did not fit.
///
/// Line breaks, control characters, marks that change the direction of writing and invalid UTF-8
/// become `\n`, `\x1b`, `\u{202e}` or `\xff`; a backslash becomes two.
pub fn escape(text: &[u8], bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    let mut done = 0;
    // Each byte becomes one or more, so that what is behind these is never reached; one character
    // may be cut in two at their end.
    let seen = text.get(..bytes_max + CHAR_BYTES_MAX).unwrap_or(text);
    for chunk in seen.utf8_chunks() {
        for c in chunk.valid().chars() {
            let start = line.len();
            push(&mut line, c);
            if line.len() > bytes_max {
                line.truncate(start);
                return cut(line, text.len() - done);
            }
            done += c.len_utf8();
        }
        for byte in chunk.invalid() {
            if line.len() + r"\xff".len() > bytes_max {
                return cut(line, text.len() - done);
            }
            push_hex(&mut line, *byte);
            done += 1;
        }
    }
    line
}

fn push(line: &mut String, c: char) {
    match c {
        '\\' => line.push_str(r"\\"),
        '\n' => line.push_str(r"\n"),
        '\r' => line.push_str(r"\r"),
        '\t' => line.push_str(r"\t"),
        '\0'..='\x1f' | '\x7f' => push_hex(line, c as u8),
        // C1 controls; line and paragraph separators; directional marks, embeddings, overrides
        // and isolates, which can make a line read as another (CVE-2021-42574).
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => line.extend(c.escape_unicode()),
        _ => line.push(c),
    }
}

fn push_hex(line: &mut String, byte: u8) {
    write!(line, r"\x{byte:02x}").expect("writing to a String cannot fail");
}

fn cut(mut line: String, bytes_left: usize) -> String {
    write!(line, "…({bytes_left} more bytes)").expect("writing to a String cannot fail");
    line
}

fn filter(level: &str) -> Result<EnvFilter, Mistakes> {
    let text = match std::env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => text,
        _ => level.to_owned(),
    };
    // The WASI library warns once per call of a guest that tries a socket: that would be a way
    // around the guest's bounded share of the log.
    EnvFilter::try_new(format!("wasmtime_wasi=error,{text}")).map_err(|error| {
        Mistakes(vec![format!(
            "{FILTER}: {text:?} is not a filter ({error}); write a level such as info or debug, \
             or a level for a module such as guesthouse::guest=debug"
        )])
    })
}

fn is_colourful() -> bool {
    // no-color.org: set and not empty.
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

/// stderr without errors: the writing thread would keep trying a line that can never go out, and
/// hold up the end of the process.
struct Stderr {
    lost: Arc<OnceLock<ErrorCounter>>,
    lines_reported: usize,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match io::stderr().write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Ok(0) | Err(_) => Ok(bytes.len()),
            written => written,
        }
    }

    /// Called when the queue has run empty, so that there is room for a line about lost lines.
    fn flush(&mut self) -> io::Result<()> {
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        if lost > self.lines_reported {
            let lines = lost - self.lines_reported;
            self.lines_reported = lost;
            tracing::warn!(lines, "log lines were lost because stderr was too slow");
        }
        Ok(())
    }
}
