//! Unloads guests that are idle, where there is no room for others: a part of the reload loop.

use std::time::Instant;

use super::reload::Reload;
use crate::registry::State;
use crate::source::Present;

impl Reload {
    /// Whether the kernel has what one more guest takes. Where not, those that nobody waits for
    /// stay cold, others are unloaded, and it is looked again.
    pub fn has_room(&mut self, now: Instant) -> bool {
        let is_quiet = self.entries.is_quiet();
        if self.room.has_room(is_quiet, self.loaders.count()) {
            return !is_quiet;
        }
        self.entries.park();
        if self.room.wait(!self.entries.is_quiet(), now) {
            self.trim(now);
        }
        false
    }

    /// Unloads guests that are idle while loaded ones take too much memory, or too much of what the
    /// kernel allows.
    pub fn trim(&mut self, now: Instant) {
        let Some(order) = self.room.order(now, self.registry.moment()) else { return };
        let settled = self.entries.iter().filter(|(_, entry)| entry.is_settled());
        let guests = settled.filter_map(|(id, entry)| {
            let (_, size) = entry.served?;
            Some((id, entry.handler.used_at(), size.bytes))
        });
        for id in order.of(guests) {
            if !self.room.is_over() {
                break;
            }
            self.unload(id, now);
        }
    }

    fn unload(&mut self, id: usize, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let Some((_, size)) = entry.served else { return };
        // Only what can be had again.
        if !self.room.is_helped_by(size) || !matches!(self.present(id, now), Present::Same) {
            return;
        }
        let Some(entry) = self.entries.get(id) else { return };
        entry.served = None;
        entry.is_unloaded = true;
        self.room.note_unloaded(size);
        if let Some(guest) = entry.handler.withdraw(State::Cold) {
            self.registry.retire(&guest);
        }
    }
}
