//! When the counts of a whole fleet open a circuit.

use std::time::Duration;

use super::counts::BucketedWindow;
use super::settings::MAX_DURATION;
use crate::config_error::ConfigError;

/// The thresholds at which the counts of a whole fleet open a circuit.
///
/// ```
/// use std::time::Duration;
/// use bulkman::store::{FleetCountPolicy, SharingMode};
///
/// // Within ten seconds: half of at least 200 calls of the fleet fail, or 500 calls fail.
/// let share = SharingMode::Counts(
///     FleetCountPolicy::new(Duration::from_secs(10), 10)
///         .failure_rate_threshold(0.5)
///         .minimum_number_of_calls(200)
///         .failure_count_threshold(500),
/// );
/// # let _ = share;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FleetCountPolicy {
    /// The window over which calls are counted.
    pub sliding_window: BucketedWindow,
    /// The number of failures that opens the circuit; `None` for no such threshold.
    pub failure_count_threshold: Option<u64>,
    /// The rate of failures that opens the circuit, above 0 and up to 1; `None` for no such
    /// threshold.
    pub failure_rate_threshold: Option<f64>,
    /// The number of calls below which the rate is not evaluated. Default: 10.
    pub minimum_number_of_calls: u64,
}

impl FleetCountPolicy {
    /// Creates a policy over a sliding window of `length`, divided into `buckets`.
    ///
    /// It needs at least one threshold.
    ///
    /// ```
    /// # use bulkman::store::{FleetCountPolicy, SharingMode, StoreSettings};
    /// # use std::time::Duration;
    /// let policy = FleetCountPolicy::new(Duration::from_secs(10), 10);
    /// let validate = |policy| {
    ///     StoreSettings::new()
    ///         .share(SharingMode::Counts(policy))
    ///         .validate()
    /// };
    /// assert!(validate(policy).is_err()); // no threshold yet
    /// assert!(validate(policy.failure_count_threshold(500)).is_ok());
    /// ```
    #[must_use]
    pub const fn new(length: Duration, buckets: u16) -> Self {
        Self {
            sliding_window: BucketedWindow::new(length, buckets),
            failure_count_threshold: None,
            failure_rate_threshold: None,
            minimum_number_of_calls: DEFAULT_MINIMUM_NUMBER_OF_CALLS,
        }
    }

    /// Sets the number of failures that opens the circuit: 1 or more. Default: off.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(500);
    /// assert!(!policy.opens(1_000_000, 499) && policy.opens(1_000_000, 500));
    /// ```
    #[must_use]
    pub const fn failure_count_threshold(mut self, failures: u64) -> Self {
        self.failure_count_threshold = Some(failures);
        self
    }

    /// Sets the rate of failures that opens the circuit: above 0, up to 1. Default: off.
    ///
    /// The rate is evaluated once the window has
    /// [`minimum_number_of_calls`](Self::minimum_number_of_calls).
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy = FleetCountPolicy::new(Duration::from_secs(10), 10)
    ///     .failure_rate_threshold(0.5)
    ///     .minimum_number_of_calls(200);
    /// assert!(!policy.opens(0, 199) && policy.opens(100, 100));
    /// ```
    #[must_use]
    pub const fn failure_rate_threshold(mut self, rate: f64) -> Self {
        self.failure_rate_threshold = Some(rate);
        self
    }

    /// Sets the number of calls of the fleet below which the rate is not evaluated. Default: 10.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_rate_threshold(0.5);
    /// assert!(!policy.opens(0, 9) && policy.opens(0, 10));
    /// assert!(policy.minimum_number_of_calls(1).opens(0, 1));
    /// ```
    #[must_use]
    pub const fn minimum_number_of_calls(mut self, calls: u64) -> Self {
        self.minimum_number_of_calls = calls;
        self
    }

    /// Returns `true` if these totals open the circuit.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
    /// assert!(policy.opens(97, 3));
    /// ```
    #[must_use]
    pub fn opens(&self, successes: u64, failures: u64) -> bool {
        let calls = successes.saturating_add(failures);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a rate over more than 2^52 calls may be off by one"
        )]
        let rate_reached = self.failure_rate_threshold.is_some_and(|rate| {
            failures > 0
                && calls >= self.minimum_number_of_calls
                && failures as f64 >= rate * calls as f64
        });
        rate_reached
            || self
                .failure_count_threshold
                .is_some_and(|count| failures >= count)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let buckets = self.sliding_window.buckets;
        let bucket = self.sliding_window.bucket_length();
        if !(1..=1000).contains(&buckets) {
            return Err(ConfigError::out_of_range(
                "counts: sliding_window: buckets",
                buckets,
                "1 to 1000",
            ));
        }
        if bucket < Duration::from_millis(1) || bucket > MAX_DURATION {
            return Err(ConfigError::out_of_range(
                "counts: sliding_window: length",
                format_args!("{:?}", self.sliding_window.length),
                "1 ms to a day per bucket",
            ));
        }
        match (self.failure_count_threshold, self.failure_rate_threshold) {
            (None, None) => Err(ConfigError::out_of_range(
                "counts: thresholds",
                "none",
                "at least one",
            )),
            (Some(0), _) => Err(ConfigError::out_of_range(
                "failure_count_threshold",
                0,
                "1 or more",
            )),
            (_, Some(rate)) if !(rate > 0.0 && rate <= 1.0) => Err(ConfigError::out_of_range(
                "failure_rate_threshold",
                rate,
                "more than 0, at most 1",
            )),
            _ => Ok(()),
        }
    }
}

/// The default of the circuit breaker, too.
pub(super) const DEFAULT_MINIMUM_NUMBER_OF_CALLS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleet_counts_open_at_the_threshold() {
        let policy = FleetCountPolicy::new(Duration::from_secs(10), 10)
            .failure_rate_threshold(0.5)
            .minimum_number_of_calls(10);
        assert!(!policy.opens(4, 5), "nine calls are too few");
        assert!(policy.opens(5, 5));
        assert!(!policy.opens(6, 5));
        let policy = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
        assert!(policy.opens(1_000, 3) && !policy.opens(0, 2));
    }
}
