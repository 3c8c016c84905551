//! Talking to the store.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Driver, Slot};
use crate::circuit_breaker::SharedCircuit;
use crate::fleet::event::{DecisionOutcome, FleetEvent};
use crate::fleet::hub::{End, MemberId};
use crate::fleet::member::{Member, Step};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult, SharingMode,
    Snapshot, StoreChange, StoreError, StoreFuture, StoreSession, StoreTime, StoreTransition,
};

impl Driver {
    pub(super) async fn perform(
        &mut self,
        session: &mut dyn StoreSession,
        id: MemberId,
        step: Step,
    ) -> Result<(), StoreError> {
        let Some(slot) = self.members.get(&id) else {
            return Ok(());
        };
        let (name, circuit) = (slot.name.clone(), slot.circuit.clone());
        let asked = self.now();
        match step {
            Step::Publish {
                base,
                pending,
                vote: true,
            } => {
                let opening = self.publication(slot, base, &pending, asked);
                self.vote(session, id, opening).await
            }
            Step::Publish { .. } => self.publish(session, id, asked).await,
            Step::StartProbing { base } => {
                let change = StoreChange::HalfOpen {
                    probe_policy: self.plan(&circuit),
                };
                let operation = self.pace.operation();
                let transition = StoreTransition {
                    not_after: self.not_after(asked),
                    author: Arc::clone(&self.author),
                    reason: Arc::from("isolation_over"),
                    ..StoreTransition::new(name, base, change, operation)
                };
                self.transition(session, vec![(id, transition)]).await
            }
            Step::Acquire { epoch } => {
                let request = self.request(id, name, epoch);
                let lease = self.ask(session.acquire_probe(&request)).await?;
                self.with_member(id, |member| {
                    member.acquired(epoch, lease, asked);
                    None
                });
                Ok(())
            }
            Step::Renew { epoch, lease } => {
                let request = self.request(id, name, epoch);
                let renewed = self.ask(session.renew_probe(&request, lease)).await?;
                self.with_member(id, |member| {
                    member.renewed(renewed, asked);
                    None
                });
                Ok(())
            }
            Step::Report {
                epoch,
                lease,
                verdict,
                operation,
            } => {
                let request = self.request(id, name, epoch);
                let wait = circuit.next_isolation().unwrap_or_default();
                let mut report = ProbeResult::new(request, lease, verdict.success, wait, operation);
                report.slow = verdict.slow;
                report.author = Arc::clone(&self.author);
                report.reason = Arc::from(if verdict.success {
                    "probes_succeeded"
                } else {
                    "probe_failed"
                });
                let report = self.ask(session.report_probe(&report)).await?;
                if let ProbeReportResult::Decided(view) = &report {
                    self.ledger.hear(view);
                    self.spread(id, view);
                } else if let ProbeReportResult::Lost {
                    current: Some(view),
                } = &report
                {
                    self.ledger.hear(view);
                }
                let now = self.now();
                self.with_member(id, |member| member.reported(&report, asked, now));
                Ok(())
            }
        }
    }

    /// What has changed since the last look; whether anything had.
    pub(super) async fn look(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<bool, StoreError> {
        let Some(known) = self.ledger.revision() else {
            return Ok(false);
        };
        let snapshot = self.ask(session.snapshot(Some(known))).await?;
        let Some(found) = self.ledger.follow(&snapshot) else {
            self.register(session).await?;
            return Ok(true);
        };
        self.take_snapshot(&snapshot);
        Ok(found)
    }

    /// Makes sure that all circuits exist, and takes in all there is.
    pub(super) async fn register(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let names = self.names();
        self.ask(session.register(&names)).await?;
        let snapshot = self.ask(session.snapshot(None)).await?;
        self.take_full(snapshot, session).await
    }

    pub(super) async fn take_full(
        &mut self,
        snapshot: Snapshot,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        if let Some(lost) = self.ledger.begin(&snapshot) {
            let now = self.now();
            for slot in self
                .members
                .values_mut()
                .filter(|slot| lost.contains(&slot.name))
            {
                slot.member.forget(now, self.pace.operation());
            }
            self.hub.emit(FleetEvent::HistoryLost);
            // It may be another machine's.
            self.clock = None;
        }
        self.take_snapshot(&snapshot);
        // A circuit that is not there was lost with the rest.
        let missing = self.members.values().any(|slot| !slot.member.is_known());
        if missing {
            let names = self.names();
            self.ask(session.register(&names)).await?;
            let snapshot = self.ask(session.snapshot(None)).await?;
            self.ledger.begin(&snapshot);
            self.take_snapshot(&snapshot);
        }
        Ok(())
    }

    pub(super) fn take_snapshot(&mut self, snapshot: &Snapshot) {
        let now = self.now();
        self.check_clock(snapshot.now, now);
        self.clock = Some((snapshot.now, now));
        for view in &snapshot.circuits {
            self.take_view(view, now);
        }
    }

    /// A change that was announced, some time ago: it may have lain about.
    pub(super) fn take_change(&mut self, after: &Snapshot) {
        let now = self.now();
        let late = self.clock.map_or(Duration::ZERO, |(reading, taken)| {
            let reading = reading.saturating_add(now.saturating_duration_since(taken));
            Duration::from_micros(reading.0.saturating_sub(after.now.0).max(0).unsigned_abs())
        });
        for view in &after.circuits {
            let mut view = view.clone();
            view.remaining = view.remaining.saturating_sub(late);
            view.age = view.age.saturating_add(late);
            self.take_view(&view, now);
        }
    }

    fn take_view(&mut self, view: &CircuitView, now: Instant) {
        for id in self.by_name(&view.circuit) {
            self.with_member(id, |member| member.merge(view, now));
        }
    }

    pub(super) async fn give_leases_back(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let leases: Vec<_> = self
            .members
            .iter()
            .filter_map(|(id, slot)| {
                slot.member
                    .lease()
                    .map(|lease| (*id, slot.name.clone(), lease))
            })
            .collect();
        for (id, name, (epoch, lease)) in leases {
            let request = self.request(id, name, epoch);
            self.ask(session.release_probe(&request, lease)).await?;
        }
        Ok(())
    }

    pub(super) async fn flush_counts(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let SharingMode::Counts(rule) = self.settings.share else {
            return Ok(());
        };
        let deltas: Vec<_> = self.members.values_mut().filter_map(Slot::count).collect();
        if deltas.is_empty() {
            return Ok(());
        }
        for total in self
            .ask(session.add_counts(rule.sliding_window, &deltas))
            .await?
        {
            if rule.opens(total.successes, total.failures) {
                self.open_by_counts(&total.circuit, total.epoch);
            }
        }
        Ok(())
    }

    pub(super) fn open_by_counts(&mut self, circuit: &BulkheadName, epoch: Epoch) {
        let now = self.now();
        for id in self.by_name(circuit) {
            let operation = self.pace.operation();
            let Some(slot) = self.members.get_mut(&id) else {
                continue;
            };
            let Some(wait) = slot.circuit.next_isolation() else {
                continue;
            };
            if slot.member.epoch() == epoch {
                slot.member.open_by_counts(wait, now, operation);
            }
        }
    }

    /// An operation, within its time. Whatever goes wrong, the link is left.
    pub(super) async fn ask<T>(&self, operation: StoreFuture<'_, T>) -> Result<T, StoreError> {
        let answer = self
            .within(self.settings.operation_timeout, operation)
            .await?;
        let now = self.now();
        self.hub.tell(|status| status.synced_at = Some(now));
        Ok(answer)
    }

    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        operation: StoreFuture<'_, T>,
    ) -> Result<T, StoreError> {
        let mut operation = operation;
        let mut timer = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = operation.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            if self.hub.ending() == Some(End::Now) {
                return Poll::Ready(Err(StoreError::unavailable("the synchroniser ends")));
            }
            let timer = timer.get_or_insert_with(|| {
                self.hub.runtime.sleep_until(self.hub.runtime.now() + limit)
            });
            timer.as_mut().poll(cx).map(|()| {
                Err(StoreError::unavailable(format!(
                    "no answer within {limit:?}"
                )))
            })
        })
        .await
    }

    pub(super) fn request(&self, id: MemberId, name: BulkheadName, epoch: Epoch) -> ProbeRequest {
        ProbeRequest::new(name, epoch, self.holder(id), self.settings.lease_ttl)
    }

    pub(super) fn holder(&self, id: MemberId) -> Arc<str> {
        Arc::from(format!("{} {id}", self.identity))
    }

    pub(super) fn plan(&self, circuit: &SharedCircuit) -> ProbePolicy {
        circuit
            .probe_plan(self.settings.probe_limit)
            .unwrap_or_default()
    }

    /// In the store's time: when this operation will have been given up.
    pub(super) fn not_after(&self, now: Instant) -> Option<StoreTime> {
        let (reading, taken) = self.clock?;
        Some(
            reading.saturating_add(
                now.saturating_duration_since(taken) + self.settings.operation_timeout,
            ),
        )
    }

    /// Other circuits of this process with the same name hear of it too.
    pub(super) fn spread(&mut self, from: MemberId, view: &CircuitView) {
        let now = self.now();
        for id in self.by_name(&view.circuit) {
            if id != from {
                self.with_member(id, |member| member.merge(view, now));
            }
        }
    }

    pub(super) fn with_member(
        &mut self,
        id: MemberId,
        act: impl FnOnce(&mut Member) -> Option<DecisionOutcome>,
    ) {
        let ending = self
            .members
            .get_mut(&id)
            .and_then(|slot| act(&mut slot.member));
        self.settled(id, ending);
    }
}
