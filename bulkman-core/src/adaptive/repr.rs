//! The serialized form of an adaptive limit's configuration.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected};
use serde::ser::{Serialize, Serializer};

use super::config::AdaptiveLimit;
use super::enforcement::Enforcement;
use crate::config_error::ConfigError;
use crate::human_duration::HumanDuration;
use crate::setting::{self, Field, Setting, SwitchSettings};

/// The fields of [`AdaptiveLimit`] under the names of their setters; each may be left out.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdaptiveLimitRepr {
    #[serde(skip_serializing_if = "Field::is_missing", deserialize_with = "min")]
    min: Field<usize>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "initial"
    )]
    initial: Field<usize>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "tolerance"
    )]
    tolerance: Field<f64>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "max_latency"
    )]
    max_latency: Field<HumanDuration>,
    #[serde(skip_serializing_if = "Field::is_missing", deserialize_with = "window")]
    window: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "samples"
    )]
    samples: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "baseline_interval"
    )]
    baseline_interval: Field<Interval>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    shrink_on_failure: Field<bool>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    enforcement: Field<Enforcement>,
}

/// Validates a field where it is read, so that an error has its line and not its table's.
macro_rules! checked {
    ($($field:ident: $type:ty => $set:expr;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Field<$type>, D::Error> {
            let value = Field::<$type>::deserialize(deserializer)?;
            if let Field::Set(value) = value {
                let set: fn(AdaptiveLimit, $type) -> AdaptiveLimit = $set;
                set(AdaptiveLimit::new(), value).validate(usize::MAX).map_err(D::Error::custom)?;
            }
            Ok(value)
        }
    )*};
}

checked! {
    min: usize => AdaptiveLimit::min;
    initial: usize => |limit, value| limit.initial(value);
    tolerance: f64 => AdaptiveLimit::tolerance;
    max_latency: HumanDuration => |limit, value| limit.max_latency(value.0);
    window: HumanDuration => |limit, value| limit.window(value.0);
    samples: u32 => AdaptiveLimit::samples;
    baseline_interval: Interval => |limit, value| limit.baseline_interval(value.0);
}

impl AdaptiveLimitRepr {
    pub(crate) fn of(limit: &AdaptiveLimit) -> Self {
        Self {
            min: Field::Set(limit.min),
            initial: limit.initial.into(),
            tolerance: Field::Set(limit.tolerance),
            max_latency: limit.max_latency.map(HumanDuration).into(),
            window: Field::Set(HumanDuration(limit.window)),
            samples: Field::Set(limit.samples),
            baseline_interval: Field::Set(Interval(limit.baseline_interval)),
            shrink_on_failure: Field::Set(limit.shrink_on_failure),
            enforcement: Field::Set(limit.enforcement),
        }
    }

    pub(crate) fn into_limit(self) -> AdaptiveLimit {
        let new = AdaptiveLimit::new();
        AdaptiveLimit {
            min: self.min.get().unwrap_or(new.min),
            initial: self.initial.get(),
            tolerance: self.tolerance.get().unwrap_or(new.tolerance),
            max_latency: self.max_latency.get().map(Duration::from),
            window: self.window.get().map_or(new.window, Duration::from),
            samples: self.samples.get().unwrap_or(new.samples),
            baseline_interval: self
                .baseline_interval
                .get()
                .map_or(new.baseline_interval, |interval| interval.0),
            shrink_on_failure: self.shrink_on_failure.get().unwrap_or_default(),
            enforcement: self.enforcement.get().unwrap_or_default(),
        }
    }

    /// Returns the error that no default of the file and no maximum can correct.
    fn check(&self) -> Result<(), ConfigError> {
        if self.min.is_set() {
            self.clone().into_limit().validate(usize::MAX)
        } else {
            Ok(())
        }
    }
}

impl Setting for AdaptiveLimit {
    const SHAPE: &'static str = "a table of settings, such as `{ min = 2 }`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let limit = setting::fields::<AdaptiveLimitRepr, _>(table)?.into_limit();
        // All but the maximum, which only the bulkhead has.
        limit.validate(usize::MAX).map_err(A::Error::custom)?;
        Ok(limit)
    }
}

impl Serialize for AdaptiveLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AdaptiveLimitRepr::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AdaptiveLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

impl SwitchSettings for AdaptiveLimitRepr {
    const SHAPE: &'static str = "true, false, or a table of settings, such as `{ min = 2 }`";

    fn or(self, defaults: &Self) -> Self {
        Self {
            min: self.min.or(&defaults.min),
            initial: self.initial.or(&defaults.initial),
            tolerance: self.tolerance.or(&defaults.tolerance),
            max_latency: self.max_latency.or(&defaults.max_latency),
            window: self.window.or(&defaults.window),
            samples: self.samples.or(&defaults.samples),
            baseline_interval: self.baseline_interval.or(&defaults.baseline_interval),
            shrink_on_failure: self.shrink_on_failure.or(&defaults.shrink_on_failure),
            enforcement: self.enforcement.or(&defaults.enforcement),
        }
    }

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let limit: Self = setting::fields(table)?;
        limit.check().map_err(A::Error::custom)?;
        Ok(limit)
    }
}

/// A duration or `off`.
#[derive(Clone, Copy)]
struct Interval(Option<Duration>);

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(interval) => HumanDuration(interval).serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl Setting for Interval {
    const SHAPE: &'static str = r#"a duration as text, such as "10s", or "off""#;

    // An unquoted `off` is a boolean in YAML 1.1.
    fn from_bool<E: Error>(on: bool) -> Result<Self, E> {
        if on {
            Err(E::invalid_value(Unexpected::Bool(on), &Self::SHAPE))
        } else {
            Ok(Self(None))
        }
    }

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        match (text, humantime::parse_duration(text)) {
            ("off", _) => Ok(Self(None)),
            (_, Ok(interval)) => Ok(Self(Some(interval))),
            _ => Err(E::invalid_value(Unexpected::Str(text), &Self::SHAPE)),
        }
    }
}
