//! Validation of configurations. Every error names the field, its value and the range.

use std::time::Duration;

use super::config::{CircuitBreakerConfig, ConsecutiveRule, SlidingWindow};
use crate::config_error::ConfigError;

impl CircuitBreakerConfig {
    /// Checks every field against its range, and the fields against each other.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] with the first invalid field.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// let error = CircuitBreakerConfig::new()
    ///     .success_threshold(0)
    ///     .validate()
    ///     .unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`success_threshold` is 0, must be 1 to 10,000"
    /// );
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate(self)
    }
}

fn validate(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    if let ConsecutiveRule::Failures(failures) = config.consecutive {
        at_least_one("failure_threshold", failures)?;
    }
    rate("failure_rate_threshold", config.failure_rate_threshold)?;
    rate("slow_call_rate_threshold", config.slow_call_rate_threshold)?;
    more_than_zero(
        "slow_call_duration_threshold",
        config.slow_call_duration_threshold,
    )?;
    within(
        "hanging_call_threshold",
        config.hanging_call_threshold.unwrap_or(1),
        1..=1_000_000,
        "1 to 1,000,000",
    )?;
    slow_call_duration(config)?;
    at_least_one(
        "minimum_number_of_calls",
        config.minimum_number_of_calls.unwrap_or(1),
    )?;
    at_least_one(
        "failure_count_threshold",
        config.failure_count_threshold.unwrap_or(1),
    )?;
    window(config)?;
    probes("success_threshold", config.success_threshold)?;
    probes(
        "permitted_calls_in_half_open",
        config.permitted_calls_in_half_open,
    )?;
    if let (Some(calls), Some(_)) = (
        config.permitted_calls_in_half_open,
        config.success_threshold,
    ) {
        let range = "left out when `success_threshold` is set";
        return Err(ConfigError::out_of_range(
            "permitted_calls_in_half_open",
            calls,
            range,
        ));
    }
    isolation(config)?;
    more_than_zero("probe_timeout", config.probe_timeout)?;
    more_than_zero(
        "max_half_open_duration",
        config.max_half_open_duration.map(|(duration, _)| duration),
    )
}

/// Checks that the duration is set if a rule needs it.
fn slow_call_duration(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    let rules = [
        (
            "slow_call_rate_threshold",
            config.slow_call_rate_threshold.is_some(),
        ),
        (
            "hanging_call_threshold",
            config.hanging_call_threshold.is_some(),
        ),
        ("count_calls_in_flight", config.count_calls_in_flight),
    ];
    match rules.into_iter().find(|(_, set)| *set) {
        Some((rule, _)) if config.slow_call_duration_threshold.is_none() => {
            Err(ConfigError::missing("slow_call_duration_threshold", rule))
        }
        _ => Ok(()),
    }
}

fn window(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    match config.resolve().sliding_window {
        SlidingWindow::Count(size) => {
            within(
                "sliding_window.count",
                size,
                1..=1_000_000,
                "1 to 1,000,000",
            )?;
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
                let value = format!("{length:?}");
                let range = "at least a nanosecond for each bucket";
                return Err(ConfigError::out_of_range(
                    "sliding_window.length",
                    value,
                    range,
                ));
            }
            Ok(())
        }
    }
}

fn isolation(config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    more_than_zero("isolation_duration", config.isolation_duration)?;
    if let Some(schedule) = &config.isolation_schedule {
        within(
            "isolation_schedule",
            schedule.len(),
            1..=1_000,
            "1 to 1,000 durations",
        )?;
        for duration in &**schedule {
            more_than_zero("isolation_schedule", Some(*duration))?;
        }
        let range = "left out when `isolation_schedule` is set";
        if let Some(duration) = config.isolation_duration {
            return Err(ConfigError::out_of_range(
                "isolation_duration",
                format_args!("{duration:?}"),
                range,
            ));
        }
        if let Some(backoff) = config.isolation_backoff {
            return Err(ConfigError::out_of_range(
                "isolation_backoff",
                format_args!("{backoff:?}"),
                range,
            ));
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
        return Err(ConfigError::out_of_range(
            "isolation_backoff.jitter",
            backoff.jitter,
            "within [0, 1)",
        ));
    }
    if backoff.max < config.resolve().isolation.first() {
        let value = format!("{:?}", backoff.max);
        let range = "at least `isolation_duration`";
        return Err(ConfigError::out_of_range(
            "isolation_backoff.max",
            value,
            range,
        ));
    }
    Ok(())
}

fn at_least_one(field: &'static str, value: u32) -> Result<(), ConfigError> {
    within(field, value, 1..=u32::MAX, "1 or more")
}

/// Checks a number of probes. It is bounded because each probe in flight takes a list entry.
fn probes(field: &'static str, value: Option<u32>) -> Result<(), ConfigError> {
    within(field, value.unwrap_or(1), 1..=10_000, "1 to 10,000")
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    accepted: std::ops::RangeInclusive<T>,
    range: &'static str,
) -> Result<(), ConfigError> {
    if accepted.contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::out_of_range(field, value, range))
    }
}

fn rate(field: &'static str, value: Option<f64>) -> Result<(), ConfigError> {
    match value {
        // Negated so that NaN is rejected.
        Some(rate) if !(rate > 0.0 && rate <= 1.0) => Err(ConfigError::out_of_range(
            field,
            rate,
            "a fraction within (0, 1]",
        )),
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
    use crate::circuit_breaker::{HalfOpenTimeoutAction, IsolationBackoff};

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> CircuitBreakerConfig {
        CircuitBreakerConfig::new()
    }

    #[track_caller]
    fn rejected(config: CircuitBreakerConfig, field: &str, value: &str, range: &str) {
        let error = config.validate().unwrap_err();
        let ConfigError::OutOfRange {
            field: named,
            value: shown,
            range: accepted,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((*named, &**shown, *accepted), (field, value, range));
        assert_eq!(
            error.to_string(),
            format!("`{field}` is {value}, must be {range}")
        );
    }

    fn backoff(factor: f64, max: Duration, jitter: f64) -> CircuitBreakerConfig {
        config().isolation_backoff(IsolationBackoff::new(factor, max).jitter(jitter))
    }

    fn count(size: u32) -> CircuitBreakerConfig {
        config().sliding_window(SlidingWindow::Count(size))
    }

    fn time(length: Duration, buckets: u32) -> CircuitBreakerConfig {
        config().sliding_window(SlidingWindow::Time { length, buckets })
    }

    /// Hazard P11.
    #[test]
    fn zero_is_rejected_for_every_field() {
        let positive = "1 or more";
        rejected(
            config().failure_threshold(0),
            "failure_threshold",
            "0",
            positive,
        );
        rejected(
            config().failure_count_threshold(0),
            "failure_count_threshold",
            "0",
            positive,
        );
        rejected(
            config().minimum_number_of_calls(0),
            "minimum_number_of_calls",
            "0",
            positive,
        );
        rejected(
            config().success_threshold(0),
            "success_threshold",
            "0",
            "1 to 10,000",
        );
        rejected(
            config().permitted_calls_in_half_open(0),
            "permitted_calls_in_half_open",
            "0",
            "1 to 10,000",
        );
        rejected(
            config().hanging_call_threshold(0),
            "hanging_call_threshold",
            "0",
            "1 to 1,000,000",
        );
        rejected(count(0), "sliding_window.count", "0", "1 to 1,000,000");
        rejected(
            time(SECOND, 0),
            "sliding_window.buckets",
            "0",
            "1 to 10,000",
        );
        let more = "more than zero";
        rejected(
            config().isolation_duration(Duration::ZERO),
            "isolation_duration",
            "0ns",
            more,
        );
        rejected(
            config().isolation_schedule([]),
            "isolation_schedule",
            "0",
            "1 to 1,000 durations",
        );
        rejected(
            config().isolation_schedule([SECOND, Duration::ZERO]),
            "isolation_schedule",
            "0ns",
            more,
        );
        rejected(
            config().probe_timeout(Duration::ZERO),
            "probe_timeout",
            "0ns",
            more,
        );
        rejected(
            config().slow_call_duration_threshold(Duration::ZERO),
            "slow_call_duration_threshold",
            "0ns",
            more,
        );
        let expiring = config().max_half_open_duration(Duration::ZERO, HalfOpenTimeoutAction::Open);
        rejected(expiring, "max_half_open_duration", "0ns", more);
    }

    #[test]
    fn a_bucket_must_be_at_least_a_nanosecond() {
        let range = "at least a nanosecond for each bucket";
        rejected(
            time(Duration::ZERO, 1),
            "sliding_window.length",
            "0ns",
            range,
        );
        rejected(
            time(Duration::from_nanos(9), 10),
            "sliding_window.length",
            "9ns",
            range,
        );
        time(Duration::from_nanos(10), 10).validate().unwrap();
    }

    #[test]
    fn rates_must_be_fractions() {
        for (rate, shown) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (1.1, "1.1"),
            (50.0, "50"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let range = "a fraction within (0, 1]";
            rejected(
                config().failure_rate_threshold(rate),
                "failure_rate_threshold",
                shown,
                range,
            );
            let slow = config()
                .slow_call_duration_threshold(SECOND)
                .slow_call_rate_threshold(rate);
            rejected(slow, "slow_call_rate_threshold", shown, range);
        }
        for rate in [f64::MIN_POSITIVE, 1.0] {
            config().failure_rate_threshold(rate).validate().unwrap();
            config()
                .slow_call_duration_threshold(SECOND)
                .slow_call_rate_threshold(rate)
                .validate()
                .unwrap();
        }
    }

    #[test]
    fn backoff_is_validated() {
        for (factor, shown) in [
            (0.5, "0.5"),
            (-2.0, "-2"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let config = backoff(factor, 60 * SECOND, 0.0);
            rejected(
                config,
                "isolation_backoff.factor",
                shown,
                "finite, 1 or more",
            );
        }
        for (jitter, shown) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
            let config = backoff(2.0, 60 * SECOND, jitter);
            rejected(config, "isolation_backoff.jitter", shown, "within [0, 1)");
        }
        let most = "at least `isolation_duration`";
        rejected(
            backoff(2.0, 30 * SECOND - Duration::from_nanos(1), 0.0),
            "isolation_backoff.max",
            "29.999999999s",
            most,
        );
        let longer = backoff(2.0, 30 * SECOND, 0.0).isolation_duration(31 * SECOND);
        rejected(longer, "isolation_backoff.max", "30s", most);
        backoff(1.0, 30 * SECOND, 0.0).validate().unwrap();
        backoff(f64::MAX, Duration::MAX, 1.0 - f64::EPSILON)
            .validate()
            .unwrap();
    }

    /// Hazard H87.
    #[test]
    fn settings_that_override_each_other_are_rejected() {
        let both = "left out when `success_threshold` is set";
        rejected(
            config()
                .success_threshold(2)
                .permitted_calls_in_half_open(3),
            "permitted_calls_in_half_open",
            "3",
            both,
        );
        let schedule = || config().isolation_schedule([SECOND]);
        let both = "left out when `isolation_schedule` is set";
        rejected(
            schedule().isolation_duration(SECOND),
            "isolation_duration",
            "1s",
            both,
        );
        let longer = schedule().isolation_backoff(IsolationBackoff::new(2.0, SECOND));
        let shown = "IsolationBackoff { factor: 2.0, max: 1s, jitter: 0.0 }";
        rejected(longer, "isolation_backoff", shown, both);
        for (rule, set) in [
            (
                "slow_call_rate_threshold",
                config().slow_call_rate_threshold(0.5),
            ),
            ("hanging_call_threshold", config().hanging_call_threshold(5)),
            (
                "count_calls_in_flight",
                config().count_calls_in_flight(true),
            ),
        ] {
            let missing = ConfigError::missing("slow_call_duration_threshold", rule);
            assert_eq!(set.validate(), Err(missing));
            set.slow_call_duration_threshold(SECOND).validate().unwrap();
        }
        let never = "at most the size of the count window, or it never opens";
        rejected(
            count(4).failure_count_threshold(5),
            "failure_count_threshold",
            "5",
            never,
        );
        rejected(
            config().failure_count_threshold(101),
            "failure_count_threshold",
            "101",
            never,
        );
        count(4).failure_count_threshold(4).validate().unwrap();
        config().failure_count_threshold(100).validate().unwrap();
        time(SECOND, 1)
            .failure_count_threshold(u32::MAX)
            .validate()
            .unwrap();
    }

    #[test]
    fn the_smallest_values_are_accepted() {
        let tick = Duration::from_nanos(1);
        count(1)
            .failure_threshold(1)
            .failure_count_threshold(1)
            .minimum_number_of_calls(1)
            .success_threshold(1)
            .isolation_duration(tick)
            .slow_call_duration_threshold(tick)
            .probe_timeout(tick)
            .max_half_open_duration(tick, HalfOpenTimeoutAction::Open)
            .validate()
            .unwrap();
        time(tick, 1)
            .permitted_calls_in_half_open(1)
            .isolation_schedule([tick])
            .validate()
            .unwrap();
    }

    #[test]
    fn one_above_the_maximum_is_rejected() {
        count(1_000_000).validate().unwrap();
        rejected(
            count(1_000_001),
            "sliding_window.count",
            "1000001",
            "1 to 1,000,000",
        );
        let hanging = |calls| {
            config()
                .slow_call_duration_threshold(SECOND)
                .hanging_call_threshold(calls)
        };
        hanging(1_000_000).validate().unwrap();
        rejected(
            hanging(1_000_001),
            "hanging_call_threshold",
            "1000001",
            "1 to 1,000,000",
        );
        time(SECOND, 10_000).validate().unwrap();
        rejected(
            time(SECOND, 10_001),
            "sliding_window.buckets",
            "10001",
            "1 to 10,000",
        );
        config().success_threshold(10_000).validate().unwrap();
        rejected(
            config().success_threshold(10_001),
            "success_threshold",
            "10001",
            "1 to 10,000",
        );
        config()
            .permitted_calls_in_half_open(10_000)
            .validate()
            .unwrap();
        rejected(
            config().permitted_calls_in_half_open(10_001),
            "permitted_calls_in_half_open",
            "10001",
            "1 to 10,000",
        );
        let schedule = |length| config().isolation_schedule(vec![SECOND; length]);
        schedule(1_000).validate().unwrap();
        rejected(
            schedule(1_001),
            "isolation_schedule",
            "1001",
            "1 to 1,000 durations",
        );
    }

    /// Hazard H62.
    #[test]
    fn the_largest_values_are_accepted() {
        config()
            .failure_threshold(u32::MAX)
            .minimum_number_of_calls(u32::MAX)
            .sliding_window(SlidingWindow::Time {
                length: Duration::MAX,
                buckets: 10_000,
            })
            .success_threshold(10_000)
            .isolation_duration(Duration::MAX)
            .slow_call_duration_threshold(Duration::MAX)
            .probe_timeout(Duration::MAX)
            .max_half_open_duration(Duration::MAX, HalfOpenTimeoutAction::Closed)
            .validate()
            .unwrap();
    }
}
