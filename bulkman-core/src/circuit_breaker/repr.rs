//! The serialized form of the configuration.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected};
use serde::ser::{Serialize, Serializer};

use super::circuit_state::CircuitState;
use super::config::{
    CircuitBreakerConfig, ConsecutiveRule, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
use crate::config_error::ConfigError;
use crate::human_duration::HumanDuration;
use crate::setting::{self, Field, Setting};

/// The fields of [`CircuitBreakerConfig`]; each may be left out.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CircuitBreakerRepr {
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "failure_threshold"
    )]
    failure_threshold: Field<Threshold>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "failure_rate_threshold"
    )]
    failure_rate_threshold: Field<f64>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "slow_call_rate_threshold"
    )]
    slow_call_rate_threshold: Field<f64>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "slow_call_duration_threshold"
    )]
    slow_call_duration_threshold: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "hanging_call_threshold"
    )]
    hanging_call_threshold: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    count_calls_in_flight: Field<bool>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "failure_count_threshold"
    )]
    failure_count_threshold: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "minimum_number_of_calls"
    )]
    minimum_number_of_calls: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "sliding_window"
    )]
    sliding_window: Field<SlidingWindow>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "success_threshold"
    )]
    success_threshold: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "permitted_calls_in_half_open"
    )]
    permitted_calls_in_half_open: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "isolation_duration"
    )]
    isolation_duration: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "isolation_schedule"
    )]
    isolation_schedule: Field<Vec<HumanDuration>>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    isolation_backoff: Field<IsolationBackoff>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "probe_timeout"
    )]
    probe_timeout: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "max_half_open_duration"
    )]
    max_half_open_duration: Field<HalfOpenBound>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    automatic_half_open: Field<bool>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    initial_state: Field<CircuitState>,
}

/// Validates a field where it is read, so that an error has its line and not its table's.
macro_rules! checked {
    ($($field:ident: $type:ty => $set:expr;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Field<$type>, D::Error> {
            let value = Field::<$type>::deserialize(deserializer)?;
            if let Field::Set(value) = &value {
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
    failure_count_threshold: u32 => |config, value|
        config.failure_count_threshold(*value).sliding_window(ANY_COUNT);
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

/// A window with which every `failure_count_threshold` can be reached.
const ANY_COUNT: SlidingWindow = SlidingWindow::Time {
    length: Duration::from_secs(1),
    buckets: 1,
};

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
    pub(crate) fn of(config: &CircuitBreakerConfig) -> Self {
        Self {
            failure_threshold: match config.consecutive {
                ConsecutiveRule::Unset => Field::Missing,
                ConsecutiveRule::Off => Field::Set(Threshold::Off),
                ConsecutiveRule::Failures(failures) => Field::Set(Threshold::Failures(failures)),
            },
            failure_rate_threshold: config.failure_rate_threshold.into(),
            slow_call_rate_threshold: config.slow_call_rate_threshold.into(),
            slow_call_duration_threshold: duration(config.slow_call_duration_threshold),
            hanging_call_threshold: config.hanging_call_threshold.into(),
            count_calls_in_flight: config.count_calls_in_flight.then_some(true).into(),
            failure_count_threshold: config.failure_count_threshold.into(),
            minimum_number_of_calls: config.minimum_number_of_calls.into(),
            sliding_window: config.sliding_window.into(),
            success_threshold: config.success_threshold.into(),
            permitted_calls_in_half_open: config.permitted_calls_in_half_open.into(),
            isolation_duration: duration(config.isolation_duration),
            isolation_schedule: config
                .isolation_schedule
                .as_ref()
                .map(|s| s.iter().copied().map(HumanDuration).collect())
                .into(),
            isolation_backoff: config.isolation_backoff.into(),
            probe_timeout: duration(config.probe_timeout),
            max_half_open_duration: config
                .max_half_open_duration
                .map(|(duration, then)| HalfOpenBound { duration, then })
                .into(),
            automatic_half_open: config.automatic_half_open.then_some(true).into(),
            initial_state: config.initial_state.into(),
        }
    }

    /// Fills missing fields with the defaults of the file.
    ///
    /// A default that excludes a field of this table has no effect. Null is not missing: it means
    /// the default of the library.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        let mut defaults = defaults.clone();
        if self.isolation_schedule.is_set() {
            defaults.isolation_duration = Field::Missing;
            defaults.isolation_backoff = Field::Missing;
        }
        if self.isolation_duration.is_set() || self.isolation_backoff.is_set() {
            defaults.isolation_schedule = Field::Missing;
        }
        if self.permitted_calls_in_half_open.is_set() {
            defaults.success_threshold = Field::Missing;
        }
        if self.success_threshold.is_set() {
            defaults.permitted_calls_in_half_open = Field::Missing;
        }
        Self {
            failure_threshold: self.failure_threshold.or(&defaults.failure_threshold),
            failure_rate_threshold: self
                .failure_rate_threshold
                .or(&defaults.failure_rate_threshold),
            slow_call_rate_threshold: self
                .slow_call_rate_threshold
                .or(&defaults.slow_call_rate_threshold),
            slow_call_duration_threshold: self
                .slow_call_duration_threshold
                .or(&defaults.slow_call_duration_threshold),
            hanging_call_threshold: self
                .hanging_call_threshold
                .or(&defaults.hanging_call_threshold),
            count_calls_in_flight: self
                .count_calls_in_flight
                .or(&defaults.count_calls_in_flight),
            failure_count_threshold: self
                .failure_count_threshold
                .or(&defaults.failure_count_threshold),
            minimum_number_of_calls: self
                .minimum_number_of_calls
                .or(&defaults.minimum_number_of_calls),
            sliding_window: self.sliding_window.or(&defaults.sliding_window),
            success_threshold: self.success_threshold.or(&defaults.success_threshold),
            permitted_calls_in_half_open: self
                .permitted_calls_in_half_open
                .or(&defaults.permitted_calls_in_half_open),
            isolation_duration: self.isolation_duration.or(&defaults.isolation_duration),
            isolation_schedule: self.isolation_schedule.or(&defaults.isolation_schedule),
            isolation_backoff: self.isolation_backoff.or(&defaults.isolation_backoff),
            probe_timeout: self.probe_timeout.or(&defaults.probe_timeout),
            max_half_open_duration: self
                .max_half_open_duration
                .or(&defaults.max_half_open_duration),
            automatic_half_open: self.automatic_half_open.or(&defaults.automatic_half_open),
            initial_state: self.initial_state.or(&defaults.initial_state),
        }
    }

    /// Returns the error that no default of the file can correct.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut config = self.clone().into_config();
        if self.slow_call_duration_threshold.is_missing() {
            config.slow_call_duration_threshold = Some(Duration::MAX);
        }
        if self.sliding_window.is_missing() {
            config.sliding_window = Some(ANY_COUNT);
        }
        if let (Field::Missing, Some(backoff)) =
            (&self.isolation_duration, config.isolation_backoff)
        {
            if config.isolation_schedule.is_none() && !backoff.max.is_zero() {
                config.isolation_duration = Some(backoff.max);
            }
        }
        config.validate()
    }

    pub(crate) fn into_config(self) -> CircuitBreakerConfig {
        CircuitBreakerConfig {
            consecutive: match self.failure_threshold.get() {
                None => ConsecutiveRule::Unset,
                Some(Threshold::Off) => ConsecutiveRule::Off,
                Some(Threshold::Failures(failures)) => ConsecutiveRule::Failures(failures),
            },
            failure_rate_threshold: self.failure_rate_threshold.get(),
            slow_call_rate_threshold: self.slow_call_rate_threshold.get(),
            slow_call_duration_threshold: self
                .slow_call_duration_threshold
                .get()
                .map(Duration::from),
            hanging_call_threshold: self.hanging_call_threshold.get(),
            count_calls_in_flight: self.count_calls_in_flight.get().unwrap_or_default(),
            failure_count_threshold: self.failure_count_threshold.get(),
            minimum_number_of_calls: self.minimum_number_of_calls.get(),
            sliding_window: self.sliding_window.get(),
            success_threshold: self.success_threshold.get(),
            permitted_calls_in_half_open: self.permitted_calls_in_half_open.get(),
            isolation_duration: self.isolation_duration.get().map(Duration::from),
            isolation_schedule: self
                .isolation_schedule
                .get()
                .map(|s| s.into_iter().map(Duration::from).collect()),
            isolation_backoff: self.isolation_backoff.get(),
            probe_timeout: self.probe_timeout.get().map(Duration::from),
            max_half_open_duration: self
                .max_half_open_duration
                .get()
                .map(|bound| (bound.duration, bound.then)),
            automatic_half_open: self.automatic_half_open.get().unwrap_or_default(),
            initial_state: self.initial_state.get(),
        }
    }
}

fn duration(value: Option<Duration>) -> Field<HumanDuration> {
    value.map(HumanDuration).into()
}

/// The table of a circuit within that of a bulkhead, where a default may supply what is missing.
impl Setting for CircuitBreakerRepr {
    const SHAPE: &'static str = "a table of settings, such as `{ failure_rate_threshold = 0.5 }`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: Self = setting::fields(table)?;
        repr.check().map_err(A::Error::custom)?;
        Ok(repr)
    }
}

impl Setting for CircuitBreakerConfig {
    const SHAPE: &'static str = CircuitBreakerRepr::SHAPE;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let config = setting::fields::<CircuitBreakerRepr, _>(table)?.into_config();
        config.validate().map_err(A::Error::custom)?;
        Ok(config)
    }
}

impl Serialize for CircuitBreakerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CircuitBreakerRepr::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CircuitBreakerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
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

impl Setting for Threshold {
    const SHAPE: &'static str = r#"a number of failures, or "off""#;

    fn from_unsigned<E: Error>(failures: u64) -> Result<Self, E> {
        u32::try_from(failures)
            .map(Self::Failures)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(failures), &Self::SHAPE))
    }

    fn from_negative<E: Error>(failures: i64) -> Result<Self, E> {
        Err(E::invalid_value(Unexpected::Signed(failures), &Self::SHAPE))
    }

    // An unquoted `off` is a boolean in YAML 1.1.
    fn from_bool<E: Error>(on: bool) -> Result<Self, E> {
        if on {
            Err(E::invalid_value(Unexpected::Bool(on), &Self::SHAPE))
        } else {
            Ok(Self::Off)
        }
    }

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        match (text, text.parse()) {
            ("off", _) => Ok(Self::Off),
            (_, Ok(failures)) => Ok(Self::Failures(failures)),
            _ => Err(E::invalid_value(Unexpected::Str(text), &Self::SHAPE)),
        }
    }
}

/// `{ count = 100 }` or `{ length = "60s", buckets = 60 }`.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WindowRepr {
    #[serde(skip_serializing_if = "Field::is_missing")]
    count: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    length: Field<HumanDuration>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    buckets: Field<u32>,
}

impl Serialize for SlidingWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = match *self {
            Self::Count(count) => WindowRepr {
                count: Field::Set(count),
                ..WindowRepr::default()
            },
            Self::Time { length, buckets } => WindowRepr {
                length: Field::Set(HumanDuration(length)),
                buckets: Field::Set(buckets),
                ..WindowRepr::default()
            },
        };
        repr.serialize(serializer)
    }
}

impl Setting for SlidingWindow {
    const SHAPE: &'static str = r#"`{ count = 100 }` or `{ length = "60s", buckets = 60 }`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: WindowRepr = setting::fields(table)?;
        match (repr.count.get(), repr.length.get(), repr.buckets.get()) {
            (Some(count), None, None) => Ok(Self::Count(count)),
            (None, Some(HumanDuration(length)), Some(buckets)) => {
                Ok(Self::Time { length, buckets })
            }
            _ => Err(A::Error::custom(
                "a window has either `count`, or `length` and `buckets`",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for SlidingWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

#[derive(Clone, Copy)]
struct HalfOpenBound {
    duration: Duration,
    then: HalfOpenTimeoutAction,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HalfOpenBoundRepr {
    duration: Field<HumanDuration>,
    then: Field<HalfOpenTimeoutAction>,
}

impl Serialize for HalfOpenBound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = HalfOpenBoundRepr {
            duration: Field::Set(HumanDuration(self.duration)),
            then: Field::Set(self.then),
        };
        repr.serialize(serializer)
    }
}

impl Setting for HalfOpenBound {
    const SHAPE: &'static str = r#"`{ duration = "5m", then = "open" }`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: HalfOpenBoundRepr = setting::fields(table)?;
        Ok(Self {
            duration: repr.duration.required::<A::Error>("duration")?.0,
            then: repr.then.required("then")?,
        })
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BackoffRepr {
    factor: Field<f64>,
    max: Field<HumanDuration>,
    jitter: Field<f64>,
}

impl Serialize for IsolationBackoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = BackoffRepr {
            factor: Field::Set(self.factor),
            max: Field::Set(HumanDuration(self.max)),
            jitter: Field::Set(self.jitter),
        };
        repr.serialize(serializer)
    }
}

impl Setting for IsolationBackoff {
    const SHAPE: &'static str = r#"`{ factor = 2, max = "5m" }`, with or without `jitter`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: BackoffRepr = setting::fields(table)?;
        let HumanDuration(max) = repr.max.required::<A::Error>("max")?;
        let jitter = repr.jitter.get().unwrap_or_default();
        Ok(Self::new(repr.factor.required("factor")?, max).jitter(jitter))
    }
}

impl<'de> Deserialize<'de> for IsolationBackoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}
