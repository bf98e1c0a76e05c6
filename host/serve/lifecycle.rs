//! The life of one connection, from its first byte to its end.
//!
//! Owns what it was asked to do next, and when bytes last moved: what the reaper and the drain
//! decide by. Times are ticks of the worker's coarse clock. Knows no socket and no HTTP.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// How far a connection has come.
pub struct Lifecycle {
    clock: Rc<Cell<u32>>,
    task: RefCell<Option<Waker>>,
    /// Whether a byte has ever come.
    pub begun: Cell<bool>,
    /// Bytes have arrived that belong to no request yet, the first of them in this tick.
    pub partial_since: Cell<Option<u32>>,
    /// Asked to give hyper's state back as long as it is idle.
    pub parking: Cell<bool>,
    /// Asked to close as soon as it is idle.
    pub closing: Cell<bool>,
    aborted: Cell<bool>,
    /// Everything has been sent, and what still comes is dropped, since this tick.
    pub lingers_since: Cell<Option<u32>>,
    active_at: Cell<u32>,
    /// Since when the socket does not take what there is to send, and how much it has taken since.
    blocked_since: Cell<Option<u32>>,
    blocked_bytes: Cell<u64>,
    /// It did not in this round.
    write_blocked: Cell<bool>,
}

impl Lifecycle {
    /// `clock` is the worker's coarse clock.
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

    /// The tick of the worker's coarse clock.
    pub fn now(&self) -> u32 {
        self.clock.get()
    }

    /// When bytes last moved, or a request was answered.
    pub fn active_at(&self) -> u32 {
        self.active_at.get()
    }

    /// Says that something has moved.
    pub fn note_activity(&self) {
        self.active_at.set(self.clock.get());
    }

    /// Says that something has come. `is_between` says that it belongs to no request yet.
    pub fn note_read(&self, is_between: bool) {
        let now = self.clock.get();
        if is_between && self.partial_since.get().is_none() {
            self.partial_since.set(Some(now));
        }
        self.begun.set(true);
        self.active_at.set(now);
    }

    /// Says how many bytes a write has sent, and whether the socket takes no more for now.
    pub fn note_write(&self, sent_bytes: u64, is_blocked: bool) {
        if is_blocked {
            self.write_blocked.set(true);
        }
        if sent_bytes > 0 {
            self.active_at.set(self.clock.get());
            self.blocked_bytes.set(self.blocked_bytes.get() + sent_bytes);
        }
    }

    /// To be called before hyper is polled and what it wrote is sent, and [`Lifecycle::end_poll`]
    /// behind that.
    pub fn begin_poll(&self) {
        self.write_blocked.set(false);
    }

    pub fn end_poll(&self) {
        if !self.write_blocked.get() {
            self.blocked_since.set(None);
            self.blocked_bytes.set(0);
        } else if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.get()));
        }
    }

    /// Whether bytes wait that the socket does not take: since when, and how many it has taken
    /// since.
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

    /// The task that drives this connection, once it does.
    pub fn task(&self) -> Option<Waker> {
        self.task.borrow().clone()
    }

    /// Has the connection's task look at what it was asked to do.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Ends the connection now, whatever it does.
    pub fn abort(&self) {
        self.aborted.set(true);
        self.wake();
    }

    /// Whether it is to end now.
    pub fn is_aborted(&self) -> bool {
        self.aborted.get()
    }
}
