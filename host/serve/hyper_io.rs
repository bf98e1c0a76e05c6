//! The IO object that hyper reads from and writes to.
//!
//! Turns hyper's flushes into no-ops: the connection is flushed after hyper's future returns.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::connection::Connection;

/// Connects hyper to a [`Connection`].
pub struct HyperIo {
    /// The connection, which owns the socket.
    pub connection: Rc<Connection>,
    /// Bytes that were read before hyper began. hyper gets these first.
    pub before: Bytes,
}

impl Read for HyperIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let HyperIo { connection, before } = self.get_mut();
        if before.is_empty() {
            return connection.poll_read(cx, buffer);
        }
        buffer.put_slice(&before.split_to(before.len().min(buffer.remaining())));
        connection.note_read();
        Poll::Ready(Ok(()))
    }
}

impl Write for HyperIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connection.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // No flush here: `Connection::flush` runs whenever hyper's future returns.
        self.connection.output.note_all_written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_finish(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.poll_write(cx, slices)
    }
}
