//! A scripted server to be measured. It counts the requests, and answers as a test says.
//!
//! Each connection has a thread, which ends with the connection. It knows nothing of its client.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use socket2::{Domain, Socket, Type};

/// The usual answer.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The number of requests that are recorded in full.
const RECORDED_MAX: usize = 64;
/// After this time without a byte, no more requests are expected. A client that sends one too many
/// has had the time for it.
const LULL: Duration = Duration::from_millis(50);

/// A request as it was received. Names of headers are in lower case.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// A request, and how many came before it.
pub struct Asked {
    pub request: Request,
    /// Its number among all requests, from 0.
    pub number: usize,
    /// Its number among the requests with this target, from 0.
    pub of_target: usize,
    /// The number of its connection, from 0.
    pub connection: usize,
}

/// Answers one request. `false` closes the connection.
type Script = dyn Fn(&Asked, &mut StubConnection) -> io::Result<bool> + Send + Sync;

/// The behaviour of a stub beside its script.
pub struct Setup {
    /// Answers nothing as long as requests keep coming.
    pub waits: bool,
    /// Stops listening after this many connections.
    pub connections_max: usize,
    /// From this connection on, the script gets the raw bytes instead of requests.
    pub raw_from: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { waits: false, connections_max: usize::MAX, raw_from: usize::MAX }
    }
}

/// The server's end of a connection.
pub struct StubConnection {
    pub stream: TcpStream,
    out: Vec<u8>,
}

impl StubConnection {
    /// Queues bytes. They are sent together with those for the requests that arrived with this one.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<bool> {
        self.out.extend_from_slice(bytes.as_ref());
        Ok(true)
    }

    /// Sends each byte in a segment of its own.
    pub fn dribble(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.flush()?;
        for byte in bytes {
            self.stream.write_all(&[*byte])?;
        }
        Ok(true)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) -> io::Result<bool> {
        set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Ok(false)
    }

    /// Stays silent until the client closes the connection.
    pub fn stay_silent(&mut self) -> io::Result<bool> {
        self.flush()?;
        self.stream.set_read_timeout(None)?;
        let mut bytes = [0; 4096];
        while self.stream.read(&mut bytes)? > 0 {}
        Ok(false)
    }
}

/// A server on a port of its own. It listens until it is dropped.
pub struct Stub {
    addr: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// The targets in the order of their first requests, and the number of requests for each.
    targets: Mutex<(Vec<String>, HashMap<String, usize>)>,
    recorded: Mutex<Vec<Request>>,
    depth_max: AtomicUsize,
    waiting: AtomicUsize,
    waiting_max: AtomicUsize,
    held_ns: AtomicU64,
    has_ended: AtomicBool,
}

impl Stub {
    pub fn new(
        script: impl Fn(&Asked, &mut StubConnection) -> io::Result<bool> + Send + Sync + 'static,
    ) -> Stub {
        Stub::with(Setup::default(), script)
    }

    /// A stub that gives the usual answer to all requests.
    pub fn ok() -> Stub {
        Stub::new(|_, client| client.say(OK))
    }

    /// A stub that gives the usual answer after a delay, on each connection by itself.
    pub fn after(delay: Duration) -> Stub {
        Stub::new(move |_, client| {
            std::thread::sleep(delay);
            client.say(OK)
        })
    }

    pub fn with(
        setup: Setup,
        script: impl Fn(&Asked, &mut StubConnection) -> io::Result<bool> + Send + Sync + 'static,
    ) -> Stub {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let record = Arc::new(Record::default());
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&record));
        let setup = Arc::new(setup);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if seen.has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                let (record, script) = (Arc::clone(&seen), Arc::clone(&script));
                let setup_too = Arc::clone(&setup);
                // A connection that breaks is up to the client, and some tests are about it.
                std::thread::spawn(move || record.serve(number, stream, &setup_too, &*script));
                if number + 1 >= setup.connections_max {
                    return;
                }
            }
        });
        Stub { addr, record }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.record.requests.load(Ordering::SeqCst)
    }

    /// The targets of all requests, in their order.
    pub fn targets(&self) -> Vec<String> {
        locked(&self.record.targets).0.clone()
    }

    pub fn of_target(&self, target: &str) -> usize {
        locked(&self.record.targets).1.get(target).copied().unwrap_or(0)
    }

    /// The first requests.
    pub fn recorded_requests(&self) -> Vec<Request> {
        locked(&self.record.recorded).clone()
    }

    /// The most unanswered requests at once on one connection.
    pub fn depth_max(&self) -> usize {
        self.record.depth_max.load(Ordering::SeqCst)
    }

    /// The most unanswered requests at once on all connections.
    pub fn waiting_max(&self) -> usize {
        self.record.waiting_max.load(Ordering::SeqCst)
    }

    /// The mean time from a request to its answer, by the server's clock.
    pub fn held(&self) -> Duration {
        let held_ns = self.record.held_ns.load(Ordering::SeqCst);
        Duration::from_nanos(held_ns / self.requests().max(1) as u64)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.record.has_ended.store(true, Ordering::SeqCst);
        // The thread waits for a connection. If it has already stopped listening, none is made.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Record {
    fn serve(
        &self,
        connection: usize,
        stream: TcpStream,
        setup: &Setup,
        script: &Script,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut client = StubConnection { stream, out: Vec::new() };
        if connection >= setup.raw_from {
            let request = Request::default();
            let asked = Asked { request, number: connection, of_target: connection, connection };
            script(&asked, &mut client)?;
            return Ok(());
        }
        let (mut buffer, mut batch) = (Vec::new(), Vec::new());
        let mut since = Instant::now();
        loop {
            while let Some(request) = take(&mut buffer) {
                if batch.is_empty() {
                    since = Instant::now();
                }
                batch.push(self.count(connection, request));
            }
            self.depth_max.fetch_max(batch.len(), Ordering::SeqCst);
            let patience = if batch.is_empty() { None } else { Some(LULL) };
            if batch.is_empty() || setup.waits {
                client.stream.set_read_timeout(patience)?;
                match fill(&mut client.stream, &mut buffer)? {
                    Came::Bytes => continue,
                    Came::End => return Ok(()),
                    Came::Nothing => {}
                }
            }
            let count = batch.len();
            let mut goes_on = true;
            for asked in batch.drain(..) {
                goes_on = goes_on && script(&asked, &mut client)?;
            }
            // Before the answers are sent: the next requests may arrive before this thread goes on.
            self.waiting.fetch_sub(count, Ordering::SeqCst);
            client.flush()?;
            let held_ns = since.elapsed().as_nanos() as u64 * count as u64;
            self.held_ns.fetch_add(held_ns, Ordering::SeqCst);
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn count(&self, connection: usize, request: Request) -> Asked {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.waiting_max.fetch_max(waiting, Ordering::SeqCst);
        if number < RECORDED_MAX {
            locked(&self.recorded).push(request.clone());
        }
        let mut targets = locked(&self.targets);
        targets.0.push(request.target.clone());
        let of_target = targets.1.entry(request.target.clone()).or_insert(0);
        *of_target += 1;
        Asked { number, of_target: *of_target - 1, connection, request }
    }
}

/// An address on which nothing listens as long as the socket is kept.
pub fn nowhere() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let addr = socket.local_addr().expect("an address").as_socket().expect("of IP");
    (socket, addr)
}

/// The result of a read.
enum Came {
    Bytes,
    End,
    Nothing,
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Came> {
    let mut bytes = [0; 64 * 1024];
    match stream.read(&mut bytes) {
        Ok(0) => Ok(Came::End),
        Ok(count) => {
            buffer.extend_from_slice(&bytes[..count]);
            Ok(Came::Bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Came::Bytes),
        Err(error) => Err(error),
    }
}

/// The first request in the buffer, once it is complete.
fn take(buffer: &mut Vec<u8>) -> Option<Request> {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<(String, String)> = lines.map(field).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    let body = buffer.get(end + 4..end + 4 + length)?.to_vec();
    buffer.drain(..end + 4 + length);
    Some(Request { method, target, headers, body })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
