//! The serialized form of store settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::counts::BucketedWindow;
use super::settings::{
    DEFAULT_MINIMUM_NUMBER_OF_CALLS, FleetCountPolicy, OnOutage, Push, SharingMode, StoreSettings,
};
use crate::human_duration::{self, HumanDuration};

/// The fields of [`StoreSettings`]; missing ones have the default of [`StoreSettings::new`].
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(
    deny_unknown_fields,
    default = "StoreSettings::new",
    remote = "StoreSettings"
)]
struct SettingsRepr {
    #[serde(with = "human_duration::duration")]
    operation_timeout: Duration,
    #[serde(with = "human_duration::duration")]
    connect_timeout: Duration,
    push: Push,
    #[serde(with = "human_duration::duration")]
    resync_interval: Duration,
    #[serde(with = "human_duration::duration")]
    poll_interval: Duration,
    #[serde(with = "human_duration::duration")]
    backoff_min: Duration,
    #[serde(with = "human_duration::duration")]
    backoff_max: Duration,
    #[serde(with = "human_duration::duration")]
    lease_ttl: Duration,
    probe_limit: u16,
    #[serde(with = "human_duration::duration")]
    probe_jitter: Duration,
    share: SharingMode,
    #[serde(with = "human_duration::duration")]
    flush_interval: Duration,
    #[serde(with = "human_duration::duration")]
    outage_after: Duration,
    on_outage: OnOutage,
    #[serde(with = "human_duration::duration")]
    shutdown_flush: Duration,
    #[serde(skip_serializing_if = "Option::is_none", with = "shared_text")]
    instance: Option<Arc<str>>,
}

impl Serialize for StoreSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SettingsRepr::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for StoreSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let settings = SettingsRepr::deserialize(deserializer)?;
        settings.validate().map_err(D::Error::custom)?;
        Ok(settings)
    }
}

/// `{ quorum = 3, window = "10s" }` or `{ counts = { .. } }`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SharingModeRepr {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quorum: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<HumanDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counts: Option<FleetCountPolicy>,
}

impl Serialize for SharingMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = match *self {
            Self::State { quorum, window } => SharingModeRepr {
                quorum: Some(quorum),
                window: Some(HumanDuration(window)),
                counts: None,
            },
            Self::Counts(policy) => SharingModeRepr {
                quorum: None,
                window: None,
                counts: Some(policy),
            },
        };
        repr.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharingMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SharingModeRepr::deserialize(deserializer)? {
            SharingModeRepr {
                quorum: Some(quorum),
                window: Some(HumanDuration(window)),
                counts: None,
            } => Ok(Self::State { quorum, window }),
            SharingModeRepr {
                quorum: None,
                window: None,
                counts: Some(policy),
            } => Ok(Self::Counts(policy)),
            _ => Err(D::Error::custom(
                "expected either `quorum` and `window`, or `counts`",
            )),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, remote = "FleetCountPolicy")]
struct FleetCountPolicyRepr {
    sliding_window: BucketedWindow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_count_threshold: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_rate_threshold: Option<f64>,
    #[serde(default = "default_minimum_number_of_calls")]
    minimum_number_of_calls: u64,
}

const fn default_minimum_number_of_calls() -> u64 {
    DEFAULT_MINIMUM_NUMBER_OF_CALLS
}

impl Serialize for FleetCountPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FleetCountPolicyRepr::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for FleetCountPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FleetCountPolicyRepr::deserialize(deserializer)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, remote = "BucketedWindow")]
struct BucketedWindowRepr {
    #[serde(with = "human_duration::duration")]
    length: Duration,
    buckets: u16,
}

impl Serialize for BucketedWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BucketedWindowRepr::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for BucketedWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BucketedWindowRepr::deserialize(deserializer)
    }
}

// `"hold_open"` or `{ probe_locally = 1 }` in every format: a derived enum would be a tag in YAML.
impl Serialize for OnOutage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::HoldOpen => serializer.serialize_str(HOLD_OPEN),
            Self::ProbeLocally { probes } => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(PROBE_LOCALLY, probes)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for OnOutage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = OnOutage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""hold_open", or `probe_locally` with a number of probes"#)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OnOutage, E> {
                match text {
                    HOLD_OPEN => Ok(OnOutage::HoldOpen),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OnOutage, A::Error> {
                match map.next_key::<String>()? {
                    Some(key) if key == PROBE_LOCALLY => {
                        let probes = map.next_value()?;
                        match map.next_entry::<String, IgnoredAny>()? {
                            None => Ok(OnOutage::ProbeLocally { probes }),
                            Some((key, _)) => Err(A::Error::unknown_field(&key, &[PROBE_LOCALLY])),
                        }
                    }
                    Some(key) => Err(A::Error::unknown_field(&key, &[PROBE_LOCALLY])),
                    None => Err(A::Error::missing_field(PROBE_LOCALLY)),
                }
            }
        }

        deserializer.deserialize_any(TextOrMap)
    }
}

const HOLD_OPEN: &str = "hold_open";
const PROBE_LOCALLY: &str = "probe_locally";

/// An optional `Arc<str>`.
mod shared_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        text: &Option<Arc<str>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Into::into))
    }
}
