//! Timestamps and flags of one connection, from its first byte to its end.
//!
//! Owns what the reaper and the drain decide by: when bytes last moved, and whether the connection
//! has been asked to park, close or abort. Times are ticks of the worker's coarse clock. Knows no
//! socket and no HTTP.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// The timestamps and flags of one connection.
pub struct Lifecycle {
    clock: Rc<Cell<u32>>,
    task: RefCell<Option<Waker>>,
    /// Whether the client has ever sent a byte.
    pub begun: Cell<bool>,
    /// When the first bytes of an incomplete request head arrived, if there are any.
    pub partial_since: Cell<Option<u32>>,
    /// Whether the connection is to be parked, or is.
    pub parking: Cell<bool>,
    /// Whether the connection is to close as soon as it is idle.
    pub closing: Cell<bool>,
    aborted: Cell<bool>,
    /// Since when the connection lingers: everything is sent, and further input is dropped.
    pub lingers_since: Cell<Option<u32>>,
    active_at: Cell<u32>,
    /// Since when writes block, and how many bytes the socket has taken since.
    blocked_since: Cell<Option<u32>>,
    blocked_bytes: Cell<u64>,
    /// Whether a write has blocked since [`Lifecycle::begin_poll`].
    write_blocked: Cell<bool>,
}

impl Lifecycle {
    /// A connection that was just accepted. `clock` is the worker's coarse clock.
    pub fn new(clock: Rc<Cell<u32>>) -> Self {
        Lifecycle {
            task: RefCell::new(None),
            begun: Cell::new(false),
            partial_since: Cell::new(None),
            parking: Cell::new(false),
            closing: Cell::new(false),
            aborted: Cell::new(false),
            lingers_since: Cell::new(None),
            active_at: Cell::new(clock.get()),
            blocked_since: Cell::new(None),
            blocked_bytes: Cell::new(0),
            write_blocked: Cell::new(false),
            clock,
        }
    }

    /// The current tick of the worker's coarse clock.
    pub fn now(&self) -> u32 {
        self.clock.get()
    }

    /// When bytes last moved, or a request was answered.
    pub fn active_at(&self) -> u32 {
        self.active_at.get()
    }

    /// Notes that bytes have moved.
    pub fn note_activity(&self) {
        self.active_at.set(self.clock.get());
    }

    /// Notes that bytes have arrived. `is_between` says that they belong to no request yet.
    pub fn note_read(&self, is_between: bool) {
        let now = self.clock.get();
        if is_between && self.partial_since.get().is_none() {
            self.partial_since.set(Some(now));
        }
        self.begun.set(true);
        self.active_at.set(now);
    }

    /// Notes how many bytes a write has sent, and whether it blocked.
    pub fn note_write(&self, sent_bytes: u64, is_blocked: bool) {
        if is_blocked {
            self.write_blocked.set(true);
        }
        if sent_bytes > 0 {
            self.active_at.set(self.clock.get());
            self.blocked_bytes.set(self.blocked_bytes.get() + sent_bytes);
        }
    }

    /// Call this before polling hyper and flushing, and [`Lifecycle::end_poll`] after that.
    pub fn begin_poll(&self) {
        self.write_blocked.set(false);
    }

    /// Updates since when writes block, by the writes since [`Lifecycle::begin_poll`].
    pub fn end_poll(&self) {
        if !self.write_blocked.get() {
            self.blocked_since.set(None);
            self.blocked_bytes.set(0);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.get()));
        }
    }

    /// If writes block: since which tick, and how many bytes the socket has taken since.
    pub fn blocked(&self) -> Option<(u32, u64)> {
        self.blocked_since.get().map(|since| (since, self.blocked_bytes.get()))
    }

    /// Remembers the task that drives this connection.
    pub fn attach(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            *task = Some(waker.clone());
        }
    }

    /// The task that drives this connection, once it has been polled.
    pub fn task(&self) -> Option<Waker> {
        self.task.borrow().clone()
    }

    /// Wakes the connection's task, to look at these flags.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Ends the connection now, even in the middle of a request.
    pub fn abort(&self) {
        self.aborted.set(true);
        self.wake();
    }

    /// Whether [`Lifecycle::abort`] was called.
    pub fn is_aborted(&self) -> bool {
        self.aborted.get()
    }
}
