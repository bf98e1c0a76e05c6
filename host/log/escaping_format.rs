//! Escapes and cuts the log lines of other crates.
//!
//! Such lines may contain text from outside, such as a request's target or a response's head. Must
//! not know these crates: every line that is not the host's own is escaped.

#[cfg(test)]
mod tests;

use std::fmt;

use guesthouse_escape::escape;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// How many bytes of one line are written.
const LINE_BYTES_MAX: usize = 2 * 1024;

/// Writes the host's own lines unchanged, and other lines escaped and cut.
pub struct EscapingFormat<F> {
    /// Formats the line.
    pub inner: F,
    /// The format that `inner` writes.
    pub format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for EscapingFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let target = event.metadata().target();
        // A surrounding span may be another crate's and becomes part of the line.
        if is_own(target) && context.lookup_current().is_none() {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match self.format {
            LogFormat::Text => writeln!(writer, "{}", escape(line.as_bytes(), LINE_BYTES_MAX)),
            // JSON is escaped already. A line that is too long cannot be cut and stay JSON.
            LogFormat::Json if line.len() <= LINE_BYTES_MAX => writeln!(writer, "{line}"),
            LogFormat::Json => {
                let level = event.metadata().level().as_str();
                let message = escape(line.as_bytes(), LINE_BYTES_MAX);
                let cut =
                    serde_json::json!({ "level": level, "message": message, "target": target });
                writeln!(writer, "{cut}")
            }
        }
    }
}

/// Whether this is a target of the host's own lines: its modules, and `handler` for guests.
fn is_own(target: &str) -> bool {
    let crate_name = target.split("::").next().unwrap_or_default();
    crate_name == "guesthouse" || crate_name.starts_with("guesthouse_") || target == "handler"
}
