//! A circuit as it stood at one moment.

use std::time::Duration;

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use super::refusals::CircuitRejections;
use super::transition::Transition;
use crate::name::BulkheadName;

/// Everything there is to see of a circuit, read at one moment.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.half_open();
/// let seen = breaker.snapshot();
/// assert_eq!((seen.state, seen.probes_remaining), (CircuitState::HalfOpen, Some(3)));
/// assert_eq!(seen.recent.last().unwrap().from, CircuitState::Closed);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// Its name.
    pub name: BulkheadName,
    /// Its state, a due transition performed.
    pub state: CircuitState,
    /// How long it has been in that state.
    pub age: Duration,
    /// What it counts.
    pub counts: CircuitCounts,
    /// Calls refused since the state began.
    pub rejected_calls: u64,
    /// Calls refused since the circuit was made, by reason.
    pub refusals: CircuitRejections,
    /// How long the isolation still lasts; `None` when the circuit is not open, or stays so until
    /// somebody says otherwise.
    pub retry_after: Option<Duration>,
    /// Probes that may still go out; `None` when the circuit is not half-open.
    pub probes_remaining: Option<u32>,
    /// Grows with every state entered.
    pub generation: u64,
    /// Automatic openings since the circuit was last closed.
    pub open_count: u32,
    /// The last transitions, oldest first.
    pub recent: Vec<Transition>,
}
