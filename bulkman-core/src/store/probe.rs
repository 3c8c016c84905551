//! Probes of a half-open circuit, with leases that bound them in the whole fleet.

use std::sync::Arc;
use std::time::Duration;

use super::view::{CircuitView, Epoch, OperationId};
use crate::circuit_breaker::HalfOpenPolicy;
use crate::name::BulkheadName;

/// How many probes a half-open circuit admits, and how they decide its next state.
///
/// ```
/// use bulkman::store::{ProbePolicy, ProbeRule};
///
/// // Two concurrent probes; three successes close.
/// let policy = ProbePolicy::new(2, ProbeRule::Consecutive { successes: 3 });
/// assert_ne!(policy, ProbePolicy::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbePolicy {
    /// The number of leases that can be held at a time in the whole fleet: 1 to 1000.
    pub limit: u16,
    /// The rule that decides the next state.
    pub rule: ProbeRule,
}

impl ProbePolicy {
    /// Creates a policy of at most `limit` leases, decided by `rule`.
    #[must_use]
    pub const fn new(limit: u16, rule: ProbeRule) -> Self {
        Self { limit, rule }
    }
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self::new(1, ProbeRule::Consecutive { successes: 1 })
    }
}

/// The rule that decides when a half-open circuit closes or reopens.
///
/// ```
/// use bulkman::store::ProbeRule;
///
/// // Ten probes; five failures reopen, and slow calls are ignored.
/// let rule = ProbeRule::SampleSize {
///     calls: 10,
///     failures: Some(5),
///     slow: None,
/// };
/// # let _ = rule;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeRule {
    /// A number of consecutive successes closes; one failure reopens.
    Consecutive {
        /// The successes that close: 1 or more.
        successes: u16,
    },
    /// A number of probes is evaluated together: it reopens at a threshold, and closes otherwise.
    SampleSize {
        /// The size of the sample: 1 or more.
        calls: u16,
        /// The failures that reopen; `None` ignores failures.
        failures: Option<u16>,
        /// The slow calls that reopen; `None` ignores slow calls.
        slow: Option<u16>,
    },
}

/// The decision that follows from the results so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeDecision {
    Undecided,
    Close,
    Reopen,
}

impl ProbeRule {
    pub(crate) fn evaluate(self, succeeded: u32, failed: u32, slow_calls: u32) -> ProbeDecision {
        let (policy, max_failures, max_slow) = match self {
            Self::Consecutive { successes } => {
                let successes = u32::from(successes);
                (HalfOpenPolicy::Consecutive { successes }, None, None)
            }
            Self::SampleSize {
                calls,
                failures,
                slow,
            } => {
                let calls = u32::from(calls);
                (HalfOpenPolicy::Sample { calls }, failures, slow)
            }
        };
        let completed = u64::from(succeeded) + u64::from(failed);
        let tripped = || at_least(failed, max_failures) || at_least(slow_calls, max_slow);
        match policy.decide(completed, failed.into(), (), || tripped().then_some(())) {
            None => ProbeDecision::Undecided,
            Some(Ok(())) => ProbeDecision::Close,
            Some(Err(())) => ProbeDecision::Reopen,
        }
    }
}

/// A request for a probe lease.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::*;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let store = MemoryStore::new(ClockOnly);
/// let mut session = block_on(store.open_session(std::slice::from_ref(&mail)))?;
/// let change = StoreChange::HalfOpen {
///     probe_policy: ProbePolicy::default(),
/// };
/// let mut begin = StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(7));
/// begin.manual = true;
/// block_on(session.transition(&begin))?;
///
/// let request = |holder: &str| {
///     ProbeRequest::new(
///         mail.clone(),
///         Epoch(1),
///         holder.into(),
///         Duration::from_secs(30),
///     )
/// };
/// let lease =
///     block_on(session.acquire_probe(&request("first")))?.expect("the only one");
/// assert_eq!(block_on(session.acquire_probe(&request("second")))?, None);
///
/// let result = ProbeResult::new(
///     request("first"),
///     lease,
///     true,
///     Duration::ZERO,
///     OperationId(8),
/// );
/// let ProbeReportResult::Decided(closed) = block_on(session.report_probe(&result))?
/// else {
///     panic!("lost")
/// };
/// assert_eq!(closed.state, FleetState::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeRequest {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The epoch of the half-open period.
    pub epoch: Epoch,
    /// Identifies the process. A holder has at most one lease of a circuit.
    pub holder: Arc<str>,
    /// The time until the lease expires, unless it is renewed.
    pub ttl: Duration,
}

impl ProbeRequest {
    /// Creates a request of `holder` for a lease of `circuit`.
    #[must_use]
    pub const fn new(circuit: BulkheadName, epoch: Epoch, holder: Arc<str>, ttl: Duration) -> Self {
        Self {
            circuit,
            epoch,
            holder,
            ttl,
        }
    }
}

/// The right to run one probe at a time, until the lease expires.
///
/// The token changes with every holder and with every counted result, so that a late or repeated
/// result is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ProbeLease {
    /// The probe slot of the circuit, below [`ProbePolicy::limit`].
    pub slot: u16,
    /// The fencing token.
    pub token: u64,
}

impl ProbeLease {
    /// Creates a lease.
    #[must_use]
    pub const fn new(slot: u16, token: u64) -> Self {
        Self { slot, token }
    }
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeResult {
    /// The request that acquired the lease. A counted result renews the lease for `request.ttl`.
    pub request: ProbeRequest,
    /// The lease under which the probe ran.
    pub lease: ProbeLease,
    /// Whether the probe succeeded.
    pub success: bool,
    /// Whether the probe was slow.
    pub slow: bool,
    /// How long the circuit opens if this result reopens it.
    pub open_for: Duration,
    /// Identifies the transition that this result may cause.
    pub operation: OperationId,
    /// The reporting process, for the history; at most 200 bytes are stored.
    pub author: Arc<str>,
    /// The reason, for the history; at most 200 bytes are stored.
    pub reason: Arc<str>,
}

impl ProbeResult {
    /// Creates the result of a probe that ran under `lease`.
    #[must_use]
    pub fn new(
        request: ProbeRequest,
        lease: ProbeLease,
        success: bool,
        open_for: Duration,
        operation: OperationId,
    ) -> Self {
        Self {
            request,
            lease,
            success,
            slow: false,
            open_for,
            operation,
            author: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}

/// The effect of a reported [`ProbeResult`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeReportResult {
    /// The result was counted and the lease renewed; the circuit is still half-open.
    Counted {
        /// The lease for the next probe.
        lease: ProbeLease,
        /// The current state of the circuit.
        current: CircuitView,
    },
    /// The result changed the state of the circuit.
    Decided(CircuitView),
    /// The result was not counted: the lease was lost, or the circuit has left that period.
    Lost {
        /// The current state of the circuit; `None` if it no longer exists.
        current: Option<CircuitView>,
    },
}

const fn at_least(count: u32, limit: Option<u16>) -> bool {
    match limit {
        Some(limit) => count >= limit as u32,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_rule_closes_on_enough_and_reopens_on_one() {
        let rule = ProbeRule::Consecutive { successes: 3 };
        assert_eq!(rule.evaluate(2, 0, 0), ProbeDecision::Undecided);
        assert_eq!(rule.evaluate(3, 0, 3), ProbeDecision::Close);
        assert_eq!(rule.evaluate(2, 1, 0), ProbeDecision::Reopen);
    }

    #[test]
    fn sample_decides_when_complete_by_its_thresholds() {
        let rule = ProbeRule::SampleSize {
            calls: 4,
            failures: Some(2),
            slow: Some(3),
        };
        assert_eq!(rule.evaluate(0, 3, 3), ProbeDecision::Undecided);
        assert_eq!(rule.evaluate(3, 1, 2), ProbeDecision::Close);
        assert_eq!(rule.evaluate(2, 2, 0), ProbeDecision::Reopen);
        assert_eq!(rule.evaluate(4, 0, 3), ProbeDecision::Reopen);
        let lenient = ProbeRule::SampleSize {
            calls: 2,
            failures: None,
            slow: None,
        };
        assert_eq!(lenient.evaluate(0, 2, 2), ProbeDecision::Close);
    }
}
