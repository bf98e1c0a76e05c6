//! The socket of one connection to a client.
//!
//! This file alone knows the kind of a socket and its descriptor, so another kind is one more
//! variant here. Knows no HTTP and nothing of the connection's lifecycle.

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

/// A connected socket, registered with this thread's runtime.
pub enum Socket {
    /// Plain TCP.
    Tcp(TcpStream),
}

/// A connected socket that is registered with no runtime, so it can move to another thread.
pub enum DetachedSocket {
    /// Plain TCP.
    Tcp(std::net::TcpStream),
}

impl Socket {
    /// The origin of requests on this socket, from the client at `peer`. An IPv4 address is shown
    /// as IPv4 even if a dual-stack socket accepted it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn origin(&self, peer: SocketAddr) -> io::Result<Origin> {
        let (scheme, local) = match self {
            Socket::Tcp(stream) => (Scheme::Http, stream.local_addr()?),
        };
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        Ok(Origin { scheme, local, peer: Peer { address: peer } })
    }

    /// Sends small answers at once. With Nagle's algorithm they could wait for an acknowledgement.
    pub fn set_nodelay(&self) {
        match self {
            // This fails only if the connection is gone.
            Socket::Tcp(stream) => drop(stream.set_nodelay(true)),
        }
    }

    /// Sets whether closing the socket sends a TCP reset, even at the end of the process.
    pub fn reset_on_close(&self, resets: bool) {
        let linger = resets.then_some(Duration::ZERO);
        match self {
            // This fails only if the connection is gone.
            Socket::Tcp(stream) => drop(SockRef::from(stream).set_linger(linger)),
        }
    }

    /// Ready once the client has sent something or has closed its side.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx).map(|_| ()),
        }
    }

    /// Whether the client has closed its side, even if earlier bytes are still unread.
    pub fn is_read_closed(&self) -> bool {
        self.readiness(Interest::READABLE).is_read_closed()
    }

    /// Whether the client has reset the connection.
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

    /// Reads and drops input, at most `bytes_max` bytes, from which it subtracts. Ready at the end
    /// of the input, on an error, or when the limit is reached.
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

    /// Deregisters the socket from this thread's runtime.
    ///
    /// # Errors
    /// The runtime cannot deregister it.
    pub fn detach(self) -> io::Result<DetachedSocket> {
        match self {
            Socket::Tcp(stream) => stream.into_std().map(DetachedSocket::Tcp),
        }
    }
}

impl DetachedSocket {
    /// Registers the socket with this thread's runtime.
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

    /// Sends a short answer without waiting. Before that, it reads pending input into `scratch`:
    /// closing a socket with unread input resets the connection, and the answer could get lost.
    pub fn answer_unread(&mut self, scratch: &mut [u8], answer: &[u8]) {
        let DetachedSocket::Tcp(stream) = self;
        drop(stream.read(scratch));
        drop(stream.write(answer));
    }

    /// Shuts the sending side down.
    ///
    /// # Errors
    /// The connection is gone.
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
