//! The state of a bulkhead.

use std::fmt;

use super::Bulkhead;
use crate::circuit_breaker::{CircuitBreaker, CircuitState};

/// The state of a bulkhead.
///
/// It combines the circuit's state and a shutdown, for health endpoints and dashboards.
///
/// ```
/// use bulkman::bulkhead::BulkheadState;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
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
    /// Calls are admitted. This is also the state without a circuit breaker.
    Healthy,
    /// The circuit is half-open and admits a limited number of probes. Counts as healthy.
    Degraded,
    /// The circuit is open or forced open: calls are rejected.
    Isolated,
    /// The bulkhead is shut down: calls are rejected permanently.
    ShutDown,
}

impl BulkheadState {
    /// Returns the name in snake case, as in logs and serialized forms: `shut_down`.
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

impl Bulkhead {
    /// Returns the current state.
    ///
    /// Applies any transition of the circuit that is due first, so the value is current even if
    /// no calls are made.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let config = BulkheadConfig::new("search").failure_threshold(1);
    /// let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    /// runtime.advance(Duration::from_secs(30));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded); // the next calls are probes
    ///     
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn state(&self) -> BulkheadState {
        if self.inner.queue.is_closed() {
            return BulkheadState::ShutDown;
        }
        match self.inner.circuit.as_ref().map(CircuitBreaker::state) {
            Some(CircuitState::Open | CircuitState::ForcedOpen) => BulkheadState::Isolated,
            Some(CircuitState::HalfOpen) => BulkheadState::Degraded,
            _ => BulkheadState::Healthy,
        }
    }

    /// Returns `true` if calls may be admitted.
    ///
    /// That is the case while the state is [`Healthy`](BulkheadState::Healthy) or
    /// [`Degraded`](BulkheadState::Degraded). A full queue does not matter.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let status = |bulkhead: &Bulkhead| if bulkhead.is_healthy() { 200 } else { 503 };
    /// assert_eq!(status(&bulkhead), 200);
    /// bulkhead.circuit_breaker().unwrap().open();
    /// assert_eq!(status(&bulkhead), 503);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(
            self.state(),
            BulkheadState::Healthy | BulkheadState::Degraded
        )
    }
}
