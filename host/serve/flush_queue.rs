//! Collects answers of several connections and sends them together.
//!
//! Owns how many answers wait and for how long. A client on the same machine sleeps until an answer
//! arrives, and waking it costs the sender a sixth of a short request's CPU time (measured, but no
//! run is committed). If several answers go out in a row, only the first has to wake the client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::Connection;

/// How many connections may wait to be flushed. Larger batches save nothing more.
const WAITING_MAX: usize = 32;
/// How long the first of them may wait for the work of other connections.
const WAIT_MAX: Duration = Duration::from_micros(400);

/// The connections of one worker that have something to send.
pub struct FlushQueue {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// When the first connection was queued.
    since: Cell<Instant>,
    /// Wakes the task that flushes the queue, which runs after all connections that are ready.
    wakeup: Rc<Notify>,
}

impl FlushQueue {
    /// An empty queue. `wakeup` wakes the task that flushes it.
    pub fn new(wakeup: Rc<Notify>) -> Self {
        FlushQueue { connections: RefCell::default(), since: Cell::new(Instant::now()), wakeup }
    }

    /// Queues a connection whose buffered bytes are to be sent together with those of others.
    /// Flushes the queue if it is full or has waited too long.
    pub fn push(&self, connection: &Rc<Connection>) {
        if connection.output.is_queued.replace(true) {
            return;
        }
        let waiting = {
            let mut connections = self.connections.borrow_mut();
            connections.push(connection.clone());
            connections.len()
        };
        if waiting == 1 {
            self.since.set(Instant::now());
            self.wakeup.notify_one();
        } else if waiting >= WAITING_MAX || self.since.get().elapsed() >= WAIT_MAX {
            self.flush();
        }
    }

    /// Sends the buffered bytes of all queued connections.
    pub fn flush(&self) {
        let mut connections = self.connections.take();
        for connection in connections.drain(..) {
            connection.output.is_queued.set(false);
            connection.send();
        }
        // Keep the allocation for the next ones.
        self.connections.replace(connections);
    }
}
