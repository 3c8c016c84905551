//! What has been counted: raw tallies inside, counts with rates outside.

/// The outcomes a circuit is looking at.
///
/// While closed or metrics-only these are the outcomes in the sliding window, while half-open
/// those of its probes, and while open what opened it. Without a rule that looks at the window
/// (and without one asked for) only `consecutive_failures` is kept: see
/// [`sliding_window`](super::CircuitBreakerConfig::sliding_window).
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
/// use bulkman::runtime::ClockOnly;
///
/// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.9).minimum_number_of_calls(4);
/// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
/// for outcome in [Outcome::Success, Outcome::Success, Outcome::Ignored, Outcome::Failure] {
///     breaker.try_acquire().unwrap().record(outcome);
/// }
/// let counts = breaker.snapshot().counts;
/// assert_eq!((counts.calls, counts.failures, counts.failure_rate), (3, 1, None));
/// breaker.try_acquire().unwrap().fail();
/// assert_eq!(breaker.snapshot().counts.failure_rate, Some(0.5));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitCounts {
    /// Outcomes in the window, ignored ones left out.
    pub calls: u64,
    /// Those that succeeded.
    pub successes: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that took longer than `slow_call_duration_threshold`, failed or not.
    pub slow_calls: u64,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// `failures / calls`; `None` below the minimum number of calls, and while half-open before
    /// enough probes are back.
    pub failure_rate: Option<f64>,
    /// `slow_calls / calls`; `None` as above.
    pub slow_call_rate: Option<f64>,
}

impl CircuitCounts {
    /// `rated`: whether enough calls are in for rates to mean something.
    pub(crate) fn new(tally: Tally, consecutive_failures: u32, rated: bool) -> Self {
        let rated = rated && tally.calls > 0;
        Self {
            calls: tally.calls,
            successes: tally.calls - tally.failures,
            failures: tally.failures,
            slow_calls: tally.slow,
            consecutive_failures,
            failure_rate: rated.then(|| tally.failure_rate()),
            slow_call_rate: rated.then(|| tally.slow_rate()),
        }
    }
}

/// Outcomes added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.failures += u64::from(sample.failed);
        self.slow += u64::from(sample.slow);
    }

    pub(crate) fn remove(&mut self, sample: Sample) {
        self.calls -= 1;
        self.failures -= u64::from(sample.failed);
        self.slow -= u64::from(sample.slow);
    }

    /// Whether the failure rate is at least this.
    #[inline]
    pub(crate) fn failures_reach(&self, rate: f64) -> bool {
        reaches(self.failures, self.calls, rate)
    }

    /// Whether the rate of slow calls is at least this.
    #[inline]
    pub(crate) fn slow_reach(&self, rate: f64) -> bool {
        reaches(self.slow, self.calls, rate)
    }

    /// Not a number when empty.
    pub(crate) fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.calls as f64
    }

    /// Not a number when empty.
    pub(crate) fn slow_rate(&self) -> f64 {
        self.slow as f64 / self.calls as f64
    }
}

/// Whether `part / whole >= rate`, as the division rounds it.
///
/// A division takes longer than all the rest of recording an outcome, so it is left to what comes
/// near: what is smaller than the product by far more than that may be off does not reach it.
#[inline]
fn reaches(part: u64, whole: u64, rate: f64) -> bool {
    const NEARLY: f64 = 1.0 - 1e-9;
    signed(part) >= signed(whole) * (rate * NEARLY) && reaches_exactly(part, whole, rate)
}

/// Apart, or the compiler divides first and then sees whether it was needed.
#[cold]
#[inline(never)]
fn reaches_exactly(part: u64, whole: u64, rate: f64) -> bool {
    signed(part) / signed(whole) >= rate
}

/// Signed numbers are converted by one instruction, unsigned ones by a dozen.
#[inline]
#[allow(clippy::cast_possible_wrap, reason = "nobody counts that far")]
fn signed(count: u64) -> f64 {
    count as i64 as f64
}

/// One recorded outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rate_is_reached_as_the_division_rounds_it(
            whole in 0_u64..3000,
            part in 0_u64..3000,
            rate in prop_oneof![0.001..=1.0, (1_u32..=100).prop_map(|percent| f64::from(percent) / 100.0)],
        ) {
            let exact = part as f64 / whole as f64 >= rate;
            prop_assert_eq!(reaches(part, whole, rate), exact);
        }
    }

    #[test]
    fn a_rate_that_is_met_exactly_is_reached() {
        for whole in 1..=1000_u64 {
            for part in 0..=whole {
                let rate = part as f64 / whole as f64;
                assert!(reaches(part, whole, rate), "{part} of {whole}");
            }
        }
    }
}
