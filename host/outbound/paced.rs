//! What keeps a server that sends without end from holding up a worker: its connection is read
//! from in pieces, between which others have their turn, and its interim answers are counted.
//!
//! hyper reads on as long as there is something, in one turn of its task, where what it reads is
//! handed to nobody, as interim answers are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use http::Request;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes that are read in one turn. As interim answers they take hyper a millisecond.
pub const TURN_BYTES: usize = 64 << 10;
/// Interim answers to one request: no server has more to say before its answer.
const INTERIM_MAX: u32 = 64;

/// A connection that yields behind every so many bytes.
pub struct Paced<T> {
    io: T,
    /// Bytes since it has yielded, or had nothing to read.
    read: usize,
}

impl<T> Paced<T> {
    pub fn new(io: T) -> Self {
        Paced { io, read: 0 }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut T>
    where
        T: Unpin,
    {
        Pin::new(&mut self.get_mut().io)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read = match polled {
            Poll::Ready(_) => self.read + buffer.filled().len() - before,
            Poll::Pending => 0,
        };
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<T: Connection> Connection for Paced<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

/// Ready when there have been too many interim answers to a request that is about to be sent.
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
