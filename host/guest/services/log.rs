//! A guest's log: `log`, stdout and stderr become log events with the guest's name and the
//! request's id, escaped and bounded.
//!
//! Owns the bounds, and how output is cut into lines. Knows nothing of wasmtime's stores.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::guest::engine::guest_info::GuestInfo;
use crate::log::escape;
use crate::message::RequestId;

/// Bytes of one line. Longer lines are cut.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// What one request may log, in bytes and in lines.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const REQUEST_LINES_MAX: u32 = 256;
/// Bytes that a guest is told it may write to stdout or stderr at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The log of one instance.
pub struct LogSink {
    guest: Arc<GuestInfo>,
    request: Option<RequestId>,
    bytes_left: usize,
    lines_left: u32,
    /// The last lines of stdout and stderr, as far as they have come.
    partial: [Vec<u8>; 2],
}

/// The log levels of the http-wasm interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Level {
    /// For development.
    Debug,
    /// Normal operation.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something has failed.
    Error,
}

impl Level {
    /// The level of an http-wasm number: -1 debug, 0 info, 1 warn, 2 error; `None` from 3 on.
    pub fn from_abi(level: i32) -> Option<Self> {
        match level {
            ..=-1 => Some(Level::Debug),
            0 => Some(Level::Info),
            1 => Some(Level::Warn),
            2 => Some(Level::Error),
            3.. => None,
        }
    }

    /// Whether the host's log shows this level.
    pub fn is_enabled(self) -> bool {
        match self {
            Level::Debug => tracing::enabled!(target: "handler", tracing::Level::DEBUG),
            Level::Info => tracing::enabled!(target: "handler", tracing::Level::INFO),
            Level::Warn => tracing::enabled!(target: "handler", tracing::Level::WARN),
            Level::Error => tracing::enabled!(target: "handler", tracing::Level::ERROR),
        }
    }
}

impl LogSink {
    /// The log of a guest's new instance, with the limits of one request.
    pub fn new(guest: Arc<GuestInfo>, request: Option<RequestId>) -> Self {
        LogSink {
            guest,
            request,
            bytes_left: REQUEST_BYTES_MAX,
            lines_left: REQUEST_LINES_MAX,
            partial: [Vec::new(), Vec::new()],
        }
    }

    /// Sets the request that the next lines belong to.
    pub fn resume(&mut self, request: Option<RequestId>) {
        self.request = request;
    }

    /// Begins a request, with new limits; without its id if the guest has others, too.
    pub fn begin(&mut self, request: Option<RequestId>) {
        self.end();
        self.request = request;
        self.bytes_left = REQUEST_BYTES_MAX;
        self.lines_left = REQUEST_LINES_MAX;
    }

    /// Logs the unfinished last lines of stdout and stderr.
    pub fn end(&mut self) {
        for stream in [0, 1] {
            let rest = std::mem::take(&mut self.partial[stream]);
            if !rest.is_empty() {
                self.line(Level::Info, STREAM_NAMES[stream], &rest);
            }
        }
    }

    /// Logs one line, if the level is on and the request's limits allow it.
    pub fn line(&mut self, level: Level, from: &'static str, text: &[u8]) {
        if !level.is_enabled() || self.lines_left == 0 {
            return;
        }
        self.lines_left -= 1;
        if self.lines_left == 0 || self.bytes_left < text.len().min(LINE_BYTES_MAX) {
            self.lines_left = 0;
            return self.event(
                Level::Warn,
                "host",
                "this request logs too much; the rest is dropped",
            );
        }
        self.bytes_left -= text.len().min(LINE_BYTES_MAX);
        match self.guest.output_quota.take(text.len().min(LINE_BYTES_MAX)) {
            None => return,
            Some(0) => {}
            Some(lines) => {
                let text = format!("this handler logs too much; {lines} lines were dropped");
                self.event(Level::Warn, "host", &text);
            }
        }
        let text = escape(text, LINE_BYTES_MAX);
        self.event(level, from, &text);
    }

    fn event(&self, level: Level, from: &str, text: &str) {
        let handler = &*self.guest.name;
        let request = self.request.map(tracing::field::display);
        match level {
            Level::Debug => tracing::debug!(target: "handler", handler, request, from, "{text}"),
            Level::Info => tracing::info!(target: "handler", handler, request, from, "{text}"),
            Level::Warn => tracing::warn!(target: "handler", handler, request, from, "{text}"),
            Level::Error => tracing::error!(target: "handler", handler, request, from, "{text}"),
        }
    }

    /// Takes output of stdout (0) or stderr (1), and logs the lines that are complete.
    fn feed(&mut self, stream: usize, mut bytes: &[u8]) {
        if self.lines_left == 0 {
            return;
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            let mut whole = std::mem::take(&mut self.partial[stream]);
            whole.extend_from_slice(line);
            self.line(Level::Info, STREAM_NAMES[stream], &whole);
            whole.clear();
            self.partial[stream] = whole;
        }
        let room = LINE_BYTES_MAX.saturating_sub(self.partial[stream].len());
        self.partial[stream].extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

const STREAM_NAMES: [&str; 2] = ["stdout", "stderr"];

/// A log that the store and its WASI streams share.
#[derive(Clone)]
pub struct SharedSink(Arc<Mutex<LogSink>>);

impl SharedSink {
    /// Shares a log.
    pub fn new(sink: LogSink) -> Self {
        SharedSink(Arc::new(Mutex::new(sink)))
    }

    /// Calls `f` with the log, under its lock.
    pub fn with<R>(&self, f: impl FnOnce(&mut LogSink) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The WASI stream for `stdout` or `stderr`.
    pub fn stream(&self, name: &'static str) -> LogStream {
        LogStream { sink: self.clone(), stream: usize::from(name == STREAM_NAMES[1]) }
    }
}

/// A guest's stdout or stderr.
#[derive(Clone)]
pub struct LogStream {
    sink: SharedSink,
    stream: usize,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.sink.with(|sink| sink.feed(self.stream, &bytes));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sink.with(|sink| sink.feed(self.stream, bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
