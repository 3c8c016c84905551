//! Transitions between states, and their causes.

use std::fmt;
use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use crate::name::BulkheadName;

/// A transition of a circuit from one state to another.
///
/// Entering the current state restarts it, but is not a transition.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::{CircuitState, TransitionCause};
/// use bulkman::runtime::ClockOnly;
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new().failure_threshold(2);
/// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
/// for _ in 0..2 {
///     breaker.try_acquire().unwrap().fail();
/// }
/// let opening = &breaker.snapshot().recent[0];
/// assert_eq!((opening.from, opening.to), (CircuitState::Closed, CircuitState::Open));
/// assert_eq!(opening.cause, TransitionCause::ConsecutiveFailures);
/// assert_eq!(opening.counts.consecutive_failures, 2);
/// assert_eq!(opening.isolation, Some(Duration::from_secs(30)));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The name of the circuit, which is that of its bulkhead.
    pub circuit: BulkheadName,
    /// The state before.
    pub from: CircuitState,
    /// The state after.
    pub to: CircuitState,
    /// The cause.
    pub cause: TransitionCause,
    /// The counts of the state before, at its end.
    pub counts: CircuitCounts,
    /// When it happened. For timeouts, the deadline itself, not the time it was detected.
    pub at: Instant,
    /// The new generation. It is larger than that of the previous transition, by one or more.
    pub generation: u64,
    /// The isolation, which is the time that the circuit stays open.
    ///
    /// `None` unless the circuit opened, or if the isolation has no end.
    pub isolation: Option<Duration>,
    /// The number of automatic openings since the circuit was last closed, with this one.
    pub open_count: u32,
}

/// The cause of a transition.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::TransitionCause;
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.open();
/// assert_eq!(breaker.snapshot().recent[0].cause, TransitionCause::Manual);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum TransitionCause {
    /// There were `failure_threshold` consecutive failures.
    ConsecutiveFailures,
    /// There were `failure_count_threshold` failures in the window.
    FailureCount,
    /// The failure rate reached `failure_rate_threshold`.
    FailureRate,
    /// The rate of slow calls reached `slow_call_rate_threshold`.
    SlowCallRate,
    /// The isolation has elapsed.
    IsolationElapsed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// A probe failed.
    ProbeFailed,
    /// A probe ran for longer than `probe_timeout`.
    ProbeTimedOut,
    /// Half-open lasted for `max_half_open_duration`.
    HalfOpenTimedOut,
    /// A health check succeeded while open.
    HealthCheck,
    /// Requested through the API.
    Manual,
    /// The state of the fleet was adopted: another process or an operator decided.
    Fleet,
}

impl TransitionCause {
    /// Returns the name in lower case, as in logs and metrics: `failure_rate`.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::TransitionCause;
    /// assert_eq!(TransitionCause::ProbeTimedOut.as_str(), "probe_timed_out");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureCount => "failure_count",
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::IsolationElapsed => "isolation_elapsed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeTimedOut => "probe_timed_out",
            Self::HalfOpenTimedOut => "half_open_timed_out",
            Self::HealthCheck => "health_check",
            Self::Manual => "manual",
            Self::Fleet => "fleet",
        }
    }
}

impl fmt::Display for TransitionCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A transition as the state machine returns it, without the name of the circuit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) cause: TransitionCause,
    pub(crate) counts: CircuitCounts,
    pub(crate) at: Instant,
    pub(crate) generation: u64,
    pub(crate) isolation: Option<Duration>,
    pub(crate) open_count: u32,
}

impl Change {
    pub(crate) fn named(self, circuit: BulkheadName) -> Transition {
        let Self {
            from,
            to,
            cause,
            counts,
            at,
            generation,
            isolation,
            open_count,
        } = self;
        Transition {
            circuit,
            from,
            to,
            cause,
            counts,
            at,
            generation,
            isolation,
            open_count,
        }
    }
}
