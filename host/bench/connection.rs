//! One connection of the load generator: what is in flight on it, and what is still to be written.
//!
//! Owns its socket. Knows neither when requests are due nor what their answers count for.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::response::{FinishedResponse, HeadCache, Malformed, Parser};

/// A request that was sent, or is about to be. Times are those of the worker.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    pub due_ns: u64,
    pub sent_ns: u64,
    /// Which of the requests it is.
    pub message: usize,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The server closed it, or reset it.
    Read,
    /// What came is not HTTP/1.1, or answers nothing.
    Nonsense(Malformed),
    /// It takes no more bytes.
    Write,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ConnectionError::Read => {
                out.write_str("the connection ended before the whole answer had come")
            }
            ConnectionError::Nonsense(malformed) => malformed.fmt(out),
            ConnectionError::Write => {
                out.write_str("the connection ended before all of it was sent")
            }
        }
    }
}

/// An open connection, or one that is about to be.
pub struct Connection {
    socket: Socket,
    /// Since when the connection is being made; none once it is.
    pub connecting_since_ns: Option<u64>,
    pub in_flight: VecDeque<InFlight>,
    parser: Parser,
    out: Vec<u8>,
    /// How much of `out` is written.
    out_at: usize,
    /// The server has said that it closes; nothing more is sent.
    closes: bool,
}

impl Connection {
    /// Begins to connect. The socket is writable when that has come to an end. With `hashing`, the
    /// bodies of answers are hashed.
    pub fn open(address: SocketAddr, now_ns: u64, hashing: bool) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            socket,
            connecting_since_ns: Some(now_ns),
            in_flight: VecDeque::new(),
            parser: if hashing { Parser::hashing() } else { Parser::default() },
            out: Vec::new(),
            out_at: 0,
            closes: false,
        })
    }

    /// To be called when the socket is writable for the first time.
    pub fn finish_open(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        self.connecting_since_ns = None;
        Ok(())
    }

    /// Whether there is room for one more request.
    pub fn is_free(&self, pipeline: usize) -> bool {
        self.connecting_since_ns.is_none() && !self.closes && self.in_flight.len() < pipeline
    }

    /// Has `message` written by the next [`flush`](Self::flush).
    pub fn push(&mut self, message: &[u8], request: InFlight) {
        self.out.extend_from_slice(message);
        self.in_flight.push_back(request);
    }

    /// Writes as much as the socket takes: whether that was all.
    pub fn flush(&mut self) -> Result<bool, ConnectionError> {
        while self.out_at < self.out.len() {
            match rustix::io::write(&self.socket, &self.out[self.out_at..]) {
                Ok(written) => self.out_at += written,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(_) => return Err(ConnectionError::Write),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(true)
    }

    /// Reads once into `buffer` and calls `done` for each answer that is whole with the request
    /// that it answers. The number of bytes, and whether the connection goes on.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        is_head: bool,
        memory: &mut HeadCache,
        mut done: impl FnMut(InFlight, FinishedResponse),
    ) -> (usize, Result<(), ConnectionError>) {
        let bytes = match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => {
                // One that is cut off stays in flight, and fails with the connection.
                if let Some(answer) = self.parser.close()
                    && let Some(request) = self.in_flight.pop_front()
                {
                    done(request, answer);
                }
                return (0, Err(ConnectionError::Read));
            }
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return (0, Ok(())),
            Err(_) => return (0, Err(ConnectionError::Read)),
        };
        let (in_flight, closes) = (&mut self.in_flight, &mut self.closes);
        let mut is_asked_for = true;
        let fed = self.parser.feed(&buffer[..bytes], is_head, memory, None, |answer| {
            *closes |= answer.closes;
            match in_flight.pop_front() {
                Some(request) => done(request, answer),
                None => is_asked_for = false,
            }
        });
        let is_idle = self.in_flight.is_empty();
        // An answer to nothing: from here on nobody knows what answers what.
        let is_unasked = !is_asked_for || (is_idle && !self.parser.is_between());
        let result = match fed {
            Err(malformed) => Err(ConnectionError::Nonsense(malformed)),
            Ok(()) if is_unasked => Err(ConnectionError::Nonsense(Malformed::Unasked)),
            Ok(()) if is_idle && self.closes => Err(ConnectionError::Read),
            Ok(()) => Ok(()),
        };
        (bytes, result)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
