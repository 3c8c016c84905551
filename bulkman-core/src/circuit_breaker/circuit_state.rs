//! The six states, by name.

use std::fmt;

/// Where a circuit stands.
///
/// The first three follow each other by themselves; the others are entered and left by hand.
///
/// ```
/// use bulkman::circuit_breaker::CircuitState;
///
/// assert!(CircuitState::MetricsOnly.admits_all() && CircuitState::ForcedOpen.rejects_all());
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
    /// Calls pass and their outcomes are counted.
    Closed,
    /// Calls are refused until the isolation is over.
    Open,
    /// A few probes pass and decide; everybody else is refused.
    HalfOpen,
    /// Calls are refused until somebody says otherwise.
    ForcedOpen,
    /// Calls pass and nothing is counted.
    Disabled,
    /// Calls pass, outcomes are counted, and nothing ever opens the circuit.
    MetricsOnly,
}

impl CircuitState {
    /// Whether every call passes: closed, disabled or metrics-only.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitState;
    /// assert!(CircuitState::Disabled.admits_all());
    /// assert!(!CircuitState::HalfOpen.admits_all());      // some pass
    /// ```
    #[must_use]
    pub const fn admits_all(self) -> bool {
        matches!(self, Self::Closed | Self::Disabled | Self::MetricsOnly)
    }

    /// Whether every call is refused: open or forced open.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitState;
    /// assert!(CircuitState::ForcedOpen.rejects_all());
    /// assert!(!CircuitState::HalfOpen.rejects_all());     // some pass
    /// ```
    #[must_use]
    pub const fn rejects_all(self) -> bool {
        matches!(self, Self::Open | Self::ForcedOpen)
    }

    /// The name in lower case, as in logs and metrics: `half_open`.
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
