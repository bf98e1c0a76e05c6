//! Sends one request at a time on a plain blocking socket: to see what a server answers, and when.
//!
//! For checks before, between and beside measurements. Nothing here is fast.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::load::Request;
use super::response::{FinishedResponse, HeadCache, Parser};
use super::stream::{Destination, render};

/// Once a body has so many bytes, no more of it is kept.
pub const PROBE_BODY_BYTES_MAX: usize = 64 << 20;
/// A request that is not longer is written before anything of its answer is read: it fits into the
/// buffers of a socket.
const WRITTEN_FIRST_BYTES_MAX: usize = 16 << 10;
/// How often a waiting probe looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    /// The status code.
    pub status: u16,
    /// The body, or the first 64 MiB of a longer one.
    pub body: Vec<u8>,
}

/// A connection for one request after the other.
pub struct Probe<'a> {
    socket: TcpStream,
    host: String,
    timeout: Duration,
    stop: &'a AtomicBool,
}

impl<'a> Probe<'a> {
    /// Connects, which may take as long as `timeout`. Later every whole answer may take as long,
    /// too. Once `stop` is set, no answer is waited for.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub fn connect(to: &Destination, timeout: Duration, stop: &'a AtomicBool) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&to.address, timeout).map_err(|error| {
            let text = format!("cannot connect ({error}): is the server running?");
            io::Error::new(error.kind(), text)
        })?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        socket.set_write_timeout(Some(timeout))?;
        Ok(Self { socket, host: to.host.clone(), timeout, stop })
    }

    /// Sends the first path of `request`, and waits for the whole answer.
    ///
    /// # Errors
    /// The answer is not whole in time, is not HTTP/1.1, or `stop` is set.
    pub fn ask(&mut self, request: &Request) -> io::Result<ProbeResponse> {
        let until = Instant::now() + self.timeout;
        let message = &render(request, &self.host)[0];
        if message.len() <= WRITTEN_FIRST_BYTES_MAX {
            self.socket.write_all(message)?;
            return self.receive(request, until);
        }
        // A server may answer while it reads: whoever does not take the answer holds it up.
        let mut socket = self.socket.try_clone()?;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || socket.write_all(message));
            let received = self.receive(request, until);
            if received.is_err() {
                // The writer may wait for a server that reads no more.
                let _ = self.socket.shutdown(Shutdown::Both);
            }
            let written = writer.join().expect("the writing thread does not panic");
            received.and_then(|received| written.map(|()| received))
        })
    }

    /// The answer to what was sent.
    fn receive(&mut self, request: &Request, until: Instant) -> io::Result<ProbeResponse> {
        let (mut parser, mut memory) = (Parser::default(), HeadCache::default());
        let (mut body, mut answer) = (Vec::new(), None::<FinishedResponse>);
        let mut buffer = vec![0; 64 * 1024];
        let is_head = request.method == "HEAD";
        while answer.is_none() {
            let bytes = self.read(&mut buffer, until)?;
            if bytes == 0 {
                answer = Some(parser.close().ok_or(io::ErrorKind::UnexpectedEof)?);
                break;
            }
            let input = &buffer[..bytes];
            let keep = (body.len() < PROBE_BODY_BYTES_MAX).then_some(&mut body);
            parser
                .feed(input, is_head, &mut memory, keep, |it| answer = Some(it))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        // The last read may have brought more than fits.
        body.truncate(PROBE_BODY_BYTES_MAX);
        let status = answer.map_or(0, |it| it.status);
        Ok(ProbeResponse { status, body })
    }

    /// Reads the next bytes. Waits for them in short steps, and looks at `stop` in between.
    fn read(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        loop {
            // The deadline is for the whole answer, even if it comes in many small pieces.
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            match self.socket.read(buffer) {
                Ok(bytes) => return Ok(bytes),
                // A signal ends a read that has a timeout.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// Sends the first path of `request` on a new connection, and waits for the whole answer.
///
/// # Errors
/// As [`Probe::connect`] and [`Probe::ask`].
pub fn ask(
    to: &Destination,
    request: &Request,
    timeout: Duration,
    stop: &AtomicBool,
) -> io::Result<ProbeResponse> {
    Probe::connect(to, timeout, stop)?.ask(request)
}

/// Asks again and again until an answer `is_right`, each time on a new connection and with a
/// millisecond in between. Returns false if there is no such answer before `until`, or if `stop`
/// is set. Requests that fail count as wrong answers.
pub fn ask_until(
    to: &Destination,
    request: &Request,
    until: Instant,
    stop: &AtomicBool,
    is_right: impl Fn(&ProbeResponse) -> bool,
) -> bool {
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        match ask(to, request, left, stop) {
            Ok(answered) if is_right(&answered) => return true,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    false
}
