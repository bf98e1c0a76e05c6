//! What one worker is about to drop: instances, and calls that have answered and are about to end.
//! What they hold is as good as free, and a request that is refused for want of it waits for them.
//!
//! Owns the order of these. Lives on one thread, but the marks go where their instances go.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// From so many bytes on, a value is dropped in the slow lane. Dropping 2 MiB may take a quarter of
/// a millisecond, 128 MiB 11 ms, and as many bytes of header fields somewhat longer.
const DROPPED_BYTES_MAX: usize = 2 << 20;

/// Values that may take long to drop, because the kernel takes their memory back, or because the
/// host keeps many small pieces for a guest.
pub trait DropCost: Send + 'static {
    /// Bytes of memory and of such pieces.
    fn bytes(&self) -> usize;

    /// Whether to leave it to the slow lane.
    fn is_slow_to_drop(&self) -> bool {
        self.bytes() >= DROPPED_BYTES_MAX
    }
}

impl<T: DropCost> DropCost for Box<T> {
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
}

/// Marks of the values that are about to be dropped. Some may be gone already.
#[derive(Default)]
pub struct PendingDrops {
    drops: RefCell<DropList>,
    /// By guest, since a guest may go on for a while after it has answered.
    endings: RefCell<HashMap<usize, DropList>>,
}

/// A point in time: how many drops, and how many endings of one guest, had begun by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropBarrier {
    drops: u64,
    endings: Option<(usize, u64)>,
}

#[derive(Default)]
struct DropList {
    marks: VecDeque<Weak<()>>,
    /// How many marks were removed from the list.
    gone: u64,
}

impl PendingDrops {
    /// A mark for one more instance. Drop it right after the instance.
    pub fn drop_mark(&self) -> Arc<()> {
        self.drops.borrow_mut().mark()
    }

    /// A mark for one more call of a guest. Drop it when the call has ended or takes long.
    pub fn ending_mark(&self, guest: usize) -> Arc<()> {
        self.endings.borrow_mut().entry(guest).or_default().mark()
    }

    /// The drops under way that may free something for a guest.
    pub fn barrier(&self, guest: Option<usize>) -> DropBarrier {
        let endings = self.endings.borrow();
        let endings = guest.and_then(|guest| Some((guest, endings.get(&guest)?.so_far())));
        DropBarrier { drops: self.drops.borrow().so_far(), endings }
    }

    /// Whether everything before the barrier is gone.
    pub fn are_gone(&self, so_far: DropBarrier) -> bool {
        let has_ended = |(guest, first)| {
            let mut endings = self.endings.borrow_mut();
            endings.get_mut(&guest).is_none_or(|marks| marks.are_gone(first))
        };
        self.drops.borrow_mut().are_gone(so_far.drops) && so_far.endings.is_none_or(has_ended)
    }
}

impl DropList {
    fn mark(&mut self) -> Arc<()> {
        self.forget();
        let mark = Arc::new(());
        self.marks.push_back(Arc::downgrade(&mark));
        mark
    }

    fn so_far(&self) -> u64 {
        self.gone + self.marks.len() as u64
    }

    fn are_gone(&mut self, first: u64) -> bool {
        self.forget();
        self.gone >= first
    }

    /// Removes the marks at the front that are gone.
    fn forget(&mut self) {
        while self.marks.front().is_some_and(|mark| mark.strong_count() == 0) {
            self.marks.pop_front();
            self.gone += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PendingDrops;

    #[test]
    fn later_ones_and_calls_of_others_are_not_waited_for() {
        let pending = PendingDrops::default();
        assert!(pending.are_gone(pending.barrier(Some(1))));
        let (first, second) = (pending.drop_mark(), pending.ending_mark(1));
        let (one, other) = (pending.barrier(Some(1)), pending.barrier(Some(2)));
        let later = (pending.drop_mark(), pending.ending_mark(1));
        assert!(!pending.are_gone(one) && !pending.are_gone(other));
        drop(first);
        assert!(!pending.are_gone(one) && pending.are_gone(other));
        drop(second);
        assert!(pending.are_gone(one) && !pending.are_gone(pending.barrier(None)));
        drop(later);
        assert!(pending.are_gone(pending.barrier(Some(1))));
    }

    #[test]
    fn they_go_in_any_order() {
        let pending = PendingDrops::default();
        let (first, second) = (pending.drop_mark(), pending.drop_mark());
        let both = pending.barrier(None);
        drop(second);
        assert!(!pending.are_gone(both));
        drop(first);
        assert!(pending.are_gone(both));
    }
}
