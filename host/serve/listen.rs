//! Listening sockets: one per worker and address.
//!
//! Owns the binding, and the acceptance of connections down to the last in the queue.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::worker::Worker;

/// Connections that the kernel keeps for a worker which is busy.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The sockets of every worker for every address, and the addresses that were bound.
pub struct Bound {
    pub addresses: Vec<SocketAddr>,
    /// By worker.
    pub sockets: Vec<Vec<Socket>>,
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
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges; choose a higher one"
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
            _ => "choose another with --listen",
        };
        write!(f, "cannot listen on {}: {}: {hint}", self.address, self.cause)
    }
}

impl std::error::Error for BindError {}

/// Binds every address once per worker. A port 0 becomes one free port, the same for all workers.
///
/// # Errors
/// The address is in use or cannot be had; the text says what to do.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Bound, BindError> {
    let mut bound = Bound { addresses: Vec::new(), sockets: Vec::new() };
    bound.sockets.resize_with(workers, Vec::new);
    for wanted in addresses {
        // Sockets with SO_REUSEPORT share a port silently, with another program of the same user
        // too, so a plain one finds out first whether the port is free.
        if wanted.port() != 0 {
            drop(socket(*wanted, false).map_err(|cause| BindError { address: *wanted, cause })?);
        }
        let mut address = *wanted;
        for sockets in &mut bound.sockets {
            let socket = socket(address, true).map_err(|cause| BindError { address, cause })?;
            if let Some(local) = socket.local_addr().ok().and_then(|local| local.as_socket()) {
                address = local;
            }
            sockets.push(socket);
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts until `stop` is done, then whatever the kernel's queue still holds.
pub async fn accept(worker: Rc<Worker>, socket: Socket, stop: impl Future<Output = ()>) {
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
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            start(&worker, stream, peer);
        }
    }
}

async fn accept_all(worker: &Rc<Worker>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => start(worker, stream, peer),
            Err(error) if is_exhausted(&error) => {
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

fn start(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    // Without it, small answers wait for the client's acknowledgement. It can fail only on a
    // connection that is gone.
    drop(stream.set_nodelay(true));
    tokio::task::spawn_local(connection::serve(worker.clone(), stream, peer));
}
