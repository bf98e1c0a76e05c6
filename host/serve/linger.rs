//! Lingering close. If a socket is closed while it has unread input, the kernel resets the
//! connection, and the client may lose an answer that it has not read yet.
//!
//! Owns for how long and for how many bytes a client may go on sending after its last answer.

use std::task::Poll;
use std::time::Duration;

use super::connection::Connection;
use super::socket::DetachedSocket;
use super::worker::{Worker, elapsed};

/// How long a lingering client may pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a connection lingers at most.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// How long a connection lingers at most once the host stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How many bytes are read and dropped per connection.
const BYTES_MAX: usize = 64 << 20;

/// How many refused connections of one worker may linger. These do not count as connections.
const REFUSED_MAX: usize = 64;
/// How long a refused connection lingers at most.
const REFUSED_LINGER_MAX: Duration = Duration::from_secs(1);
/// How many bytes are read and dropped per refused connection.
const REFUSED_BYTES_MAX: usize = 256 << 10;

/// Shuts the sending side down, then reads and drops input until the client has closed its side.
/// The reaper aborts a connection that takes too long.
pub async fn linger(connection: &Connection) {
    connection.life.lingers_since.set(Some(connection.life.now()));
    let (mut bytes_left, mut is_finished) = (BYTES_MAX, false);
    std::future::poll_fn(|cx| {
        if connection.life.is_aborted() {
            return Poll::Ready(());
        }
        if !is_finished {
            // This fails if the client is gone, which `poll_discard` notices too.
            is_finished = connection.poll_finish(cx).is_ready();
        }
        connection.poll_discard(cx, &mut bytes_left)
    })
    .await;
}

/// Whether a connection that lingers since tick `since` has lingered for too long.
pub fn is_expired(connection: &Connection, since: u32, is_draining: bool) -> bool {
    let now = connection.life.now();
    let all = if is_draining { DRAIN_MAX } else { LINGER_MAX };
    elapsed(connection.life.active_at(), now) > PAUSE_MAX || elapsed(since, now) >= all
}

/// Closes a refused connection after its client had time to read the refusal.
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
        // The connection is closed after this, with or without a timeout.
        drop(tokio::time::timeout(REFUSED_LINGER_MAX, gone).await);
        refused.set(refused.get() - 1);
    });
}
