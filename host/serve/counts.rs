//! The counters that one worker keeps for each handler, by the handler's id.
//!
//! Owns which handler an entry counts for: ids are reused, so a new handler with the id of a
//! removed one gets new counters.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::metrics::{HandlerCounters, HandlerRegistration, Metrics};
use crate::registry::Handler;

/// A handler and its counters.
pub struct CountsEntry {
    handler: Weak<Handler>,
    /// This worker's counters of the handler.
    pub counts: Arc<HandlerCounters>,
}

/// The counters of one worker, by handler.
pub struct Counts {
    entries: RefCell<Vec<Option<Rc<CountsEntry>>>>,
    metrics: Metrics,
}

impl Counts {
    /// No counters yet. New ones are registered with `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Counts { entries: RefCell::default(), metrics }
    }

    /// The entry of a handler, which is made for its first request.
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

    /// Drops the counters of handlers that are gone.
    pub fn sweep(&self) {
        let is_gone = |entry: &mut Rc<CountsEntry>| entry.handler.strong_count() == 0;
        self.entries.borrow_mut().iter_mut().for_each(|it| drop(it.take_if(is_gone)));
        self.metrics.sweep_handlers();
    }
}
