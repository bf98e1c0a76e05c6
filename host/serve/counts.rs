//! What a worker counts of each handler, by its id.
//!
//! Owns whose counts they are: an id is another handler's once its own is gone, and what was
//! counted of that goes with it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::metrics::{Metrics, OfHandler};
use crate::registry::Handler;

/// Whose they are, and what they are.
type Entry = (Weak<Handler>, Rc<OfHandler>);

/// The counts of one worker.
#[derive(Default)]
pub struct Counts(RefCell<Vec<Option<Entry>>>);

impl Counts {
    /// Those of a handler.
    pub fn of(&self, handler: &Arc<Handler>) -> Rc<OfHandler> {
        let mut all = self.0.borrow_mut();
        if handler.id >= all.len() {
            all.resize(handler.id + 1, None);
        }
        match &all[handler.id] {
            Some((of, counts)) if std::ptr::eq(of.as_ptr(), Arc::as_ptr(handler)) => counts.clone(),
            _ => {
                let counts = Rc::new(OfHandler::default());
                all[handler.id] = Some((Arc::downgrade(handler), counts.clone()));
                counts
            }
        }
    }

    /// Publishes them, without those of handlers that are gone.
    pub fn publish(&self, metrics: &Metrics, worker: usize) {
        let mut all = self.0.borrow_mut();
        let is_gone = |it: &Entry| it.0.strong_count() == 0;
        all.iter_mut().for_each(|it| drop(it.take_if(|it| is_gone(it))));
        let there = all.iter().flatten();
        let there: Vec<_> =
            there.filter_map(|(handler, counts)| Some((handler.upgrade()?, counts))).collect();
        metrics.publish(worker, there.iter().map(|(handler, counts)| (&*handler.name, &***counts)));
    }
}
