//! A link to a [`MemoryStore`].

use std::future::poll_fn;
use std::sync::Arc;

use super::MemoryStore;
use super::circuit::{Change, Circuit};
use super::namespace::{Listener, Namespace};
use crate::name::BulkheadName;
use crate::store::counts::{BucketedWindow, CountsDelta, FleetCounts};
use crate::store::history::HistoryEntry;
use crate::store::probe::{ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult};
use crate::store::transition::{
    FleetCommand, StoreTransition, StoreVote, TransitionResult, VoteResult,
};
use crate::store::view::{CircuitView, OperationId, Revision, Snapshot, StoreTime};
use crate::store::{StoreError, StoreEvent, StoreFuture, StoreSession};

pub(super) struct MemorySession {
    store: MemoryStore,
    listener: Arc<Listener>,
}

impl MemorySession {
    pub(super) fn new(store: MemoryStore, circuits: &[BulkheadName]) -> Self {
        let listener = store.with(|namespace, now| {
            namespace.register(circuits, now);
            namespace.listen()
        });
        Self { store, listener }
    }

    /// Answers at once, as soon as it is polled: a future that is never polled does nothing.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        action: impl FnOnce(&mut Namespace, StoreTime) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move { Ok(self.store.with(action)) })
    }
}

impl StoreSession for MemorySession {
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()> {
        self.answer(|namespace, now| namespace.register(circuits, now))
    }

    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot> {
        self.answer(move |namespace, now| namespace.snapshot(since, now))
    }

    fn transition<'a>(
        &'a mut self,
        transition: &'a StoreTransition,
    ) -> StoreFuture<'a, TransitionResult> {
        self.answer(|namespace, now| namespace.transition(transition, now))
    }

    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        self.answer(|namespace, now| {
            transitions
                .iter()
                .map(|transition| namespace.transition(transition, now))
                .collect()
        })
    }

    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult> {
        self.answer(|namespace, now| namespace.vote(vote, now))
    }

    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult> {
        self.answer(|namespace, now| namespace.command(command, now))
    }

    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        self.answer(|namespace, now| {
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
        self.answer(move |namespace, now| {
            let circuit = namespace.circuits.get_mut(&request.circuit)?;
            circuit.renew(request, lease, now).then_some(lease)
        })
    }

    fn report_probe<'a>(
        &'a mut self,
        verdict: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult> {
        self.answer(|namespace, now| namespace.verdict(verdict, now))
    }

    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()> {
        self.answer(move |namespace, _| {
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
        self.answer(move |namespace, now| {
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
        self.answer(move |namespace, now| namespace.history(circuit, limit, now))
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
        if circuit.was_made_by(transition.operation) {
            return TransitionResult::Applied(circuit.view(name, now));
        }
        match circuit.judge(transition, now) {
            Ok(change) => TransitionResult::Applied(self.apply(name, change, now)),
            Err(why) => TransitionResult::Rejected {
                why,
                current: circuit.view(name, now),
            },
        }
    }

    fn vote(&mut self, vote: &StoreVote, now: StoreTime) -> VoteResult {
        let name = &vote.opening.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return VoteResult::Unknown;
        };
        if circuit.was_made_by(vote.opening.operation) {
            return VoteResult::Opened(circuit.view(name, now));
        }
        match circuit.vote(vote, now) {
            Ok(Some(change)) => VoteResult::Opened(self.apply(name, change, now)),
            Ok(None) => VoteResult::Counted {
                votes: circuit.votes(),
            },
            Err(why) => VoteResult::Refused {
                why,
                current: circuit.view(name, now),
            },
        }
    }

    fn command(&mut self, command: &FleetCommand, now: StoreTime) -> TransitionResult {
        let name = &command.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return TransitionResult::UnknownCircuit;
        };
        if circuit.was_made_by(command.operation) {
            return TransitionResult::Applied(circuit.view(name, now));
        }
        let change = circuit.command(command);
        TransitionResult::Applied(self.apply(name, change, now))
    }

    fn verdict(&mut self, verdict: &ProbeResult, now: StoreTime) -> ProbeReportResult {
        let name = &verdict.request.circuit;
        let Some(circuit) = self.circuits.get_mut(name) else {
            return ProbeReportResult::Lost { current: None };
        };
        match circuit.verdict(verdict, name, now) {
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

    /// Makes a change that was judged to be right.
    fn apply(&mut self, name: &BulkheadName, change: Change, now: StoreTime) -> CircuitView {
        let was = self
            .circuits
            .get(name)
            .map_or_else(OperationId::default, Circuit::last_operation);
        let revision = self.next_revision(was, change.operation());
        let Some(circuit) = self.circuits.get_mut(name) else {
            return CircuitView::new(name.clone());
        };
        circuit.apply(change, revision, now);
        let view = circuit.view(name, now);
        self.announce(view.clone(), now);
        view
    }
}
