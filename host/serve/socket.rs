//! The socket of one connection to a client.
//!
//! Owns what is under a connection: this file alone knows a descriptor or the kind of a socket, so
//! that another kind is another variant here. Knows no HTTP and nothing of the connection's life.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;

use crate::message::{Origin, Peer, Scheme};

/// A connected socket, known to this thread's runtime.
pub enum Socket {
    Tcp(TcpStream),
}

/// A connected socket that no runtime knows: on its way to a worker, or to its end.
pub enum DetachedSocket {
    Tcp(std::net::TcpStream),
}

impl Socket {
    /// How requests come by it from the client at this address. IPv4 is shown as that, whichever
    /// socket it was accepted by.
    ///
    /// # Errors
    /// The connection has gone.
    pub fn origin(&self, peer: SocketAddr) -> io::Result<Origin> {
        let (scheme, local) = match self {
            Socket::Tcp(stream) => (Scheme::Http, stream.local_addr()?),
        };
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        Ok(Origin { scheme, local, peer: Peer { address: peer } })
    }

    /// Has small answers sent at once: they would wait for the client's acknowledgement.
    pub fn set_nodelay(&self) {
        match self {
            // It can fail only on a connection that is gone.
            Socket::Tcp(stream) => drop(stream.set_nodelay(true)),
        }
    }

    /// Has it reset where it is closed, even by the end of the process, or not any more.
    pub fn reset_on_close(&self, resets: bool) {
        let linger = resets.then_some(Duration::ZERO);
        match self {
            // It can fail only on a connection that is gone.
            Socket::Tcp(stream) => drop(SockRef::from(stream).set_linger(linger)),
        }
    }

    /// Waits until the client sends something, or has gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx).map(|_| ()),
        }
    }

    /// Whether the client has closed its side, whatever it had sent before.
    pub fn is_read_closed(&self) -> bool {
        self.readiness(Interest::READABLE).is_read_closed()
    }

    /// Whether the client refuses what is sent.
    pub fn is_write_closed(&self) -> bool {
        self.readiness(Interest::WRITABLE).is_write_closed()
    }

    fn readiness(&self, interest: Interest) -> Ready {
        let Socket::Tcp(stream) = self;
        let ready = pin!(stream.ready(interest));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready,
            _ => Ready::EMPTY,
        }
    }

    /// Whether the client has sent something that has not been read.
    pub fn has_input(&self) -> bool {
        let Socket::Tcp(stream) = self;
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(stream, &mut [0_u8; 1][..], flags).is_ok_and(|(count, _)| count > 0)
    }

    /// Reads and drops what comes, at most `bytes_max`. Ready at its end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>, bytes_max: &mut usize) -> Poll<()> {
        let mut scratch = [0_u8; 16 * 1024];
        while *bytes_max > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    *bytes_max = bytes_max.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Takes it from this thread's runtime.
    ///
    /// # Errors
    /// The runtime cannot let go of it.
    pub fn detach(self) -> io::Result<DetachedSocket> {
        match self {
            Socket::Tcp(stream) => stream.into_std().map(DetachedSocket::Tcp),
        }
    }
}

impl DetachedSocket {
    /// Gives it to this thread's runtime.
    ///
    /// # Errors
    /// The process has no descriptor or memory left for that.
    pub fn attach(self) -> io::Result<Socket> {
        match self {
            DetachedSocket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Socket::Tcp)
            }
        }
    }

    /// Sends a few bytes without waiting. What has come is read before, as far as it fits into
    /// `scratch`: a socket that is closed over it takes away what was sent.
    pub fn answer_unread(&mut self, scratch: &mut [u8], answer: &[u8]) {
        let DetachedSocket::Tcp(stream) = self;
        drop(stream.read(scratch));
        drop(stream.write(answer));
    }

    /// Says that there is no more to send.
    ///
    /// # Errors
    /// The connection has gone.
    pub fn finish(&self) -> io::Result<()> {
        match self {
            DetachedSocket::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Socket::Tcp(stream) => stream.is_write_vectored(),
        }
    }
}
