//! The words of the counts: stamps, buckets and older calls.

use std::num::NonZeroU64;

/// What a counted call keeps: the epoch (24 bits) and the time of its begin in units (40 bits).
///
/// The time is finer than a bucket so that a call can compute, without the clock, in which bucket
/// it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit_breaker) struct Stamp(NonZeroU64);

impl Stamp {
    #[inline]
    pub(super) fn new(epoch: Epoch, units: u64) -> Option<Self> {
        NonZeroU64::new(u64::from(epoch.0) << UNITS_BITS | units & UNITS).map(Self)
    }

    #[inline]
    pub(in crate::circuit_breaker) const fn from_bits(bits: NonZeroU64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(in crate::circuit_breaker) const fn bits(self) -> NonZeroU64 {
        self.0
    }

    pub(super) fn epoch(self) -> Epoch {
        Epoch::new(self.0.get() >> UNITS_BITS)
    }

    #[inline]
    pub(super) fn units(self) -> u64 {
        self.0.get() & UNITS
    }

    #[inline]
    pub(super) fn number(self) -> u32 {
        number(self.units())
    }
}

/// The epoch (12 bits), the number of the bucket (32 bits) and the number of calls (20 bits).
#[derive(Clone, Copy)]
pub(super) struct Bucket(pub(super) u64);

impl Bucket {
    #[inline]
    pub(super) fn new(epoch: Epoch, number: u32, count: u32) -> Self {
        let epoch = u64::from(epoch.of_bucket());
        Self(epoch << 52 | u64::from(number) << COUNT_BITS | u64::from(count))
    }

    #[inline]
    pub(super) const fn epoch(self) -> u32 {
        (self.0 >> 52) as u32
    }

    #[inline]
    pub(super) const fn number(self) -> u32 {
        (self.0 >> COUNT_BITS) as u32
    }

    #[inline]
    pub(super) const fn count(self) -> u32 {
        self.0 as u32 & MAX_COUNT
    }

    #[inline]
    pub(super) fn is_stamped(self, stamp: Stamp) -> bool {
        self.0 >> COUNT_BITS == Self::new(stamp.epoch(), stamp.number(), 0).0 >> COUNT_BITS
    }

    pub(super) const fn epoch_is_after(self, epoch: Epoch) -> bool {
        let ahead = self.epoch().wrapping_sub(epoch.of_bucket()) & Epoch::OF_BUCKET;
        ahead != 0 && ahead <= Epoch::OF_BUCKET / 2
    }
}

/// The epoch (32 bits) and the number of calls (32 bits, signed).
#[derive(Clone, Copy)]
pub(super) struct Older(pub(super) u64);

impl Older {
    pub(super) fn new(epoch: Epoch, count: i64) -> Self {
        Self(u64::from(epoch.0) << 32 | u64::from(count as u32))
    }

    pub(super) const fn epoch(self) -> Epoch {
        Epoch::new(self.0 >> 32)
    }

    pub(super) const fn count(self) -> i64 {
        self.0 as u32 as i32 as i64
    }
}

/// A number that rises with each generation and each change of the threshold: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(pub(super) u32);

impl Epoch {
    const ALL: u32 = (1 << 24) - 1;
    const OF_BUCKET: u32 = (1 << 12) - 1;

    #[inline]
    pub(super) const fn new(number: u64) -> Self {
        Self(number as u32 & Self::ALL)
    }

    /// Returns the part that a bucket has. All buckets are stamped anew in each epoch, so the same
    /// part never means another epoch.
    #[inline]
    pub(super) const fn of_bucket(self) -> u32 {
        self.0 & Self::OF_BUCKET
    }

    pub(super) const fn is_after(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0) & Self::ALL;
        ahead != 0 && ahead <= Self::ALL / 2
    }
}

/// The bits of the time within a bucket.
pub(super) const FRACTION_BITS: u32 = 8;
const UNITS_BITS: u32 = 32 + FRACTION_BITS;
const UNITS: u64 = (1 << UNITS_BITS) - 1;
/// A bulkhead has at most 1,000,000 permits.
const COUNT_BITS: u32 = 20;
pub(super) const MAX_COUNT: u32 = (1 << COUNT_BITS) - 1;

/// Returns the number of the bucket, which wraps.
#[inline]
pub(super) const fn number(units: u64) -> u32 {
    (units >> FRACTION_BITS) as u32
}

/// Returns `true` if a bucket is before another one, by less than any thread is suspended.
///
/// The numbers wrap after 2^32 buckets, and a call may hang for half of that: with a threshold of
/// 1 ms, for three days.
#[inline]
pub(super) const fn is_before(number: u32, other: u32) -> bool {
    let ahead = other.wrapping_sub(number);
    ahead != 0 && ahead < 1 << 16
}
