//! Serves one connection from accept to close.
//!
//! Owns the loop that drives hyper: poll it, then send what it has written. Owns also the parked
//! state of idle connections.

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

/// How long a call may run before a half-closed client is probed.
const PROBE_AFTER: Duration = Duration::from_millis(100);
/// When to look for the first time after the probe whether the client has reset the connection.
const PROBE_FIRST: Duration = Duration::from_millis(10);
/// The longest pause between two such looks; each pause is twice the last.
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
    // Boxed, so that a parked connection frees hyper's state and buffers. These are nearly all the
    // memory that an idle connection holds.
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
            // The next head began in the same read as the last request, so it arrived back then.
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

/// Removes the connection from the worker's list when it is dropped.
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

/// Why [`drive`] has returned.
enum DriveEnd {
    /// The connection has ended after its last answer, or between two requests.
    Complete,
    /// The client has sent something that is not HTTP, and has got an answer that says so.
    Refused,
    /// The connection has ended in the middle of a request or an answer.
    Aborted,
    /// The connection is idle and gets parked. These bytes were read already.
    Parked(Bytes),
}

/// Drives hyper until the connection ends or gets parked. `before` are bytes already read.
async fn drive(worker: &Rc<Worker>, connection: &Rc<Connection>, before: Bytes) -> DriveEnd {
    let service = service_fn(|http| {
        let served = pipeline::serve(worker, connection, http);
        async move { Ok::<_, Infallible>(served.await) }
    });
    let header_bytes_max = worker.router.largest.header_bytes_max;
    let mut builder = http1::Builder::new();
    // hyper's own timer would cost a boxed sleep per request. `reaper.rs` has one per worker.
    builder.header_read_timeout(None);
    builder.max_header_size(header_bytes_max);
    // A client may close its side after its last request. `probe` finds out whether it is gone.
    builder.half_close(true);
    let io = HyperIo { connection: connection.clone(), before };
    let mut driver = builder.serve_connection(io, service);
    let mut told_to_close = false;
    // Do not poll hyper after it has ended: it would complete a body that has failed.
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
    // An empty slice of hyper's buffer would still keep the whole buffer alive.
    DriveEnd::Parked(if read.is_empty() { Bytes::new() } else { read })
}

/// Why hyper has ended. Errors are the client's: hyper has answered it, or the client is gone.
fn outcome(result: &hyper::Result<()>) -> DriveEnd {
    match result {
        Ok(()) => DriveEnd::Complete,
        Err(error) if error.is_parse() => DriveEnd::Refused,
        Err(_) => DriveEnd::Aborted,
    }
}

/// Finds out whether a client that has closed its side during its request is gone, to end its call.
///
/// The probe is an interim response. A client that only has nothing more to send reads it and
/// waits on; the machine of a client that is gone answers with a reset. HTTP/1.0 has no interim
/// responses, so such clients are not probed. Nor are clients whose answer comes soon, or whose
/// body is still being read, which notices the end by itself.
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

/// Waits until a parked connection becomes readable or has to close.
async fn wait_readable(connection: &Connection) {
    std::future::poll_fn(|cx| {
        if connection.life.closing.get() || connection.life.is_aborted() {
            return Poll::Ready(());
        }
        connection.poll_readable(cx)
    })
    .await;
}
