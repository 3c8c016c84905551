//! The ranges of the settings.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::config::AdaptiveLimit;
use crate::ConfigError;

impl AdaptiveLimit {
    /// Checks every setting against its range and the maximum of the bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] names the first setting outside its range, its value and the
    /// range.
    ///
    /// ```
    /// use bulkman::adaptive::AdaptiveLimit;
    ///
    /// let error = AdaptiveLimit::new().min(50).validate(20).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`adaptive_limit.min` is 50, must be 1 to the maximum"
    /// );
    /// ```
    pub fn validate(&self, maximum: usize) -> Result<(), ConfigError> {
        check(
            "adaptive_limit.min",
            &self.min,
            &(1..=maximum),
            "1 to the maximum",
        )?;
        if let Some(initial) = self.initial {
            let range = self.min..=maximum;
            check(
                "adaptive_limit.initial",
                &initial,
                &range,
                "the minimum to the maximum",
            )?;
        }
        check(
            "adaptive_limit.tolerance",
            &self.tolerance,
            &TOLERANCE,
            "1.05 to 10",
        )?;
        if self.max_latency == Some(Duration::ZERO) {
            return Err(out_of_range(
                "adaptive_limit.max_latency",
                &Duration::ZERO,
                "more than zero",
            ));
        }
        check(
            "adaptive_limit.window",
            &self.window,
            &WINDOW,
            "1 ms to 60 s",
        )?;
        check(
            "adaptive_limit.samples",
            &self.samples,
            &SAMPLES,
            "10 to 10,000",
        )?;
        if let Some(interval) = self.baseline_interval {
            check(
                "adaptive_limit.baseline_interval",
                &interval,
                &BASELINE_INTERVAL,
                "none, or 1 s to 1 h",
            )?;
        }
        Ok(())
    }
}

fn check<T: PartialOrd + std::fmt::Debug>(
    field: &'static str,
    value: &T,
    accepted: &RangeInclusive<T>,
    range: &'static str,
) -> Result<(), ConfigError> {
    if accepted.contains(value) {
        Ok(())
    } else {
        Err(out_of_range(field, value, range))
    }
}

/// Builds the error; `Debug` is the form in which durations have a unit.
fn out_of_range(
    field: &'static str,
    value: &impl std::fmt::Debug,
    range: &'static str,
) -> ConfigError {
    ConfigError::OutOfRange {
        field,
        value: format!("{value:?}").into(),
        range,
    }
}

const TOLERANCE: RangeInclusive<f64> = 1.05..=10.0;
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const SAMPLES: RangeInclusive<u32> = 10..=10_000;
const BASELINE_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_for_every_maximum() {
        for maximum in [1, 2, 3, 4, 5, 1_000_000] {
            assert_eq!(AdaptiveLimit::new().validate(maximum), Ok(()));
        }
    }

    #[test]
    fn ends_of_each_range_are_valid() {
        let low = AdaptiveLimit::new()
            .min(1)
            .initial(1)
            .tolerance(1.05)
            .max_latency(Duration::from_nanos(1))
            .window(Duration::from_millis(1))
            .samples(10)
            .baseline_interval(Duration::from_secs(1));
        assert_eq!(low.validate(1), Ok(()));
        let high = AdaptiveLimit::new()
            .min(20)
            .initial(20)
            .tolerance(10.0)
            .max_latency(None)
            .window(Duration::from_secs(60))
            .samples(10_000)
            .baseline_interval(Duration::from_secs(3600));
        assert_eq!(high.validate(20), Ok(()));
        assert_eq!(high.baseline_interval(None).validate(20), Ok(()));
    }

    #[test]
    fn errors_name_the_setting_its_value_and_its_range() {
        let new = AdaptiveLimit::new;
        let cases = [
            (
                new().min(0),
                "`adaptive_limit.min` is 0, must be 1 to the maximum",
            ),
            (
                new().min(21),
                "`adaptive_limit.min` is 21, must be 1 to the maximum",
            ),
            (
                new().min(5).initial(4),
                "`adaptive_limit.initial` is 4, must be the minimum to the maximum",
            ),
            (
                new().initial(21),
                "`adaptive_limit.initial` is 21, must be the minimum to the maximum",
            ),
            (
                new().tolerance(1.04),
                "`adaptive_limit.tolerance` is 1.04, must be 1.05 to 10",
            ),
            (
                new().tolerance(f64::NAN),
                "`adaptive_limit.tolerance` is NaN, must be 1.05 to 10",
            ),
            (
                new().tolerance(10.5),
                "`adaptive_limit.tolerance` is 10.5, must be 1.05 to 10",
            ),
            (
                new().max_latency(Duration::ZERO),
                "`adaptive_limit.max_latency` is 0ns, must be more than zero",
            ),
            (
                new().window(Duration::from_micros(999)),
                "`adaptive_limit.window` is 999µs, must be 1 ms to 60 s",
            ),
            (
                new().window(Duration::from_secs(61)),
                "`adaptive_limit.window` is 61s, must be 1 ms to 60 s",
            ),
            (
                new().samples(9),
                "`adaptive_limit.samples` is 9, must be 10 to 10,000",
            ),
            (
                new().samples(10_001),
                "`adaptive_limit.samples` is 10001, must be 10 to 10,000",
            ),
            (
                new().baseline_interval(Duration::from_millis(999)),
                "`adaptive_limit.baseline_interval` is 999ms, must be none, or 1 s to 1 h",
            ),
            (
                new().baseline_interval(Duration::from_secs(3601)),
                "`adaptive_limit.baseline_interval` is 3601s, must be none, or 1 s to 1 h",
            ),
        ];
        for (config, message) in cases {
            assert_eq!(config.validate(20).unwrap_err().to_string(), message);
        }
    }
}
