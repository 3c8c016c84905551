//! A sliding window over time, divided into buckets.

use std::time::{Duration, Instant};

use super::counts::{Sample, Tally};

/// A ring of `n` buckets on a fixed grid.
///
/// The outcomes of a bucket are dropped when the bucket `n` positions later begins.
#[derive(Clone, Debug)]
pub(crate) struct TimeWindow {
    /// The start of the grid. [`clear`](Self::clear) keeps it, so bucket edges never move.
    origin: Instant,
    bucket: Duration,
    /// The number of buckets. They are allocated with the first outcome.
    size: usize,
    buckets: Vec<Tally>,
    /// The number of the newest bucket, counted from the origin. It never decreases.
    newest: u64,
    /// The index of the newest bucket in the ring.
    newest_index: usize,
    /// The end of the newest bucket, so that a comparison can replace a division.
    ///
    /// It is too early before the first access, and if the end overflows the clock.
    newest_until: Instant,
    total: Tally,
}

impl TimeWindow {
    pub(crate) fn new(length: Duration, buckets: u32, origin: Instant) -> Self {
        Self {
            origin,
            bucket: bucket(length, buckets),
            size: buckets as usize,
            buckets: Vec::new(),
            newest: 0,
            newest_index: 0,
            newest_until: origin,
            total: Tally::default(),
        }
    }

    #[inline]
    pub(crate) fn record(&mut self, sample: Sample, now: Instant) {
        self.advance(now);
        if self.buckets.is_empty() {
            self.buckets = vec![Tally::default(); self.size];
        }
        // Even if `now` is before the newest bucket: a clock that goes backwards changes nothing.
        self.buckets[self.newest_index].add(sample);
        self.total.add(sample);
    }

    #[inline]
    pub(crate) fn advance(&mut self, now: Instant) {
        if now >= self.newest_until {
            self.advance_to(self.number(now));
        }
    }

    /// Takes at most one step per bucket, however long the window was not accessed.
    fn advance_to(&mut self, current: u64) {
        if current < self.newest {
            return;
        }
        if self.total.calls > 0 {
            let begun = (current - self.newest).min(self.size as u64);
            for number in current - begun + 1..=current {
                let index = self.index(number);
                let old = std::mem::take(&mut self.buckets[index]);
                self.total.calls -= old.calls;
                self.total.failures -= old.failures;
                self.total.slow -= old.slow;
            }
        }
        self.move_to(current);
    }

    fn move_to(&mut self, newest: u64) {
        self.newest = newest;
        self.newest_index = self.index(newest);
        let bucket = u64::try_from(self.bucket.as_nanos()).ok();
        let end = bucket
            .zip(newest.checked_add(1))
            .and_then(|(bucket, buckets)| {
                self.origin
                    .checked_add(Duration::from_nanos(bucket.checked_mul(buckets)?))
            });
        self.newest_until = end.unwrap_or(self.origin);
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(Tally::default());
        self.total = Tally::default();
    }

    /// Changes the grid and keeps the newest part.
    ///
    /// Each bucket moves as a whole into the new bucket in which it began.
    pub(crate) fn resize(&mut self, length: Duration, buckets: u32) {
        let mut resized = Self::new(length, buckets, self.origin);
        let (old, new) = (self.bucket.as_nanos(), resized.bucket.as_nanos());
        let new_number = |number: u64| narrow(u128::from(number) * old / new);
        resized.move_to(new_number(self.newest));
        if self.total.calls > 0 {
            resized.buckets = vec![Tally::default(); resized.size];
            let oldest = self.newest.saturating_sub(self.size as u64 - 1);
            for number in oldest..=self.newest {
                let target = new_number(number);
                if resized.newest - target < resized.size as u64 {
                    let moved = self.buckets[self.index(number)];
                    let index = resized.index(target);
                    for sum in [&mut resized.buckets[index], &mut resized.total] {
                        sum.calls += moved.calls;
                        sum.failures += moved.failures;
                        sum.slow += moved.slow;
                    }
                }
            }
        }
        *self = resized;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.total
    }

    fn number(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        // A 128-bit division by a variable is slow; 64 bits last for 584 years.
        match (
            u64::try_from(since.as_nanos()),
            u64::try_from(self.bucket.as_nanos()),
        ) {
            (Ok(since), Ok(bucket)) => since / bucket,
            _ => narrow(since.as_nanos() / self.bucket.as_nanos()),
        }
    }

    fn index(&self, number: u64) -> usize {
        (number % self.size as u64) as usize
    }
}

/// Saturates: with buckets of one nanosecond, the window stops after 584 years.
fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Returns the length of a bucket, rounded up to a nanosecond.
///
/// The buckets together are never shorter than the configured window.
fn bucket(length: Duration, buckets: u32) -> Duration {
    let floor = length / buckets;
    if floor * buckets == length {
        floor
    } else {
        floor + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::{ClockOnly, Runtime};

    fn sample(bits: u8) -> Sample {
        Sample {
            failed: bits & 1 != 0,
            slow: bits & 2 != 0,
        }
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    proptest! {
        #[test]
        fn matches_a_plain_list(
            bucket in 1_u64..50,
            buckets in 1_u32..12,
            steps in proptest::collection::vec((0_u8..40, 0_u8..4, 0_u64..400), 1..300),
        ) {
            let origin = ClockOnly.now();
            let mut window = TimeWindow::new(millis(bucket * u64::from(buckets)), buckets, origin);
            let mut plain: Vec<(u64, Sample)> = Vec::new();
            let (mut now, mut newest) = (0_u64, 0_u64);
            for (op, bits, step) in steps {
                // Mostly forward, sometimes backward.
                now = if op == 1 { now.saturating_sub(step) } else { now + step / 4 };
                newest = newest.max(now / bucket);
                if op == 0 {
                    window.advance(origin + millis(now));
                    window.clear();
                    plain.clear();
                } else {
                    window.record(sample(bits), origin + millis(now));
                    plain.push((newest, sample(bits)));
                }
                plain.retain(|(number, _)| number + u64::from(buckets) > newest);
                let mut expected = Tally::default();
                plain.iter().for_each(|(_, sample)| expected.add(*sample));
                prop_assert_eq!(window.tally(), expected);
            }
        }

        #[test]
        fn resizing_keeps_whole_buckets_of_the_newest_part(
            (old, new) in (1_u64..20, 1_u64..20),
            (old_buckets, new_buckets) in (1_u32..10, 1_u32..10),
            times in proptest::collection::vec(0_u64..30, 0..100),
        ) {
            let origin = ClockOnly.now();
            let mut window = TimeWindow::new(millis(old * u64::from(old_buckets)), old_buckets, origin);
            let mut now = 0;
            let mut plain = Vec::new();
            for step in times {
                now += step;
                window.record(sample(1), origin + millis(now));
                plain.push(now / old);
            }
            plain.retain(|number| number + u64::from(old_buckets) > now / old);
            window.resize(millis(new * u64::from(new_buckets)), new_buckets);
            let newest = now / old * old / new;
            plain.retain(|number| number * old / new + u64::from(new_buckets) > newest);
            prop_assert_eq!(window.tally().failures, plain.len() as u64);
            // All outcomes are dropped in the end.
            window.advance(origin + millis(now + (new + old) * u64::from(new_buckets + 1)));
            prop_assert_eq!(window.tally(), Tally::default());
        }
    }

    /// Hazard H58.
    #[test]
    fn a_clock_that_goes_backwards_changes_nothing() {
        let origin = ClockOnly.now();
        let mut window = TimeWindow::new(millis(5000), 5, origin);
        window.record(sample(1), origin + millis(4900));
        window.advance(origin);
        window.record(sample(1), origin + millis(100));
        assert_eq!(window.tally().failures, 2);
        window.advance(origin + millis(8999));
        assert_eq!(window.tally().failures, 2);
        window.advance(origin + millis(9000));
        assert_eq!(window.tally().failures, 0);
    }

    /// Hazard H57.
    #[test]
    fn a_long_idle_period_empties_the_window() {
        let origin = ClockOnly.now();
        let mut window = TimeWindow::new(millis(5000), 5, origin);
        (0..10).for_each(|_| window.record(sample(1), origin));
        window.advance(origin + Duration::from_secs(1 << 40));
        assert_eq!(window.tally(), Tally::default());
    }

    /// Hazard H62.
    #[test]
    fn the_longest_window_is_exact() {
        let origin = ClockOnly.now();
        let mut window = TimeWindow::new(Duration::MAX, 7, origin);
        window.record(sample(1), origin);
        window.advance(origin + Duration::from_secs(1 << 50));
        assert_eq!(window.tally().failures, 1);
        window.resize(Duration::MAX, 10_000);
        assert_eq!(window.tally().failures, 1);
    }
}
