//! The serialized form of store settings.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Unexpected};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::counts::BucketedWindow;
use super::fleet_count_policy::{DEFAULT_MINIMUM_NUMBER_OF_CALLS, FleetCountPolicy};
use super::settings::{OnOutage, Push, StoreSettings};
use super::sharing_mode::SharingMode;
use crate::human_duration::HumanDuration;
use crate::setting::{self, Field, Setting};

/// The fields of [`StoreSettings`]; missing ones have the default of [`StoreSettings::new`].
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SettingsRepr {
    operation_timeout: Field<HumanDuration>,
    connect_timeout: Field<HumanDuration>,
    push: Field<Push>,
    resync_interval: Field<HumanDuration>,
    poll_interval: Field<HumanDuration>,
    backoff_min: Field<HumanDuration>,
    backoff_max: Field<HumanDuration>,
    lease_ttl: Field<HumanDuration>,
    probe_limit: Field<u16>,
    probe_jitter: Field<HumanDuration>,
    share: Field<SharingMode>,
    flush_interval: Field<HumanDuration>,
    outage_after: Field<HumanDuration>,
    on_outage: Field<OnOutage>,
    shutdown_flush: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        serialize_with = "shared_text"
    )]
    instance: Field<Arc<str>>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        serialize_with = "shared_text"
    )]
    application_version: Field<Arc<str>>,
}

impl SettingsRepr {
    fn of(settings: &StoreSettings) -> Self {
        let duration = |value| Field::Set(HumanDuration(value));
        Self {
            operation_timeout: duration(settings.operation_timeout),
            connect_timeout: duration(settings.connect_timeout),
            push: Field::Set(settings.push),
            resync_interval: duration(settings.resync_interval),
            poll_interval: duration(settings.poll_interval),
            backoff_min: duration(settings.backoff_min),
            backoff_max: duration(settings.backoff_max),
            lease_ttl: duration(settings.lease_ttl),
            probe_limit: Field::Set(settings.probe_limit),
            probe_jitter: duration(settings.probe_jitter),
            share: Field::Set(settings.share),
            flush_interval: duration(settings.flush_interval),
            outage_after: duration(settings.outage_after),
            on_outage: Field::Set(settings.on_outage),
            shutdown_flush: duration(settings.shutdown_flush),
            instance: settings.instance.clone().into(),
            application_version: settings.application_version.clone().into(),
        }
    }

    fn into_settings(self) -> StoreSettings {
        let duration =
            |field: Field<HumanDuration>, default| field.get().map_or(default, Into::into);
        let default = StoreSettings::new();
        StoreSettings {
            operation_timeout: duration(self.operation_timeout, default.operation_timeout),
            connect_timeout: duration(self.connect_timeout, default.connect_timeout),
            push: self.push.get().unwrap_or(default.push),
            resync_interval: duration(self.resync_interval, default.resync_interval),
            poll_interval: duration(self.poll_interval, default.poll_interval),
            backoff_min: duration(self.backoff_min, default.backoff_min),
            backoff_max: duration(self.backoff_max, default.backoff_max),
            lease_ttl: duration(self.lease_ttl, default.lease_ttl),
            probe_limit: self.probe_limit.get().unwrap_or(default.probe_limit),
            probe_jitter: duration(self.probe_jitter, default.probe_jitter),
            share: self.share.get().unwrap_or(default.share),
            flush_interval: duration(self.flush_interval, default.flush_interval),
            outage_after: duration(self.outage_after, default.outage_after),
            on_outage: self.on_outage.get().unwrap_or(default.on_outage),
            shutdown_flush: duration(self.shutdown_flush, default.shutdown_flush),
            instance: self.instance.get(),
            application_version: self.application_version.get(),
        }
    }
}

impl Serialize for StoreSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SettingsRepr::of(self).serialize(serializer)
    }
}

impl Setting for StoreSettings {
    const SHAPE: &'static str = "a table of settings, such as `{ probe_limit = 1 }`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let settings = setting::fields::<SettingsRepr, _>(table)?.into_settings();
        settings.validate().map_err(A::Error::custom)?;
        Ok(settings)
    }
}

impl<'de> Deserialize<'de> for StoreSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

/// `{ quorum = 3, window = "10s" }` or `{ counts = { .. } }`.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SharingModeRepr {
    #[serde(skip_serializing_if = "Field::is_missing")]
    quorum: Field<u16>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    window: Field<HumanDuration>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    counts: Field<FleetCountPolicy>,
}

impl Serialize for SharingMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = match *self {
            Self::State { quorum, window } => SharingModeRepr {
                quorum: Field::Set(quorum),
                window: Field::Set(HumanDuration(window)),
                ..SharingModeRepr::default()
            },
            Self::Counts(policy) => SharingModeRepr {
                counts: Field::Set(policy),
                ..SharingModeRepr::default()
            },
        };
        repr.serialize(serializer)
    }
}

impl Setting for SharingMode {
    const SHAPE: &'static str = r#"`{ quorum = 3, window = "10s" }` or `{ counts = { .. } }`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: SharingModeRepr = setting::fields(table)?;
        match (repr.quorum.get(), repr.window.get(), repr.counts.get()) {
            (Some(quorum), Some(HumanDuration(window)), None) => Ok(Self::State { quorum, window }),
            (None, None, Some(policy)) => Ok(Self::Counts(policy)),
            _ => Err(A::Error::custom(
                "expected either `quorum` and `window`, or `counts`",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for SharingMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FleetCountPolicyRepr {
    sliding_window: Field<BucketedWindow>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    failure_count_threshold: Field<u64>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    failure_rate_threshold: Field<f64>,
    minimum_number_of_calls: Field<u64>,
}

impl Serialize for FleetCountPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = FleetCountPolicyRepr {
            sliding_window: Field::Set(self.sliding_window),
            failure_count_threshold: self.failure_count_threshold.into(),
            failure_rate_threshold: self.failure_rate_threshold.into(),
            minimum_number_of_calls: Field::Set(self.minimum_number_of_calls),
        };
        repr.serialize(serializer)
    }
}

impl Setting for FleetCountPolicy {
    const SHAPE: &'static str = "a table with `sliding_window` and at least one threshold";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: FleetCountPolicyRepr = setting::fields(table)?;
        Ok(Self {
            sliding_window: repr.sliding_window.required("sliding_window")?,
            failure_count_threshold: repr.failure_count_threshold.get(),
            failure_rate_threshold: repr.failure_rate_threshold.get(),
            minimum_number_of_calls: repr
                .minimum_number_of_calls
                .get()
                .unwrap_or(DEFAULT_MINIMUM_NUMBER_OF_CALLS),
        })
    }
}

impl<'de> Deserialize<'de> for FleetCountPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BucketedWindowRepr {
    length: Field<HumanDuration>,
    buckets: Field<u16>,
}

impl Serialize for BucketedWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = BucketedWindowRepr {
            length: Field::Set(HumanDuration(self.length)),
            buckets: Field::Set(self.buckets),
        };
        repr.serialize(serializer)
    }
}

impl Setting for BucketedWindow {
    const SHAPE: &'static str = r#"`{ length = "60s", buckets = 60 }`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let repr: BucketedWindowRepr = setting::fields(table)?;
        let HumanDuration(length) = repr.length.required::<A::Error>("length")?;
        Ok(Self::new(length, repr.buckets.required("buckets")?))
    }
}

impl<'de> Deserialize<'de> for BucketedWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
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

impl Setting for OnOutage {
    const SHAPE: &'static str = r#""hold_open" or `{ probe_locally = 1 }`"#;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        match text {
            HOLD_OPEN => Ok(Self::HoldOpen),
            _ => Err(E::invalid_value(Unexpected::Str(text), &Self::SHAPE)),
        }
    }

    fn from_table<'de, A: MapAccess<'de>>(mut table: A) -> Result<Self, A::Error> {
        match table.next_key::<String>()? {
            Some(key) if key == PROBE_LOCALLY => {
                let probes: Field<u16> = table.next_value()?;
                match table.next_entry::<String, IgnoredAny>()? {
                    None => Ok(Self::ProbeLocally {
                        probes: probes.required(PROBE_LOCALLY)?,
                    }),
                    Some((key, _)) => Err(A::Error::unknown_field(&key, &[PROBE_LOCALLY])),
                }
            }
            Some(key) => Err(A::Error::unknown_field(&key, &[PROBE_LOCALLY])),
            None => Err(A::Error::missing_field(PROBE_LOCALLY)),
        }
    }
}

impl<'de> Deserialize<'de> for OnOutage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

const HOLD_OPEN: &str = "hold_open";
const PROBE_LOCALLY: &str = "probe_locally";

/// An `Arc<str>`, which serde serializes only with one of its features.
fn shared_text<S: Serializer>(text: &Field<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Field::Set(text) => serializer.serialize_str(text),
        Field::Missing | Field::Null => serializer.serialize_none(),
    }
}
