//! Unloads idle guests to make room for others. Part of the reload loop.

use std::time::Instant;

use super::reload::Reload;
use crate::registry::HandlerState;
use crate::source::ItemState;

impl Reload {
    /// Whether handlers wait to be loaded and the kernel's limits leave room for one more guest. If
    /// there is no room, handlers that no request wants stay cold, and idle guests are unloaded.
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

    /// Unloads guests while the loaded ones take too much memory, mappings or descriptors.
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
        // Unload only a guest that can be loaded again from the current contents.
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
