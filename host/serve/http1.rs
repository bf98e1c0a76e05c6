//! One connection from accept to close.
//!
//! Owns the loop that drives hyper: poll it, then have what it has written sent; and what is left
//! of a connection that is idle.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::balancer::ConnectionPermit;
use super::connection::Connection;
use super::hyper_io::HyperIo;
use super::linger::linger;
use super::pipeline;
use super::socket::Socket;
use super::worker::Worker;

/// How long a call may go on before its client is asked whether it is there.
const PROBE_AFTER: Duration = Duration::from_millis(100);
/// How long after that it is looked whether it has gone: first, and at most.
const PROBE_FIRST: Duration = Duration::from_millis(10);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, socket: Socket, peer: SocketAddr, permit: ConnectionPermit) {
    let Ok(origin) = socket.origin(peer) else { return };
    let client = worker.worker_clients.shares(peer);
    let (buffers, clock) = (worker.buffers.clone(), worker.clock.clone());
    let connection = Connection::new(socket, (origin, client), buffers, clock);
    let key = worker.connections.borrow_mut().insert(connection.clone());
    let _registered = RegisteredConnection { worker: worker.clone(), key, _permit: permit };
    let mut before = Bytes::new();
    // In a box that is given back while the connection is parked: hyper's state and its buffers
    // are nearly all that an idle connection would hold.
    let end = loop {
        let end = Box::pin(drive(&worker, &connection, before)).await;
        drop(connection.take_field_charge());
        match end {
            DriveEnd::Parked(read) => before = read,
            end => break end,
        }
        if before.is_empty() {
            wait_readable(&connection).await;
        } else {
            // A head that began in the same piece as the last request: that is when it came.
            connection.life.partial_since.set(Some(connection.life.active_at()));
        }
        connection.life.parking.set(false);
    };
    if matches!(end, DriveEnd::Complete) {
        connection.reset_on_close(false);
    }
    let has_unread_body = connection.exchanges.has_unread_body();
    if matches!(end, DriveEnd::Refused) || (matches!(end, DriveEnd::Complete) && has_unread_body) {
        Box::pin(linger(&connection)).await;
    }
}

/// Takes the connection off the worker's list when it ends, however it ends.
struct RegisteredConnection {
    worker: Rc<Worker>,
    key: usize,
    _permit: ConnectionPermit,
}

impl Drop for RegisteredConnection {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.key);
    }
}

/// How driving a connection has ended.
enum DriveEnd {
    /// Behind its last answer, or between two requests.
    Complete,
    /// What came is not HTTP. The client has been told so.
    Refused,
    /// In the middle of something.
    Aborted,
    /// It is idle, and can go on from here with these bytes, which have been read already.
    Parked(Bytes),
}

/// Drives hyper until the connection ends or is to be parked. `before` is what has been read.
async fn drive(worker: &Rc<Worker>, connection: &Rc<Connection>, before: Bytes) -> DriveEnd {
    let service = service_fn(|http| {
        let served = pipeline::serve(worker, connection, http);
        async move { Ok::<_, Infallible>(served.await) }
    });
    let header_bytes_max = worker.router.largest.header_bytes_max;
    let mut builder = http1::Builder::new();
    // hyper's own timer would cost a boxed sleep per request; `reaper.rs` has one per worker.
    builder.header_read_timeout(None);
    builder.max_header_size(header_bytes_max);
    // A client may end its side behind its last request. Whether it has gone is found out below.
    builder.half_close(true);
    let io = HyperIo { connection: connection.clone(), before };
    let mut driver = builder.serve_connection(io, service);
    let mut told_to_close = false;
    // hyper is not to be polled behind its end: it would end a body that has failed.
    let mut over = None;
    let end = std::future::poll_fn(|cx| {
        connection.life.attach(cx.waker());
        if connection.life.is_aborted() {
            return Poll::Ready(Some(DriveEnd::Aborted));
        }
        let turn = worker.poll_timer.begin();
        connection.life.begin_poll();
        if over.is_none() {
            let mut polled = Pin::new(&mut driver).poll(cx);
            if connection.life.closing.get() && !told_to_close && polled.is_pending() {
                told_to_close = true;
                Pin::new(&mut driver).graceful_shutdown();
                polled = Pin::new(&mut driver).poll(cx);
            }
            match polled {
                Poll::Ready(result) => over = Some(result),
                Poll::Pending => probe(connection, cx),
            }
        }
        let flushed = if over.is_none() && connection.can_send() {
            worker.flush_queue.push(connection);
            Poll::Pending
        } else {
            connection.flush(cx)
        };
        connection.life.end_poll();
        worker.poll_timer.end(&turn, &worker.counters().turn_max_us);
        match (&over, flushed) {
            (_, Poll::Ready(Err(_))) => Poll::Ready(Some(DriveEnd::Aborted)),
            (Some(result), Poll::Ready(Ok(()))) => Poll::Ready(Some(outcome(result))),
            (None, Poll::Ready(Ok(()))) if connection.life.parking.get() => {
                connection.life.parking.set(!told_to_close && connection.can_park());
                if connection.life.parking.get() { Poll::Ready(None) } else { Poll::Pending }
            }
            _ => Poll::Pending,
        }
    })
    .await;
    if let Some(end) = end {
        return end;
    }
    let read = driver.into_parts().read_buf;
    // Empty, it would still hold on to its buffer.
    DriveEnd::Parked(if read.is_empty() { Bytes::new() } else { read })
}

/// What it means that hyper has ended. An error is the client's: it has been answered, or there is
/// nobody to answer.
fn outcome(result: &hyper::Result<()>) -> DriveEnd {
    match result {
        Ok(()) => DriveEnd::Complete,
        Err(error) if error.is_parse() => DriveEnd::Refused,
        Err(_) => DriveEnd::Aborted,
    }
}

/// Finds out whether a client that has ended its side while its request is in flight has gone, so
/// that its call ends with it. One that only has no more to send reads an interim answer and waits
/// for the next; the machine of one that has gone refuses it. HTTP/1.0 has no interim answers. Who
/// is answered at once is sent none, nor is one whose body is still read: its end is found there.
fn probe(connection: &Rc<Connection>, cx: &mut Context<'_>) {
    let exchanges = &connection.exchanges;
    if !exchanges.is_any_unprobed() || exchanges.is_body_open() || !connection.poll_half_closed(cx)
    {
        return;
    }
    exchanges.note_probed();
    if exchanges.is_any_http10() {
        return;
    }
    let connection = Rc::downgrade(connection);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(PROBE_AFTER).await;
        match connection.upgrade() {
            Some(connection)
                if connection.exchanges.is_any_in_flight() && connection.send_continue() =>
            {
                connection.life.wake();
            }
            _ => return,
        }
        let mut pause = PROBE_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROBE_EVERY);
            let Some(connection) = connection.upgrade() else { return };
            if connection.is_reset() {
                return connection.life.abort();
            }
            if !connection.exchanges.is_any_in_flight() {
                return;
            }
        }
    });
}

/// Waits until something comes on a connection that holds no state but its socket, or it is asked
/// to close.
async fn wait_readable(connection: &Connection) {
    std::future::poll_fn(|cx| {
        if connection.life.closing.get() || connection.life.is_aborted() {
            return Poll::Ready(());
        }
        connection.poll_readable(cx)
    })
    .await;
}
