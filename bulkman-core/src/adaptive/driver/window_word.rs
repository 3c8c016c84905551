//! The samples of the open window, in one atomic word.

use super::super::window::ClosedWindow;

/// The number and the sum of samples, with the unit of the sum.
///
/// ```text
///  63 .. 58    57 ..... 39    38 ....... 0
/// | unit + 1 | samples     | sum in units |
/// ```
///
/// The unit is a power of two in nanoseconds; zero stands for none yet. It is chosen so that the
/// baseline, or else the first sample, is 1,024 to 2,047 units. A reader of the word finds the
/// unit in it, so a sample is never added in a wrong unit. One word, so that each sample is in
/// exactly one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WindowWord(u64);

const SUM_BITS: u32 = 39;
const SUM: u64 = (1 << SUM_BITS) - 1;
const COUNT_BITS: u32 = 19;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const UNIT_SHIFT: u32 = SUM_BITS + COUNT_BITS;
/// The largest sample in units, so that no number of samples overflows the sum.
const LARGEST: u64 = (1 << (SUM_BITS - COUNT_BITS)) - 1;
/// The power of two of the units in a baseline.
const PRECISION: u32 = 10;

impl WindowWord {
    /// Creates a word without samples. The unit fits a latency of `nanos`, if there is one.
    pub(super) fn empty(nanos: Option<u64>) -> Self {
        Self(nanos.map_or(0, |nanos| (u64::from(unit_for(nanos)) + 1) << UNIT_SHIFT))
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Adds a sample. A word that is full stays as it is.
    pub(super) fn with_sample(self, nanos: u64) -> Self {
        if self.samples() == COUNT {
            return self;
        }
        let word = if self.0 >> UNIT_SHIFT == 0 {
            Self::empty(Some(nanos))
        } else {
            self
        };
        let unit = word.unit();
        // Rounded to the nearest unit, so that the mean has no bias.
        let half = (1 << unit) >> 1;
        let units = (nanos.saturating_add(half) >> unit).min(LARGEST);
        Self(word.0 + (1 << SUM_BITS) + units)
    }

    pub(super) const fn samples(self) -> u64 {
        self.0 >> SUM_BITS & COUNT
    }

    /// Returns the mean in seconds; `None` without a sample.
    pub(super) fn mean(self) -> Option<f64> {
        let samples = self.samples();
        (samples > 0).then(|| {
            let nanos = (self.0 & SUM) as f64 * (1_u64 << self.unit()) as f64;
            nanos / samples as f64 / 1e9
        })
    }

    /// Returns the figures of a window of `elapsed` seconds in which every `stride`-th call was a
    /// sample.
    pub(super) fn close(self, elapsed: f64, stride: u64) -> ClosedWindow {
        let successes = self.samples().saturating_mul(stride);
        ClosedWindow {
            successes,
            latency: self.mean().unwrap_or(0.0),
            throughput: successes as f64 / elapsed,
            ..ClosedWindow::default()
        }
    }

    const fn unit(self) -> u32 {
        ((self.0 >> UNIT_SHIFT) as u32).saturating_sub(1)
    }
}

/// Returns the power of two of the unit in which a latency is 1,024 to 2,047 units.
const fn unit_for(nanos: u64) -> u32 {
    (u64::BITS - 1 - (nanos | 1).leading_zeros()).saturating_sub(PRECISION)
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    #[test]
    fn mean_is_exact_to_a_thousandth() {
        for nanos in [
            1,
            900,
            1_024,
            50_000,
            20_000_000,
            3_600_000_000_000,
            1 << 62,
        ] {
            for empty in [WindowWord::empty(None), WindowWord::empty(Some(nanos))] {
                let word = (0..1_000).fold(empty, |word, _| word.with_sample(nanos));
                assert_eq!(word.samples(), 1_000);
                let mean = word.mean().unwrap() * 1e9;
                assert!((mean / nanos as f64 - 1.0).abs() < 1e-3, "{mean} {nanos}");
            }
        }
    }

    #[test]
    fn sum_never_overflows() {
        let mut word = WindowWord::empty(Some(1));
        for _ in 0..1 << 19 {
            word = word.with_sample(u64::MAX);
        }
        assert_eq!(word.samples(), COUNT);
        assert_eq!(word.with_sample(7), word);
        assert_eq!(word.mean(), Some(LARGEST as f64 / 1e9));
        assert_eq!(word.unit(), 0);
    }

    #[test]
    fn empty_window_has_no_mean() {
        let word = WindowWord::empty(Some(5_000_000));
        assert_eq!((word.samples(), word.mean()), (0, None));
        assert_eq!(word.close(1.0, 8), ClosedWindow::default());
    }

    #[test]
    fn zero_latency_is_a_sample() {
        let word = WindowWord::default().with_sample(0).with_sample(2);
        assert_eq!((word.samples(), word.mean()), (2, Some(1e-9)));
    }

    #[test]
    fn closed_window_scales_by_the_stride() {
        let word = WindowWord::default().with_sample(2_000_000);
        let closed = word.close(0.5, 16);
        assert_eq!((closed.successes, closed.throughput), (16, 32.0));
    }
}
