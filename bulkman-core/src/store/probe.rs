//! Probes of a half-open circuit, leased so that a fleet has at most so many at a time.

use std::sync::Arc;
use std::time::Duration;

use super::view::{CircuitView, Epoch, OperationId};
use crate::circuit_breaker::HalfOpenPolicy;
use crate::name::BulkheadName;

/// How a half-open stay is decided, and how many probe at once.
///
/// ```
/// use bulkman::store::{ProbePolicy, ProbeRule};
///
/// // Two processes at a time; three successes close.
/// let plan = ProbePolicy::new(2, ProbeRule::Consecutive { successes: 3 });
/// assert_ne!(plan, ProbePolicy::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbePolicy {
    /// Leases out at the same time in the whole fleet: 1 to 1000.
    pub limit: u16,
    /// What decides.
    pub decision: ProbeRule,
}

impl ProbePolicy {
    /// At most `limit` leases, decided by `decision`.
    #[must_use]
    pub const fn new(limit: u16, decision: ProbeRule) -> Self {
        Self { limit, decision }
    }
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self::new(1, ProbeRule::Consecutive { successes: 1 })
    }
}

/// What decides a half-open stay.
///
/// ```
/// use bulkman::store::ProbeRule;
///
/// // Ten probes, of which five may not fail, however slow they are.
/// let decision = ProbeRule::SampleSize { calls: 10, failures: Some(5), slow: None };
/// # let _ = decision;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeRule {
    /// This many successes close; one failure reopens.
    Consecutive {
        /// At least 1.
        successes: u16,
    },
    /// After this many verdicts: reopens if so many of them failed, or were slow; else closes.
    SampleSize {
        /// At least 1.
        calls: u16,
        /// Failures that reopen; `None` when failures are no criterion.
        failures: Option<u16>,
        /// Slow calls that reopen; `None` when slowness is no criterion.
        slow: Option<u16>,
    },
}

/// What the verdicts so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeOutlook {
    Undecided,
    Close,
    Reopen,
}

impl ProbeRule {
    pub(crate) fn judge(self, succeeded: u32, failed: u32, slow_calls: u32) -> ProbeOutlook {
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
            None => ProbeOutlook::Undecided,
            Some(Ok(())) => ProbeOutlook::Close,
            Some(Err(())) => ProbeOutlook::Reopen,
        }
    }
}

/// Whose lease of which circuit, and for how long.
///
/// ```
/// use bulkman::store::*;
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let store = MemoryStore::new(ClockOnly);
/// let mut session = block_on(store.open_session(std::slice::from_ref(&mail)))?;
/// let change = StoreChange::HalfOpen { plan: ProbePolicy::default() };
/// let mut begin = StoreTransition::new(mail.clone(), Epoch(0), change, OperationId(7));
/// begin.by_hand = true;
/// block_on(session.transition(&begin))?;
///
/// let request = |who: &str| ProbeRequest::new(mail.clone(), Epoch(1), who.into(), Duration::from_secs(30));
/// let lease = block_on(session.acquire_probe(&request("here")))?.expect("the only one");
/// assert_eq!(block_on(session.acquire_probe(&request("there")))?, None);
///
/// let verdict = ProbeResult::new(request("here"), lease, true, Duration::ZERO, OperationId(8));
/// let ProbeReportResult::Decided(closed) = block_on(session.report_probe(&verdict))? else { panic!("lost") };
/// assert_eq!(closed.state, FleetState::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeRequest {
    /// Which circuit.
    pub circuit: BulkheadName,
    /// The half-open stay: another has another epoch.
    pub epoch: Epoch,
    /// Identifies the process, one lease each.
    pub holder: Arc<str>,
    /// How long the lease lasts unless renewed.
    pub ttl: Duration,
}

impl ProbeRequest {
    /// A lease of `circuit` for `holder`.
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

/// The right to have one probe out at a time, for a while.
///
/// The token changes whenever the lease changes hands and with every verdict, so that neither a
/// late verdict nor a repeated one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ProbeLease {
    /// Which of the circuit's leases: below the plan's limit.
    pub slot: u16,
    /// Fences earlier holders.
    pub token: u64,
}

impl ProbeLease {
    /// A lease.
    #[must_use]
    pub const fn new(slot: u16, token: u64) -> Self {
        Self { slot, token }
    }
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbeResult {
    /// Whose lease; `request.ttl` is what the lease is renewed for.
    pub request: ProbeRequest,
    /// The lease under which it ran.
    pub lease: ProbeLease,
    /// Whether it succeeded.
    pub success: bool,
    /// Whether it was slow.
    pub slow: bool,
    /// How long to open if this verdict reopens the circuit.
    pub wait: Duration,
    /// Identifies the transition, if this verdict makes one.
    pub operation: OperationId,
    /// Who, for the history.
    pub by: Arc<str>,
    /// Why, for the history.
    pub reason: Arc<str>,
}

impl ProbeResult {
    /// The outcome of a probe that ran under `lease`.
    #[must_use]
    pub fn new(
        request: ProbeRequest,
        lease: ProbeLease,
        success: bool,
        wait: Duration,
        operation: OperationId,
    ) -> Self {
        Self {
            request,
            lease,
            success,
            slow: false,
            wait,
            operation,
            by: Arc::from(""),
            reason: Arc::from(""),
        }
    }
}

/// What became of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeReportResult {
    /// It counts and decides nothing yet; the lease is renewed for the next probe.
    Counted {
        /// Under which the next probe runs.
        lease: ProbeLease,
        /// The circuit, still half-open.
        current: CircuitView,
    },
    /// It moved the circuit.
    Decided(CircuitView),
    /// It does not count: the lease had expired or was another's, or the circuit has moved on.
    Lost {
        /// The circuit as it is, unless it is gone.
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
    fn a_streak_closes_on_enough_and_reopens_on_one() {
        let decision = ProbeRule::Consecutive { successes: 3 };
        assert_eq!(decision.judge(2, 0, 0), ProbeOutlook::Undecided);
        assert_eq!(decision.judge(3, 0, 3), ProbeOutlook::Close);
        assert_eq!(decision.judge(2, 1, 0), ProbeOutlook::Reopen);
    }

    #[test]
    fn a_sample_decides_when_it_is_complete_and_by_its_own_criteria() {
        let decision = ProbeRule::SampleSize {
            calls: 4,
            failures: Some(2),
            slow: Some(3),
        };
        assert_eq!(decision.judge(0, 3, 3), ProbeOutlook::Undecided);
        assert_eq!(decision.judge(3, 1, 2), ProbeOutlook::Close);
        assert_eq!(decision.judge(2, 2, 0), ProbeOutlook::Reopen);
        assert_eq!(decision.judge(4, 0, 3), ProbeOutlook::Reopen);
        let lenient = ProbeRule::SampleSize {
            calls: 2,
            failures: None,
            slow: None,
        };
        assert_eq!(lenient.judge(0, 2, 2), ProbeOutlook::Close);
    }
}
