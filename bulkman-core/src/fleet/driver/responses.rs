//! Executing requests, and passing the responses to the members.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::members::MemberEntry;
use super::{Driver, Notifications, notifications, pause_between_slices};
use crate::fleet::events::FleetEvent;
use crate::fleet::member::Request;
use crate::fleet::shared::MemberId;
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, OperationId, ProbeLease, ProbeReportResult, ProbeRequest, RejectReason,
    Revision, SharingMode, Snapshot, StoreChange, StoreError, StoreEvent, StoreSession,
    StoreTransition, TransitionResult, VoteResult,
};

impl Driver {
    /// Executes the request of the member `id`.
    pub(super) async fn perform(
        &mut self,
        session: &mut dyn StoreSession,
        id: MemberId,
        request: Request,
    ) -> Result<(), StoreError> {
        let Some(entry) = self.members.get(id) else {
            return Ok(());
        };
        self.last_batch = 1;
        let sent_at = self.shared.now();
        match request {
            Request::Publish {
                base,
                decision,
                vote: true,
            } => {
                let not_after = self.connection.not_after(sent_at);
                let opening = self
                    .requests
                    .publication(entry, base, &decision, sent_at, not_after);
                self.vote(session, id, opening).await
            }
            Request::Publish { .. } => self.publish(session, id, sent_at).await,
            Request::StartProbing { .. } => self.start_probing(session, id, sent_at).await,
            Request::Acquire { .. } => self.acquire(session, id, sent_at).await,
            Request::Release { .. } => self.release(session, id, sent_at).await,
            Request::Renew { .. } => self.renew(session, id, sent_at).await,
            Request::Report { .. } => self.report(session, id, sent_at).await,
        }
    }

    /// Reports all outcomes of probes, from the circuit `first` on, in one operation.
    async fn report(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        sent_at: Instant,
    ) -> Result<(), StoreError> {
        let batch = self.batch(first, sent_at, |id, entry, request| match request {
            Request::Report {
                epoch,
                lease,
                outcome,
                operation,
            } => {
                let probe = self.requests.probe(id, &entry.name, epoch);
                let open_for = entry.circuit.next_isolation().unwrap_or_default();
                Some(
                    self.requests
                        .probe_result(probe, lease, outcome, open_for, operation),
                )
            }
            _ => None,
        });
        let (ids, results) = self.begin_batch(batch);
        let operation = session.report_probes(&results);
        let reports = self.requests.execute(operation).await?;
        let mut reports: Vec<_> = ids.into_iter().zip(reports).collect();
        sort_by_revision(&mut reports, |(_, report)| match report {
            ProbeReportResult::Decided(view) => Some(view),
            _ => None,
        });
        for (id, report) in reports {
            self.handle_report(id, &report, sent_at);
        }
        Ok(())
    }

    fn handle_report(&mut self, id: MemberId, report: &ProbeReportResult, sent_at: Instant) {
        let now = self.shared.now();
        match report {
            ProbeReportResult::Decided(view) => {
                self.history.apply_response(view);
                self.members.merge(view, now, Some(id));
            }
            ProbeReportResult::Lost {
                current: Some(view),
            } => {
                self.history.apply_response(view);
            }
            _ => {}
        }
        self.members
            .update(id, |member| member.on_reported(report, sent_at, now));
    }

    /// Publishes all pending decisions, from the circuit `first` on, in one operation.
    ///
    /// Circuits that depend on the same failing service open together.
    async fn publish(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        now: Instant,
    ) -> Result<(), StoreError> {
        let not_after = self.connection.not_after(now);
        let batch = self.batch(first, now, |_, entry, request| match request {
            Request::Publish {
                base,
                decision,
                vote: false,
            } => Some(
                self.requests
                    .publication(entry, base, &decision, now, not_after),
            ),
            _ => None,
        });
        self.transition(session, batch).await
    }

    /// Starts probing in all circuits after their isolation, from the circuit `first` on.
    ///
    /// Circuits that opened together are due together. One operation for all of them is also one
    /// notification for each process.
    async fn start_probing(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        now: Instant,
    ) -> Result<(), StoreError> {
        let not_after = self.connection.not_after(now);
        let due = self.batch_of(now, self.members.probing_due(first, now));
        let transition = |(id, base)| {
            let entry = self.members.get(id)?;
            Some((id, self.requests.start_probing(entry, base, not_after)))
        };
        let batch: Vec<_> = due.into_iter().filter_map(transition).collect();
        self.transition(session, batch).await
    }

    /// Requests all leases that calls need, from the circuit `first` on.
    ///
    /// Most of them are held by other processes, so one request each would be most of the load of
    /// a recovery.
    async fn acquire(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        sent_at: Instant,
    ) -> Result<(), StoreError> {
        let batch = self.batch(first, sent_at, |id, entry, request| match request {
            Request::Acquire { epoch } => Some(self.requests.probe(id, &entry.name, epoch)),
            _ => None,
        });
        let (ids, wanted) = self.begin_batch(batch);
        let operation = session.acquire_probes(&wanted);
        let leases = self.requests.execute(operation).await?;
        let contended = wanted.len() < MAX_BATCH && leases.iter().any(Option::is_none);
        let retry_at = self.members.begin_round(sent_at, contended);
        for ((id, request), lease) in ids.into_iter().zip(&wanted).zip(leases) {
            self.members.update(id, |member| {
                member.on_acquired(request.epoch, lease, sent_at, retry_at);
                None
            });
        }
        Ok(())
    }

    /// Renews all leases that are due, from the circuit `first` on.
    async fn renew(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        sent_at: Instant,
    ) -> Result<(), StoreError> {
        let (ids, held) = self.held_leases(first, sent_at, |request| match request {
            Request::Renew { epoch, lease } => Some((epoch, lease)),
            _ => None,
        });
        let operation = session.renew_probes(&held);
        let renewed = self.requests.execute(operation).await?;
        for (id, lease) in ids.into_iter().zip(renewed) {
            self.members.update(id, |member| {
                member.on_renewed(lease, sent_at);
                None
            });
        }
        Ok(())
    }

    /// Releases all leases that are to be released, from the circuit `first` on.
    async fn release(
        &mut self,
        session: &mut dyn StoreSession,
        first: MemberId,
        sent_at: Instant,
    ) -> Result<(), StoreError> {
        let (ids, held) = self.held_leases(first, sent_at, |request| match request {
            Request::Release { epoch, lease } => Some((epoch, lease)),
            _ => None,
        });
        let operation = session.release_probes(&held);
        self.requests.execute(operation).await?;
        let now = self.shared.now();
        for (id, (_, lease)) in ids.into_iter().zip(held) {
            self.members.update(id, |member| {
                member.on_released(lease, now);
                None
            });
        }
        Ok(())
    }

    /// Selects the leases that one operation concerns, from the circuit `first` on.
    fn held_leases(
        &mut self,
        first: MemberId,
        now: Instant,
        select: impl Fn(Request) -> Option<(Epoch, ProbeLease)>,
    ) -> (Vec<MemberId>, Vec<(ProbeRequest, ProbeLease)>) {
        let batch = self.batch(first, now, |id, entry, request| {
            let (epoch, lease) = select(request)?;
            Some((self.requests.probe(id, &entry.name, epoch), lease))
        });
        self.begin_batch(batch)
    }

    /// Selects what one operation requests, from the circuit `first` on.
    fn batch<T>(
        &self,
        first: MemberId,
        now: Instant,
        select: impl Fn(MemberId, &MemberEntry, Request) -> Option<T>,
    ) -> Vec<(MemberId, T)> {
        // Requests for leases are delayed at random, so that processes differ. Those of one process
        // need not differ.
        let due = now + self.settings.probe_jitter;
        let requests = self.members.requests_from(first, now, due);
        let selected = requests.filter_map(|(id, entry, request)| {
            let selected = select(id, entry, request)?;
            Some((id, &entry.name, selected))
        });
        self.batch_of(now, selected)
    }

    /// Collects what is `selected`, at most once for each name.
    fn batch_of<'a, T>(
        &self,
        now: Instant,
        selected: impl Iterator<Item = (MemberId, &'a BulkheadName, T)>,
    ) -> Vec<(MemberId, T)> {
        let mut names = HashSet::new();
        let mut batch = Vec::new();
        for (id, name, selected) in selected {
            // A second circuit of the same name waits for the response to the first.
            if names.insert(name) {
                batch.push((id, selected));
            }
            if batch.len() == MAX_BATCH || self.members.isolates_requests(now) {
                break;
            }
        }
        batch
    }

    /// Notes the size of a batch that is sent now, and separates its circuits from the rest.
    fn begin_batch<T>(&mut self, batch: Vec<(MemberId, T)>) -> (Vec<MemberId>, Vec<T>) {
        self.last_batch = batch.len();
        batch.into_iter().unzip()
    }

    /// Handles an error of a request: returns it if the session is to be dropped.
    ///
    /// An error that only a change of the store can resolve does not end a usable session, which
    /// still reads. `id` is the circuit of the request.
    pub(super) fn handle_rejected_request(
        &mut self,
        session: &dyn StoreSession,
        id: MemberId,
        error: StoreError,
    ) -> Result<(), StoreError> {
        if session.is_usable() && session.read_only_reason().is_some() {
            // Repeated when the store accepts changes again.
            return Ok(());
        }
        if error.is_transient() || !session.is_usable() {
            return Err(error);
        }
        let now = self.shared.now();
        let is_argument = matches!(error, StoreError::InvalidArgument { .. });
        if is_argument && self.last_batch > 1 {
            self.members.isolate_requests(now + ISOLATION);
        } else if is_argument {
            let name = self.members.get(id).map(|entry| entry.name.clone());
            let retry_at = self.connection.operation_rejected(name, error);
            self.members.pause_requests_of(id, retry_at);
        } else {
            let retry_at = self.connection.operation_rejected(None, error);
            self.members.pause_requests(retry_at);
        }
        Ok(())
    }

    async fn transition(
        &mut self,
        session: &mut dyn StoreSession,
        batch: Vec<(MemberId, StoreTransition)>,
    ) -> Result<(), StoreError> {
        let (ids, transitions) = self.begin_batch(batch);
        let operation = session.transitions(&transitions);
        let results = self.requests.execute(operation).await?;
        let now = self.shared.now();
        let mut results: Vec<_> = ids.into_iter().zip(&transitions).zip(results).collect();
        sort_by_revision(&mut results, |(_, result)| match result {
            TransitionResult::Applied(view) => Some(view),
            _ => None,
        });
        let (mut expired, mut unknown) = (false, false);
        for ((id, transition), result) in results {
            match result {
                TransitionResult::Applied(view) => {
                    self.handle_applied(id, transition, &view, now);
                }
                TransitionResult::Rejected { reason, current } => {
                    expired |=
                        self.handle_rejected(id, transition.operation, reason, &current, now);
                }
                TransitionResult::UnknownCircuit => unknown = true,
            }
        }
        if unknown {
            self.register(session).await
        } else if expired {
            self.poll_changes(session).await.map(drop)
        } else {
            Ok(())
        }
    }

    fn handle_applied(
        &mut self,
        id: MemberId,
        transition: &StoreTransition,
        view: &CircuitView,
        now: Instant,
    ) {
        self.history.apply_response(view);
        self.members.merge(view, now, Some(id));
        let started_probing =
            matches!(transition.change, StoreChange::HalfOpen { .. }) && !transition.manual;
        self.members.update(id, |member| {
            let outcome = member.on_applied(transition.operation, view, now);
            if started_probing {
                member.on_probing_started(now);
            }
            outcome
        });
    }

    /// Handles a rejected change.
    ///
    /// Returns whether it had expired by the store's clock, which must then be read again.
    fn handle_rejected(
        &mut self,
        id: MemberId,
        operation: OperationId,
        reason: RejectReason,
        current: &CircuitView,
        now: Instant,
    ) -> bool {
        self.shared
            .update(|status| status.counters.record_rejection(reason));
        // If the store has lost history, the decision is resolved by the next full snapshot.
        let follows = self.history.apply_response(current);
        if follows {
            self.members.update(id, |member| {
                member.on_rejected(operation, reason, current, now)
            });
        }
        follows && reason == RejectReason::Expired
    }

    async fn vote(
        &mut self,
        session: &mut dyn StoreSession,
        id: MemberId,
        opening: StoreTransition,
    ) -> Result<(), StoreError> {
        let operation = opening.operation;
        let vote = self.requests.vote(id, opening);
        let result = self.requests.execute(session.vote(&vote)).await?;
        let now = self.shared.now();
        match result {
            VoteResult::Opened(view) => {
                self.history.apply_response(&view);
                self.members.merge(&view, now, Some(id));
                self.members
                    .update(id, |member| member.on_applied(operation, &view, now));
                Ok(())
            }
            VoteResult::Counted { .. } => {
                self.members
                    .update(id, |member| member.on_vote_counted(operation));
                Ok(())
            }
            VoteResult::Rejected { reason, current } => {
                if self.handle_rejected(id, operation, reason, &current, now) {
                    self.poll_changes(session).await.map(drop)
                } else {
                    Ok(())
                }
            }
            VoteResult::UnknownCircuit => self.register(session).await,
        }
    }

    /// Reads the changes since the last known revision. Returns whether there were any.
    pub(super) async fn poll_changes(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<bool, StoreError> {
        let Some(revision) = self.history.revision() else {
            return Ok(false);
        };
        let snapshot = if self.report_is_due() {
            let status = self.requests.status(&self.connection);
            let operation = session.resync(Some(revision), &status);
            let snapshot = self.requests.execute(operation).await?;
            self.status_reported(session);
            snapshot
        } else {
            let operation = session.snapshot(Some(revision));
            self.requests.execute(operation).await?
        };
        if session.read_only_reason().is_some() && self.history.is_newer_than(&snapshot) {
            // A standby that lags behind.
            return Ok(false);
        }
        let Some(found) = self.history.apply_delta(&snapshot) else {
            self.register(session).await?;
            return Ok(true);
        };
        self.apply_snapshot(&snapshot).await;
        Ok(found)
    }

    /// Returns whether the next read is to store the status of this process.
    ///
    /// Where the store is polled, most reads only read.
    fn report_is_due(&self) -> bool {
        // Intervals are shortened by up to a tenth.
        let due = |at: Instant| at.checked_add(self.settings.resync_interval * 9 / 10);
        let due = self.reported_at.and_then(due);
        due.is_none_or(|due| due <= self.shared.now())
    }

    /// Handles that the status of this process was sent.
    pub(super) fn status_reported(&mut self, session: &dyn StoreSession) {
        self.reported_at = Some(self.shared.now());
        self.members.set_live_processes(session.live_processes());
    }

    /// Polls because of a notification.
    pub(super) async fn poll_notified(
        &mut self,
        session: &mut dyn StoreSession,
        notifications: &mut Notifications,
    ) -> Result<(), StoreError> {
        let found = self.poll_changes(session).await?;
        notifications.polled(found, self.shared.now());
        if found {
            self.connection.notification_confirmed();
        }
        Ok(())
    }

    /// Registers all circuits and loads their state.
    pub(super) async fn register(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let names = self.members.take_names();
        if session.read_only_reason().is_none() {
            self.register_each(session, names).await?;
        }
        let snapshot = self.requests.execute(session.snapshot(None)).await?;
        self.load(snapshot, session).await
    }

    /// Registers circuits. Those with names that the store rejects keep their local rules.
    pub(super) async fn register_each(
        &mut self,
        session: &mut dyn StoreSession,
        names: Vec<BulkheadName>,
    ) -> Result<(), StoreError> {
        let mut batches = vec![names];
        while let Some(mut names) = batches.pop() {
            if names.is_empty() {
                continue;
            }
            let error = match self.requests.execute(session.register(&names)).await {
                Ok(()) => continue,
                Err(error @ StoreError::InvalidArgument { .. }) if session.is_usable() => error,
                Err(error) => return Err(error),
            };
            if let [name] = &*names {
                self.members.reject(name);
                self.connection
                    .operation_rejected(Some(name.clone()), error);
            } else {
                batches.push(names.split_off(names.len() / 2));
                batches.push(names);
            }
        }
        Ok(())
    }

    /// Adopts a full snapshot.
    pub(super) async fn load(
        &mut self,
        snapshot: Snapshot,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let read_only = session.read_only_reason().is_some();
        if read_only && self.history.is_newer_than(&snapshot) {
            // A standby that lags behind: older epochs change nothing.
            self.apply_snapshot(&snapshot).await;
            return Ok(());
        }
        if let Some(lost) = self.history.reset(&snapshot) {
            self.members.on_history_lost(&lost);
            self.shared.emit(FleetEvent::HistoryLost);
            self.connection.forget_clock();
        }
        self.apply_snapshot(&snapshot).await;
        // A registered circuit that is missing was lost with the history.
        if self.members.has_unloaded() && !read_only {
            let names = self.members.names();
            self.register_each(session, names).await?;
            let snapshot = self.requests.execute(session.snapshot(None)).await?;
            self.history.reset(&snapshot);
            self.apply_snapshot(&snapshot).await;
        }
        Ok(())
    }

    async fn apply_snapshot(&mut self, snapshot: &Snapshot) {
        let now = self.shared.now();
        self.connection.record_clock(snapshot.now, now);
        for (index, view) in snapshot.circuits.iter().enumerate() {
            pause_between_slices(index).await;
            self.members.merge(view, now, None);
        }
    }

    /// Handles all notifications that have arrived, without waiting.
    ///
    /// Bounded, because notifications are not authenticated.
    pub(super) async fn drain_notifications(
        &mut self,
        session: &mut dyn StoreSession,
        pending: &mut Notifications,
    ) -> Result<(), StoreError> {
        for _ in 0..MAX_DRAINED {
            let Some(event) = notifications::try_next(session).await else {
                break;
            };
            self.handle_event(&event?, pending);
        }
        Ok(())
    }

    /// Handles a notification: applies the change in it if it is the next one, and schedules a
    /// poll otherwise.
    pub(super) fn handle_event(&mut self, event: &StoreEvent, notifications: &mut Notifications) {
        let is_new = self
            .history
            .revision()
            .is_none_or(|known| event.revision() > known);
        match event {
            StoreEvent::Applied(after) if is_new && self.history.apply_event(after) => {
                self.apply_event(after);
                self.connection.notification_applied();
            }
            _ if is_new => notifications.received(self.shared.now()),
            _ => self.connection.notification_confirmed(),
        }
    }

    /// Applies a change from a notification, which may have been queued for some time.
    fn apply_event(&mut self, after: &Snapshot) {
        let now = self.shared.now();
        let delay = self.connection.store_age(after.now, now);
        for view in &after.circuits {
            let mut view = view.clone();
            view.remaining = view.remaining.saturating_sub(delay);
            view.age = view.age.saturating_add(delay);
            self.members.merge(&view, now, None);
        }
    }

    /// Adds the outcomes since the last flush to the fleet's counts, and opens the circuits that
    /// reach the threshold.
    pub(super) async fn flush_counts(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let SharingMode::Counts(policy) = self.settings.share else {
            return Ok(());
        };
        let deltas = self.members.take_count_deltas();
        if deltas.is_empty() {
            return Ok(());
        }
        let operation = session.add_counts(policy.sliding_window, &deltas);
        for total in self.requests.execute(operation).await? {
            if policy.opens(total.successes, total.failures) {
                self.members.open_by_counts(&total.circuit, total.epoch);
            }
        }
        Ok(())
    }

    /// Releases what this process holds in the store, before it ends.
    pub(super) async fn leave(&self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        self.release_leases(session).await?;
        let status = self.requests.status(&self.connection);
        let withdrawn = self.requests.execute(session.withdraw(&status)).await;
        match withdrawn {
            // The status expires.
            Err(error) if !error.is_transient() => Ok(()),
            outcome => outcome,
        }
    }

    async fn release_leases(&self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        let held = self.members.leases();
        self.release_all(session, held).await
    }

    /// Releases the leases of circuits that were dropped.
    pub(super) async fn release_orphaned(
        &mut self,
        session: &mut dyn StoreSession,
    ) -> Result<(), StoreError> {
        let held = self.members.take_orphaned();
        if let Err(error) = self.release_all(session, held).await {
            if error.is_transient() || !session.is_usable() {
                return Err(error);
            }
            // The leases expire.
            self.connection.operation_rejected(None, error);
        }
        Ok(())
    }

    async fn release_all(
        &self,
        session: &mut dyn StoreSession,
        held: Vec<(MemberId, BulkheadName, Epoch, ProbeLease)>,
    ) -> Result<(), StoreError> {
        for held in held.chunks(MAX_BATCH) {
            let request =
                |(id, name, epoch, lease): &(MemberId, BulkheadName, Epoch, ProbeLease)| {
                    (self.requests.probe(*id, name, *epoch), *lease)
                };
            let held: Vec<_> = held.iter().map(request).collect();
            self.requests.execute(session.release_probes(&held)).await?;
        }
        Ok(())
    }
}

/// Sorts results by the revisions of the changes in them, since the history must receive changes in
/// that order.
fn sort_by_revision<T>(results: &mut [T], change: impl Fn(&T) -> Option<&CircuitView>) {
    results
        .sort_by_key(|result| change(result).map_or_else(Revision::default, |view| view.revision));
}

/// Requests in one operation: enough for one outage, and few enough for a response within
/// milliseconds.
const MAX_BATCH: usize = 200;

/// How long requests are sent alone after the store rejected one of several.
const ISOLATION: Duration = Duration::from_secs(60);

/// Notifications that are handled without another activity in between.
const MAX_DRAINED: usize = 100;
