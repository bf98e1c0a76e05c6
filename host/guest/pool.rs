//! One worker's instances: ready ones are handed out, finished ones are renewed once the response
//! has gone out.
//!
//! Owns the budget of ready instances and the order in which they are dropped (least recently used
//! guest first). Lives on one thread and takes no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::engine::Pulse;
use super::{Guest, Instance};
use crate::config::Isolation;
use crate::message::Reject;

/// Ready instances that one worker keeps, of all guests together.
pub const READY_MAX: usize = 64;

/// The pools of all guests on one worker.
pub struct Pool {
    shelves: RefCell<Shelves>,
    /// Instances that have done their work and wait to be renewed.
    #[expect(clippy::vec_box, reason = "a request holds it by a pointer, and it comes and goes")]
    retired: RefCell<Vec<Box<Instance>>>,
    /// Instances that are out with a request.
    out: Cell<usize>,
    /// Says that there are retired instances.
    work: Notify,
    pulse: Pulse,
}

#[derive(Default)]
struct Shelves {
    /// By guest id.
    by_guest: Vec<Shelf>,
    /// Guests with at least one ready instance, at most [`READY_MAX`].
    stocked: Vec<usize>,
    ready: usize,
    clock: u64,
}

#[derive(Default)]
struct Shelf {
    #[expect(clippy::vec_box, reason = "a request holds it by a pointer, and it comes and goes")]
    ready: Vec<Box<Instance>>,
    used_at: u64,
}

/// Counts an instance that is out; dropping it says that the instance has come back or is gone.
pub struct Out<'a>(&'a Cell<usize>);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pool {
    pub fn new(pulse: Pulse) -> Self {
        Pool {
            shelves: RefCell::default(),
            retired: RefCell::default(),
            out: Cell::new(0),
            work: Notify::new(),
            pulse,
        }
    }

    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Instances that are ready, waiting to be renewed, and out with a request.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.shelves.borrow().ready, self.retired.borrow().len(), self.out.get())
    }

    /// Counts one instance as out until the guard is dropped.
    pub fn lend(&self) -> Out<'_> {
        self.out.set(self.out.get() + 1);
        Out(&self.out)
    }

    /// A ready instance, if there is one.
    pub fn take(&self, guest: &Guest) -> Option<Box<Instance>> {
        self.shelves.borrow_mut().take(guest.id)
    }

    /// Makes an instance for a request that waits for it.
    ///
    /// # Errors
    /// As [`Instance::make`].
    pub async fn make(&self, guest: Arc<Guest>) -> Result<Box<Instance>, Reject> {
        if guest.runs_startup() {
            return Instance::make(guest, &self.pulse).await;
        }
        match Instance::make_now(guest.clone()) {
            // Slots may be held by instances that only wait to be renewed or are kept ready.
            Err(Reject::NoInstance) => {
                self.clear();
                Instance::make_now(guest)
            }
            made => made,
        }
    }

    /// Takes back an instance that ended well.
    pub fn give_back(&self, instance: Box<Instance>) {
        match instance.guest().isolation {
            Isolation::Reuse => self.shelves.borrow_mut().put(instance),
            Isolation::Fresh => {
                self.retired.borrow_mut().push(instance);
                self.work.notify_one();
            }
        }
    }

    /// Renews instances for ever. A task of its own: it is woken by the first instance that comes
    /// back and stands behind every connection that is ready by then, so that all of these are
    /// answered before any instance is renewed. That also spares the kernel waking the clients one
    /// by one.
    pub async fn renew_always(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            self.renew();
        }
    }

    /// Resets the instances that have done their work, or makes new ones in their place.
    fn renew(self: &Rc<Self>) {
        while let Some(instance) = { self.retired.borrow_mut().pop() } {
            // Without a reset, the slot is given back before it is asked for again.
            let guest = match instance.reset() {
                Ok(instance) => {
                    self.shelves.borrow_mut().put(instance);
                    continue;
                }
                Err(guest) => guest,
            };
            if guest.runs_startup() {
                // Guest code may run long or wait, so it gets a task of its own.
                tokio::task::spawn_local(self.clone().renew_later(guest));
                continue;
            }
            if let Ok(instance) = Instance::make_now(guest) {
                self.shelves.borrow_mut().put(instance);
            }
        }
    }

    async fn renew_later(self: Rc<Self>, guest: Arc<Guest>) {
        let _out = self.lend();
        if let Ok(instance) = Instance::make(guest, &self.pulse).await {
            self.shelves.borrow_mut().put(instance);
        }
    }

    /// Drops every instance that is not out.
    pub fn clear(&self) {
        self.retired.borrow_mut().clear();
        self.shelves.borrow_mut().clear();
    }
}

impl Shelves {
    fn shelf(&mut self, id: usize) -> &mut Shelf {
        if id >= self.by_guest.len() {
            self.by_guest.resize_with(id + 1, Shelf::default);
        }
        &mut self.by_guest[id]
    }

    fn take(&mut self, id: usize) -> Option<Box<Instance>> {
        self.clock += 1;
        let clock = self.clock;
        let shelf = self.shelf(id);
        shelf.used_at = clock;
        let instance = shelf.ready.pop()?;
        if shelf.ready.is_empty() {
            self.stocked.retain(|stocked| *stocked != id);
        }
        self.ready -= 1;
        Some(instance)
    }

    fn put(&mut self, instance: Box<Instance>) {
        let id = instance.guest().id;
        if self.ready >= READY_MAX {
            self.drop_oldest();
        }
        let shelf = self.shelf(id);
        let was_empty = shelf.ready.is_empty();
        shelf.ready.push(instance);
        if was_empty {
            self.stocked.push(id);
        }
        self.ready += 1;
    }

    /// Drops one instance of the guest that was used longest ago.
    fn drop_oldest(&mut self) {
        let oldest = self.stocked.iter().copied().min_by_key(|id| self.by_guest[*id].used_at);
        let Some(id) = oldest else { return };
        let shelf = &mut self.by_guest[id];
        drop(shelf.ready.pop());
        self.ready -= 1;
        if shelf.ready.is_empty() {
            self.stocked.retain(|stocked| *stocked != id);
        }
    }

    fn clear(&mut self) {
        for id in self.stocked.drain(..) {
            self.by_guest[id].ready.clear();
        }
        self.ready = 0;
    }
}
