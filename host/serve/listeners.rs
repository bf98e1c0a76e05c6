//! Listening sockets: one per worker and address.
//!
//! Owns the binding, and the acceptance of connections down to the last in the queue, as far as
//! there is a place for them.

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

/// Connections that the kernel keeps for a worker which is busy.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The answer to who is one too many.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

/// The sockets of every worker for every address, and the addresses that were bound.
pub struct Listeners {
    addresses: Vec<ListenAddress>,
    /// By worker.
    pub sockets: Vec<Vec<socket2::Socket>>,
}

#[derive(Clone, Copy)]
struct ListenAddress {
    address: SocketAddr,
    /// Whether it is every address of the machine, those of IPv4 included.
    is_dual: bool,
}

impl Listeners {
    /// Where clients reach the host. What takes both protocols stands for each.
    pub fn reached(&self) -> Vec<SocketAddr> {
        let both = |it: &ListenAddress| {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, it.address.port()));
            [Some(it.address), it.is_dual.then_some(v4)]
        };
        self.addresses.iter().flat_map(both).flatten().collect()
    }

    /// The addresses for the log, with what they do not say themselves.
    pub fn described(&self) -> Vec<String> {
        let describe = |it: &ListenAddress| match it.address {
            SocketAddr::V6(v6) if it.is_dual => format!("{v6} (IPv6 and IPv4)"),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("{v6} (IPv6 alone)"),
            address => address.to_string(),
        };
        self.addresses.iter().map(describe).collect()
    }
}

/// Why an address cannot be listened on, and what to do.
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

/// Binds every address once per worker. A port 0 becomes one free port, the same for all workers.
/// Every address of IPv6 is every address of IPv4, too, unless one of IPv4 has its port.
///
/// # Errors
/// The address is in use or cannot be had; the text says what to do.
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
        // Sockets with SO_REUSEPORT share a port silently, with another program of the same user
        // too, so a plain one finds out first whether the port is free.
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

/// Accepts until `stop` is done, then whatever the kernel's queue still holds.
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
    // Closing a socket would reset the connections in its queue.
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
                // Some of those that are idle may go.
                reaper::evict_idle(worker);
                tracing::warn!("cannot accept connections now: {error}");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // Anything else is about one connection that has gone already.
            Err(error) => tracing::debug!("a connection was lost: {error}"),
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Takes a connection in, here or with another worker, if there is a place for it.
fn dispatch(worker: &Rc<Worker>, socket: Socket, peer: SocketAddr) {
    // A client of IPv4 is one and the same whichever socket it comes by.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let client_permit = match worker.clients.acquire(peer) {
        // It makes room for the next: it takes a moment to close.
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

/// Tells a client that there are too many connections. One that takes this as an answer to its
/// request will come back.
fn refuse(worker: &Worker, socket: Socket, peer: SocketAddr, full: ConnectionRefusal) {
    worker.counters().connections_refused.add(1);
    tracing::debug!("a connection from {peer} was refused: {full:?}");
    let Ok(mut socket) = socket.detach() else { return };
    // It may be closed at once. The socket of a new connection takes so little in one piece.
    socket.answer_unread(&mut [0_u8; 4096], REFUSAL);
    linger::linger_refused(worker, socket);
}

/// Starts one that another worker has accepted, or that comes back from there.
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
