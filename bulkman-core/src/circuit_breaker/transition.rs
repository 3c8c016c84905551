//! A transition of a circuit, and its cause.

use std::fmt;
use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use crate::name::BulkheadName;
#[cfg(feature = "serde")]
use crate::seconds;

/// A transition of a circuit from one state to another.
///
/// A circuit that enters its current state again starts that state anew. That is a new
/// generation, but not a transition.
///
/// With the feature `serde` it is serializable, as a part of a
/// [`CircuitSnapshot`](super::CircuitSnapshot): durations are numbers of seconds in fields that end
/// in `_seconds`, and `circuit`, `at`, `generation` and `open_count` are left out.
///
/// ```
/// use bulkman::circuit_breaker::{CircuitState, TransitionCause};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new().failure_threshold(2);
/// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
/// for _ in 0..2 {
///     breaker.try_acquire().unwrap().fail();
/// }
/// let opening = &breaker.snapshot().recent[0];
/// assert_eq!(
///     (opening.from, opening.to),
///     (CircuitState::Closed, CircuitState::Open)
/// );
/// assert_eq!(opening.cause, TransitionCause::ConsecutiveFailures);
/// assert_eq!(opening.counts.consecutive_failures, 2);
/// assert_eq!(opening.isolation, Some(Duration::from_secs(30)));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The circuit's name: that of its bulkhead. Not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub circuit: BulkheadName,
    /// The previous state.
    pub from: CircuitState,
    /// The new state.
    pub to: CircuitState,
    /// The cause.
    pub cause: TransitionCause,
    /// When it happened. For timeouts this is the deadline itself, not the time of its detection.
    /// Not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub at: Instant,
    /// The time since the transition, in a snapshot; zero in an event.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::serialize")
    )]
    pub age: Duration,
    /// The isolation that began: the time that the circuit stays open. `None` if the circuit did
    /// not open, or stays open until it is changed manually.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "isolation_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub isolation: Option<Duration>,
    /// The counts of the previous state at its end.
    pub counts: CircuitCounts,
    /// The generation that began. It grows by one or more with every state entered. Not
    /// serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub generation: u64,
    /// The number of automatic openings since the circuit was last closed, this one included. Not
    /// serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub open_count: u32,
}

impl Transition {
    pub(crate) fn with_age(self, now: Instant) -> Self {
        Self {
            age: now.saturating_duration_since(self.at),
            ..self
        }
    }
}

/// The cause of a transition.
///
/// ```
/// use bulkman::circuit_breaker::TransitionCause;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
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
    /// `failure_threshold` consecutive failures.
    ConsecutiveFailures,
    /// There were `failure_count_threshold` failures in the window.
    FailureCount,
    /// The failure rate reached `failure_rate_threshold`.
    FailureRate,
    /// The rate of slow calls reached `slow_call_rate_threshold`.
    SlowCallRate,
    /// `hanging_call_threshold` calls in flight were slow.
    HangingCalls,
    /// The isolation elapsed.
    IsolationElapsed,
    /// The outcomes of the probes closed the circuit.
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
    /// Returns the name in snake case, as in logs and metrics: `failure_rate`.
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
            Self::HangingCalls => "hanging_calls",
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

/// A transition as the state machine reports it, without the name of the circuit.
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
            at,
            age: Duration::ZERO,
            isolation,
            counts,
            generation,
            open_count,
        }
    }
}
