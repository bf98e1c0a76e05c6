//! What the host keeps for a request at a core guest's word, beside bodies: header fields, and the
//! target.
//!
//! Owns what of it counts as the host's memory: the most that there has been of each part, since a
//! map keeps the room of fields that were removed. What is little does not count: it is paid for
//! with the instance. Knows nothing of who may set what.

use super::header::FIELD_BYTES;
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::schedule::lane;
use crate::message::Reject;

/// Up to here nothing is charged: most guests set a few fields.
const FREE_BYTES: usize = 8 << 10;
/// What is charged is a multiple of this.
const CHUNK_BYTES: usize = 16 << 10;
/// What is charged so much takes a while to drop: some thousand fields.
const SLOW_DROP_BYTES_MIN: usize = 1 << 20;

/// What is counted apart, each at its most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Request,
    Response,
    Trailers,
    Target,
}

/// What the host keeps for one request.
#[derive(Default)]
pub struct HeaderCharge {
    /// The most that there has been, by part.
    most: [usize; 4],
    /// What was there before the request came back from the next handler.
    before: usize,
    charge: Option<Charge>,
}

impl HeaderCharge {
    /// Fields that are there already, be there memory enough or not.
    pub fn of_fields(memory: &Budget, count: usize) -> Self {
        let charge = Some(memory.force_charge(count * FIELD_BYTES));
        HeaderCharge { charge, ..HeaderCharge::default() }
    }

    /// Takes note of how many bytes there are of a part.
    ///
    /// # Errors
    /// [`Reject::NoMemory`].
    #[inline]
    pub fn note(&mut self, memory: &Budget, part: Part, bytes: usize) -> Result<(), Reject> {
        let most = &mut self.most[part as usize];
        *most = bytes.max(*most);
        let all = self.most.iter().fold(self.before, |all, bytes| all.saturating_add(*bytes));
        let over = all.saturating_sub(FREE_BYTES);
        if over > self.charged() { self.raise(memory, over) } else { Ok(()) }
    }

    #[cold]
    fn raise(&mut self, memory: &Budget, bytes: usize) -> Result<(), Reject> {
        let charge = self.charge.get_or_insert_with(|| memory.empty_charge());
        charge.raise_to(bytes.next_multiple_of(CHUNK_BYTES))
    }

    /// Has what there is stay, beside what is to come.
    pub fn carry_over(&mut self) {
        self.before += std::mem::take(&mut self.most).iter().sum::<usize>();
    }

    /// Bytes that are charged.
    pub fn charged(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    /// Drops what it stands for, and itself behind that; in the slow lane if it takes a while and
    /// nobody waits for the memory.
    pub fn drop_with(self, value: impl Send + 'static) {
        let is_slow = |charge: &Charge| charge.bytes() >= SLOW_DROP_BYTES_MIN && !charge.is_tight();
        if self.charge.as_ref().is_some_and(is_slow) {
            lane::defer_drop_here((value, self));
        } else {
            drop((value, self));
        }
    }
}

/// It is dropped behind what it stands for.
impl Drop for HeaderCharge {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            drop(FreedNotice(charge.bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, CHUNK_BYTES, FREE_BYTES, HeaderCharge, Part};

    #[test]
    fn little_is_free_and_the_most_of_each_part_counts() {
        let memory = Budget::new(64 << 20);
        let mut held = HeaderCharge::default();
        let mut note = |part, bytes| {
            held.note(&memory, part, bytes).expect("there is enough");
            memory.used()
        };
        assert_eq!(note(Part::Request, FREE_BYTES), 0);
        assert_eq!(note(Part::Response, 1), CHUNK_BYTES);
        assert_eq!(note(Part::Response, CHUNK_BYTES), CHUNK_BYTES);
        assert_eq!(note(Part::Target, 1), 2 * CHUNK_BYTES);
        // Its room is still there.
        assert_eq!(note(Part::Response, 0), 2 * CHUNK_BYTES);
        assert_eq!(note(Part::Response, CHUNK_BYTES), 2 * CHUNK_BYTES);
        held.carry_over();
        held.note(&memory, Part::Response, CHUNK_BYTES).expect("there is enough");
        assert_eq!(memory.used(), 3 * CHUNK_BYTES);
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_there_is_no_memory_for_is_refused() {
        let memory = Budget::new(8 * CHUNK_BYTES);
        let mut held = HeaderCharge::default();
        held.note(&memory, Part::Request, 4 * CHUNK_BYTES).expect("there is enough");
        assert!(held.note(&memory, Part::Request, 16 * CHUNK_BYTES).is_err());
        drop(held);
        assert_eq!(memory.used(), 0);
    }
}
