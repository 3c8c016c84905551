//! The serialized form of a bulkhead's configuration.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess};
use serde::ser::{Serialize, Serializer};

use super::BulkheadConfig;
use super::fairness_repr::FairnessRepr;
use crate::adaptive::{AdaptiveLimitRepr, Enforcement};
use crate::circuit_breaker::CircuitBreakerRepr;
use crate::config_error::ConfigError;
use crate::human_duration::HumanDuration;
use crate::name::BulkheadName;
use crate::queue::QueueOrder;
use crate::setting::{self, Field, Setting, Switch};

/// The fields of [`BulkheadConfig`] under their names; each may be left out.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BulkheadRepr {
    /// Not written where the key of a map is the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<BulkheadName>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "max_concurrent_calls"
    )]
    max_concurrent_calls: Field<usize>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "max_queue_size"
    )]
    max_queue_size: Field<usize>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "max_queue_weight"
    )]
    max_queue_weight: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    queue_order: Field<QueueOrder>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "overtaking"
    )]
    overtaking: Field<u32>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "timeout"
    )]
    timeout: Field<HumanDuration>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    max_wait: Field<HumanDuration>,
    #[serde(
        skip_serializing_if = "Field::is_missing",
        deserialize_with = "run_timeout"
    )]
    run_timeout: Field<HumanDuration>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    adaptive_limit: Field<Switch<AdaptiveLimitRepr>>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    enforcement: Field<Enforcement>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    fairness: Field<Switch<FairnessRepr>>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    track_running_calls: Field<bool>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    circuit_breaker_enabled: Field<bool>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    circuit_breaker: Field<CircuitBreakerRepr>,
}

/// Validates a field where it is read, so that an error has its line and not its table's.
macro_rules! checked {
    ($($field:ident: $type:ty => $set:expr;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Field<$type>, D::Error> {
            let value = Field::<$type>::deserialize(deserializer)?;
            if let Field::Set(value) = value {
                let set: fn(BulkheadConfig, $type) -> BulkheadConfig = $set;
                set(BulkheadConfig::new("any"), value).validate().map_err(D::Error::custom)?;
            }
            Ok(value)
        }
    )*};
}

checked! {
    max_concurrent_calls: usize => BulkheadConfig::max_concurrent_calls;
    max_queue_size: usize => BulkheadConfig::max_queue_size;
    max_queue_weight: u32 => |config, value| config.max_queue_weight(value);
    overtaking: u32 => BulkheadConfig::overtaking;
    timeout: HumanDuration => |config, value| config.timeout(value.0);
    run_timeout: HumanDuration => |config, value| config.run_timeout(value.0);
}

impl BulkheadRepr {
    pub(crate) fn of(config: &BulkheadConfig, name: Option<BulkheadName>) -> Self {
        let circuit = &config.circuit_breaker;
        let circuit = (!circuit.is_default()).then(|| CircuitBreakerRepr::of(circuit));
        Self {
            name,
            max_concurrent_calls: Field::Set(config.max_concurrent_calls),
            max_queue_size: Field::Set(config.max_queue_size),
            max_queue_weight: config.max_queue_weight.into(),
            queue_order: Field::Set(config.queue_order),
            overtaking: (config.overtaking > 0).then_some(config.overtaking).into(),
            timeout: config.timeout.map(HumanDuration).into(),
            max_wait: config.max_wait.map(HumanDuration).into(),
            run_timeout: config.run_timeout.map(HumanDuration).into(),
            adaptive_limit: config
                .adaptive_limit
                .as_deref()
                .map(|limit| Switch::On(AdaptiveLimitRepr::of(limit)))
                .into(),
            enforcement: Field::Set(config.enforcement),
            fairness: config
                .fairness
                .as_deref()
                .map(|fairness| Switch::On(FairnessRepr::of(fairness)))
                .into(),
            track_running_calls: config.track_running_calls.then_some(true).into(),
            circuit_breaker_enabled: Field::Set(config.circuit_breaker_enabled),
            circuit_breaker: circuit.into(),
        }
    }

    /// Fills missing fields with the defaults of the file: those of the circuit and of the
    /// adaptive limit one by one.
    ///
    /// Null is not missing: it means the default of the library.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        Self {
            name: self.name,
            max_concurrent_calls: self.max_concurrent_calls.or(&defaults.max_concurrent_calls),
            max_queue_size: self.max_queue_size.or(&defaults.max_queue_size),
            max_queue_weight: self.max_queue_weight.or(&defaults.max_queue_weight),
            queue_order: self.queue_order.or(&defaults.queue_order),
            overtaking: self.overtaking.or(&defaults.overtaking),
            timeout: self.timeout.or(&defaults.timeout),
            max_wait: self.max_wait.or(&defaults.max_wait),
            run_timeout: self.run_timeout.or(&defaults.run_timeout),
            adaptive_limit: match (self.adaptive_limit, &defaults.adaptive_limit) {
                (Field::Set(limit), Field::Set(defaults)) => Field::Set(limit.or(defaults)),
                (limit, defaults) => limit.or(defaults),
            },
            enforcement: self.enforcement.or(&defaults.enforcement),
            fairness: match (self.fairness, &defaults.fairness) {
                (Field::Set(fairness), Field::Set(defaults)) => Field::Set(fairness.or(defaults)),
                (fairness, defaults) => fairness.or(defaults),
            },
            track_running_calls: self.track_running_calls.or(&defaults.track_running_calls),
            circuit_breaker_enabled: self
                .circuit_breaker_enabled
                .or(&defaults.circuit_breaker_enabled),
            circuit_breaker: match (self.circuit_breaker, &defaults.circuit_breaker) {
                (Field::Set(circuit), Field::Set(defaults)) => Field::Set(circuit.or(defaults)),
                (circuit, defaults) => circuit.or(defaults),
            },
        }
    }

    pub(crate) fn into_config(self, name: &BulkheadName) -> Result<BulkheadConfig, ConfigError> {
        let circuit = self.circuit_breaker.get().unwrap_or_default();
        let mut config = BulkheadConfig::new(name.as_str())
            .max_queue_weight(self.max_queue_weight.get())
            .queue_order(self.queue_order.get().unwrap_or_default())
            .overtaking(self.overtaking.get().unwrap_or_default())
            .timeout(self.timeout.get().map(Duration::from))
            .max_wait(self.max_wait.get().map(Duration::from))
            .run_timeout(self.run_timeout.get().map(Duration::from))
            .adaptive_limit(
                self.adaptive_limit
                    .get()
                    .and_then(Switch::into_settings)
                    .map(AdaptiveLimitRepr::into_limit),
            )
            .enforcement(self.enforcement.get().unwrap_or_default())
            .fairness(
                self.fairness
                    .get()
                    .and_then(Switch::into_settings)
                    .map(FairnessRepr::into_fairness),
            )
            .track_running_calls(self.track_running_calls.get().unwrap_or_default())
            .circuit_breaker_enabled(self.circuit_breaker_enabled.get().unwrap_or(true))
            .circuit_breaker(circuit.into_config());
        if let Field::Set(calls) = self.max_concurrent_calls {
            config = config.max_concurrent_calls(calls);
        }
        if let Field::Set(calls) = self.max_queue_size {
            config = config.max_queue_size(calls);
        }
        config.validate()?;
        Ok(config)
    }
}

/// The table of a bulkhead in a file, or the defaults of the file.
impl Setting for BulkheadRepr {
    const SHAPE: &'static str = "a table of settings, such as `{ max_concurrent_calls = 20 }`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        setting::fields(table)
    }
}

/// The table of a bulkhead that has no defaults of a file.
impl Setting for BulkheadConfig {
    const SHAPE: &'static str = r#"a table of settings, such as `{ name = "search" }`"#;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let mut repr: BulkheadRepr = setting::fields(table)?;
        let name = repr.name.take();
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        repr.into_config(&name).map_err(A::Error::custom)
    }
}

impl Serialize for BulkheadConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;

        let name = self.checked_name().map_err(S::Error::custom)?;
        BulkheadRepr::of(self, Some(name)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BulkheadConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}
