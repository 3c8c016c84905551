//! A sliding window over the last N outcomes, two bits each.

use std::ops::Range;

use super::counts::{Sample, Tally};

/// A ring of outcomes. It allocates as it fills: one million outcomes take 250 kB.
#[derive(Clone, Debug)]
pub(crate) struct CountWindow {
    size: usize,
    /// The number of outcomes in the ring, up to `size`.
    filled: usize,
    /// The index of the next outcome. Once the ring is full, the oldest one is there.
    next: usize,
    packed: Vec<u64>,
    tally: Tally,
}

impl CountWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size: size as usize,
            filled: 0,
            next: 0,
            packed: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Adds an outcome. Returns `true` if the tally has changed.
    ///
    /// It does not if the outcome replaces an equal one, which is the usual case.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call of it takes a third of its time"
    )]
    pub(crate) fn record(&mut self, sample: Sample) -> bool {
        let index = self.next;
        self.next = if index + 1 == self.size { 0 } else { index + 1 };
        if self.filled == self.size {
            let oldest = self.get(index);
            if oldest == sample {
                return false;
            }
            self.tally.remove(oldest);
        } else {
            self.filled += 1;
        }
        self.set(index, sample);
        self.tally.add(sample);
        true
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
        self.next = 0;
        self.tally = Tally::default();
    }

    /// Keeps the newest `size` outcomes.
    pub(crate) fn resize(&mut self, size: u32) {
        let mut resized = Self::new(size);
        for age in (0..self.filled.min(resized.size)).rev() {
            resized.record(self.get((self.next + self.size - 1 - age) % self.size));
        }
        *self = resized;
    }

    /// Returns `true` if the window is full of successes that were not slow.
    ///
    /// Recording one more would change nothing.
    #[inline]
    pub(crate) fn is_saturated(&self) -> bool {
        let clean = Tally {
            calls: self.size as u64,
            failures: 0,
            slow: 0,
        };
        self.tally == clean
    }

    #[inline]
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the counts as if `slow` slow calls were recorded now.
    pub(crate) fn tally_with_slow(&self, slow: usize) -> Tally {
        let slow = slow.min(self.size);
        let dropped = (self.filled + slow).saturating_sub(self.size);
        // Before the ring is full, the oldest outcome is at its beginning.
        let oldest = if self.filled == self.size {
            self.next
        } else {
            0
        };
        let end = (oldest + dropped).min(self.size);
        let wrapped = oldest + dropped - end;
        let (first, second) = (self.count(oldest..end), self.count(0..wrapped));
        Tally {
            calls: (self.filled - dropped + slow) as u64,
            failures: self.tally.failures - first.0 - second.0,
            slow: self.tally.slow - first.1 - second.1 + slow as u64,
        }
    }

    /// Counts the failures and the slow calls of a part of the ring, 32 outcomes at a time.
    fn count(&self, range: Range<usize>) -> (u64, u64) {
        const FAILED: u64 = 0x5555_5555_5555_5555;
        let (mut failures, mut slow) = (0, 0);
        let mut index = range.start;
        while index < range.end {
            let first = index % PER_WORD;
            let calls = (PER_WORD - first).min(range.end - index);
            let mask = u64::MAX >> (64 - 2 * calls);
            let word = self.packed[index / PER_WORD] >> (2 * first) & mask;
            failures += u64::from((word & FAILED).count_ones());
            slow += u64::from((word & !FAILED).count_ones());
            index += calls;
        }
        (failures, slow)
    }

    fn get(&self, index: usize) -> Sample {
        let bits = self.packed[index / PER_WORD] >> (index % PER_WORD * 2);
        Sample {
            failed: bits & 1 != 0,
            slow: bits & 2 != 0,
        }
    }

    fn set(&mut self, index: usize, sample: Sample) {
        let word = index / PER_WORD;
        if word == self.packed.len() {
            self.packed.push(0);
        }
        let shift = index % PER_WORD * 2;
        let bits = u64::from(sample.failed) | u64::from(sample.slow) << 1;
        self.packed[word] = self.packed[word] & !(3 << shift) | bits << shift;
    }
}

/// The number of outcomes in a word.
const PER_WORD: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn tally(samples: impl IntoIterator<Item = Sample>) -> Tally {
        let mut tally = Tally::default();
        samples.into_iter().for_each(|sample| tally.add(sample));
        tally
    }

    fn sample(bits: u8) -> Sample {
        Sample {
            failed: bits & 1 != 0,
            slow: bits & 2 != 0,
        }
    }

    proptest! {
        #[test]
        fn matches_a_plain_queue(
            size in 1_u32..200,
            steps in proptest::collection::vec((0_u8..40, 0_u8..4, 1_u32..200), 1..600),
        ) {
            let mut window = CountWindow::new(size);
            let (mut plain, mut size) = (VecDeque::new(), size as usize);
            for (op, bits, resized) in steps {
                match op {
                    0 => {
                        window.clear();
                        plain.clear();
                    }
                    1 => {
                        window.resize(resized);
                        size = resized as usize;
                    }
                    _ => {
                        window.record(sample(bits));
                        plain.push_back(sample(bits));
                    }
                }
                while plain.len() > size {
                    plain.pop_front();
                }
                prop_assert_eq!(window.tally(), tally(plain.iter().copied()));
                let slow = resized as usize;
                let with_slow = plain.iter().copied().chain(vec![sample(2); slow]);
                let dropped = (plain.len() + slow).saturating_sub(size);
                prop_assert_eq!(window.tally_with_slow(slow), tally(with_slow.skip(dropped)));
                let clean = plain.iter().all(|outcome| *outcome == sample(0));
                prop_assert_eq!(window.is_saturated(), clean && plain.len() == size);
            }
        }
    }

    #[test]
    fn one_million_outcomes_take_250_kilobytes() {
        let mut window = CountWindow::new(1_000_000);
        assert_eq!(window.packed.capacity(), 0);
        for n in 0..3_000_000_u32 {
            window.record(sample(u8::from(n % 4 == 0)));
        }
        assert_eq!(
            window.tally(),
            Tally {
                calls: 1_000_000,
                failures: 250_000,
                slow: 0
            }
        );
        assert_eq!(window.packed.len() * 8, 250_000);
    }
}
