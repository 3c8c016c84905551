//! Recent grants, readable without the lock.

use std::sync::OnceLock;

use super::waiter::WaiterId;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A lossy ring of the waiters that were granted a permit most recently.
///
/// A waiter's sequence number selects its slot. A later waiter may overwrite it; the first one then
/// finds its permit under the lock. So the ring can be small, however long the queue is.
#[derive(Debug)]
pub(super) struct Grants(OnceLock<Box<[AtomicU64]>>);

impl Grants {
    /// Successive waiters have slots on different cache lines: they are often granted together, and
    /// then read their slots at the same time on different cores.
    const CACHE_LINES: u64 = 32;
    const SLOTS_PER_LINE: u64 = 8;
    /// Usually more than the number of grants that their waiters have not seen yet.
    const RING_LEN: u64 = Self::CACHE_LINES * Self::SLOTS_PER_LINE;

    /// Creates a ring without slots.
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Allocates the slots. Called when a call waits, since most queues never have a waiter.
    #[inline]
    pub(super) fn allocate(&self) {
        self.0.get_or_init(|| {
            (0..Self::RING_LEN)
                .map(|_| AtomicU64::new(WaiterId::NONE))
                .collect()
        });
    }

    /// Records that a waiter was granted a permit.
    #[inline]
    pub(super) fn insert(&self, id: WaiterId) {
        if let Some(slot) = self.slot(id) {
            slot.store(id.to_bits(), Ordering::Release);
        }
    }

    /// Returns `true` if the waiter is known to have a permit.
    ///
    /// Then everything before [`insert`](Self::insert) happens before everything after this call.
    #[inline]
    pub(super) fn contains(&self, id: WaiterId) -> bool {
        self.slot(id)
            .is_some_and(|slot| slot.load(Ordering::Acquire) == id.to_bits())
    }

    #[inline]
    fn slot(&self, id: WaiterId) -> Option<&AtomicU64> {
        let sequence = id.sequence();
        let line = sequence % Self::CACHE_LINES;
        let index =
            line * Self::SLOTS_PER_LINE + sequence / Self::CACHE_LINES % Self::SLOTS_PER_LINE;
        self.0.get()?.get(index as usize)
    }
}
