//! A bulkhead's condition, by name.

use std::fmt;

/// A bulkhead's condition at a glance.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::bulkhead::BulkheadState;
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// bulkhead.circuit_breaker().unwrap().half_open();
/// assert_eq!(bulkhead.state(), BulkheadState::Degraded);
/// bulkhead.shutdown();
/// assert_eq!(bulkhead.state(), BulkheadState::ShutDown);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum BulkheadState {
    /// Calls pass.
    Healthy,
    /// The circuit is half-open: a few probes pass. Counts as healthy.
    Degraded,
    /// The circuit is open: calls are refused.
    Isolated,
    /// Shut down: calls are refused for good.
    ShutDown,
}

impl BulkheadState {
    /// The name in lower case, as in logs and metrics: `shut_down`.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadState;
    /// assert_eq!(BulkheadState::ShutDown.as_str(), "shut_down");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Isolated => "isolated",
            Self::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for BulkheadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
