//! Sends one request at a time, and waits: to see what a server answers, and when.
//!
//! For checks before, between and beside measurements. Nothing here is fast.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::load::Request;
use super::reading::{Errors, Reading};
use super::response::{FinishedResponse, HeadCache, Parser, is_expected};
use super::stream::{Destination, render};
use super::suite::Stream;

/// Once a body has so many bytes, no more of it is kept.
pub const PROBE_BODY_BYTES_MAX: usize = 64 << 20;
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
    /// It never blocks.
    socket: TcpStream,
    host: String,
    timeout: Duration,
    stop: &'a AtomicBool,
    /// The rest of a request that was answered before all of it was sent.
    unsent: Vec<u8>,
}

impl<'a> Probe<'a> {
    /// Connects, which may take as long as `timeout`. Later every whole answer may take as long,
    /// too. Once `stop` is set, nothing is waited for.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub fn connect(to: &Destination, timeout: Duration, stop: &'a AtomicBool) -> io::Result<Self> {
        let (host, unsent) = (to.host.clone(), Vec::new());
        let connected = begin_to_connect(to).and_then(|socket| {
            let probe = Self { socket, host, timeout, stop, unsent };
            probe.wait(PollFlags::OUT, Instant::now() + timeout)?;
            probe.socket.take_error()?.map_or(Ok(probe), Err)
        });
        connected.map_err(|error| {
            let text = format!("cannot connect ({error}): is the server running?");
            io::Error::new(error.kind(), text)
        })
    }

    /// Sends the first path of `request`, and waits for the whole answer. A server may answer
    /// before it has read the request. Then the rest of it is sent ahead of the next request.
    ///
    /// # Errors
    /// The answer is not whole in time, is not HTTP/1.1, or `stop` is set.
    pub fn ask(&mut self, request: &Request) -> io::Result<ProbeResponse> {
        let until = Instant::now() + self.timeout;
        let mut message = std::mem::take(&mut self.unsent);
        message.extend_from_slice(&render(request, &self.host)[0]);
        let mut unsent = &message[..];
        let mut write_error = None;
        let (mut parser, mut memory) = (Parser::default(), HeadCache::default());
        let (mut body, mut answer) = (Vec::new(), None::<FinishedResponse>);
        let mut buffer = vec![0; 64 * 1024];
        let is_head = request.method == "HEAD";
        let answer = loop {
            let writes = if unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            self.wait(PollFlags::IN | writes, until)?;
            // Read first: what a server answers early says why it takes no more of the request.
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    let cut_off = || write_error.unwrap_or(io::ErrorKind::UnexpectedEof.into());
                    break parser.close().ok_or_else(cut_off)?;
                }
                Ok(bytes) => {
                    let keep = (body.len() < PROBE_BODY_BYTES_MAX).then_some(&mut body);
                    parser
                        .feed(&buffer[..bytes], is_head, &mut memory, keep, |it| answer = Some(it))
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
                Err(error) if is_to_come(&error) => {}
                Err(error) => return Err(write_error.unwrap_or(error)),
            }
            if let Some(answer) = answer {
                break answer;
            }
            if unsent.is_empty() {
                continue;
            }
            match self.socket.write(unsent) {
                Ok(bytes) => unsent = &unsent[bytes..],
                Err(error) if is_to_come(&error) => {}
                Err(error) => {
                    // The answer may have come all the same.
                    unsent = &[];
                    write_error = Some(error);
                }
            }
        };
        self.unsent = unsent.to_vec();
        // The last read may have brought more than fits.
        body.truncate(PROBE_BODY_BYTES_MAX);
        Ok(ProbeResponse { status: answer.status, body })
    }

    /// Waits until the socket is ready in one of these ways. Looks at `stop` in between.
    fn wait(&self, flags: PollFlags, until: Instant) -> io::Result<()> {
        loop {
            // The deadline is for the whole answer, even if it comes in many small pieces.
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            let left = until.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A socket that connects by itself. It is writable once it has succeeded or failed.
fn begin_to_connect(to: &Destination) -> io::Result<TcpStream> {
    let domain = Domain::for_address(to.address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether a socket that does not block has to be waited for.
fn is_to_come(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
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
/// millisecond in between. An answer may take as long as those of the stream. Returns false if
/// there is no such answer before `until`, or if `stop` is set. `is_right` also gets the errors of
/// requests that fail.
pub fn ask_until(
    to: &Destination,
    stream: &Stream,
    until: Instant,
    stop: &AtomicBool,
    mut is_right: impl FnMut(io::Result<ProbeResponse>) -> bool,
) -> bool {
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        let answered = ask(to, &stream.request, left.min(stream.load.timeout), stop);
        // Nobody waits any longer for a request that was given up.
        let is_over = Instant::now() >= until || stop.load(Ordering::Relaxed);
        if answered.is_err() && is_over {
            return false;
        }
        if is_right(answered) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// The body of an answer that has the status that `request` expects. Otherwise counts a failure in
/// `reading`.
pub fn expected_body(
    answered: io::Result<ProbeResponse>,
    request: &Request,
    reading: &mut Reading,
) -> Option<Vec<u8>> {
    let line = format!("{} {}", request.method, request.paths[0]);
    match answered {
        Ok(it) if is_expected(request.status, it.status) => return Some(it.body),
        Ok(it) => {
            let failed = Errors { status: 1, ..Errors::default() };
            reading.fail(failed, format!("{line} was answered with {}", it.status));
        }
        Err(error) => reading.fail(Errors::of(&error), format!("{line}: {error}")),
    }
    None
}
