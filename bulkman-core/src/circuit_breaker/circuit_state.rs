//! The six states of a circuit.

use std::fmt;

/// The state of a circuit breaker.
///
/// The first three follow each other automatically. The others are entered and left manually.
///
/// ```
/// use bulkman::circuit_breaker::CircuitState;
///
/// assert!(
///     CircuitState::MetricsOnly.admits_all() && CircuitState::ForcedOpen.rejects_all()
/// );
/// assert_eq!(CircuitState::HalfOpen.to_string(), "half_open");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum CircuitState {
    /// Admits all calls and counts their outcomes.
    Closed,
    /// Rejects all calls until the isolation has elapsed.
    Open,
    /// Admits a limited number of probes; their outcomes decide the next state.
    HalfOpen,
    /// Rejects all calls until changed manually.
    ForcedOpen,
    /// Admits all calls and counts nothing.
    Disabled,
    /// Admits all calls and counts their outcomes, but never opens.
    MetricsOnly,
}

impl CircuitState {
    /// Returns `true` if every call is admitted: closed, disabled or metrics-only.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitState;
    /// assert!(CircuitState::Disabled.admits_all());
    /// assert!(!CircuitState::HalfOpen.admits_all()); // probes are admitted
    /// ```
    #[must_use]
    pub const fn admits_all(self) -> bool {
        matches!(self, Self::Closed | Self::Disabled | Self::MetricsOnly)
    }

    /// Returns `true` if every call is rejected: open or forced open.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitState;
    /// assert!(CircuitState::ForcedOpen.rejects_all());
    /// assert!(!CircuitState::HalfOpen.rejects_all()); // probes are admitted
    /// ```
    #[must_use]
    pub const fn rejects_all(self) -> bool {
        matches!(self, Self::Open | Self::ForcedOpen)
    }

    /// Returns the name in lower case, as in logs and metrics: `half_open`.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitState;
    /// assert_eq!(CircuitState::MetricsOnly.as_str(), "metrics_only");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
