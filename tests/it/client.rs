//! A small HTTP/1.1 client over a plain socket. A test decides the exact bytes that are sent.
//!
//! It reads responses strictly and panics on everything that HTTP does not allow. Every read has a
//! deadline. It knows nothing of the host under test.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::patience::soon;

pub use response::Response;

mod response;

/// How long one read or write may take before the test fails. On an ordinary machine, 10 seconds:
/// a connection that the host closes only because of a timeout, such as 15 seconds for a head,
/// would come too late.
fn one_wait() -> Duration {
    soon() / 2
}

/// One connection, kept alive until it is dropped.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were received and belong to no response yet.
    buffer: Vec<u8>,
}

/// A response without its body.
struct Head {
    version: String,
    status: u16,
    headers: Vec<(String, String)>,
}

impl Connection {
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Connection {
        Connection::try_open(addr).unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    pub fn try_open(addr: SocketAddr) -> io::Result<Connection> {
        Connection::over(TcpStream::connect_timeout(&addr, one_wait())?)
    }

    /// Connects as a client with this address, such as `127.0.0.2`.
    #[track_caller]
    pub fn open_from(client: IpAddr, addr: SocketAddr) -> Connection {
        let connect = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(client, 0).into())?;
            socket.connect_timeout(&addr.into(), one_wait())?;
            Connection::over(socket.into())
        };
        connect().unwrap_or_else(|error: io::Error| panic!("cannot connect: {error}"))
    }

    fn over(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(one_wait()))?;
        stream.set_write_timeout(Some(one_wait()))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends a GET and reads the response.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// Sends a request and reads the response. The body goes with its length unless `headers` frame
    /// it.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.send(message(method, path, headers, body));
        self.read_to(method)
    }

    /// Sends raw bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Reads the next response, which is not one to a HEAD.
    #[track_caller]
    pub fn read(&mut self) -> Response {
        self.read_to("GET")
    }

    /// Reads the next response, as the answer to a request with this method.
    #[track_caller]
    pub fn read_to(&mut self, method: &str) -> Response {
        match self.next(method) {
            Ok(Some(response)) => response,
            Ok(None) => panic!("the connection was closed instead of an answer"),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Reads the next response. `None` if the connection was closed before its first byte.
    ///
    /// # Errors
    /// The connection broke, no data came in time, or it ended inside the response.
    pub fn next(&mut self, method: &str) -> io::Result<Option<Response>> {
        let mut interim = Vec::new();
        loop {
            let Some(head) = self.head()? else {
                return Ok(None);
            };
            if (100..200).contains(&head.status) && head.status != 101 {
                interim.push(head.status);
                continue;
            }
            let mut response = Response {
                version: head.version,
                status: head.status,
                headers: head.headers,
                body: Vec::new(),
                trailers: Vec::new(),
                interim,
            };
            self.body(&mut response, method)?;
            return Ok(Some(response));
        }
    }

    /// Reads one interim response, such as `100 Continue`, and returns its status.
    #[track_caller]
    pub fn read_interim(&mut self) -> u16 {
        match self.head() {
            Ok(Some(head)) if head.status < 200 => head.status,
            Ok(Some(head)) => panic!("{} instead of an interim response", head.status),
            Ok(None) => panic!("the connection was closed instead of an interim response"),
            Err(error) => panic!("no interim response: {error}"),
        }
    }

    /// Closes the sending half of the connection.
    pub fn finish(&mut self) {
        // The other side may have closed already, which ends this half as well.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads raw bytes until the server closes. A reset counts as a close.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.buffer),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {
                    let so_far = String::from_utf8_lossy(&self.buffer);
                    panic!("the connection stayed open, after {so_far:?}")
                }
                Err(_) => return std::mem::take(&mut self.buffer),
            }
        }
    }

    /// Asserts that no bytes have arrived that belong to no response.
    #[track_caller]
    pub fn assert_silent(&mut self) {
        let unread = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(self.buffer.is_empty(), "{:?}", unread(&self.buffer));
        self.stream.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 1024];
        let came = self.stream.read(&mut bytes);
        self.stream.set_nonblocking(false).expect("a socket");
        match came {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("the connection broke: {error}"),
            Ok(0) => panic!("the connection was closed"),
            Ok(count) => panic!("{:?}", unread(&bytes[..count])),
        }
    }

    fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(broken("the connection ended inside a response head"))
                };
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let (status_line, fields) = text.split_once("\r\n").unwrap_or((&text, ""));
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        assert!(matches!(version.as_str(), "HTTP/1.1" | "HTTP/1.0"), "{status_line:?}");
        let status = words.next().and_then(|it| it.parse().ok());
        Ok(Some(Head {
            version,
            status: status.unwrap_or_else(|| panic!("status line {status_line:?}")),
            headers: parse_fields(fields),
        }))
    }

    fn body(&mut self, response: &mut Response, method: &str) -> io::Result<()> {
        let length = response.header("content-length").map(|it| {
            it.parse::<usize>().unwrap_or_else(|error| panic!("content-length {it:?}: {error}"))
        });
        let coding = response.header("transfer-encoding").map(str::to_owned);
        assert!(
            length.is_none() || coding.is_none(),
            "both Content-Length and Transfer-Encoding: {response:?}"
        );
        let bodyless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        if bodyless {
            return Ok(());
        }
        match (coding.as_deref(), length) {
            (Some("chunked"), _) => self.chunked(response)?,
            (Some(other), _) => panic!("transfer-encoding {other:?}"),
            (None, Some(length)) => response.body = self.take(length)?,
            (None, None) => {
                while self.fill()? > 0 {}
                response.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(())
    }

    fn chunked(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|error| panic!("chunk size {line:?}: {error}"));
            if size == 0 {
                break;
            }
            let chunk = self.take(size)?;
            response.body.extend(chunk);
            assert_eq!(self.line()?, "", "after a chunk");
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            response.trailers.extend(parse_fields(&line));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(broken("the connection ended inside a chunked body"));
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill()? == 0 {
                return Err(broken("the connection ended inside a body"));
            }
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads once. 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut bytes) {
                // After the machine was suspended, a read with a deadline is not restarted by
                // itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// A whole request in bytes. The body goes with its length unless `headers` frame it or it is
/// empty.
pub fn message(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| {
        let named = |line: &&str| line.to_ascii_lowercase().starts_with(name);
        headers.iter().any(named)
    };
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !has("host:") {
        text += "host: guest.test\r\n";
    }
    for line in headers {
        text += &format!("{line}\r\n");
    }
    if !body.is_empty() && !has("content-length:") && !has("transfer-encoding:") {
        text += &format!("content-length: {}\r\n", body.len());
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn parse_fields(text: &str) -> Vec<(String, String)> {
    let field = |line: &str| {
        let (name, value) =
            line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let lines = text.split("\r\n").filter(|line| !line.is_empty());
    lines.map(field).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}

fn broken(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
