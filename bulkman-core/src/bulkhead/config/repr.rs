//! The serialized form of a bulkhead's configuration.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::{BulkheadConfig, Fairness};
use crate::adaptive::repr::deserialize_switch;
use crate::adaptive::{AdaptiveLimit, Enforcement};
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::config_error::ConfigError;
use crate::human_duration::HumanDuration;
use crate::name::BulkheadName;
use crate::queue::QueueOrder;

/// The fields of [`BulkheadConfig`] under their names. A missing field has its default value.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkheadRepr {
    /// Not written where the key of a map is the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<BulkheadName>,
    #[serde(default, deserialize_with = "max_concurrent_calls")]
    max_concurrent_calls: Option<usize>,
    #[serde(default, deserialize_with = "max_queue_size")]
    max_queue_size: Option<usize>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "max_queue_weight"
    )]
    max_queue_weight: Option<u32>,
    #[serde(default)]
    queue_order: QueueOrder,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "timeout"
    )]
    timeout: Option<HumanDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_wait: Option<HumanDuration>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "run_timeout"
    )]
    run_timeout: Option<HumanDuration>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "deserialize_switch"
    )]
    adaptive_limit: Option<AdaptiveLimit>,
    #[serde(default, skip_serializing_if = "is_enforced")]
    enforcement: Enforcement,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fairness: Option<Fairness>,
    #[serde(default = "enabled")]
    circuit_breaker_enabled: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    circuit_breaker: CircuitBreakerConfig,
}

const fn enabled() -> bool {
    true
}

fn is_enforced(enforcement: &Enforcement) -> bool {
    *enforcement == Enforcement::Enforce
}

fn is_default(circuit: &CircuitBreakerConfig) -> bool {
    *circuit == CircuitBreakerConfig::new()
}

/// Validates a field while it is read, so that an error names its line and not that of its table.
macro_rules! checked {
    ($($field:ident: $type:ty;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            let value = Option::<$type>::deserialize(deserializer)?;
            if let Some(value) = value {
                BulkheadConfig::new("any").$field(value.into()).validate().map_err(D::Error::custom)?;
            }
            Ok(value)
        }
    )*};
}

checked! {
    max_concurrent_calls: usize;
    max_queue_size: usize;
}

/// As `checked`, for a setter that takes an `Option`.
fn max_queue_weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Option::<u32>::deserialize(deserializer)?;
    let config = BulkheadConfig::new("any").max_queue_weight(value);
    config.validate().map_err(D::Error::custom)?;
    Ok(value)
}

/// As `checked`, for setters that take an `Option`.
macro_rules! checked_times {
    ($($field:ident;)*) => {$(
        fn $field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HumanDuration>, D::Error> {
            let value = Option::<HumanDuration>::deserialize(deserializer)?;
            let config = BulkheadConfig::new("any").$field(value.map(std::time::Duration::from));
            config.validate().map_err(D::Error::custom)?;
            Ok(value)
        }
    )*};
}

checked_times! {
    timeout;
    run_timeout;
}

impl BulkheadRepr {
    pub(crate) fn of(config: &BulkheadConfig, name: Option<BulkheadName>) -> Self {
        Self {
            name,
            max_concurrent_calls: Some(config.max_concurrent_calls),
            max_queue_size: Some(config.max_queue_size),
            max_queue_weight: config.max_queue_weight,
            queue_order: config.queue_order,
            timeout: config.timeout.map(HumanDuration),
            max_wait: config.max_wait.map(HumanDuration),
            run_timeout: config.run_timeout.map(HumanDuration),
            adaptive_limit: config.adaptive_limit.as_deref().cloned(),
            enforcement: config.enforcement,
            fairness: config.fairness.as_deref().copied(),
            circuit_breaker_enabled: config.circuit_breaker_enabled,
            circuit_breaker: config.circuit_breaker.clone(),
        }
    }

    pub(crate) fn into_config(self, name: &BulkheadName) -> Result<BulkheadConfig, ConfigError> {
        let mut config = BulkheadConfig::new(name.as_str())
            .max_queue_weight(self.max_queue_weight)
            .queue_order(self.queue_order)
            .timeout(self.timeout.map(Into::into))
            .max_wait(self.max_wait.map(Into::into))
            .run_timeout(self.run_timeout.map(Into::into))
            .adaptive_limit(self.adaptive_limit)
            .enforcement(self.enforcement)
            .fairness(self.fairness)
            .circuit_breaker_enabled(self.circuit_breaker_enabled)
            .circuit_breaker(self.circuit_breaker);
        if let Some(calls) = self.max_concurrent_calls {
            config = config.max_concurrent_calls(calls);
        }
        if let Some(calls) = self.max_queue_size {
            config = config.max_queue_size(calls);
        }
        config.validate()?;
        Ok(config)
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
        let mut repr = BulkheadRepr::deserialize(deserializer)?;
        let name = repr
            .name
            .take()
            .ok_or_else(|| D::Error::missing_field("name"))?;
        repr.into_config(&name).map_err(D::Error::custom)
    }
}
