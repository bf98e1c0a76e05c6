//! One request at a time on a plain blocking socket: what a server answers, and how soon.
//!
//! For what happens between measurements; nothing here is fast.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::load::Request;
use super::response::{FinishedResponse, HeadCache, Parser};
use super::stream::{Destination, render};

/// So much of a body is kept to be compared.
const PROBE_BODY_BYTES_MAX: usize = 64 << 20;
/// How long a probe that is to stop may go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a server answered, with the beginning of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResponse {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A connection that is kept for more than one request.
pub struct Probe<'a> {
    socket: TcpStream,
    host: String,
    timeout: Duration,
    stop: &'a AtomicBool,
}

impl<'a> Probe<'a> {
    /// An answer may take `timeout`; once `stop` is set, nothing is waited for.
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

    /// Sends the first path of `request` and waits for the whole answer.
    pub fn ask(&mut self, request: &Request) -> io::Result<ProbeResponse> {
        let until = Instant::now() + self.timeout;
        let message = &render(request, &self.host)[0];
        self.socket.write_all(message)?;
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
        let status = answer.map_or(0, |it| it.status);
        Ok(ProbeResponse { status, body })
    }

    /// Reads what there is; waits for it in steps, so as to see in between that it is to stop.
    fn read(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        loop {
            // However an answer trickles in, it has to be whole in time.
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            match self.socket.read(buffer) {
                Ok(bytes) => return Ok(bytes),
                // Of a signal: a read with a timeout does not go on by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// One request on a connection of its own.
pub fn ask(
    to: &Destination,
    request: &Request,
    timeout: Duration,
    stop: &AtomicBool,
) -> io::Result<ProbeResponse> {
    Probe::connect(to, timeout, stop)?.ask(request)
}

/// Asks until `is_right`, every millisecond on a new connection, at most `until`: whether it was.
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
