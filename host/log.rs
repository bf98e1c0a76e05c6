//! The log on stderr: text or JSON lines, written by a thread of its own.
//!
//! A slow or stuck stderr never blocks a worker: lines that do not fit into the queue are dropped
//! and counted. Callers pass text from outside (guests, clients, file contents) through
//! [`escape()`] before they log it, because this module cannot tell it from the host's own text.
//! Lines of other crates are escaped here, as a whole.

mod escaping_format;
mod quota;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use guesthouse_escape::escape;
pub use quota::Quota;

use crate::config::{LogFormat, Mistakes};
use escaping_format::EscapingFormat;

/// The environment variable that chooses what is logged, in the syntax of `EnvFilter`.
pub const FILTER: &str = "GUESTHOUSE_LOG";

/// Lines that may wait for stderr. [`escape()`] bounds the length of guest lines, so this bounds
/// memory.
const QUEUE_LINES_MAX: usize = 8192;

/// Keeps the log alive. Dropping it writes the queued lines, for about a second at most.
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Sends `tracing` to stderr for the rest of the process, down to `level` unless `GUESTHOUSE_LOG`
/// says otherwise. Call it once: a second call panics.
///
/// # Errors
/// `GUESTHOUSE_LOG` is not a filter.
pub fn start(format: LogFormat, level: &str) -> Result<LogGuard, Mistakes> {
    let filter = filter(level)?;
    let counter = Arc::new(OnceLock::new());
    let stderr = Stderr { lost: counter.clone(), lines_reported: 0 };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES_MAX)
        .thread_name("log")
        .finish(io::BufWriter::new(stderr));
    counter.get_or_init(|| writer.error_counter());
    install(format, filter, writer);
    Ok(LogGuard { _writer: guard })
}

/// Like [`start`], but without a thread: the calling thread writes each line itself. For a process
/// whose stderr never blocks for long.
///
/// # Errors
/// `GUESTHOUSE_LOG` is not a filter.
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
            .map_event_format(|inner| EscapingFormat { inner, format })
            .try_init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|inner| EscapingFormat { inner, format })
            .try_init(),
    };
    installed.expect("the log is started once, before anything else could install a subscriber");
}

fn filter(level: &str) -> Result<EnvFilter, Mistakes> {
    let text = match std::env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => text,
        _ => level.to_owned(),
    };
    // The WASI library logs a warning whenever a guest tries a socket. With these warnings a guest
    // could get around its quota of log lines.
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

/// A stderr that swallows errors. Otherwise the log thread would retry a line that can never be
/// written, and delay the end of the process.
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

    /// Called when the queue is empty, so there is room for a line that reports lost lines.
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
