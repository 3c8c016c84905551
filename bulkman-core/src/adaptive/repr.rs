//! The serialized form of an adaptive limit's configuration.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::config::AdaptiveLimit;
use super::enforcement::Enforcement;
use crate::human_duration::HumanDuration;

/// The fields of [`AdaptiveLimit`] under the names of their setters. A missing field has its
/// default value.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveLimitRepr {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tolerance: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_latency: Option<HumanDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<HumanDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseline_interval: Option<Interval>,
    #[serde(default)]
    shrink_on_failure: bool,
    #[serde(default)]
    enforcement: Enforcement,
}

impl Serialize for AdaptiveLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AdaptiveLimitRepr {
            min: Some(self.min),
            initial: self.initial,
            tolerance: Some(self.tolerance),
            max_latency: self.max_latency.map(HumanDuration),
            window: Some(HumanDuration(self.window)),
            samples: Some(self.samples),
            baseline_interval: Some(Interval(self.baseline_interval)),
            shrink_on_failure: self.shrink_on_failure,
            enforcement: self.enforcement,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AdaptiveLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let repr = AdaptiveLimitRepr::deserialize(deserializer)?;
        let new = Self::new();
        let limit = Self {
            min: repr.min.unwrap_or(new.min),
            initial: repr.initial,
            tolerance: repr.tolerance.unwrap_or(new.tolerance),
            max_latency: repr.max_latency.map(Into::into),
            window: repr.window.map_or(new.window, Into::into),
            samples: repr.samples.unwrap_or(new.samples),
            baseline_interval: repr
                .baseline_interval
                .map_or(new.baseline_interval, |interval| interval.0),
            shrink_on_failure: repr.shrink_on_failure,
            enforcement: repr.enforcement,
        };
        // All but the maximum, which the bulkhead checks, so that an error names its line.
        limit.validate(usize::MAX).map_err(D::Error::custom)?;
        Ok(limit)
    }
}

/// A duration as a string, or "none".
struct Interval(Option<Duration>);

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(interval) => HumanDuration(interval).serialize(serializer),
            None => serializer.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse;

        impl Visitor<'_> for Parse {
            type Value = Interval;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a duration as a string, such as "10s", or "none""#)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
                if text == "none" {
                    return Ok(Interval(None));
                }
                humantime::parse_duration(text)
                    .map(|interval| Interval(Some(interval)))
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Parse)
    }
}

/// The settings as a table, `true` for the default settings, or `false` for none.
pub(crate) fn deserialize_switch<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AdaptiveLimit>, D::Error> {
    struct Switch;

    impl<'de> Visitor<'de> for Switch {
        type Value = Option<AdaptiveLimit>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false, or a table with the settings of an adaptive limit")
        }

        fn visit_bool<E: Error>(self, adapts: bool) -> Result<Self::Value, E> {
            Ok(adapts.then(AdaptiveLimit::new))
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            AdaptiveLimit::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Switch)
}
