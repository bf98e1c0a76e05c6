//! One request at a time on a plain blocking socket: what a server answers, and how soon.
//!
//! For what happens between measurements; nothing here is fast.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Request;
use super::response::{Answer, Memory, Parser};
use super::stream::{Destination, render};

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A connection that is kept for more than one request.
pub struct Probe {
    socket: TcpStream,
    host: String,
}

impl Probe {
    pub fn connect(to: &Destination, timeout: Duration) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&to.address, timeout).map_err(|error| {
            let text = format!("cannot connect ({error}): is the server running?");
            io::Error::new(error.kind(), text)
        })?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        Ok(Self { socket, host: to.host.clone() })
    }

    /// Sends the first path of `request` and waits for the whole answer.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answered> {
        let message = &render(request, &self.host)[0];
        self.socket.write_all(message)?;
        let (mut parser, mut memory) = (Parser::default(), Memory::default());
        let (mut body, mut answer) = (Vec::new(), None::<Answer>);
        let mut buffer = vec![0; 64 * 1024];
        let is_head = request.method == "HEAD";
        while answer.is_none() {
            let bytes = match self.socket.read(&mut buffer) {
                // Of a signal: a read with a timeout does not go on by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if bytes == 0 {
                answer = Some(parser.close().ok_or(io::ErrorKind::UnexpectedEof)?);
                break;
            }
            let input = &buffer[..bytes];
            parser
                .feed(input, is_head, &mut memory, Some(&mut body), |it| answer = Some(it))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let status = answer.map_or(0, |it| it.status);
        Ok(Answered { status, body })
    }
}

/// One request on a connection of its own.
pub fn ask(to: &Destination, request: &Request, timeout: Duration) -> io::Result<Answered> {
    Probe::connect(to, timeout)?.ask(request)
}

/// Asks until `is_right`, every millisecond on a new connection, at most for `within`: the time
/// that it took from `since`, and the answer.
pub fn ask_until(
    to: &Destination,
    request: &Request,
    since: Instant,
    within: Duration,
    is_right: impl Fn(&Answered) -> bool,
) -> Option<(Duration, Answered)> {
    while since.elapsed() < within {
        let left = within.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        match ask(to, request, left) {
            Ok(answered) if is_right(&answered) => return Some((since.elapsed(), answered)),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}
