//! A session of a [`MemoryStore`].

use std::future::poll_fn;
use std::sync::Arc;

use super::MemoryStore;
use super::circuit::{AcceptedChange, Circuit};
use super::namespace::{Listener, Namespace};
use crate::name::BulkheadName;
use crate::store::counts::{BucketedWindow, CountsDelta, FleetCounts};
use crate::store::history::HistoryEntry;
use crate::store::probe::{ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult};
use crate::store::process::ProcessStatus;
use crate::store::transition::{
    FleetCommand, StoreTransition, StoreVote, TransitionResult, VoteResult,
};
use crate::store::view::{CircuitView, OperationId, Revision, Snapshot, StoreTime};
use crate::store::{StoreError, StoreEvent, StoreFuture, StoreSession};

pub(super) struct MemorySession {
    store: MemoryStore,
    listener: Arc<Listener>,
    live_processes: Option<u32>,
}

impl MemorySession {
    pub(super) fn new(store: MemoryStore, circuits: &[BulkheadName]) -> Self {
        let listener = store.with(|namespace, now| {
            namespace.register(circuits, now);
            namespace.listen()
        });
        Self {
            store,
            listener,
            live_processes: None,
        }
    }

    /// Returns a future that runs `action` when it is first polled.
    fn run<'a, T: Send + 'a>(
        &'a self,
        action: impl FnOnce(&mut Namespace, StoreTime) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move { Ok(self.store.with(action)) })
    }
}

impl StoreSession for MemorySession {
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()> {
        self.run(|namespace, now| namespace.register(circuits, now))
    }

    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot> {
        self.run(move |namespace, now| namespace.snapshot(since, now))
    }

    fn resync<'a>(
        &'a mut self,
        since: Option<Revision>,
        status: &'a ProcessStatus,
    ) -> StoreFuture<'a, Snapshot> {
        Box::pin(async move {
            let (live, snapshot) = self.store.with(|namespace, now| {
                let live = namespace.report_process(status, now);
                (live, namespace.snapshot(since, now))
            });
            self.live_processes = Some(live);
            Ok(snapshot)
        })
    }

    fn live_processes(&self) -> Option<u32> {
        self.live_processes
    }

    fn withdraw<'a>(&'a mut self, status: &'a ProcessStatus) -> StoreFuture<'a, ()> {
        self.run(|namespace, _| namespace.withdraw_process(status))
    }

    fn transition<'a>(
        &'a mut self,
        transition: &'a StoreTransition,
    ) -> StoreFuture<'a, TransitionResult> {
        self.run(|namespace, now| namespace.transition(transition, now))
    }

    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        self.run(|namespace, now| {
            transitions
                .iter()
                .map(|transition| namespace.transition(transition, now))
                .collect()
        })
    }

    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult> {
        self.run(|namespace, now| namespace.vote(vote, now))
    }

    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult> {
        self.run(|namespace, now| namespace.command(command, now))
    }

    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        self.run(|namespace, now| {
            namespace
                .circuits
                .get_mut(&request.circuit)?
                .acquire(request, now)
        })
    }

    fn renew_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        self.run(move |namespace, now| {
            let circuit = namespace.circuits.get_mut(&request.circuit)?;
            circuit.renew(request, lease, now).then_some(lease)
        })
    }

    fn report_probe<'a>(
        &'a mut self,
        result: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult> {
        self.run(|namespace, now| namespace.report(result, now))
    }

    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()> {
        self.run(move |namespace, _| {
            if let Some(circuit) = namespace.circuits.get_mut(&request.circuit) {
                circuit.release(request, lease);
            }
        })
    }

    fn add_counts<'a>(
        &'a mut self,
        window: BucketedWindow,
        deltas: &'a [CountsDelta],
    ) -> StoreFuture<'a, Vec<FleetCounts>> {
        self.run(move |namespace, now| {
            let add = |delta: &CountsDelta| {
                namespace
                    .circuits
                    .get_mut(&delta.circuit)?
                    .add_counts(window, delta, now)
            };
            deltas.iter().filter_map(add).collect()
        })
    }

    fn history<'a>(
        &'a mut self,
        circuit: Option<&'a BulkheadName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<HistoryEntry>> {
        self.run(move |namespace, now| namespace.history(circuit, limit, now))
    }

    fn changed(&mut self) -> StoreFuture<'_, StoreEvent> {
        Box::pin(async move {
            let event = poll_fn(|context| self.listener.poll(context.waker())).await;
            Ok::<_, StoreError>(event)
        })
    }
}

impl Namespace {
    fn transition(&mut self, transition: &StoreTransition, now: StoreTime) -> TransitionResult {
        let name = &transition.circuit;
        let Some(circuit) = self.circuits.get(name) else {
            return TransitionResult::UnknownCircuit;
        };
        if circuit.was_changed_by(transition.operation) {
            return TransitionResult::Applied(circuit.view(name, now));
        }
        match circuit.evaluate(transition, now) {
            Ok(change) => TransitionResult::Applied(self.apply(name, change, now)),
            Err(reason) => TransitionResult::Rejected {
                reason,
                current: circuit.view(name, now),
            },
        }
    }

    fn vote(&mut self, vote: &StoreVote, now: StoreTime) -> VoteResult {
        let name = &vote.opening.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return VoteResult::UnknownCircuit;
        };
        if circuit.was_changed_by(vote.opening.operation) {
            return VoteResult::Opened(circuit.view(name, now));
        }
        match circuit.vote(vote, now) {
            Ok(Some(change)) => VoteResult::Opened(self.apply(name, change, now)),
            Ok(None) => VoteResult::Counted {
                votes: circuit.votes(),
            },
            Err(reason) => VoteResult::Rejected {
                reason,
                current: circuit.view(name, now),
            },
        }
    }

    fn command(&mut self, command: &FleetCommand, now: StoreTime) -> TransitionResult {
        let name = &command.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return TransitionResult::UnknownCircuit;
        };
        if circuit.was_changed_by(command.operation) {
            return TransitionResult::Applied(circuit.view(name, now));
        }
        let change = circuit.command(command);
        TransitionResult::Applied(self.apply(name, change, now))
    }

    fn report(&mut self, result: &ProbeResult, now: StoreTime) -> ProbeReportResult {
        let name = &result.request.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return ProbeReportResult::Lost { current: None };
        };
        match circuit.report(result, name, now) {
            Ok(report) => report,
            Err(change) => ProbeReportResult::Decided(self.apply(name, change, now)),
        }
    }

    fn history(
        &self,
        only: Option<&BulkheadName>,
        limit: u32,
        now: StoreTime,
    ) -> Vec<HistoryEntry> {
        let mut entries: Vec<_> = self
            .circuits
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| only == *name))
            .flat_map(|(name, circuit)| circuit.history(name, now))
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.revision));
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        entries
    }

    /// Applies an accepted change.
    fn apply(
        &mut self,
        name: &BulkheadName,
        change: AcceptedChange,
        now: StoreTime,
    ) -> CircuitView {
        let replaced = self
            .circuits
            .get(name)
            .map_or_else(OperationId::default, Circuit::last_operation);
        let revision = self.next_revision(replaced, change.operation());
        let Some(circuit) = self.circuits.get_mut(name) else {
            return CircuitView::new(name.clone());
        };
        circuit.apply(change, revision, now);
        let view = circuit.view(name, now);
        self.notify(view.clone(), now);
        view
    }
}
