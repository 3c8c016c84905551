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
    /// The largest number of permits that the queue will have.
    pub(crate) max_permits: usize,
    /// The number of calls that may wait.
    pub(crate) capacity: usize,
    /// The number of permits that all waiters may ask for together.
    pub(crate) max_weight: Option<u32>,
    pub(crate) order: QueueOrder,
    /// The number of waiters that may overtake one for which too few permits are available.
    pub(crate) overtaking: u32,
    /// How permits are shared between keys; `None`: keys are ignored.
    pub(crate) keys: Option<KeyRules>,
}

/// How permits are shared between keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRules {
    /// A key that holds fewer permits is served first, and this number stays reserved for it.
    pub(crate) min: u32,
    /// A key never holds more permits; [`NO_MAX`](Self::NO_MAX) without a maximum.
    pub(crate) max: u32,
    /// The number of calls of a key that may wait; [`NO_MAX`](Self::NO_MAX) without a maximum.
    pub(crate) max_queue: u32,
    /// Whether the newest waiter of the longest key leaves when the queue is full.
    pub(crate) evicts: bool,
}

impl KeyRules {
    pub(crate) const NO_MAX: u32 = u32::MAX;

    const BITS: u32 = 20;
    const MASK: u64 = (1 << Self::BITS) - 1;
    const IN_FORCE: u64 = 1 << 63;
    /// The stored form of no rules.
    pub(super) const NONE: u64 = 0;
    /// The stored form of rules without [bounds](Self::has_bounds).
    pub(super) const UNBOUNDED: u64 = Self::IN_FORCE | Self::MASK << Self::BITS;

    /// Returns `true` if the permits of a key are bounded, from above or from below.
    pub(crate) const fn has_bounds(&self) -> bool {
        self.min > 0 || self.max != Self::NO_MAX
    }

    /// Returns the minimum of a key under this limit. At least one permit is not reserved.
    #[inline]
    pub(super) fn min_in_force(&self, limit: u32) -> u32 {
        self.min.min(limit.saturating_sub(1))
    }

    /// Returns the level of a key whose next waiter asks for `permits`; `None` if it is suspended.
    pub(super) fn level(&self, held: u32, permits: u32, share: u32, limit: u32) -> Option<u64> {
        let after = held.saturating_add(permits.min(limit));
        let min = self.min_in_force(limit);
        if held > 0 && after > self.max {
            None
        } else if held < min {
            // Whatever it asks for: light calls of other keys must not starve a heavy one.
            Some(0)
        } else {
            let scaled = u64::from(held) << 20;
            // A division takes long, and most keys have this share.
            Some(
                1 + if share == 1 {
                    scaled
                } else {
                    scaled / u64::from(share)
                },
            )
        }
    }

    /// Returns the part that a call needs that does not wait.
    pub(super) fn to_bits(rules: Option<Self>) -> u64 {
        rules.map_or(Self::NONE, |rules| {
            let max = u64::from(rules.max).min(Self::MASK);
            Self::IN_FORCE | max << Self::BITS | u64::from(rules.min) & Self::MASK
        })
    }

    /// Returns the rules without the part that only waiters need.
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let max = (bits >> Self::BITS & Self::MASK) as u32;
        (bits & Self::IN_FORCE != 0).then(|| Self {
            min: (bits & Self::MASK) as u32,
            max: if u64::from(max) == Self::MASK {
                Self::NO_MAX
            } else {
                max
            },
            max_queue: Self::NO_MAX,
            evicts: false,
        })
    }
}

/// The stored form of no [`QueueSettings::max_weight`].
pub(super) const NO_MAX_WEIGHT: u32 = u32::MAX;

impl QueueSettings {
    /// Returns the settings of a queue that bounds nothing but the number of waiters.
    #[cfg(test)]
    pub(super) const fn of_capacity(capacity: usize, order: QueueOrder) -> Self {
        Self {
            max_permits: 4,
            capacity,
            max_weight: None,
            order,
            overtaking: 0,
            keys: None,
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
