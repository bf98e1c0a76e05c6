//! One connection of the load generator: its requests in flight, and the bytes still to be written.
//!
//! Owns its socket. Knows neither when requests are due nor how their answers are counted.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::response::{FinishedResponse, HeadCache, Malformed, Parser};

/// A request that waits for its answer. Times are nanoseconds since the start of the worker's
/// measurement.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// When the request was due. Its latency counts from here.
    pub due_ns: u64,
    /// When the worker handed it to the connection. Its timeout counts from here.
    pub sent_ns: u64,
    /// The request's index in the messages of the worker's job.
    pub message: usize,
    /// What the job's [check](super::body_check::BodyCheck) had seen when the request was sent.
    pub seen: u64,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The server has closed or reset it.
    Read,
    /// The server has sent something that is not HTTP/1.1, or an answer to no request.
    Nonsense(Malformed),
    /// The socket takes no more bytes.
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

/// A connection that is open, or about to open.
pub struct Connection {
    socket: Socket,
    /// When it began to open, in nanoseconds on the worker's clock. `None` once it is open.
    pub connecting_since_ns: Option<u64>,
    /// Requests without an answer, the oldest first.
    pub in_flight: VecDeque<InFlight>,
    parser: Parser,
    /// Requests to be written.
    out: Vec<u8>,
    /// How many bytes of `out` are written.
    out_at: usize,
    /// The server has announced that it closes. Nothing more is sent.
    closes: bool,
}

impl Connection {
    /// Begins to connect, and does not wait. Once the attempt has succeeded or failed, the socket
    /// is writable. With `hashing`, the bodies of answers are hashed.
    ///
    /// # Errors
    /// The kernel gives no socket, or refuses the address at once.
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

    /// Completes the opening. Call it when the socket is writable for the first time.
    ///
    /// # Errors
    /// The connection could not be made.
    pub fn finish_open(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        self.connecting_since_ns = None;
        Ok(())
    }

    /// Whether it is open and has room for one more request, if `pipeline` may be in flight.
    pub fn is_free(&self, pipeline: usize) -> bool {
        self.connecting_since_ns.is_none() && !self.closes && self.in_flight.len() < pipeline
    }

    /// Adds a request, whose bytes are `message`. The next [`flush`](Self::flush) writes it.
    pub fn push(&mut self, message: &[u8], request: InFlight) {
        self.out.extend_from_slice(message);
        self.in_flight.push_back(request);
    }

    /// Writes as much as the socket takes. Returns whether everything is written.
    ///
    /// # Errors
    /// The socket takes no more bytes, ever.
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

    /// Reads once into `buffer`, and calls `done` with each answer that is now whole and its
    /// request. Returns how many bytes came, and an error if the connection has ended. With
    /// `is_head`, answers have no bodies.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        is_head: bool,
        memory: &mut HeadCache,
        mut done: impl FnMut(InFlight, FinishedResponse),
    ) -> (usize, Result<(), ConnectionError>) {
        let bytes = match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => {
                // The request of an answer that is cut off stays in flight, and fails with the
                // connection.
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
        // After an answer to no request, answers can no longer be matched to requests.
        let is_unasked = !is_asked_for || (is_idle && !self.parser.is_between());
        let result = match fed {
            Err(malformed) => Err(ConnectionError::Nonsense(malformed)),
            Ok(()) if is_unasked => Err(ConnectionError::Nonsense(Malformed::Unasked)),
            Ok(()) if is_idle && self.closes => Err(ConnectionError::Read),
            Ok(()) => Ok(()),
        };
        (bytes, result)
    }

    /// The socket, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
