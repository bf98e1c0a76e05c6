//! Answers on their way out: those of connections that are ready together leave together.
//!
//! Owns how many wait and for how long. Sent one by one, each finds its client asleep where that is
//! on the same machine, and to wake it is the sender's work: a sixth of a short request's CPU time.
//! In a row, the first wakes the client and the others find it awake (benches/README.md).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::Connection;

/// Connections whose answers wait at most, and how long the first of them does, as far as it is
/// for another connection's work. More than so many make nothing cheaper.
const WAITING_MAX: usize = 32;
const WAIT_MAX: Duration = Duration::from_micros(400);

/// The connections of one worker that have something to send.
pub struct FlushQueue {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// When the first of them came.
    since: Cell<Instant>,
    /// Tells whoever stands behind every connection that is ready.
    wakeup: Rc<Notify>,
}

impl FlushQueue {
    pub fn new(work: Rc<Notify>) -> Self {
        FlushQueue {
            connections: RefCell::default(),
            since: Cell::new(Instant::now()),
            wakeup: work,
        }
    }

    /// Has what a connection holds back sent with what others do.
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

    /// Sends everything that waits.
    pub fn flush(&self) {
        let mut connections = self.connections.take();
        for connection in connections.drain(..) {
            connection.output.is_queued.set(false);
            connection.send();
        }
        // Its room is of use to the next ones.
        self.connections.replace(connections);
    }
}
