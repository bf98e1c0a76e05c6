//! A scripted upstream: it records the requests, and answers with the bytes that a test gives.
//!
//! Each connection has a thread, which ends with the connection. It knows nothing of the host.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

/// A request as it was received. Names of headers are in lower case.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// Answers one request by writing to the connection. `false` closes the connection.
type Script = dyn Fn(&Seen, &mut TcpStream) -> io::Result<bool> + Send + Sync;

/// A server on a port of its own.
pub struct Upstream {
    addr: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    body_bytes: AtomicUsize,
}

impl Upstream {
    /// An upstream that answers each request with the same bytes and keeps the connection.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> Upstream {
        let bytes = bytes.into();
        Upstream::scripted(move |_, stream| stream.write_all(&bytes).map(|()| true))
    }

    /// An upstream that answers each request with the same bytes and closes the connection.
    pub fn saying_once(bytes: impl Into<Vec<u8>>) -> Upstream {
        let bytes = bytes.into();
        Upstream::scripted(move |_, stream| stream.write_all(&bytes).map(|()| false))
    }

    pub fn scripted(
        script: impl Fn(&Seen, &mut TcpStream) -> io::Result<bool> + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let record = Arc::new(Record::default());
        let script: Arc<Script> = Arc::new(script);
        let upstream = Upstream { addr, record: record.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (record, script) = (record.clone(), script.clone());
                record.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // A test that breaks connections also breaks them for the upstream.
                    let _ = converse(stream, &record, &*script);
                    record.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        upstream
    }

    /// The URL for `--upstream`, with this base path, which may be empty.
    pub fn url(&self, base: &str) -> String {
        format!("http://{}{base}", self.addr)
    }

    /// All requests so far, in the order in which they were complete.
    pub fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().expect("no thread of it panics").clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn one(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// The number of connections opened so far, and how many of them are closed.
    pub fn connections(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.record.connections), count(&self.record.closed))
    }

    /// The bytes of request bodies that have arrived.
    pub fn body_bytes(&self) -> usize {
        self.record.body_bytes.load(Ordering::SeqCst)
    }
}

/// A response with a length.
pub fn plain(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

fn converse(stream: TcpStream, record: &Record, script: &Script) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read(&mut reader, record)? {
        record.seen.lock().expect("no thread of it panics").push(seen.clone());
        if !script(&seen, &mut writer)? {
            break;
        }
    }
    Ok(())
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end_matches("\r\n").to_owned())
}

/// Reads fields, up to the empty line after them.
fn fields(reader: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let field = line(reader)?;
        let Some((name, value)) = field.split_once(':') else { return Ok(fields) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads one request. `None` at the end of the connection.
fn read(reader: &mut BufReader<TcpStream>, record: &Record) -> io::Result<Option<Seen>> {
    let start = line(reader)?;
    let mut words = start.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let version = words.next().unwrap_or_default();
    let mut seen = Seen { method, target, version, ..Seen::default() };
    seen.headers = fields(reader)?;
    if seen.all("transfer-encoding").contains(&"chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                seen.trailers = fields(reader)?;
                return Ok(Some(seen));
            }
            take(reader, record, &mut seen.body, size)?;
            line(reader)?;
        }
    }
    let length = seen.all("content-length").first().map(|text| text.parse());
    let length = length.transpose().map_err(io::Error::other)?;
    take(reader, record, &mut seen.body, length.unwrap_or(0))?;
    Ok(Some(seen))
}

/// Reads this many bytes, and counts them as they arrive.
fn take(
    reader: &mut BufReader<TcpStream>,
    record: &Record,
    body: &mut Vec<u8>,
    mut left: usize,
) -> io::Result<()> {
    let mut piece = [0; 4096];
    while left > 0 {
        let room = left.min(piece.len());
        let count = reader.read(&mut piece[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.extend_from_slice(&piece[..count]);
        record.body_bytes.fetch_add(count, Ordering::SeqCst);
        left -= count;
    }
    Ok(())
}

/// A server that reads a little of each request, answers, and ends the connection by `end`. Returns
/// its URL, without a path.
pub fn abrupt(answer: &[u8], end: fn(&TcpStream)) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = answer.to_vec();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // It has the head and some bytes after it.
            let _ = stream.read(&mut [0; 70_000]);
            let _ = stream.write_all(&answer);
            end(&stream);
        }
    });
    url
}

/// Ends a connection by a reset.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
