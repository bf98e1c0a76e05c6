//! What a worker counts of each handler, by its id.
//!
//! Owns whose counts they are: an id is another handler's once its own is gone, and what was
//! counted of that goes with it.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::metrics::{HandlerCounters, HandlerRegistration, Metrics};
use crate::registry::Handler;

/// A handler, and what is counted of it.
pub struct CountsEntry {
    handler: Weak<Handler>,
    pub counts: Arc<HandlerCounters>,
}

/// The counts of one worker.
pub struct Counts {
    entries: RefCell<Vec<Option<Rc<CountsEntry>>>>,
    metrics: Metrics,
}

impl Counts {
    /// None so far; `metrics` is told of each that is begun.
    pub fn new(metrics: Metrics) -> Self {
        Counts { entries: RefCell::default(), metrics }
    }

    /// Those of a handler.
    pub fn of(&self, handler: &Arc<Handler>) -> Rc<CountsEntry> {
        let mut entries = self.entries.borrow_mut();
        if handler.id >= entries.len() {
            entries.resize(handler.id + 1, None);
        }
        match &entries[handler.id] {
            Some(entry) if std::ptr::eq(entry.handler.as_ptr(), Arc::as_ptr(handler)) => {
                entry.clone()
            }
            _ => {
                let entry = self.begin(handler);
                entries[handler.id] = Some(entry.clone());
                entry
            }
        }
    }

    fn begin(&self, handler: &Arc<Handler>) -> Rc<CountsEntry> {
        let (name, counts) = (handler.name.clone(), Arc::<HandlerCounters>::default());
        let whole: Arc<dyn Any + Send + Sync> = handler.clone();
        self.metrics.register_handler(HandlerRegistration {
            name,
            handler: Arc::downgrade(&whole),
            counts: counts.clone(),
        });
        Rc::new(CountsEntry { handler: Arc::downgrade(handler), counts })
    }

    /// Forgets handlers that are gone.
    pub fn sweep(&self) {
        let is_gone = |entry: &mut Rc<CountsEntry>| entry.handler.strong_count() == 0;
        self.entries.borrow_mut().iter_mut().for_each(|it| drop(it.take_if(is_gone)));
        self.metrics.sweep_handlers();
    }
}
