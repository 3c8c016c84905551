//! The serialized form of the configuration.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::circuit_state::CircuitState;
use super::config::{
    CircuitBreakerConfig, ConsecutiveRule, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
use crate::config_error::ConfigError;
use crate::human_duration::{self, HumanDuration};

/// The fields of [`CircuitBreakerConfig`]; each may be left out.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CircuitBreakerRepr {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "failure_threshold"
    )]
    failure_threshold: Option<Threshold>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "failure_rate_threshold"
    )]
    failure_rate_threshold: Option<f64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "slow_call_rate_threshold"
    )]
    slow_call_rate_threshold: Option<f64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "slow_call_duration_threshold"
    )]
    slow_call_duration_threshold: Option<HumanDuration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "hanging_call_threshold"
    )]
    hanging_call_threshold: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    count_calls_in_flight: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_count_threshold: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "minimum_number_of_calls"
    )]
    minimum_number_of_calls: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "sliding_window"
    )]
    sliding_window: Option<SlidingWindow>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "success_threshold"
    )]
    success_threshold: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "permitted_calls_in_half_open"
    )]
    permitted_calls_in_half_open: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "isolation_duration"
    )]
    isolation_duration: Option<HumanDuration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "isolation_schedule"
    )]
    isolation_schedule: Option<Vec<HumanDuration>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation_backoff: Option<IsolationBackoff>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "probe_timeout"
    )]
    probe_timeout: Option<HumanDuration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "max_half_open_duration"
    )]
    max_half_open_duration: Option<HalfOpenBound>,
    #[serde(skip_serializing_if = "is_false")]
    automatic_half_open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_state: Option<CircuitState>,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// Validates a field where it is deserialized, so that an error has its line and not its table's.
macro_rules! checked {
    ($($field:ident: $type:ty => $set:expr;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            let value = Option::<$type>::deserialize(deserializer)?;
            if let Some(value) = &value {
                let set: fn(CircuitBreakerConfig, &$type) -> CircuitBreakerConfig = $set;
                let config = set(CircuitBreakerConfig::new(), value);
                check_field(stringify!($field), &config).map_err(D::Error::custom)?;
            }
            Ok(value)
        }
    )*};
}

checked! {
    failure_threshold: Threshold => |config, value| value.set(config);
    failure_rate_threshold: f64 => |config, value| config.failure_rate_threshold(*value);
    slow_call_rate_threshold: f64 => |config, value| config.slow_call_rate_threshold(*value);
    slow_call_duration_threshold: HumanDuration => |config, value| config.slow_call_duration_threshold(value.0);
    hanging_call_threshold: u32 => |config, value| config.hanging_call_threshold(*value);
    minimum_number_of_calls: u32 => |config, value| config.minimum_number_of_calls(*value);
    sliding_window: SlidingWindow => |config, value| config.sliding_window(*value);
    success_threshold: u32 => |config, value| config.success_threshold(*value);
    permitted_calls_in_half_open: u32 => |config, value| config.permitted_calls_in_half_open(*value);
    isolation_duration: HumanDuration => |config, value| config.isolation_duration(value.0);
    isolation_schedule: Vec<HumanDuration> => |config, value| config.isolation_schedule(value.iter().map(|d| d.0));
    probe_timeout: HumanDuration => |config, value| config.probe_timeout(value.0);
    max_half_open_duration: HalfOpenBound =>
        |config, value| config.max_half_open_duration(value.duration, value.then);
}

/// Returns the error of one field, regardless of the others.
fn check_field(field: &str, config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
    match config.validate() {
        Err(ConfigError::OutOfRange {
            field: wrong,
            value,
            range,
        }) if wrong
            .strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) =>
        {
            Err(ConfigError::OutOfRange {
                field: wrong,
                value,
                range,
            })
        }
        _ => Ok(()),
    }
}

impl CircuitBreakerRepr {
    fn of(config: &CircuitBreakerConfig) -> Self {
        Self {
            failure_threshold: match config.consecutive {
                ConsecutiveRule::Unset => None,
                ConsecutiveRule::Off => Some(Threshold::Off),
                ConsecutiveRule::Failures(failures) => Some(Threshold::Failures(failures)),
            },
            failure_rate_threshold: config.failure_rate_threshold,
            slow_call_rate_threshold: config.slow_call_rate_threshold,
            slow_call_duration_threshold: config.slow_call_duration_threshold.map(HumanDuration),
            hanging_call_threshold: config.hanging_call_threshold,
            count_calls_in_flight: config.count_calls_in_flight,
            failure_count_threshold: config.failure_count_threshold,
            minimum_number_of_calls: config.minimum_number_of_calls,
            sliding_window: config.sliding_window,
            success_threshold: config.success_threshold,
            permitted_calls_in_half_open: config.permitted_calls_in_half_open,
            isolation_duration: config.isolation_duration.map(HumanDuration),
            isolation_schedule: config
                .isolation_schedule
                .as_ref()
                .map(|s| s.iter().copied().map(HumanDuration).collect()),
            isolation_backoff: config.isolation_backoff,
            probe_timeout: config.probe_timeout.map(HumanDuration),
            max_half_open_duration: config
                .max_half_open_duration
                .map(|(duration, then)| HalfOpenBound { duration, then }),
            automatic_half_open: config.automatic_half_open,
            initial_state: config.initial_state,
        }
    }

    fn into_config(self) -> CircuitBreakerConfig {
        CircuitBreakerConfig {
            consecutive: match self.failure_threshold {
                None => ConsecutiveRule::Unset,
                Some(Threshold::Off) => ConsecutiveRule::Off,
                Some(Threshold::Failures(failures)) => ConsecutiveRule::Failures(failures),
            },
            failure_rate_threshold: self.failure_rate_threshold,
            slow_call_rate_threshold: self.slow_call_rate_threshold,
            slow_call_duration_threshold: self.slow_call_duration_threshold.map(Duration::from),
            hanging_call_threshold: self.hanging_call_threshold,
            count_calls_in_flight: self.count_calls_in_flight,
            failure_count_threshold: self.failure_count_threshold,
            minimum_number_of_calls: self.minimum_number_of_calls,
            sliding_window: self.sliding_window,
            success_threshold: self.success_threshold,
            permitted_calls_in_half_open: self.permitted_calls_in_half_open,
            isolation_duration: self.isolation_duration.map(Duration::from),
            isolation_schedule: self
                .isolation_schedule
                .map(|s| s.into_iter().map(Duration::from).collect()),
            isolation_backoff: self.isolation_backoff,
            probe_timeout: self.probe_timeout.map(Duration::from),
            max_half_open_duration: self
                .max_half_open_duration
                .map(|bound| (bound.duration, bound.then)),
            automatic_half_open: self.automatic_half_open,
            initial_state: self.initial_state,
        }
    }
}

impl Serialize for CircuitBreakerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CircuitBreakerRepr::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CircuitBreakerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = CircuitBreakerRepr::deserialize(deserializer)?.into_config();
        config.validate().map_err(D::Error::custom)?;
        Ok(config)
    }
}

/// A number of failures or `off`.
#[derive(Clone, Copy)]
enum Threshold {
    Off,
    Failures(u32),
}

impl Threshold {
    fn set(self, config: CircuitBreakerConfig) -> CircuitBreakerConfig {
        match self {
            Self::Off => config.failure_threshold(None),
            Self::Failures(failures) => config.failure_threshold(failures),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Failures(failures) => serializer.serialize_u32(*failures),
        }
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrOff;

        impl Visitor<'_> for NumberOrOff {
            type Value = Threshold;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a number of failures, or "off""#)
            }

            fn visit_u64<E: Error>(self, failures: u64) -> Result<Threshold, E> {
                u32::try_from(failures)
                    .map(Threshold::Failures)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(failures), &self))
            }

            fn visit_i64<E: Error>(self, failures: i64) -> Result<Threshold, E> {
                u64::try_from(failures)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(failures), &self))
                    .and_then(|failures| self.visit_u64(failures))
            }

            // An unquoted `off` is a boolean in YAML 1.1.
            fn visit_bool<E: Error>(self, on: bool) -> Result<Threshold, E> {
                if on {
                    Err(E::invalid_value(serde::de::Unexpected::Bool(on), &self))
                } else {
                    Ok(Threshold::Off)
                }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Threshold, E> {
                match text {
                    "off" => Ok(Threshold::Off),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberOrOff)
    }
}

/// `{ count = 100 }` or `{ length = "60s", buckets = 60 }`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowRepr {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<HumanDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    buckets: Option<u32>,
}

impl Serialize for SlidingWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = match *self {
            Self::Count(count) => WindowRepr {
                count: Some(count),
                length: None,
                buckets: None,
            },
            Self::Time { length, buckets } => WindowRepr {
                count: None,
                length: Some(HumanDuration(length)),
                buckets: Some(buckets),
            },
        };
        repr.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlidingWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match WindowRepr::deserialize(deserializer)? {
            WindowRepr {
                count: Some(count),
                length: None,
                buckets: None,
            } => Ok(Self::Count(count)),
            WindowRepr {
                count: None,
                length: Some(HumanDuration(length)),
                buckets: Some(buckets),
            } => Ok(Self::Time { length, buckets }),
            _ => Err(D::Error::custom(
                "a window has either `count`, or `length` and `buckets`",
            )),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HalfOpenBound {
    #[serde(with = "human_duration::duration")]
    duration: Duration,
    then: HalfOpenTimeoutAction,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, remote = "IsolationBackoff")]
struct BackoffRepr {
    factor: f64,
    #[serde(with = "human_duration::duration")]
    max: Duration,
    #[serde(default)]
    jitter: f64,
}

impl Serialize for IsolationBackoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BackoffRepr::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for IsolationBackoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BackoffRepr::deserialize(deserializer)
    }
}
