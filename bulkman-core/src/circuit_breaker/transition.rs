//! One change of a circuit's state, and why it happened.

use std::fmt;
use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use crate::name::BulkheadName;

/// A circuit went from one state to another.
///
/// Entering the state a circuit is in already starts that state again, but is no transition.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::{CircuitState, TransitionCause};
/// use bulkman::runtime::ClockOnly;
/// use std::time::Duration;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new().failure_threshold(2), ClockOnly)?;
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
    /// The circuit: the name of its bulkhead.
    pub circuit: BulkheadName,
    /// The state that was left.
    pub from: CircuitState,
    /// The state that was entered.
    pub to: CircuitState,
    /// Why.
    pub cause: TransitionCause,
    /// What was counted in `from` when it was left.
    pub counts: CircuitCounts,
    /// When: a lapsed deadline counts from its due time, not from when somebody noticed.
    pub at: Instant,
    /// The generation that began. It grows with every state entered, by one or more.
    pub generation: u64,
    /// How long the circuit stays open, if it opened and does not stay so for ever.
    pub isolation: Option<Duration>,
    /// Automatic openings since the circuit was last closed, this one included.
    pub open_count: u32,
}

/// Why a circuit changed its state.
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
    /// `failure_threshold` failures in a row.
    ConsecutiveFailures,
    /// `failure_count_threshold` failures in the window.
    FailureCount,
    /// The failure rate reached `failure_rate_threshold`.
    FailureRate,
    /// The rate of slow calls reached `slow_call_rate_threshold`.
    SlowCallRate,
    /// The isolation was over.
    IsolationElapsed,
    /// The probes were good enough to close.
    ProbesSucceeded,
    /// A probe failed.
    ProbeFailed,
    /// A probe was out for longer than `probe_timeout`.
    ProbeLost,
    /// Half-open lasted for `max_half_open_duration`.
    HalfOpenExpired,
    /// A health check succeeded while open.
    HealthCheck,
    /// Somebody asked for it.
    Manual,
    /// The fleet's state was taken over: another process or an operator decided.
    Fleet,
}

impl TransitionCause {
    /// The name in lower case, as in logs and metrics: `failure_rate`.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::TransitionCause;
    /// assert_eq!(TransitionCause::ProbeLost.as_str(), "probe_lost");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureCount => "failure_count",
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::IsolationElapsed => "isolation_over",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeLost => "probe_lost",
            Self::HalfOpenExpired => "half_open_expired",
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

/// A transition as the state machine reports it: the shell adds the name.
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
