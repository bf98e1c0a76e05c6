//! Listening sockets: one per worker and address.
//!
//! Owns binding the addresses and accepting connections, including those that are still in the
//! kernel's queue when the host stops.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpListener;

use super::balancer::{AcceptedConnection, ConnectionPermit};
use super::clients::ConnectionRefusal;
use super::socket::{DetachedSocket, Socket};
use super::worker::Worker;
use super::{http1, linger, reaper};

/// How many connections the kernel queues for a busy worker.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a client whose connection is refused.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

/// The bound addresses, and the listening sockets of every worker.
pub struct Listeners {
    addresses: Vec<ListenAddress>,
    /// The sockets of each worker, one per address.
    pub sockets: Vec<Vec<socket2::Socket>>,
}

#[derive(Clone, Copy)]
struct ListenAddress {
    address: SocketAddr,
    /// Whether it is `[::]` and also accepts IPv4.
    is_dual: bool,
}

impl Listeners {
    /// The addresses at which clients reach the host. A dual-stack address is listed for IPv6 and
    /// for IPv4.
    pub fn reached(&self) -> Vec<SocketAddr> {
        let both = |it: &ListenAddress| {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, it.address.port()));
            [Some(it.address), it.is_dual.then_some(v4)]
        };
        self.addresses.iter().flat_map(both).flatten().collect()
    }

    /// The addresses for the log. An unspecified IPv6 address says whether it accepts IPv4, too.
    pub fn described(&self) -> Vec<String> {
        let describe = |it: &ListenAddress| match it.address {
            SocketAddr::V6(v6) if it.is_dual => format!("{v6} (IPv6 and IPv4)"),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("{v6} (IPv6 alone)"),
            address => address.to_string(),
        };
        self.addresses.iter().map(describe).collect()
    }
}

/// Why an address cannot be listened on. The text also says what to do.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hint = match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                "another program is using it; stop that one, or choose another with --listen \
                 (port 0 picks a free one)"
            }
            io::ErrorKind::PermissionDenied if self.is_privileged() => {
                "ports below 1024 need privileges; choose a higher one"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                "a system call of sockets (socket, setsockopt, bind, listen, getsockname, fcntl) \
                 is refused here: allow it in the seccomp profile"
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
            _ => "choose another with --listen",
        };
        write!(f, "cannot listen on {}: {}: {hint}", self.address, self.cause)
    }
}

impl std::error::Error for BindError {}

impl BindError {
    fn is_privileged(&self) -> bool {
        (1..1024).contains(&self.address.port())
    }
}

/// Binds every address once per worker. Port 0 becomes a free port, the same for all workers.
/// `[::]` also accepts IPv4, unless an IPv4 address with the same port is listed.
///
/// # Errors
/// An address is in use or not available. The text says what to do.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Listeners, BindError> {
    let mut bound = Listeners { addresses: Vec::new(), sockets: Vec::new() };
    bound.sockets.resize_with(workers, Vec::new);
    for wanted in addresses {
        let mut listed = addresses.iter();
        let is_dual = wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && !listed.any(|other| other.is_ipv4() && other.port() == wanted.port());
        let socket = |address, is_shared| {
            let made = socket(address, is_dual, is_shared);
            made.map_err(|cause| BindError { address, cause })
        };
        // SO_REUSEPORT shares a port silently, even with another program of the same user. So a
        // socket without it tests first whether the port is free.
        if wanted.port() != 0 {
            drop(socket(*wanted, false)?);
        }
        let mut address = *wanted;
        for sockets in &mut bound.sockets {
            let socket = socket(address, true)?;
            let local = socket.local_addr().map_err(|cause| BindError { address, cause })?;
            address = local.as_socket().unwrap_or(address);
            sockets.push(socket);
        }
        bound.addresses.push(ListenAddress { address, is_dual });
    }
    Ok(bound)
}

fn socket(address: SocketAddr, is_dual: bool, is_shared: bool) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts connections until `stop` is ready, then those that the kernel's queue still holds.
pub async fn accept(worker: Rc<Worker>, socket: socket2::Socket, stop: impl Future<Output = ()>) {
    let listener = match TcpListener::from_std(socket.into()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a listening socket was lost: {error}"),
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = accept_all(&worker, &listener) => {}
    }
    // Closing the socket would reset the connections in its queue, so accept them first.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(socket) = DetachedSocket::Tcp(stream).attach() {
            dispatch(&worker, socket, peer);
        }
    }
}

async fn accept_all(worker: &Rc<Worker>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => dispatch(worker, Socket::Tcp(stream), peer),
            Err(error) if is_exhausted(&error) => {
                // Closing an idle connection frees a descriptor.
                reaper::evict_idle(worker);
                tracing::warn!("cannot accept connections now: {error}");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // Any other error concerns one connection that is already gone.
            Err(error) => tracing::debug!("a connection was lost: {error}"),
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Starts a new connection on this worker or hands it to another; refuses it if there are too many.
fn dispatch(worker: &Rc<Worker>, socket: Socket, peer: SocketAddr) {
    // An IPv4 client must have the same address whether it comes by an IPv4 or a dual-stack socket.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let client_permit = match worker.clients.acquire(peer) {
        // The evicted connection takes a moment to close, so this one may exceed the limit.
        Err(ConnectionRefusal::InAll) if reaper::evict_idle(worker) => {
            worker.clients.acquire_over_limit(peer)
        }
        entered => entered,
    };
    let permit = match client_permit {
        Ok(presence) => worker.balancer.assign(worker.index, presence),
        Err(full) => return refuse(worker, socket, peer, full),
    };
    if permit.worker() == worker.index || worker.draining.get() {
        return start(worker, socket, peer, permit);
    }
    let Ok(socket) = socket.detach() else { return };
    if let Err(back) = worker.balancer.hand_over(AcceptedConnection { socket, peer, permit }) {
        start_accepted(worker, back);
    }
}

/// Answers that there are too many connections, then closes the socket. A client that takes this as
/// the answer to its request will try again later.
fn refuse(worker: &Worker, socket: Socket, peer: SocketAddr, full: ConnectionRefusal) {
    worker.counters().connections_refused.add(1);
    tracing::debug!("a connection from {peer} was refused: {full:?}");
    let Ok(mut socket) = socket.detach() else { return };
    // The send buffer of a new connection is empty, so it takes this short answer in one piece.
    socket.answer_unread(&mut [0_u8; 4096], REFUSAL);
    linger::linger_refused(worker, socket);
}

/// Starts a connection that another worker has accepted, or that another worker did not take.
pub fn start_accepted(
    worker: &Rc<Worker>,
    AcceptedConnection { socket, peer, permit }: AcceptedConnection,
) {
    if let Ok(socket) = socket.attach() {
        start(worker, socket, peer, permit);
    }
}

fn start(worker: &Rc<Worker>, socket: Socket, peer: SocketAddr, permit: ConnectionPermit) {
    socket.set_nodelay();
    tokio::task::spawn_local(http1::serve(worker.clone(), socket, peer, permit));
}
