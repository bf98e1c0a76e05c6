//! Keeps a server that sends without end from blocking a worker.
//!
//! hyper reads on within one poll as long as it finds only data that nobody receives, such as
//! interim responses. TLS does the same with its own messages. So this stream yields after a number
//! of bytes. It also closes a connection that sends too many bytes of no use to a guest, and counts
//! the interim responses of a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// How many bytes are read before yielding. If these are interim responses, they take hyper about a
/// millisecond.
pub const POLL_BYTES_MAX: usize = 64 << 10;
/// The same limit below TLS and HTTP/2, where a ticket or an interim response can have ten bytes.
pub const TLS_POLL_BYTES_MAX: usize = 4 << 10;
/// How many bytes without use for a guest close an HTTP/1.1 connection. It is more than hyper reads
/// ahead after the largest head.
const UNCONSUMED_MAX: usize = 320 << 10;
/// The same for HTTP/2. It is more than the windows allow a server to send ahead.
const UNCONSUMED_H2_MAX: usize = 2 << 20;
/// How many interim responses one request may get. No real server sends more.
const INTERIM_MAX: u32 = 64;

/// A stream that yields after a number of bytes.
///
/// If the server reads no more, writes are dropped and the stream is still read to its end: the
/// response may already have arrived (RFC 9112, 9.5), but hyper would give up the connection at the
/// first failed write.
pub struct PacedStream<T> {
    io: T,
    /// The error of the failed write, after which all writes are dropped.
    write_error: Option<io::ErrorKind>,
    /// How many bytes were read since the stream has yielded or was pending.
    read: usize,
    poll_bytes_max: usize,
    unconsumed: UnconsumedBytes,
}

/// Counts the bytes that a server has sent since a guest last got anything from them.
#[derive(Clone, Default)]
pub struct UnconsumedBytes(Arc<UnconsumedCount>);

#[derive(Default)]
struct UnconsumedCount {
    bytes: AtomicUsize,
    is_h2: AtomicBool,
}

impl UnconsumedBytes {
    /// Notes that a guest has got something, so the count starts again.
    pub fn reset(&self) {
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    /// Applies the limit for HTTP/2 from now on.
    pub fn set_h2(&self) {
        self.0.is_h2.store(true, Ordering::Relaxed);
    }

    /// Counts more bytes. Returns whether there are too many.
    fn add(&self, bytes: usize) -> bool {
        let is_h2 = self.0.is_h2.load(Ordering::Relaxed);
        let max = if is_h2 { UNCONSUMED_H2_MAX } else { UNCONSUMED_MAX };
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > max
    }
}

impl<T> PacedStream<T> {
    /// Wraps `io`. The stream adds what it reads to `unconsumed`; readers of the data reset it.
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
            // The kernel reports a reset only once, and the write got it. So this is no regular end
            // of the stream. After a regular end, a write fails with a broken pipe.
            return Poll::Ready(Err(kind.into()));
        }
        self.read = if polled.is_ready() { self.read + read } else { 0 };
        if self.unconsumed.add(read) {
            let why = "the server keeps sending bytes that belong to no response";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        polled
    }
}

impl<T: Unpin> PacedStream<T> {
    /// Tries a write. If the server reads no more, pretends that all bytes were written.
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

/// Whether the error means that the other side has closed the connection.
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

/// Ready when a request that is about to be sent has got too many interim responses. In HTTP/2 this
/// is never ready: hyper skips interim responses there and reports none.
pub fn too_many_interim<B>(request: &mut Request<B>) -> impl Future<Output = ()> + use<B> {
    let (count, exceeded) = (AtomicU32::new(0), Arc::new(Notify::new()));
    let notify = exceeded.clone();
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == INTERIM_MAX {
            notify.notify_one();
        }
    });
    async move { exceeded.notified().await }
}
