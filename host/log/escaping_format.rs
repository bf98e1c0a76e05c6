//! Lines of the log that other crates write.
//!
//! What they put into them may come from outside: a request's target, a response's head. Owns that
//! none of it gets to the log as it came, and that each line has an end. Must not know which crates
//! there are: every line is one of them that is not the host's own.

#[cfg(test)]
mod tests;

use std::fmt;

use guesthouse_escape::escape;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Bytes of one line.
const LINE_BYTES_MAX: usize = 2 * 1024;

/// Writes the host's own lines as they are, and others escaped and cut.
pub struct EscapingFormat<F> {
    pub inner: F,
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
        // A span that it is in may be another crate's, and is a part of the line.
        if is_own(target) && context.lookup_current().is_none() {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match self.format {
            LogFormat::Text => writeln!(writer, "{}", escape(line.as_bytes(), LINE_BYTES_MAX)),
            // It is escaped already; cut, it would be no JSON.
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

/// Whether the host itself writes under this target: its modules, and what it says of guests.
fn is_own(target: &str) -> bool {
    let crate_name = target.split("::").next().unwrap_or_default();
    crate_name == "guesthouse" || crate_name.starts_with("guesthouse_") || target == "handler"
}
