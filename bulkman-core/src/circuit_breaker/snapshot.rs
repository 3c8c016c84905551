//! A snapshot of a circuit.

use std::time::Duration;

use super::circuit_state::CircuitState;
use super::counts::CircuitCounts;
use super::rejections::CircuitRejections;
use super::transition::Transition;
use crate::name::BulkheadName;

/// A consistent snapshot of a circuit's state and counts.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.half_open();
/// let snapshot = breaker.snapshot();
/// assert_eq!((snapshot.state, snapshot.probes_remaining), (CircuitState::HalfOpen, Some(3)));
/// assert_eq!(snapshot.recent.last().unwrap().from, CircuitState::Closed);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// The name of the circuit.
    pub name: BulkheadName,
    /// The state, after transitions that are due.
    pub state: CircuitState,
    /// The time since the state began.
    pub age: Duration,
    /// The outcome counts.
    pub counts: CircuitCounts,
    /// The number of calls rejected since the state began.
    pub rejected_calls: u64,
    /// The number of calls rejected since the circuit was created, by reason.
    pub rejections: CircuitRejections,
    /// The remaining isolation; `None` unless the circuit is open, or if the isolation has no end.
    pub retry_after: Option<Duration>,
    /// The number of probes that can be admitted now; `None` unless the circuit is half-open.
    pub probes_remaining: Option<u32>,
    /// The generation of the state; it grows with every state entered.
    pub generation: u64,
    /// The number of automatic openings since the circuit was last closed.
    pub open_count: u32,
    /// The last transitions, oldest first.
    pub recent: Vec<Transition>,
}
