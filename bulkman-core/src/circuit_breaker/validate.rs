//! What a configuration may not say: every refusal names the field, its value and the range.

use std::time::Duration;

use super::config::{CircuitBreakerConfig, ConsecutiveRule, SlidingWindow};
use super::settings::CircuitBreakerSettings;
use crate::error::ConfigError;

pub(super) fn validate(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    if let ConsecutiveRule::Failures(failures) = config.consecutive {
        at_least_one("failure_threshold", failures)?;
    }
    rate("failure_rate_threshold", config.failure_rate_threshold)?;
    rate("slow_call_rate_threshold", config.slow_call_rate_threshold)?;
    more_than_zero("slow_call_duration", config.slow_call_duration)?;
    if config.slow_call_rate_threshold.is_some() && config.slow_call_duration.is_none() {
        let range = "set when `slow_call_rate_threshold` is";
        return Err(ConfigError::out_of_range("slow_call_duration", "not set", range));
    }
    at_least_one("minimum_number_of_calls", config.minimum_number_of_calls.unwrap_or(1))?;
    at_least_one("failure_count_threshold", config.failure_count_threshold.unwrap_or(1))?;
    window(config)?;
    probes("success_threshold", config.success_threshold)?;
    probes("half_open_rate", config.half_open_rate)?;
    if let (Some(calls), Some(_)) = (config.half_open_rate, config.success_threshold) {
        let range = "left out when `success_threshold` is set: one of them decides";
        return Err(ConfigError::out_of_range("half_open_rate", calls, range));
    }
    isolation(config)?;
    more_than_zero("probe_timeout", config.probe_timeout)?;
    more_than_zero("max_half_open_duration", config.max_half_open_duration.map(|(duration, _)| duration))
}

fn window(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    match CircuitBreakerSettings::new(config).sliding_window {
        SlidingWindow::Count(size) => {
            within("sliding_window.count", size, 1..=1_000_000, "1 to 1,000,000")?;
            match config.failure_count_threshold {
                Some(failures) if failures > size => Err(ConfigError::out_of_range(
                    "failure_count_threshold",
                    failures,
                    "at most the size of the count window, or it never opens",
                )),
                _ => Ok(()),
            }
        }
        SlidingWindow::Time { length, buckets } => {
            within("sliding_window.buckets", buckets, 1..=10_000, "1 to 10,000")?;
            if length.as_nanos() < u128::from(buckets) {
                let value = format_args!("{length:?}");
                let range = "at least a nanosecond for each bucket";
                return Err(ConfigError::out_of_range("sliding_window.length", value, range));
            }
            Ok(())
        }
    }
}

fn isolation(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    more_than_zero("isolation_duration", config.isolation_duration)?;
    if let Some(schedule) = &config.isolation_schedule {
        within("isolation_schedule", schedule.len(), 1..=1_000, "1 to 1,000 durations")?;
        for duration in &**schedule {
            more_than_zero("isolation_schedule", Some(*duration))?;
        }
        let range = "left out when `isolation_schedule` is set";
        if let Some(duration) = config.isolation_duration {
            return Err(ConfigError::out_of_range("isolation_duration", format_args!("{duration:?}"), range));
        }
        if let Some(backoff) = config.isolation_backoff {
            return Err(ConfigError::out_of_range("isolation_backoff", format_args!("{backoff:?}"), range));
        }
    }
    let Some(backoff) = config.isolation_backoff else {
        return Ok(());
    };
    if !(backoff.factor.is_finite() && backoff.factor >= 1.0) {
        return Err(ConfigError::out_of_range(
            "isolation_backoff.factor",
            backoff.factor,
            "finite, 1 or more",
        ));
    }
    if !(0.0..1.0).contains(&backoff.jitter) {
        return Err(ConfigError::out_of_range("isolation_backoff.jitter", backoff.jitter, "within [0, 1)"));
    }
    if backoff.max < CircuitBreakerSettings::new(config).isolation.first() {
        let value = format_args!("{:?}", backoff.max);
        let range = "at least `isolation_duration`";
        return Err(ConfigError::out_of_range("isolation_backoff.max", value, range));
    }
    Ok(())
}

fn at_least_one(field: &'static str, value: u32) -> Result<(), ConfigError> {
    within(field, value, 1..=u32::MAX, "1 or more")
}

/// Probes are kept in a list, one entry each while they are out.
fn probes(field: &'static str, value: Option<u32>) -> Result<(), ConfigError> {
    within(field, value.unwrap_or(1), 1..=10_000, "1 to 10,000")
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    accepted: std::ops::RangeInclusive<T>,
    range: &'static str,
) -> Result<(), ConfigError> {
    if accepted.contains(&value) { Ok(()) } else { Err(ConfigError::out_of_range(field, value, range)) }
}

fn rate(field: &'static str, value: Option<f64>) -> Result<(), ConfigError> {
    match value {
        // Written so that a NaN is refused.
        Some(rate) if !(rate > 0.0 && rate <= 1.0) => {
            Err(ConfigError::out_of_range(field, rate, "a fraction within (0, 1]"))
        }
        _ => Ok(()),
    }
}

fn more_than_zero(field: &'static str, value: Option<Duration>) -> Result<(), ConfigError> {
    match value {
        Some(Duration::ZERO) => Err(ConfigError::out_of_range(field, "0ns", "more than zero")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit_breaker::{HalfOpenExpiry, IsolationBackoff};

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> CircuitBreakerConfig {
        CircuitBreakerConfig::new()
    }

    #[track_caller]
    fn refused(config: CircuitBreakerConfig, field: &str, value: &str) {
        let error = config.validate().unwrap_err();
        let ConfigError::OutOfRange { field: named, value: shown, range } = error else {
            panic!("{error:?}");
        };
        assert_eq!((named, &*shown), (field, value));
        assert!(!range.is_empty());
    }

    #[test]
    fn defect_11_zero_is_refused_everywhere() {
        refused(config().failure_threshold(0), "failure_threshold", "0");
        refused(config().failure_count_threshold(0), "failure_count_threshold", "0");
        refused(config().minimum_number_of_calls(0), "minimum_number_of_calls", "0");
        refused(config().success_threshold(0), "success_threshold", "0");
        refused(config().half_open_rate(0), "half_open_rate", "0");
        refused(config().sliding_window(SlidingWindow::Count(0)), "sliding_window.count", "0");
        let time = |length, buckets| config().sliding_window(SlidingWindow::Time { length, buckets });
        refused(time(SECOND, 0), "sliding_window.buckets", "0");
        refused(time(Duration::ZERO, 1), "sliding_window.length", "0ns");
        refused(config().isolation_duration(Duration::ZERO), "isolation_duration", "0ns");
        refused(config().isolation_schedule([]), "isolation_schedule", "0");
        refused(config().isolation_schedule([SECOND, Duration::ZERO]), "isolation_schedule", "0ns");
        refused(config().probe_timeout(Duration::ZERO), "probe_timeout", "0ns");
        refused(config().slow_call_duration(Duration::ZERO), "slow_call_duration", "0ns");
        let expiring = config().max_half_open_duration(Duration::ZERO, HalfOpenExpiry::Open);
        refused(expiring, "max_half_open_duration", "0ns");
    }

    #[test]
    fn rates_are_fractions() {
        for (rate, shown) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (1.1, "1.1"),
            (50.0, "50"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            refused(config().failure_rate_threshold(rate), "failure_rate_threshold", shown);
            let slow = config().slow_call_duration(SECOND).slow_call_rate_threshold(rate);
            refused(slow, "slow_call_rate_threshold", shown);
        }
        config().failure_rate_threshold(f64::MIN_POSITIVE).validate().unwrap();
        config().failure_rate_threshold(1.0).validate().unwrap();
    }

    #[test]
    fn backoff_is_checked() {
        let backoff = |factor, max, jitter| {
            config().isolation_backoff(IsolationBackoff::new(factor, max).jitter(jitter))
        };
        refused(backoff(0.5, 60 * SECOND, 0.0), "isolation_backoff.factor", "0.5");
        refused(backoff(f64::NAN, 60 * SECOND, 0.0), "isolation_backoff.factor", "NaN");
        refused(backoff(f64::INFINITY, 60 * SECOND, 0.0), "isolation_backoff.factor", "inf");
        refused(backoff(2.0, SECOND, 0.0), "isolation_backoff.max", "1s");
        refused(backoff(2.0, 60 * SECOND, 1.0), "isolation_backoff.jitter", "1");
        refused(backoff(2.0, 60 * SECOND, -0.1), "isolation_backoff.jitter", "-0.1");
        refused(backoff(2.0, 60 * SECOND, f64::NAN), "isolation_backoff.jitter", "NaN");
        backoff(1.0, 30 * SECOND, 0.0).validate().unwrap();
        backoff(f64::MAX, Duration::MAX, 0.99).validate().unwrap();
    }

    #[test]
    fn h87_settings_that_would_override_each_other_are_refused() {
        refused(config().success_threshold(2).half_open_rate(3), "half_open_rate", "3");
        let schedule = || config().isolation_schedule([SECOND]);
        refused(schedule().isolation_duration(SECOND), "isolation_duration", "1s");
        assert!(schedule().isolation_backoff(IsolationBackoff::new(2.0, SECOND)).validate().is_err());
        refused(config().slow_call_rate_threshold(0.5), "slow_call_duration", "not set");
        let never = config().sliding_window(SlidingWindow::Count(4)).failure_count_threshold(5);
        refused(never, "failure_count_threshold", "5");
    }

    #[test]
    fn h62_the_largest_values_are_accepted() {
        config()
            .failure_threshold(u32::MAX)
            .minimum_number_of_calls(u32::MAX)
            .sliding_window(SlidingWindow::Time { length: Duration::MAX, buckets: 10_000 })
            .success_threshold(10_000)
            .isolation_duration(Duration::MAX)
            .slow_call_duration(Duration::MAX)
            .probe_timeout(Duration::MAX)
            .max_half_open_duration(Duration::MAX, HalfOpenExpiry::Closed)
            .validate()
            .unwrap();
        refused(config().sliding_window(SlidingWindow::Count(1_000_001)), "sliding_window.count", "1000001");
        refused(config().success_threshold(10_001), "success_threshold", "10001");
    }
}
