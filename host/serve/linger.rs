//! The end of a connection on which bytes may be on their way: a socket that is closed over bytes
//! which nobody has read resets the connection, and takes away an answer that the client has not
//! read yet.
//!
//! Owns for how long and for how many bytes a client may go on sending behind its last answer.

use std::task::Poll;
use std::time::Duration;

use super::connection::Connection;
use super::socket::DetachedSocket;
use super::worker::{Worker, elapsed};

/// The longest pause, and all of it.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const LINGER_MAX: Duration = Duration::from_secs(30);
/// The same once the host stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// What is read and dropped of one client.
const BYTES_MAX: usize = 64 << 20;

/// Connections of one worker that were refused and wait for their client to see why, and for how
/// long and for how many bytes each of them does. They have no place among the others.
const REFUSED_MAX: usize = 64;
const REFUSED_LINGER_MAX: Duration = Duration::from_secs(1);
const REFUSED_BYTES_MAX: usize = 256 << 10;

/// Says that this was all, then reads and drops what still comes until the client has closed its
/// side, or has had its time.
pub async fn linger(connection: &Connection) {
    connection.life.lingers_since.set(Some(connection.life.now()));
    let (mut bytes_left, mut is_finished) = (BYTES_MAX, false);
    std::future::poll_fn(|cx| {
        if connection.life.is_aborted() {
            return Poll::Ready(());
        }
        if !is_finished {
            // It fails where the client has gone, which is seen below.
            is_finished = connection.poll_finish(cx).is_ready();
        }
        connection.poll_discard(cx, &mut bytes_left)
    })
    .await;
}

/// Whether a client has had its time.
pub fn is_expired(connection: &Connection, since: u32, is_draining: bool) -> bool {
    let now = connection.life.now();
    let all = if is_draining { DRAIN_MAX } else { LINGER_MAX };
    elapsed(connection.life.active_at(), now) > PAUSE_MAX || elapsed(since, now) >= all
}

/// Sees a client off that was refused a connection.
pub fn linger_refused(worker: &Worker, socket: DetachedSocket) {
    let refused = worker.refused.clone();
    if refused.get() >= REFUSED_MAX || socket.finish().is_err() {
        return;
    }
    let Ok(mut socket) = socket.attach() else { return };
    refused.set(refused.get() + 1);
    tokio::task::spawn_local(async move {
        let mut bytes_left = REFUSED_BYTES_MAX;
        let gone = std::future::poll_fn(|cx| socket.poll_discard(cx, &mut bytes_left));
        // However it ends, the connection is closed.
        drop(tokio::time::timeout(REFUSED_LINGER_MAX, gone).await);
        refused.set(refused.get() - 1);
    });
}
