//! One connection from accept to close.
//!
//! Owns the loop that drives hyper: poll it, then have what it has written sent; and what is left
//! of a connection that is idle.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;

use super::balance::Seat;
use super::pipeline;
use super::wire::{Wire, WireEnd};
use super::worker::Worker;

/// How long a client that still sends may do so after the last answer, so that it can read it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, seat: Seat) {
    let wire = Wire::new(stream, worker.spares.clone(), worker.clock.clone());
    let key = worker.wires.borrow_mut().insert(wire.clone());
    let _registered = Registered { worker: worker.clone(), key, _seat: seat };
    let mut before = Bytes::new();
    // In a box that is given back while the connection is parked: hyper's state and its buffers
    // are nearly all that an idle connection would hold.
    while let End::Parked(read) = Box::pin(drive(&worker, &wire, peer, before)).await {
        before = read;
        if before.is_empty() {
            parked(&wire).await;
        }
        wire.parking.set(false);
    }
    if wire.unread.get() && !wire.broken.get() && !wire.doomed.get() {
        Box::pin(linger(&wire)).await;
    }
}

/// Takes the connection off the worker's list when it ends, however it ends.
struct Registered {
    worker: Rc<Worker>,
    key: usize,
    _seat: Seat,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.wires.borrow_mut().remove(self.key);
    }
}

/// How driving a connection has ended.
enum End {
    Closed,
    /// It is idle, and can go on from here with these bytes, which have been read already.
    Parked(Bytes),
}

/// Drives hyper until the connection ends or is to be parked. `before` is what has been read.
async fn drive(worker: &Rc<Worker>, wire: &Rc<Wire>, peer: SocketAddr, before: Bytes) -> End {
    let service = service_fn(|http| {
        let served = pipeline::serve(worker, wire, peer, http);
        async move { Ok::<_, Infallible>(served.await) }
    });
    let header_bytes_max = worker.config.limits.header_bytes_max;
    let mut builder = http1::Builder::new();
    // hyper's own timer would cost a boxed sleep per request; `guard` has one per worker.
    builder.header_read_timeout(None);
    builder.max_header_size(header_bytes_max);
    let end = WireEnd { wire: wire.clone(), before };
    let mut connection = builder.serve_connection(end, service);
    let mut told_to_close = false;
    let is_over = std::future::poll_fn(|cx| {
        wire.attach(cx.waker());
        if wire.doomed.get() {
            return Poll::Ready(true);
        }
        let turn = worker.turns.begin();
        wire.begin_round();
        let mut polled = Pin::new(&mut connection).poll(cx);
        if wire.closing.get() && !told_to_close && polled.is_pending() {
            told_to_close = true;
            Pin::new(&mut connection).graceful_shutdown();
            polled = Pin::new(&mut connection).poll(cx);
        }
        // An error is the client's: it has been answered by hyper, or there is nobody to answer.
        let flushed = if polled.is_pending() && wire.can_send() {
            worker.post.put(wire);
            Poll::Pending
        } else {
            wire.flush(cx)
        };
        wire.end_round();
        worker.turns.end(&turn, &worker.counters().turn_max_us);
        match (polled, flushed) {
            (Poll::Ready(_), Poll::Ready(_)) | (_, Poll::Ready(Err(_))) => Poll::Ready(true),
            (Poll::Pending, Poll::Ready(Ok(()))) if wire.parking.get() => {
                wire.parking.set(!told_to_close && wire.is_quiet());
                if wire.parking.get() { Poll::Ready(false) } else { Poll::Pending }
            }
            (Poll::Ready(_) | Poll::Pending, _) => Poll::Pending,
        }
    })
    .await;
    if is_over {
        return End::Closed;
    }
    let read = connection.into_parts().read_buf;
    // Empty, it would still hold on to its buffer.
    End::Parked(if read.is_empty() { Bytes::new() } else { read })
}

/// Waits until something comes on a connection that holds no state but its socket, or it is asked
/// to close.
async fn parked(wire: &Wire) {
    std::future::poll_fn(|cx| {
        if wire.closing.get() || wire.doomed.get() {
            return Poll::Ready(());
        }
        wire.poll_readable(cx)
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
