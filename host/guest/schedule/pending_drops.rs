//! What takes a while to drop, and what is on its way out of one worker: instances that are about
//! to be dropped, and calls that have answered and are about to end. What they hold is as good as
//! free, and who is refused for want of it waits for them.
//!
//! Owns their order. Lives on one thread; the marks go wherever their instances go.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// What has less memory than this is dropped on its worker: to drop so much may take a quarter of a
/// millisecond, 128 MiB 11 ms, and as many bytes of header fields somewhat longer.
const DROPPED_BYTES_MAX: usize = 2 << 20;

/// What may take more than a moment to drop: the kernel takes its memory back, and what the host
/// keeps for a guest is let go of piece by piece.
pub trait DropCost: Send + 'static {
    /// Bytes of both.
    fn bytes(&self) -> usize;

    /// Whether it is left to the slow lane.
    fn is_slow_to_drop(&self) -> bool {
        self.bytes() >= DROPPED_BYTES_MAX
    }
}

impl<T: DropCost> DropCost for Box<T> {
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
}

/// Those that are not gone, and some that are.
#[derive(Default)]
pub struct PendingDrops {
    drops: RefCell<DropList>,
    /// By guest, as a guest may go on for a while once it has answered.
    endings: RefCell<HashMap<usize, DropList>>,
}

/// How many instances, and how many calls of a guest, have been on their way out so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropBarrier {
    drops: u64,
    endings: Option<(usize, u64)>,
}

#[derive(Default)]
struct DropList {
    marks: VecDeque<Weak<()>>,
    /// How many have been taken out of it.
    gone: u64,
}

impl PendingDrops {
    /// The mark of one more instance. It is to be dropped right behind it.
    pub fn drop_mark(&self) -> Arc<()> {
        self.drops.borrow_mut().mark()
    }

    /// The mark of one more call of a guest. It is to be dropped once that has ended or takes long.
    pub fn ending_mark(&self, guest: usize) -> Arc<()> {
        self.endings.borrow_mut().entry(guest).or_default().mark()
    }

    /// What is on its way out now of what a guest could have had.
    pub fn barrier(&self, guest: Option<usize>) -> DropBarrier {
        let endings = self.endings.borrow();
        let endings = guest.and_then(|guest| Some((guest, endings.get(&guest)?.so_far())));
        DropBarrier { drops: self.drops.borrow().so_far(), endings }
    }

    /// Whether all of that is gone.
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

    /// Lets go of what is gone at the front.
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
