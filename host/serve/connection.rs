//! One connection from accept to close.
//!
//! Owns the loop that drives hyper: poll it, then send what it has written.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;

use super::pipeline;
use super::wire::{Wire, WireEnd};
use super::worker::Worker;

/// How long a client that still sends may do so after the last answer, so that it can read it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let wire = Wire::new(stream, worker.spares.clone(), worker.clock.clone());
    let key = worker.wires.borrow_mut().insert(wire.clone());
    let _registered = Registered { worker: worker.clone(), key };
    drive(&worker, &wire, peer).await;
    if wire.unread.get() && !wire.broken.get() && !wire.doomed.get() {
        linger(&wire).await;
    }
}

/// Takes the connection off the worker's list when it ends, however it ends.
struct Registered {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.wires.borrow_mut().remove(self.key);
    }
}

async fn drive(worker: &Rc<Worker>, wire: &Rc<Wire>, peer: SocketAddr) {
    let service = service_fn(|http| {
        let served = pipeline::serve(worker, wire, peer, http);
        async move { Ok::<_, Infallible>(served.await) }
    });
    let header_bytes_max = worker.config.limits.header_bytes_max;
    let mut builder = http1::Builder::new();
    // hyper's own timer would cost a boxed sleep per request; `guard` has one per worker.
    builder.header_read_timeout(None);
    builder.max_header_size(header_bytes_max);
    let mut connection = pin!(builder.serve_connection(WireEnd(wire.clone()), service));
    let mut told_to_close = false;
    std::future::poll_fn(|cx| {
        wire.attach(cx.waker());
        if wire.doomed.get() {
            return Poll::Ready(());
        }
        let mut polled = connection.as_mut().poll(cx);
        if wire.closing.get() && !told_to_close && polled.is_pending() {
            told_to_close = true;
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
        }
        // An error is the client's: it has been answered by hyper, or there is nobody to answer.
        let flushed = wire.flush(cx);
        match (polled, flushed) {
            (Poll::Ready(_), Poll::Ready(_)) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            (Poll::Ready(_) | Poll::Pending, _) => Poll::Pending,
        }
    })
    .await;
}

/// Lets a client that is still sending a body read the answer: closing at once would reset the
/// connection under it.
async fn linger(wire: &Wire) {
    let mut bytes_left = LINGER_BYTES_MAX;
    let discard = std::future::poll_fn(|cx| wire.poll_discard(cx, &mut bytes_left));
    // However it ends, the connection is closed.
    drop(tokio::time::timeout(LINGER, discard).await);
}
