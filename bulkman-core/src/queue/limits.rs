//! The limits of a queue, and the largest ones it supports.

use super::order::QueueOrder;

/// The largest number of permits.
///
/// The reserve gives up its permits one at a time, so shrinking and closing take time in proportion
/// to the limit.
pub(crate) const MAX_PERMITS: usize = 1_000_000;

/// The largest number of waiters.
pub(crate) const MAX_QUEUE_CAPACITY: usize = (1 << 31) - 1;

/// The settings of a queue, beside the number of permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueSettings {
    /// The number of calls that may wait.
    pub(crate) capacity: usize,
    /// The number of permits that all waiters may ask for together.
    pub(crate) max_weight: Option<u32>,
    pub(crate) order: QueueOrder,
}

/// The stored form of no [`QueueSettings::max_weight`].
pub(super) const NO_MAX_WEIGHT: u32 = u32::MAX;

impl QueueSettings {
    /// Returns the settings of a queue that bounds nothing but the number of waiters.
    #[cfg(test)]
    pub(super) const fn of_capacity(capacity: usize, order: QueueOrder) -> Self {
        Self {
            capacity,
            max_weight: None,
            order,
        }
    }

    pub(super) fn max_weight_bits(self) -> u32 {
        self.max_weight.unwrap_or(NO_MAX_WEIGHT)
    }
}

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The number of calls that may run at once.
    pub(crate) permits: usize,
    /// The number of calls that may wait.
    pub(crate) queue_capacity: usize,
}

impl Limits {
    pub(super) const fn to_bits(self) -> u64 {
        (self.permits as u64) << 32 | self.queue_capacity as u64
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self {
            permits: (bits >> 32) as usize,
            queue_capacity: (bits & 0xffff_ffff) as usize,
        }
    }
}
