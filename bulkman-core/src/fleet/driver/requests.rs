//! Requests to the store.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::members::MemberEntry;
use crate::circuit_breaker::{ProbeOutcome, TransitionCause, WeakCircuit};
use crate::fleet::jitter::Jitter;
use crate::fleet::member::Decision;
use crate::fleet::probe_policy::probe_policy;
use crate::fleet::shared::{FleetShared, MemberId, Shutdown};
use crate::name::BulkheadName;
use crate::store::{
    CircuitStore, Epoch, FleetState, OperationId, ProbeLease, ProbePolicy, ProbeRequest,
    ProbeResult, ProcessStatus, SharingMode, StoreChange, StoreError, StoreFuture, StoreSession,
    StoreSettings, StoreTime, StoreTransition, StoreVote,
};

/// Creates requests to the store and executes them within their timeout.
pub(super) struct Requests {
    shared: Arc<FleetShared>,
    store: Arc<dyn CircuitStore>,
    settings: Arc<StoreSettings>,
    jitter: Jitter,
    /// Identifies this process in the history.
    author: Arc<str>,
    /// Distinguishes processes of the same name.
    process_id: u64,
    /// Identifies this process in leases and votes; unique.
    identity: Arc<str>,
}

impl Requests {
    pub(super) fn new(
        shared: &Arc<FleetShared>,
        store: Arc<dyn CircuitStore>,
        settings: &Arc<StoreSettings>,
    ) -> Self {
        let mut jitter = Jitter::new();
        let author = settings.instance_name();
        let process_id = jitter.operation_id().0;
        let identity = Arc::from(format!("{author} {process_id:016x}"));
        Self {
            shared: Arc::clone(shared),
            store,
            settings: Arc::clone(settings),
            jitter,
            author,
            process_id,
            identity,
        }
    }

    /// Creates the status of this process.
    pub(super) fn status(&self, connection: &Connection) -> ProcessStatus {
        let interval = self
            .settings
            .resync_interval
            .max(self.settings.poll_interval);
        let valid_for = interval * MISSED_REPORTS;
        let mut status = ProcessStatus::new(Arc::clone(&self.author), self.process_id, valid_for);
        status
            .application_version
            .clone_from(&self.settings.application_version);
        status.read_only = connection.is_read_only();
        status.pending = self.shared.status(|status| status.pending);
        status.degraded_for = connection.degraded_for(self.shared.now());
        status
    }

    pub(super) async fn open_session(
        &self,
        names: &[BulkheadName],
    ) -> Result<Box<dyn StoreSession>, StoreError> {
        // A store connects, and then runs a few statements, each within its own timeout.
        let timeout = self.settings.connect_timeout + self.settings.operation_timeout * 2;
        self.execute_within(timeout, self.store.open_session(names))
            .await
    }

    /// Executes an operation within the operation timeout. After any error the session is dropped.
    pub(super) async fn execute<T>(&self, operation: StoreFuture<'_, T>) -> Result<T, StoreError> {
        let timeout = self.settings.operation_timeout;
        let response = self.execute_within(timeout, operation).await?;
        let now = self.shared.now();
        self.shared.update(|status| status.synced_at = Some(now));
        Ok(response)
    }

    async fn execute_within<T>(
        &self,
        timeout: Duration,
        mut operation: StoreFuture<'_, T>,
    ) -> Result<T, StoreError> {
        let mut timer = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if self.shared.shutdown() == Some(Shutdown::Immediate) {
                return Poll::Ready(Err(StoreError::unavailable("the fleet has shut down")));
            }
            // Created only if the operation does not complete at once.
            let timer = timer.get_or_insert_with(|| {
                let runtime = &self.shared.runtime;
                runtime.sleep_until(runtime.now() + timeout)
            });
            timer.as_mut().poll(cx).map(|()| {
                let error = format!("no response within {timeout:?}");
                Err(StoreError::unavailable(error))
            })
        })
        .await
    }

    /// Creates the transition that publishes a decision.
    pub(super) fn publication(
        &self,
        entry: &MemberEntry,
        base: Epoch,
        decision: &Decision,
        now: Instant,
        not_after: Option<StoreTime>,
    ) -> StoreTransition {
        let change = match decision.target {
            FleetState::Open => {
                let open_for = decision
                    .open_until
                    .map_or(Duration::MAX, |until| until.saturating_duration_since(now));
                StoreChange::Open { open_for }
            }
            FleetState::HalfOpen => self.half_open(&entry.circuit),
            _ => StoreChange::Close,
        };
        StoreTransition {
            manual: decision.manual,
            not_after,
            author: Arc::clone(&self.author),
            reason: Arc::from(decision.cause.as_str()),
            ..StoreTransition::new(entry.name.clone(), base, change, decision.operation)
        }
    }

    /// Creates the transition to half-open after the isolation has elapsed.
    pub(super) fn start_probing(
        &mut self,
        entry: &MemberEntry,
        base: Epoch,
        not_after: Option<StoreTime>,
    ) -> StoreTransition {
        let change = self.half_open(&entry.circuit);
        let operation = self.jitter.operation_id();
        StoreTransition {
            not_after,
            author: Arc::clone(&self.author),
            reason: Arc::from(TransitionCause::IsolationElapsed.as_str()),
            ..StoreTransition::new(entry.name.clone(), base, change, operation)
        }
    }

    fn half_open(&self, circuit: &WeakCircuit) -> StoreChange {
        let probe_policy: ProbePolicy = circuit
            .resolved_config()
            .map(|config| probe_policy(&config, self.settings.probe_limit))
            .unwrap_or_default();
        StoreChange::HalfOpen { probe_policy }
    }

    /// Creates a vote for an opening. At least two processes must vote: where one is enough, only
    /// an opening that was decided without the store is a vote.
    pub(super) fn vote(&self, id: MemberId, opening: StoreTransition) -> StoreVote {
        let (quorum, window) = match self.settings.share {
            SharingMode::State { quorum, window } => (quorum.max(2), window),
            SharingMode::Counts(policy) => (2, policy.sliding_window.length),
        };
        StoreVote::new(opening, self.holder(id), quorum, window)
    }

    /// Creates a request about a probe lease.
    pub(super) fn probe(&self, id: MemberId, name: &BulkheadName, epoch: Epoch) -> ProbeRequest {
        ProbeRequest::new(
            name.clone(),
            epoch,
            self.holder(id),
            self.settings.lease_ttl,
        )
    }

    /// Creates the report of a probe's outcome.
    pub(super) fn probe_result(
        &self,
        request: ProbeRequest,
        lease: ProbeLease,
        outcome: ProbeOutcome,
        open_for: Duration,
        operation: OperationId,
    ) -> ProbeResult {
        let mut result = ProbeResult::new(request, lease, outcome.success, open_for, operation);
        result.slow = outcome.slow;
        result.author = Arc::clone(&self.author);
        result.reason = Arc::from(if outcome.success {
            "probes_succeeded"
        } else {
            "probe_failed"
        });
        result
    }

    fn holder(&self, id: MemberId) -> Arc<str> {
        Arc::from(format!("{} {id}", self.identity))
    }
}

/// A process is no longer live after this many intervals without a report.
const MISSED_REPORTS: u32 = 3;
