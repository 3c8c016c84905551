//! The two packed words that calls read without the lock.

use super::MAX_PLACES;

/// What makes newcomers and releases take the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    pub(super) closed: bool,
    /// Permits that must not come back to the semaphore.
    pub(super) debt: usize,
    pub(super) waiting: u32,
}

impl Pressure {
    pub(super) const fn pack(self) -> u64 {
        (self.closed as u64) << 63 | (self.debt as u64) << 31 | self.waiting as u64
    }

    pub(super) const fn unpack(word: u64) -> Self {
        Self {
            closed: word >> 63 != 0,
            debt: (word << 1 >> 32) as usize,
            #[allow(clippy::cast_possible_truncation, reason = "31 bits")]
            waiting: (word & MAX_PLACES as u64) as u32,
        }
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
        Self { permits: (word >> 32) as usize, places: (word & 0xffff_ffff) as usize }
    }
}
