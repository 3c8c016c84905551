//! What has been counted: raw tallies inside, counts with rates outside.

/// The outcomes a circuit is looking at.
///
/// While closed or metrics-only these are the outcomes in the sliding window, while half-open
/// those of its probes, and while open what opened it. Without a rule that looks at the window
/// (and without one asked for) only `consecutive_failures` is kept: see
/// [`sliding_window`](super::CircuitBreakerConfig::sliding_window).
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
    /// Those that took longer than `slow_call_duration`, failed or not.
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

    /// Not a number when empty.
    pub(crate) fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.calls as f64
    }

    /// Not a number when empty.
    pub(crate) fn slow_rate(&self) -> f64 {
        self.slow as f64 / self.calls as f64
    }
}

/// One recorded outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}
