//! Counts of outcomes: tallies internally, counts with rates in the public API.

/// Outcome counts within the window of a circuit.
///
/// While closed or metrics-only, these are the outcomes in the sliding window. While half-open,
/// they are the outcomes of the probes. While open, they are the counts that opened the circuit.
///
/// Unless a rule uses the window, or
/// [`sliding_window`](super::CircuitBreakerConfig::sliding_window) is set, only
/// `consecutive_failures` is maintained.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
///
/// let config = CircuitBreakerConfig::new()
///     .failure_rate_threshold(0.9)
///     .minimum_number_of_calls(4);
/// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
/// for outcome in [
///     Outcome::Success,
///     Outcome::Success,
///     Outcome::Ignored,
///     Outcome::Failure,
/// ] {
///     breaker.try_acquire().unwrap().record(outcome);
/// }
/// let counts = breaker.snapshot().counts;
/// assert_eq!(
///     (counts.calls, counts.failures, counts.failure_rate),
///     (3, 1, None)
/// );
/// breaker.try_acquire().unwrap().fail();
/// assert_eq!(breaker.snapshot().counts.failure_rate, Some(0.5));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitCounts {
    /// The number of outcomes in the window, without those that the circuit ignores.
    pub calls: u64,
    /// The number of successes.
    pub successes: u64,
    /// The number of failures.
    pub failures: u64,
    /// The number of calls, failed or not, that took longer than `slow_call_duration_threshold`.
    pub slow_calls: u64,
    /// The number of calls in flight that have run longer than `slow_call_duration_threshold`.
    ///
    /// Zero unless [`hanging_call_threshold`](super::CircuitBreakerConfig::hanging_call_threshold)
    /// or [`count_calls_in_flight`](super::CircuitBreakerConfig::count_calls_in_flight) is set.
    pub hanging_calls: u64,
    /// The number of failures since the last success.
    pub consecutive_failures: u32,
    /// `failures / calls`; `None` below the minimum number of calls, and while half-open before
    /// enough probes have completed.
    pub failure_rate: Option<f64>,
    /// `slow_calls / calls`; `None` in the same cases.
    ///
    /// With `count_calls_in_flight`, as if the calls that hang ended now.
    pub slow_call_rate: Option<f64>,
}

impl CircuitCounts {
    /// `rated` is `true` if there are enough calls to compute rates.
    pub(crate) fn new(tally: Tally, consecutive_failures: u32, rated: bool) -> Self {
        let rated = rated && tally.calls > 0;
        Self {
            calls: tally.calls,
            successes: tally.calls - tally.failures,
            failures: tally.failures,
            slow_calls: tally.slow,
            hanging_calls: 0,
            consecutive_failures,
            failure_rate: rated.then(|| tally.failure_rate()),
            slow_call_rate: rated.then(|| tally.slow_rate()),
        }
    }
}

/// A sum of outcomes.
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

    /// Returns `true` if the failure rate is at least `rate`.
    #[inline]
    pub(crate) fn failures_reach(&self, rate: f64) -> bool {
        reaches(self.failures, self.calls, rate)
    }

    /// Returns `true` if the rate of slow calls is at least `rate`.
    #[inline]
    pub(crate) fn slow_reach(&self, rate: f64) -> bool {
        reaches(self.slow, self.calls, rate)
    }

    /// Returns the rate; not a number if there are no calls.
    pub(crate) fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.calls as f64
    }

    /// Returns the rate; not a number if there are no calls.
    pub(crate) fn slow_rate(&self) -> f64 {
        self.slow as f64 / self.calls as f64
    }
}

/// Returns `true` if `part / whole >= rate`, with the rounding of the division.
///
/// A division takes longer than the rest of recording an outcome. It is only done if the product
/// `whole * rate` shows that the result is close; the margin is far larger than its rounding error.
#[inline]
fn reaches(part: u64, whole: u64, rate: f64) -> bool {
    const NEARLY: f64 = 1.0 - 1e-9;
    signed(part) >= signed(whole) * (rate * NEARLY) && reaches_exactly(part, whole, rate)
}

/// A separate function; otherwise the compiler divides before it checks whether to.
#[cold]
#[inline(never)]
fn reaches_exactly(part: u64, whole: u64, rate: f64) -> bool {
    signed(part) / signed(whole) >= rate
}

/// Converts in one instruction; an unsigned number takes a dozen.
#[inline]
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
        fn thresholds_use_the_rounding_of_the_division(
            whole in 0_u64..3000,
            part in 0_u64..3000,
            rate in prop_oneof![0.001..=1.0, (1_u32..=100).prop_map(|percent| f64::from(percent) / 100.0)],
        ) {
            let exact = part as f64 / whole as f64 >= rate;
            prop_assert_eq!(reaches(part, whole, rate), exact);
        }
    }

    #[test]
    fn a_rate_equal_to_the_threshold_reaches_it() {
        for whole in 1..=1000_u64 {
            for part in 0..=whole {
                let rate = part as f64 / whole as f64;
                assert!(reaches(part, whole, rate), "{part} of {whole}");
            }
        }
    }
}
