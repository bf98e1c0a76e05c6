//! What keeps a server that sends without end from holding up a worker: its connection is read
//! from in pieces, between which others have their turn, and its interim answers are counted. So is
//! what a guest gets nothing of.
//!
//! hyper reads on as long as there is something, in one turn of its task, where what it reads is
//! handed to nobody, as interim answers are; and so does TLS with its own messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes that are read in one turn. As interim answers they take hyper a millisecond.
pub const POLL_BYTES_MAX: usize = 64 << 10;
/// The same below TLS and HTTP/2, where a ticket, or an interim answer, can have ten bytes.
pub const TLS_POLL_BYTES_MAX: usize = 4 << 10;
/// Bytes of a connection of which no guest gets anything, after which it is closed: more than hyper
/// reads ahead behind the largest head, or by HTTP/2 than a server may send ahead.
const UNCONSUMED_MAX: usize = 320 << 10;
const UNCONSUMED_H2_MAX: usize = 2 << 20;
/// Interim answers to one request: no server has more to say before its answer.
const INTERIM_MAX: u32 = 64;

/// A connection that yields behind every so many bytes. Where its server takes no more, it is read
/// to its end: an answer may have come before (RFC 9112, 9.5), and hyper gives a connection up with
/// the first piece that it cannot write.
pub struct PacedStream<T> {
    io: T,
    /// Why the server takes no more, if so: what is written goes nowhere then.
    write_error: Option<io::ErrorKind>,
    /// Bytes since it has yielded, or had nothing to read.
    read: usize,
    poll_bytes_max: usize,
    unconsumed: UnconsumedBytes,
}

/// Bytes that a connection's server has sent since somebody got something of them.
#[derive(Clone, Default)]
pub struct UnconsumedBytes(Arc<UnconsumedCount>);

#[derive(Default)]
struct UnconsumedCount {
    bytes: AtomicUsize,
    is_h2: AtomicBool,
}

impl UnconsumedBytes {
    /// Says that somebody has.
    pub fn reset(&self) {
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    /// Says that it is a connection of HTTP/2.
    pub fn set_h2(&self) {
        self.0.is_h2.store(true, Ordering::Relaxed);
    }

    /// Takes note of more bytes; whether they are too many.
    fn add(&self, bytes: usize) -> bool {
        let is_h2 = self.0.is_h2.load(Ordering::Relaxed);
        let max = if is_h2 { UNCONSUMED_H2_MAX } else { UNCONSUMED_MAX };
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > max
    }
}

impl<T> PacedStream<T> {
    /// `heard` counts what is read; others say of what they got something.
    pub fn new(io: T, poll_bytes_max: usize, unconsumed: UnconsumedBytes) -> Self {
        PacedStream { io, write_error: None, read: 0, poll_bytes_max, unconsumed }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PacedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= self.poll_bytes_max {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let has_room = buffer.remaining() > 0;
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read == 0
            && has_room
            && polled.is_ready()
            && let Some(kind) = self.write_error
            && kind != io::ErrorKind::BrokenPipe
        {
            // The kernel tells of a reset once, and the write was told. What looks like the end is
            // none: the server's own comes before a broken pipe.
            return Poll::Ready(Err(kind.into()));
        }
        self.read = if polled.is_ready() { self.read + read } else { 0 };
        if self.unconsumed.add(read) {
            let why = "the server sends without end what nobody gets anything of";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        polled
    }
}

impl<T: Unpin> PacedStream<T> {
    /// What is said of a write, where it was tried.
    fn written(
        &mut self,
        bytes: usize,
        tried: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.write_error.is_some() {
            return Poll::Ready(Ok(bytes));
        }
        match tried(Pin::new(&mut self.io)) {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.write_error = Some(error.kind());
                Poll::Ready(Ok(bytes))
            }
            polled => polled,
        }
    }
}

/// Whether a connection's other side has closed it.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    [BrokenPipe, ConnectionAborted, ConnectionReset].contains(&error.kind())
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PacedStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written(bytes.len(), |io| io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().written(0, |io| io.poll_flush(cx).map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bytes.iter().map(|slice| slice.len()).sum();
        self.get_mut().written(total, |io| io.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Ready when there have been too many interim answers to a request that is about to be sent. Those
/// of HTTP/2 are told to nobody: hyper passes them over, until there is an answer or nobody waits.
pub fn too_many_interim<B>(request: &mut Request<B>) -> impl Future<Output = ()> + use<B> {
    let (count, told) = (AtomicU32::new(0), Arc::new(Notify::new()));
    let tell = told.clone();
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == INTERIM_MAX {
            tell.notify_one();
        }
    });
    async move { told.notified().await }
}
