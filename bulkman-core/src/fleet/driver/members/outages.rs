//! What a session, or its end, means for all circuits.

use std::time::Instant;

use super::{Access, Members};

impl Members {
    pub(in crate::fleet::driver) fn on_connected(&mut self) {
        self.access = Access::Full;
        self.status_changed = true;
        let now = self.shared.now();
        for entry in self.entries.values_mut() {
            entry.member.on_connected(now);
        }
    }

    /// Handles that the store can only be read.
    pub(in crate::fleet::driver) fn on_read_only(&mut self) {
        self.access = Access::ReadOnly;
        self.status_changed = true;
        let now = self.shared.now();
        let outage_at = self.draw_outage_at(now);
        for entry in self.entries.values_mut() {
            entry.member.on_read_only(now, outage_at);
        }
    }

    /// Handles that there is no session.
    pub(in crate::fleet::driver) fn on_disconnected(&mut self) {
        let now = self.shared.now();
        match std::mem::replace(&mut self.access, Access::None) {
            Access::None => {}
            Access::ReadOnly => {
                let entries = self.entries.values_mut();
                entries.for_each(|entry| entry.member.on_reads_lost(now));
            }
            Access::Full => {
                let outage_at = self.draw_outage_at(now);
                let entries = self.entries.values_mut();
                entries.for_each(|entry| entry.member.on_disconnected(now, outage_at));
            }
        }
    }

    /// Draws when a loss of access becomes an outage: one time for all circuits of the process,
    /// since it is the process that others wait for.
    fn draw_outage_at(&mut self, now: Instant) -> Option<Instant> {
        let after = self.settings.outage_after;
        now.checked_add(after + self.jitter.up_to(after * OUTAGE_SPREAD))
    }

    /// Handles that the driver's task has ended: the outage begins without a delay, since nothing
    /// would change the circuits later.
    pub(in crate::fleet::driver) fn on_task_ended(&mut self) {
        self.access = Access::None;
        let now = self.shared.now();
        for entry in self.entries.values_mut() {
            entry.member.on_disconnected(now, None);
        }
    }
}

/// The random delay of an outage, as a multiple of `outage_after`.
const OUTAGE_SPREAD: u32 = 5;
