//! The packed words that calls read without the lock.

use super::MAX_PLACES;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Permits that are idle in hand, and whether the lock has something to do with them.
///
/// While it is *busy*, permits are taken out under the lock only; they may be put in at any time.
/// As both are in one word, who puts one in knows whether it was busy by then, and who makes it
/// busy knows what is in it.
#[derive(Debug)]
pub(super) struct Hand(AtomicU32);

const BUSY: u32 = 1 << 31;

impl Hand {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes one out, unless it is busy or there is none.
    #[inline]
    pub(super) fn take(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        // One less than none would look busy, too.
        while word.wrapping_sub(1) < BUSY - 1 {
            // Acquire: what the last call did happens before what this one does.
            match self
                .0
                .compare_exchange_weak(word, word - 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// Takes one out while it is busy; who calls has the lock.
    pub(super) fn take_locked(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        // Nobody else takes any out meanwhile.
        let any = word & !BUSY > 0;
        if any {
            self.0.fetch_sub(1, Ordering::Acquire);
        }
        any
    }

    /// Takes out up to so many, busy or not, and says how many; who calls has the lock.
    pub(super) fn take_up_to(&self, most: usize) -> usize {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let taken = (word & !BUSY).min(u32::try_from(most).unwrap_or(u32::MAX));
            match self.0.compare_exchange_weak(
                word,
                word - taken,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return taken as usize,
                Err(seen) => word = seen,
            }
        }
    }

    /// Puts some in; says whether it was busy.
    #[inline]
    pub(super) fn put(&self, permits: u32) -> bool {
        self.0.fetch_add(permits, Ordering::Release) & BUSY != 0
    }

    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed) & BUSY != 0
    }

    /// Who calls has the lock.
    pub(super) fn set_busy(&self, busy: bool) {
        if busy {
            self.0.fetch_or(BUSY, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!BUSY, Ordering::AcqRel);
        }
    }

    /// How many are idle.
    pub(super) fn idle(&self) -> usize {
        (self.0.load(Ordering::Acquire) & !BUSY) as usize
    }
}

/// What makes newcomers and releases take the lock: how many wait, how many permits must not come back
/// (the *debt*), and whether the bulkhead is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pressure(u64);

impl Pressure {
    /// Nothing to do: releases and newcomers need not take the lock.
    pub(super) const NONE: Self = Self(0);

    const CLOSED: u64 = 1 << 63;
    const WAITING: u64 = MAX_PLACES as u64;
    const DEBT_SHIFT: u32 = Self::WAITING.trailing_ones();

    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(super) const fn word(self) -> u64 {
        self.0
    }

    pub(super) const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    pub(super) const fn closed(self) -> Self {
        Self(self.0 | Self::CLOSED)
    }

    /// Shut down, and the last permit is back.
    pub(super) const fn is_drained(self) -> bool {
        self.0 & !Self::WAITING == Self::CLOSED
    }

    pub(super) const fn debt(self) -> usize {
        ((self.0 & !Self::CLOSED) >> Self::DEBT_SHIFT) as usize
    }

    pub(super) const fn with_debt(self, debt: usize) -> Self {
        Self(self.0 & (Self::CLOSED | Self::WAITING) | (debt as u64) << Self::DEBT_SHIFT)
    }

    pub(super) const fn waiting(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "31 bits")]
        {
            (self.0 & Self::WAITING) as u32
        }
    }

    pub(super) const fn with_waiting(self, waiting: u32) -> Self {
        Self(self.0 & !Self::WAITING | waiting as u64)
    }
}

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Calls that may run at once.
    pub(crate) permits: usize,
    /// Calls that may wait.
    pub(crate) places: usize,
}

impl Limits {
    pub(super) const fn pack(self) -> u64 {
        (self.permits as u64) << 32 | self.places as u64
    }

    pub(super) const fn unpack(word: u64) -> Self {
        Self {
            permits: (word >> 32) as usize,
            places: (word & 0xffff_ffff) as usize,
        }
    }
}
