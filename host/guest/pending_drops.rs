//! The instances of one worker that are on their way out: what they hold is as good as free, and
//! who is refused for want of it waits for them.
//!
//! Owns their order. Lives on one thread; the marks go wherever their instances go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Those that are not gone, and some that are.
#[derive(Default)]
pub struct PendingDrops {
    marks: RefCell<VecDeque<Weak<()>>>,
    /// How many have been taken out of it.
    gone: Cell<u64>,
}

impl PendingDrops {
    /// The mark of one more. It is to be dropped right behind it.
    pub fn mark(&self) -> Arc<()> {
        self.forget();
        let mark = Arc::new(());
        self.marks.borrow_mut().push_back(Arc::downgrade(&mark));
        mark
    }

    /// How many there have been so far.
    pub fn so_far(&self) -> u64 {
        self.gone.get() + self.marks.borrow().len() as u64
    }

    /// Whether the first so many are gone.
    pub fn are_gone(&self, first: u64) -> bool {
        self.forget();
        self.gone.get() >= first
    }

    /// Lets go of what is gone at the front.
    fn forget(&self) {
        let mut marks = self.marks.borrow_mut();
        while marks.front().is_some_and(|mark| mark.strong_count() == 0) {
            marks.pop_front();
            self.gone.set(self.gone.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PendingDrops;

    #[test]
    fn later_ones_are_not_waited_for() {
        let drops = PendingDrops::default();
        assert!(drops.are_gone(drops.so_far()));
        let (first, second) = (drops.mark(), drops.mark());
        let two = drops.so_far();
        let third = drops.mark();
        drop(second);
        assert!(!drops.are_gone(two));
        drop(first);
        assert!(drops.are_gone(two) && !drops.are_gone(drops.so_far()));
        drop(third);
        assert!(drops.are_gone(drops.so_far()) && drops.so_far() == 3);
    }
}
