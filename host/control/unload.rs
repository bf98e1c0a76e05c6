//! Unloads guests that are idle, where there is no room for others: a part of the reload loop.

use std::time::Instant;

use super::reload::Reload;
use crate::registry::HandlerState;
use crate::source::ItemState;

impl Reload {
    /// Whether the kernel has what one more guest takes. Where not, those that nobody waits for
    /// stay cold, others are unloaded, and it is looked again.
    pub fn ensure_capacity(&mut self, now: Instant) -> bool {
        let is_quiet = self.entries.is_quiet();
        if self.guest_capacity.has_kernel_capacity(is_quiet, self.loaders.count()) {
            return !is_quiet;
        }
        self.entries.defer_background();
        if self.guest_capacity.wait(!self.entries.is_quiet(), now) {
            self.unload_idle(now);
        }
        false
    }

    /// Unloads guests that are idle while loaded ones take too much memory, or too much of what the
    /// kernel allows.
    pub fn unload_idle(&mut self, now: Instant) {
        let Some(order) = self.guest_capacity.order(now, self.registry.coarse_ticks()) else {
            return;
        };
        let settled = self.entries.iter().filter(|(_, entry)| entry.is_settled());
        let guests = settled.filter_map(|(id, entry)| {
            let (_, size) = entry.served?;
            Some((id, entry.handler.used_at(), size.bytes))
        });
        for id in order.of(guests) {
            if !self.guest_capacity.is_over_watermark() {
                break;
            }
            self.unload(id, now);
        }
    }

    fn unload(&mut self, id: usize, now: Instant) {
        let Some(entry) = self.entries.get(id) else { return };
        let Some((_, size)) = entry.served else { return };
        // Only what can be had again.
        if !self.guest_capacity.is_helped_by(size)
            || !matches!(self.present(id, now), ItemState::Same)
        {
            return;
        }
        let Some(entry) = self.entries.get(id) else { return };
        entry.served = None;
        entry.is_unloaded = true;
        self.guest_capacity.note_unloaded(size);
        if let Some(guest) = entry.handler.withdraw(HandlerState::Cold) {
            self.registry.retire(&guest);
        }
    }
}
