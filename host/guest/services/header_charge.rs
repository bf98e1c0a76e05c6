//! Charges a request for what a core guest has the host keep, beside bodies: header fields, and the
//! request's target.
//!
//! Owns what is charged: the largest size of each part, since a map keeps the room of removed
//! fields. Small sizes are free, as they are paid for with the instance. Knows nothing of who may
//! set what.

use super::header::FIELD_BYTES;
use crate::guest::engine::allocator::FreedNotice;
use crate::guest::engine::budget::{Budget, Charge};
use crate::guest::schedule::lane;
use crate::message::Reject;

/// Bytes that are free of charge: most guests set a few fields.
const FREE_BYTES: usize = 8 << 10;
/// Charges are multiples of this.
const CHUNK_BYTES: usize = 16 << 10;
/// From so many charged bytes on, dropping takes a while: some thousand fields.
const SLOW_DROP_BYTES_MIN: usize = 1 << 20;

/// The parts that are counted separately, each at its largest size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The request's fields.
    Request,
    /// The response's fields.
    Response,
    /// The response's trailers.
    Trailers,
    /// The request's path and query.
    Target,
}

/// The charge of one request.
#[derive(Default)]
pub struct HeaderCharge {
    /// The largest size of each part.
    most: [usize; 4],
    /// What was counted before the request came back from the next handler.
    before: usize,
    charge: Option<Charge>,
}

impl HeaderCharge {
    /// Charges fields that exist already, even if memory is short.
    pub fn of_fields(memory: &Budget, count: usize) -> Self {
        let charge = Some(memory.force_charge(count * FIELD_BYTES));
        HeaderCharge { charge, ..HeaderCharge::default() }
    }

    /// Records the present size of a part, in bytes.
    ///
    /// # Errors
    /// [`Reject::NoMemory`]: nothing more is charged.
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

    /// Keeps what was counted so far, and counts the parts anew on top of that.
    pub fn carry_over(&mut self) {
        self.before += std::mem::take(&mut self.most).iter().sum::<usize>();
    }

    /// Bytes that are charged.
    pub fn charged(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    /// Drops what was charged for, and then the charge; in the slow lane if that takes a while and
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

/// Dropped after what it is charged for: tells the allocator what was freed.
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
        // A map keeps the room of removed fields.
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
