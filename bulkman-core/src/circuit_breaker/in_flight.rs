//! The calls in flight of the current generation, by the time at which they began.
//!
//! A call that hangs records no outcome, so a circuit that counts outcomes never notices it. This
//! counts the calls that have run longer than a threshold before they end, without a lock.
//!
//! Time is divided into buckets of an eighth of the threshold. A call adds one to the bucket in
//! which it begins, and subtracts one when it ends. The calls of a bucket hang once 9 later
//! buckets have begun. There are 16 buckets in a ring. When a bucket is reused for a later time,
//! the calls that are left in it hang, and are added to the count of *older* calls.
//!
//! # Why no call is lost or counted twice
//!
//! Each bucket is one word with a *stamp*: the number of the bucket and the *epoch*. A call keeps
//! the stamp that it was counted under. If the bucket still has that stamp when the call ends, it
//! is subtracted there; otherwise it was moved to the older calls, and is subtracted from those.
//! A plain ring of counters would subtract it from the calls of another time.
//!
//! The epoch rises with each generation, and with each change of the threshold. All buckets are
//! emptied then. The epoch of a call is computed from the generation of its ticket. A call that was
//! admitted before a transition, and counts itself after it, finds buckets of a later epoch and
//! leaves them alone. So does a call that ends after a transition.
//!
//! A call that ends may find that its bucket was reused before its calls have been added to the
//! older ones. The number of older calls is therefore negative for a moment.
//!
//! The calls that hang are counted while buckets are reused: the first call in a bucket of time
//! evaluates the rules, and another one reuses a bucket of the ring then. The older calls are read
//! before the buckets, so that a call that is moved meanwhile is not counted in both places. It is
//! missed instead, by readings that begin before it has been added to the older ones.

mod words;

pub(super) use self::words::Stamp;
use self::words::{Bucket, Epoch, FRACTION_BITS, MAX_COUNT, Older, is_before, number};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The counts of calls in flight. See the [module](self).
///
/// Times are nanoseconds since the circuit was created.
#[derive(Debug, Default)]
pub(super) struct CallsInFlight {
    /// The units of time in a nanosecond, as a fraction of 2^(64 + shift); zero while switched off.
    ///
    /// Written before `version`.
    scale: AtomicU64,
    shift: AtomicU32,
    /// The number of changes of the scale. The epoch is the sum of it and the generation: both only
    /// rise, so a call with an old part of either computes an epoch that is too low.
    version: AtomicU64,
    /// The bucket in which the rules were evaluated last.
    evaluated: AtomicU32,
    /// [`Bucket`]s.
    buckets: [AtomicU64; BUCKETS],
    /// The calls of buckets that were reused: an [`Older`].
    older: AtomicU64,
}

impl CallsInFlight {
    /// Sets the duration above which a call hangs, in nanoseconds; `None` switches the counts off.
    ///
    /// If it changes, no call that is in flight is counted any more. The caller serializes changes.
    pub(super) fn set_threshold(&self, nanos: Option<u64>, generation: u64) {
        let (scale, shift) = nanos.map_or((0, 0), scale);
        let current = (
            self.scale.load(Ordering::Relaxed),
            self.shift.load(Ordering::Relaxed),
        );
        if current != (scale, shift) {
            self.scale.store(scale, Ordering::Relaxed);
            self.shift.store(shift, Ordering::Relaxed);
            let version = self.version.load(Ordering::Relaxed);
            self.version.store(version + 1, Ordering::Release);
        }
        self.begin_generation(generation);
    }

    /// Empties all counts if the epoch has risen. The caller serializes changes.
    pub(super) fn begin_generation(&self, generation: u64) {
        let epoch = self.epoch(generation);
        for bucket in &self.buckets {
            // A call of the new generation may be in it already.
            update(bucket, Ordering::Relaxed, |bits| {
                let bucket = Bucket(bits);
                (bucket.epoch() != epoch.of_bucket()).then(|| Bucket::new(epoch, 0, 0).0)
            });
        }
        self.add_older(epoch, 0);
    }

    /// Counts a call that begins. Returns what [`end`](Self::end) needs.
    ///
    /// `None` if the call was not counted: its generation is over, or there are too many calls.
    pub(super) fn begin(&self, generation: u64, nanos: u64) -> Option<Stamp> {
        let epoch = self.epoch(generation);
        // A nanosecond later: a call that has run for exactly the threshold does not hang yet.
        let stamp = Stamp::new(epoch, self.units(nanos.saturating_add(1)))?;
        let number = stamp.number();
        let mut counted = true;
        let mut left_behind = 0;
        update(self.bucket(number), Ordering::Relaxed, |bits| {
            let bucket = Bucket(bits);
            (counted, left_behind) = (true, 0);
            if bucket.is_stamped(stamp) {
                counted = bucket.count() < MAX_COUNT;
                return counted.then(|| bits + 1);
            }
            if bucket.epoch() != epoch.of_bucket() {
                counted = !bucket.epoch_is_after(epoch);
                return counted.then(|| Bucket::new(epoch, number, 1).0);
            }
            if bucket.count() > 0 && is_before(number, bucket.number()) {
                // The thread was suspended for as long as the ring is: its bucket was reused.
                left_behind = 1;
                return None;
            }
            left_behind = bucket.count();
            Some(Bucket::new(epoch, number, 1).0)
        });
        if left_behind > 0 {
            self.add_older(epoch, i64::from(left_behind));
        }
        counted.then_some(stamp)
    }

    /// Subtracts a call that ends.
    pub(super) fn end(&self, stamp: Stamp) {
        let subtracted = update(self.bucket(stamp.number()), Ordering::Relaxed, |bits| {
            let bucket = Bucket(bits);
            (bucket.is_stamped(stamp) && bucket.count() > 0).then(|| bits - 1)
        });
        if !subtracted {
            self.add_older(stamp.epoch(), -1);
        }
    }

    /// Returns the number of calls of a generation that hang.
    pub(super) fn hanging(&self, generation: u64, nanos: u64) -> u32 {
        let epoch = self.epoch(generation);
        let number = number(self.units(nanos));
        // Before the buckets. Acquire: a bucket whose calls are among these is read as reused.
        let older = Older(self.older.load(Ordering::Acquire));
        let hang = |bucket: &Bucket| {
            let age = number.wrapping_sub(bucket.number());
            bucket.epoch() == epoch.of_bucket()
                && age >= BUCKETS_UNTIL_HANGING
                && !is_before(number, bucket.number())
        };
        let recent: u32 = self
            .buckets
            .iter()
            .map(|bucket| Bucket(bucket.load(Ordering::Relaxed)))
            .filter(hang)
            .map(Bucket::count)
            .sum();
        let older = if older.epoch() == epoch {
            older.count()
        } else {
            0
        };
        recent.saturating_add(u32::try_from(older).unwrap_or(0))
    }

    /// Returns `true` for the first caller in each bucket of time: it evaluates the rules.
    #[inline]
    pub(super) fn is_due(&self, nanos: u64) -> bool {
        let now = number(self.units(nanos));
        self.evaluated.load(Ordering::Relaxed) != now
            && self.evaluated.swap(now, Ordering::Relaxed) != now
    }

    /// Returns `false` if [`is_due`](Self::is_due) returns `false` at the end of a call, or if the
    /// rules were evaluated after that end.
    ///
    /// Saves a clock reading for nearly all calls. `ran`: how long the call took, in nanoseconds.
    #[inline]
    pub(super) fn may_be_due(&self, stamp: Stamp, ran: u64) -> bool {
        // Two parts of a sum are rounded down, and the begin was a nanosecond earlier.
        let latest = stamp.units().wrapping_add(self.units(ran)).wrapping_add(2);
        self.evaluated.load(Ordering::Relaxed) != number(latest)
    }

    #[inline]
    fn bucket(&self, number: u32) -> &AtomicU64 {
        &self.buckets[number as usize % BUCKETS]
    }

    #[inline]
    fn epoch(&self, generation: u64) -> Epoch {
        // Acquire: the scale is read later.
        Epoch::new(generation.wrapping_add(self.version.load(Ordering::Acquire)))
    }

    /// Converts nanoseconds to units: a bucket has 256 of them.
    #[inline]
    fn units(&self, nanos: u64) -> u64 {
        let scale = self.scale.load(Ordering::Relaxed);
        let product = (u128::from(nanos) * u128::from(scale)) >> 64;
        // The shift is less than 64. The mask lets the compiler omit the check.
        (product as u64) >> (self.shift.load(Ordering::Relaxed) & 63)
    }

    fn add_older(&self, epoch: Epoch, calls: i64) {
        // Release: a reader of these calls finds that their bucket was reused before.
        update(&self.older, Ordering::Release, |bits| {
            let older = Older(bits);
            if older.epoch() == epoch {
                (calls != 0).then(|| Older::new(epoch, older.count() + calls).0)
            } else {
                (!older.epoch().is_after(epoch)).then(|| Older::new(epoch, calls).0)
            }
        });
    }
}

const BUCKETS: usize = 16;
/// A bucket is an eighth of the threshold, and its last call may begin at its end.
const BUCKETS_UNTIL_HANGING: u32 = 9;

/// Returns the scale and the shift for a threshold: 2,048 units, rounded up by less than 2^-62.
///
/// A threshold of less than 2 µs is treated as 2 µs.
fn scale(threshold: u64) -> (u64, u32) {
    const UNITS_BITS_OF_THRESHOLD: u32 = FRACTION_BITS + 3;
    let threshold = threshold.max((1 << UNITS_BITS_OF_THRESHOLD) + 1);
    let shift = (threshold - 1).ilog2() - UNITS_BITS_OF_THRESHOLD;
    let units = 1_u128 << (64 + UNITS_BITS_OF_THRESHOLD + shift);
    (units.div_ceil(u128::from(threshold)) as u64, shift)
}

/// Replaces the value by the result of `change`; returns `false` if that is `None`.
///
/// `order` is Relaxed for a bucket, which is an independent count.
#[inline]
fn update(word: &AtomicU64, order: Ordering, mut change: impl FnMut(u64) -> Option<u64>) -> bool {
    let mut current = word.load(Ordering::Relaxed);
    loop {
        let Some(next) = change(current) else {
            return false;
        };
        match word.compare_exchange_weak(current, next, order, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(changed) => current = changed,
        }
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;

    fn with_threshold(nanos: u64) -> CallsInFlight {
        let calls = CallsInFlight::default();
        calls.set_threshold(Some(nanos), 1);
        calls
    }

    /// A call as the model keeps it.
    #[derive(Clone, Copy, Debug)]
    struct Call {
        stamp: Stamp,
        began: u64,
        current: bool,
    }

    proptest! {
        /// The model is a list of calls, and the rule for one call as it is documented.
        #[test]
        fn matches_a_plain_list(
            mut threshold in 2_049_u64..5_000,
            steps in proptest::collection::vec((0_u8..64, 0_usize..64, 0_u64..6_000), 1..400),
        ) {
            let calls = with_threshold(threshold);
            let (mut generation, mut now) = (1, 0);
            let mut plain: Vec<Call> = Vec::new();
            for (step, index, time) in steps {
                match step {
                    0 => {
                        generation += 1;
                        calls.begin_generation(generation);
                        plain.iter_mut().for_each(|call| call.current = false);
                    }
                    1 => {
                        threshold += time + 1;
                        calls.set_threshold(Some(threshold), generation);
                        plain.iter_mut().for_each(|call| call.current = false);
                    }
                    2..=30 => {
                        let stamp = calls.begin(generation, now).unwrap();
                        plain.push(Call { stamp, began: now, current: true });
                    }
                    31..=45 if !plain.is_empty() => {
                        calls.end(plain.swap_remove(index % plain.len()).stamp);
                    }
                    46 => now += 20 * time,
                    _ => now += time / 8,
                }
                let bucket = |nanos: u64| nanos * 8 / threshold;
                let hanging = plain
                    .iter()
                    .filter(|call| call.current)
                    .filter(|call| bucket(now) > bucket(call.began + 1) + 8);
                let hanging: Vec<_> = hanging.collect();
                prop_assert_eq!(calls.hanging(generation, now) as usize, hanging.len());
                for call in plain.iter().filter(|call| call.current) {
                    let ran = now - call.began;
                    let hangs = hanging.iter().any(|it| it.began == call.began);
                    prop_assert!(!hangs || ran > threshold, "{} is early", ran);
                    prop_assert!(hangs || ran < threshold + threshold / 8 + 2, "{} is late", ran);
                }
            }
        }

        /// The fixed-point scale rounds as the division does.
        #[test]
        fn no_threshold_is_early_and_none_is_late(
            bits in 12_u32..63,
            fraction in 0.0..1.0,
            began in 0_u64..1 << 50,
        ) {
            let threshold = ((1_u64 << bits) as f64 * (1.0 + fraction)) as u64;
            let calls = with_threshold(threshold);
            calls.begin(1, began).unwrap();
            prop_assert_eq!(calls.hanging(1, began.saturating_add(threshold)), 0);
            let eighth = threshold / 8 + 1;
            prop_assert_eq!(calls.hanging(1, began.saturating_add(threshold + eighth + 1)), 1);
        }
    }

    #[test]
    fn a_call_hangs_an_eighth_after_the_threshold_at_the_latest() {
        let calls = with_threshold(800 * MILLI);
        calls.begin(1, 0).unwrap();
        assert_eq!(calls.hanging(1, 900 * MILLI - 1), 0);
        assert_eq!(calls.hanging(1, 900 * MILLI), 1);
        // The last nanosecond of a bucket belongs to the next one: the call hangs after 800 ms.
        let calls = with_threshold(800 * MILLI);
        calls.begin(1, 100 * MILLI - 2).unwrap();
        calls.begin(1, 100 * MILLI - 1).unwrap();
        assert_eq!(calls.hanging(1, 900 * MILLI), 1);
    }

    #[test]
    fn the_smallest_and_the_largest_threshold_count() {
        for threshold in [1, 2_047, 2_048, 2_049, u64::MAX / 2, u64::MAX] {
            let calls = with_threshold(threshold);
            let stamp = calls.begin(1, 0).unwrap();
            assert_eq!(calls.hanging(1, threshold), 0, "{threshold}");
            if let Some(late) = threshold.checked_mul(2) {
                assert_eq!(calls.hanging(1, late.max(4_096)), 1, "{threshold}");
            }
            calls.end(stamp);
            assert_eq!(calls.hanging(1, u64::MAX), 0, "{threshold}");
        }
    }

    #[test]
    fn a_call_survives_the_reuse_of_its_bucket_and_leaves_no_other() {
        let calls = with_threshold(800 * MILLI);
        let old = calls.begin(1, 0).unwrap();
        let time = |buckets: u64| buckets * 100 * MILLI;
        for round in 1..5 {
            let young = calls.begin(1, time(16 * round)).unwrap();
            assert_eq!(calls.hanging(1, time(16 * round)), 1, "round {round}");
            calls.end(young);
        }
        let young = calls.begin(1, time(64)).unwrap();
        calls.end(old);
        assert_eq!(calls.hanging(1, time(64)), 0);
        assert_eq!(
            calls.hanging(1, time(74)),
            1,
            "the young call is still counted"
        );
        calls.end(young);
        assert_eq!(calls.hanging(1, time(100)), 0);
    }

    #[test]
    fn a_call_that_begins_before_a_reused_bucket_is_counted_once() {
        let calls = with_threshold(800 * MILLI);
        let time = |buckets: u64| buckets * 100 * MILLI;
        let young = calls.begin(1, time(35)).unwrap();
        // Its thread was suspended after it had read the clock.
        let suspended = calls.begin(1, time(3)).unwrap();
        assert_eq!(calls.hanging(1, time(35)), 1);
        calls.end(suspended);
        assert_eq!(calls.hanging(1, time(35)), 0);
        calls.end(young);
        assert_eq!(calls.hanging(1, time(100)), 0);
    }

    #[test]
    fn a_bucket_that_is_full_counts_no_more() {
        let calls = with_threshold(800 * MILLI);
        for _ in 0..MAX_COUNT {
            calls.begin(1, 0).unwrap();
        }
        assert_eq!(calls.begin(1, 0), None);
        assert_eq!(calls.hanging(1, 900 * MILLI), MAX_COUNT);
        assert!(calls.begin(1, 100 * MILLI).is_some());
    }

    #[test]
    fn numbers_of_buckets_may_wrap() {
        let calls = with_threshold(8_000);
        // 2^32 buckets of a microsecond; the call begins just before.
        let wrap = (1_u64 << 32) * 1_000;
        let stamp = calls.begin(1, wrap - 1_500).unwrap();
        assert_eq!(calls.hanging(1, wrap + 6_000), 0);
        assert_eq!(calls.hanging(1, wrap + 8_000), 1);
        // Reused after the wrap, and long after.
        calls.begin(1, wrap + 14_500).unwrap();
        calls.end(stamp);
        assert_eq!(calls.hanging(1, wrap + 20_000), 0);
        assert_eq!(calls.hanging(1, wrap + wrap / 2), 1);
    }

    #[test]
    fn epochs_may_wrap() {
        let calls = with_threshold(8_000);
        for generation in 1..10_000 {
            calls.begin_generation(generation);
            assert_eq!(calls.hanging(generation, u64::MAX), 0);
            // A call of the generation before is not counted, and does not count down.
            assert_eq!(calls.begin(generation.wrapping_sub(1), 0), None);
            let old = calls.begin(generation, 0).unwrap();
            assert_eq!(calls.hanging(generation, 9_000), 1);
            calls.begin_generation(generation + 1);
            calls.end(old);
            assert_eq!(calls.hanging(generation + 1, 9_000), 0);
        }
    }

    #[test]
    fn evaluation_is_due_once_in_each_bucket() {
        let calls = with_threshold(800 * MILLI);
        let due = |time| calls.is_due(time * MILLI);
        assert!(!due(99));
        assert_eq!(
            [due(100), due(100), due(199), due(200)],
            [true, false, false, true]
        );
        assert!(due(5_000) && !due(5_050));
    }

    proptest! {
        #[test]
        fn an_end_never_misses_a_due_evaluation(
            began in 0_u64..10_000 * MILLI,
            ran in 0_u64..3_000 * MILLI,
            before in 0_u64..3_000 * MILLI,
        ) {
            let calls = with_threshold(801 * MILLI);
            let stamp = calls.begin(1, began).unwrap();
            calls.is_due((began + ran).saturating_sub(before));
            let maybe = calls.may_be_due(stamp, ran);
            prop_assert!(maybe || !calls.is_due(began + ran));
        }
    }

    #[test]
    fn few_ends_of_short_calls_read_the_clock() {
        let calls = with_threshold(800 * MILLI);
        let mut maybe = 0;
        for began in (0..1_000 * MILLI).step_by(1_000_000) {
            calls.is_due(began);
            let stamp = calls.begin(1, began).unwrap();
            maybe += u32::from(calls.may_be_due(stamp, 1_000));
        }
        assert!(maybe <= 20, "{maybe} of 1,000");
    }
}
