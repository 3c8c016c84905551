//! The circuit breaker's part of a bulkhead's configuration.

use std::fmt;
use std::ops::Deref;
use std::sync::LazyLock;

use crate::circuit_breaker::CircuitBreakerConfig;

/// A configuration of the circuit breaker that takes no memory if it is the default.
#[derive(Clone, Default, PartialEq)]
pub(super) struct CircuitSettings(Option<Box<CircuitBreakerConfig>>);

static DEFAULT: LazyLock<CircuitBreakerConfig> = LazyLock::new(CircuitBreakerConfig::new);

impl CircuitSettings {
    /// Returns the configuration, to be changed.
    pub(super) fn into_config(self) -> CircuitBreakerConfig {
        self.0.map_or_else(|| DEFAULT.clone(), |config| *config)
    }

    #[cfg(feature = "serde")]
    pub(super) fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl From<CircuitBreakerConfig> for CircuitSettings {
    fn from(config: CircuitBreakerConfig) -> Self {
        Self((config != *DEFAULT).then(|| Box::new(config)))
    }
}

impl Deref for CircuitSettings {
    type Target = CircuitBreakerConfig;

    fn deref(&self) -> &CircuitBreakerConfig {
        self.0.as_deref().unwrap_or(&DEFAULT)
    }
}

impl fmt::Debug for CircuitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
