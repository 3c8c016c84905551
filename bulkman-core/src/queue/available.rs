//! The permits that no call holds, in one atomic word.

use crate::sync::atomic::{AtomicU32, Ordering};

/// A counter of available permits, with a flag that routes acquisitions to the lock.
///
/// The flag marks the counter as *contended*: calls wait that are not suspended, permits are to be
/// forgotten, or the queue is closed. While it is set, permits are acquired only under the lock; a
/// release needs no lock.
///
/// The count and the flag share one word, so all operations on it have one order. A release learns
/// from its own addition whether the flag was set. A waiter sets the flag, then finds every permit
/// that was released before.
#[derive(Debug)]
pub(super) struct AvailablePermits(AtomicU32);

const CONTENDED: u32 = 1 << 31;

impl AvailablePermits {
    /// Creates a counter without permits.
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Acquires a permit if one is available and the counter is not contended.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        // Zero wraps around to a value with the flag, so one comparison rejects both.
        while word.wrapping_sub(1) < CONTENDED - 1 {
            // Acquire pairs with the release in `release`: what the previous holder of the permit
            // did happens before what this one does.
            match self
                .0
                .compare_exchange_weak(word, word - 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Acquires a permit from a contended counter. The caller holds the lock.
    pub(super) fn try_acquire_locked(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        // Only the holder of the lock acquires now, so the count can't drop before the subtraction.
        let available = word & !CONTENDED > 0;
        if available {
            self.0.fetch_sub(1, Ordering::Acquire);
        }
        available
    }

    /// Acquires several permits, all of them or none, if the counter is not contended.
    ///
    /// `needed`: how many have to be available, at least `permits`.
    #[inline]
    pub(super) fn try_acquire_many(&self, permits: u32, needed: u32) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & CONTENDED == 0 && word >= needed {
            // Release pairs with the operation that sets the flag: a call has added the permits to
            // its key before, and the level of that key is computed with them afterwards.
            match self.0.compare_exchange_weak(
                word,
                word - permits,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Returns `true` if the counter is not contended and has this many permits.
    #[inline]
    pub(super) fn has(&self, permits: u32) -> bool {
        // With the flag, a word is above every number of permits.
        (permits..CONTENDED).contains(&self.0.load(Ordering::Relaxed))
    }

    /// As [`try_acquire_many`](Self::try_acquire_many), from a contended counter. The caller holds
    /// the lock.
    pub(super) fn try_acquire_many_locked(&self, permits: u32, needed: u32) -> bool {
        let available = self.0.load(Ordering::Relaxed) & !CONTENDED >= needed;
        if available {
            self.0.fetch_sub(permits, Ordering::Acquire);
        }
        available
    }

    /// Acquires up to `max` permits, contended or not, and returns how many. The caller holds the
    /// lock.
    pub(super) fn acquire_up_to(&self, max: usize) -> usize {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let acquired = (word & !CONTENDED).min(u32::try_from(max).unwrap_or(u32::MAX));
            match self.0.compare_exchange_weak(
                word,
                word - acquired,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return acquired as usize,
                Err(current) => word = current,
            }
        }
    }

    /// Adds permits. Returns `true` if the counter was contended.
    #[inline]
    pub(super) fn release(&self, permits: u32) -> bool {
        self.0.fetch_add(permits, Ordering::Release) & CONTENDED != 0
    }

    /// Returns `true` if permits are acquired only under the lock.
    #[inline]
    pub(super) fn is_contended(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CONTENDED != 0
    }

    /// Returns `true` if permits are available while the counter is contended: those that a call
    /// collects, or that are reserved.
    #[inline]
    pub(super) fn is_collected(&self) -> bool {
        self.0.load(Ordering::Relaxed) > CONTENDED
    }

    /// Sets the flag, unless it is set. The caller holds the lock.
    pub(super) fn contend(&self) {
        if !self.is_contended() {
            self.set_contended(true);
        }
    }

    /// Sets or clears the flag. The caller holds the lock.
    pub(super) fn set_contended(&self, contended: bool) {
        if contended {
            self.0.fetch_or(CONTENDED, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!CONTENDED, Ordering::AcqRel);
        }
    }

    /// Returns the number of available permits.
    pub(super) fn available(&self) -> usize {
        (self.0.load(Ordering::Acquire) & !CONTENDED) as usize
    }
}
