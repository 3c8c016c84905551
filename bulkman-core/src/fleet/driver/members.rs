//! This process's circuits.

mod outages;
mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pause_between_slices;
use crate::circuit_breaker::{FleetTarget, Gate, WeakCircuit};
use crate::fleet::events::{DecisionOutcome, FleetEvent};
use crate::fleet::jitter::Jitter;
use crate::fleet::member::{CircuitUpdate, Member, MemberRules};
use crate::fleet::shared::{Attachment, CallTotals, CircuitStatus, FleetShared, MemberId};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, CountsDelta, Epoch, FleetState, OperationId, ProbeLease, SharingMode,
    StoreCapabilities, StoreSettings,
};

/// The circuits that this process shares.
pub(super) struct Members {
    shared: Arc<FleetShared>,
    settings: Arc<StoreSettings>,
    rules: MemberRules,
    entries: BTreeMap<MemberId, MemberEntry>,
    /// The circuits by name. More than one may have the same name.
    by_name: HashMap<BulkheadName, Vec<MemberId>>,
    /// The circuits that have changed and are to be observed. Kept here while the driver pauses,
    /// since its task may end then.
    unobserved: BTreeSet<MemberId>,
    /// The circuits that are to be updated, with the outcomes of expired decisions.
    due_updates: VecDeque<(MemberId, Option<DecisionOutcome>)>,
    /// Whether the status has to be published again.
    status_changed: bool,
    /// The circuit that was served last.
    last_served: MemberId,
    /// Whether a circuit was attached after the session was opened.
    unregistered: bool,
    access: Access,
    /// The leases of circuits that were dropped, to be released.
    orphaned: Vec<(MemberId, BulkheadName, Epoch, ProbeLease)>,
    /// The store rejected a request that concerns all circuits, and is repeated then.
    retry_at: Option<Instant>,
    /// The last request for leases found some held by other processes: the next round begins then.
    next_round_at: Option<Instant>,
    /// The store rejected one of several requests in one operation: until then, each is sent alone.
    isolate_until: Option<Instant>,
    /// The number of live processes of the fleet; `None` if unknown.
    live_processes: Option<u32>,
    jitter: Jitter,
}

/// What the store accepts from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// There is no session.
    None,
    ReadOnly,
    Full,
}

/// A circuit and its protocol state.
pub(super) struct MemberEntry {
    pub(super) name: BulkheadName,
    pub(super) circuit: WeakCircuit,
    member: Member,
    totals: Option<CallTotals>,
    /// The decision that was reported as pending.
    reported_pending: Option<OperationId>,
    /// The totals at the last flush, and the epoch at that time.
    flushed: (u64, u64, Epoch),
    /// The store rejects the name, so that the circuit is not shared in this session.
    is_rejected: bool,
    /// The store rejected a request of this circuit, which is repeated then.
    retry_at: Option<Instant>,
}

impl Members {
    pub(super) fn new(
        shared: &Arc<FleetShared>,
        settings: &Arc<StoreSettings>,
        capabilities: StoreCapabilities,
    ) -> Self {
        let quorum = match settings.share {
            SharingMode::State { quorum, .. } => quorum,
            SharingMode::Counts(_) => 1,
        };
        let rules = MemberRules {
            quorum,
            on_outage: settings.on_outage,
            isolated_after: settings.outage_after,
            votes: capabilities.votes,
            probe_leases: capabilities.probes,
            lease_ttl: settings.lease_ttl,
            acquire_retry_delay: settings.poll_interval,
        };
        Self {
            shared: Arc::clone(shared),
            settings: Arc::clone(settings),
            rules,
            entries: BTreeMap::new(),
            by_name: HashMap::new(),
            unobserved: BTreeSet::new(),
            due_updates: VecDeque::new(),
            status_changed: true,
            last_served: 0,
            unregistered: false,
            access: Access::None,
            orphaned: Vec::new(),
            retry_at: None,
            next_round_at: None,
            isolate_until: None,
            live_processes: None,
            jitter: Jitter::new(),
        }
    }

    /// Adds the attached circuits and observes those that have changed.
    pub(super) fn take_inbox(&mut self) {
        self.open_inbox();
        while let Some(id) = self.unobserved.pop_first() {
            self.observe(id);
        }
    }

    /// As [`take_inbox`](Self::take_inbox), with pauses for other tasks.
    pub(super) async fn take_inbox_in_slices(&mut self) {
        self.open_inbox();
        let mut handled = 0;
        while !self.unobserved.is_empty() {
            pause_between_slices(handled).await;
            handled += 1;
            if let Some(id) = self.unobserved.pop_first() {
                self.observe(id);
            }
        }
    }

    /// Adds the attached circuits. Those that have changed are then to be observed.
    fn open_inbox(&mut self) {
        let inbox = self.shared.take_inbox();
        self.unobserved.extend(inbox.changed);
        for attachment in inbox.attached {
            self.unobserved.insert(attachment.id);
            self.add(attachment);
        }
    }

    fn add(&mut self, attachment: Attachment) {
        let Attachment {
            id,
            name,
            circuit,
            totals,
        } = attachment;
        let mut member = Member::new(self.rules);
        match self.access {
            Access::None => {}
            Access::ReadOnly => member.on_read_only(self.shared.now(), None),
            Access::Full => member.on_connected(self.shared.now()),
        }
        let entry = MemberEntry {
            name,
            circuit,
            member,
            totals,
            reported_pending: None,
            flushed: (0, 0, Epoch(0)),
            is_rejected: false,
            retry_at: None,
        };
        self.by_name.entry(entry.name.clone()).or_default().push(id);
        self.entries.insert(id, entry);
        self.status_changed = true;
        self.unregistered = true;
    }

    /// Observes a circuit. Removes it if it was dropped.
    pub(super) fn observe(&mut self, id: MemberId) {
        let acquire_at = self.shared.now() + self.jitter.up_to(self.settings.probe_jitter);
        self.observe_and_acquire_at(id, acquire_at);
    }

    /// Checks whether calls demand a lease. If so, it is requested without delay.
    fn check_lease_demand(&mut self, id: MemberId, now: Instant) {
        self.observe_and_acquire_at(id, now);
        let pause = self.settings.probe_jitter.max(MIN_DEMAND_CHECK_PAUSE);
        if let Some(entry) = self.entries.get_mut(&id) {
            if !entry.member.on_demand_checked(now, pause) {
                entry.circuit.stop_polling_demand();
            }
        }
    }

    fn observe_and_acquire_at(&mut self, id: MemberId, acquire_at: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(observed) = entry.circuit.observe() else {
            let removed = self.entries.remove(&id);
            self.status_changed = true;
            if let Some(entry) = &removed {
                self.forget_name(&entry.name, id);
            }
            let lease = removed.and_then(|entry| Some((entry.member.lease()?, entry.name)));
            if let Some(((epoch, lease), name)) = lease {
                self.orphaned.push((id, name, epoch, lease));
            }
            self.shared
                .update(|status| status.attached = status.attached.saturating_sub(1));
            return;
        };
        self.status_changed = true;
        let jitter = &mut self.jitter;
        let outcome = entry
            .member
            .on_observed(&observed, acquire_at, || jitter.operation_id());
        self.emit_resolved(id, outcome);
        if self.access != Access::Full {
            self.report_pending(id);
        }
    }

    /// Emits [`FleetEvent::Pending`] for every pending decision, once per decision.
    pub(super) fn report_all_pending(&mut self) {
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            self.report_pending(id);
        }
    }

    fn report_pending(&mut self, id: MemberId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let pending = entry.member.pending_operation();
        if pending.is_some() && entry.reported_pending != pending {
            entry.reported_pending = pending;
            self.shared.emit(FleetEvent::Pending {
                circuit: entry.name.clone(),
            });
        }
    }

    /// Changes the circuits as their members require.
    pub(super) fn apply_updates(&mut self) {
        self.find_due_updates();
        while let Some(update) = self.due_updates.pop_front() {
            self.apply_updates_of(update);
        }
    }

    /// As [`apply_updates`](Self::apply_updates), with pauses for other tasks.
    pub(super) async fn apply_updates_in_slices(&mut self) {
        self.find_due_updates();
        let mut handled = 0;
        while !self.due_updates.is_empty() {
            pause_between_slices(handled).await;
            handled += 1;
            if let Some(update) = self.due_updates.pop_front() {
                self.apply_updates_of(update);
            }
        }
    }

    /// Finds the circuits that are to be updated.
    fn find_due_updates(&mut self) {
        // All members are checked at the same moment, without an allocation for those without an
        // update: this runs once per operation.
        let now = self.shared.now();
        let due = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.member.is_demand_check_due(now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.check_lease_demand(id, now);
        }
        let due = self.entries.iter_mut().filter_map(|(id, entry)| {
            let outcome = entry.member.expire(now);
            let needs_update = entry.member.next_update(now).is_some();
            (outcome.is_some() || needs_update).then_some((*id, outcome))
        });
        self.due_updates.extend(due);
        // Before the circuits change: a snapshot is never older than the state beside it.
        if self.status_changed && !self.due_updates.is_empty() {
            self.publish_circuits();
        }
    }

    /// Applies the updates of one circuit.
    fn apply_updates_of(&mut self, due: (MemberId, Option<DecisionOutcome>)) {
        let (id, outcome) = due;
        let now = self.shared.now();
        self.status_changed |= outcome.is_some();
        self.emit_resolved(id, outcome);
        // An update fails if the circuit has changed. It is then observed, and the update
        // computed again; a circuit that keeps changing waits for the next round.
        for _ in 0..MAX_UPDATES_PER_ROUND {
            let update = self
                .entries
                .get_mut(&id)
                .and_then(|entry| entry.member.next_update(now));
            let Some(update) = update else {
                break;
            };
            if !self.apply_update(id, update) {
                self.observe(id);
            }
        }
    }

    fn apply_update(&mut self, id: MemberId, update: CircuitUpdate) -> bool {
        let jitter = self.jitter.up_to(self.settings.probe_jitter);
        let now = self.shared.now();
        let Some(entry) = self.entries.get_mut(&id) else {
            return true;
        };
        match update {
            CircuitUpdate::SetGate(gate) => {
                entry.member.on_gate_set(gate);
                entry.circuit.set_gate(gate).is_some()
            }
            CircuitUpdate::RevokeLease => match entry.circuit.revoke_lease() {
                Some(revoked) => {
                    entry.member.on_yielded(revoked);
                    true
                }
                None => false,
            },
            CircuitUpdate::Adopt { expected, state } => {
                match entry.circuit.adopt(expected, state) {
                    Some(Ok(generation)) => {
                        let check_after = match state {
                            FleetTarget::Open { remaining, .. } => remaining.checked_add(jitter),
                            FleetTarget::HalfOpen { .. } => Some(jitter),
                            _ => None,
                        };
                        let check_at = check_after.and_then(|after| now.checked_add(after));
                        entry.member.on_adopted(state, generation, check_at);
                        true
                    }
                    Some(Err(())) | None => false,
                }
            }
        }
    }

    /// Passes input from the store to the member `id`, and emits the outcome of a decision.
    pub(super) fn update(
        &mut self,
        id: MemberId,
        input: impl FnOnce(&mut Member) -> Option<DecisionOutcome>,
    ) {
        self.status_changed = true;
        let outcome = self
            .entries
            .get_mut(&id)
            .and_then(|entry| input(&mut entry.member));
        self.emit_resolved(id, outcome);
    }

    /// Passes a stored state to all circuits with its name, except the circuit `except`.
    pub(super) fn merge(&mut self, view: &CircuitView, now: Instant, except: Option<MemberId>) {
        for id in self.ids_named(&view.circuit) {
            // A rejected circuit may still be stored, from an earlier session.
            let shared = |entry: &MemberEntry| !entry.is_rejected;
            if Some(id) != except && self.entries.get(&id).is_some_and(shared) {
                self.update(id, |member| member.merge(view, now));
            }
        }
    }

    /// Passes the loss of history to the circuits in `lost`.
    pub(super) fn on_history_lost(&mut self, lost: &[BulkheadName]) {
        let now = self.shared.now();
        let lost: HashSet<_> = lost.iter().collect();
        self.status_changed = true;
        for entry in self.entries.values_mut() {
            if lost.contains(&entry.name) {
                let operation = self.jitter.operation_id();
                entry.member.on_history_lost(now, operation);
            }
        }
    }

    /// Opens the circuits named `circuit` that are at `epoch`.
    pub(super) fn open_by_counts(&mut self, circuit: &BulkheadName, epoch: Epoch) {
        let now = self.shared.now();
        for id in self.ids_named(circuit) {
            let operation = self.jitter.operation_id();
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let Some(open_for) = entry.circuit.next_isolation() else {
                continue;
            };
            if entry.member.epoch() == epoch {
                self.status_changed = true;
                entry.member.open_by_counts(open_for, now, operation);
            }
        }
    }

    fn emit_resolved(&self, id: MemberId, outcome: Option<DecisionOutcome>) {
        if let (Some(outcome), Some(entry)) = (outcome, self.entries.get(&id)) {
            self.shared.emit(FleetEvent::DecisionResolved {
                circuit: entry.name.clone(),
                outcome,
            });
        }
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&MemberEntry> {
        self.entries.get(&id)
    }

    /// Handles that the store rejects a name: its circuits are not shared.
    pub(super) fn reject(&mut self, name: &BulkheadName) {
        self.status_changed = true;
        for id in self.ids_named(name) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.is_rejected = true;
                entry.member.on_name_rejected();
            }
        }
    }

    /// Returns the names of all circuits, including rejected ones, for a new session.
    pub(super) fn take_all_names(&mut self) -> Vec<BulkheadName> {
        self.status_changed = true;
        for entry in self.entries.values_mut() {
            entry.is_rejected = false;
        }
        self.take_names()
    }

    /// Returns the leases of circuits that were dropped.
    pub(super) fn take_orphaned(&mut self) -> Vec<(MemberId, BulkheadName, Epoch, ProbeLease)> {
        std::mem::take(&mut self.orphaned)
    }

    /// Returns the held leases.
    pub(super) fn leases(&self) -> Vec<(MemberId, BulkheadName, Epoch, ProbeLease)> {
        self.entries
            .iter()
            .filter_map(|(id, entry)| {
                let (epoch, lease) = entry.member.lease()?;
                Some((*id, entry.name.clone(), epoch, lease))
            })
            .collect()
    }

    /// Returns the outcomes since the last call, per circuit.
    pub(super) fn take_count_deltas(&mut self) -> Vec<CountsDelta> {
        let entries = self.entries.values_mut();
        entries.filter_map(MemberEntry::take_count_delta).collect()
    }

    /// Returns all names, for a registration with the store.
    pub(super) fn take_names(&mut self) -> Vec<BulkheadName> {
        self.unregistered = false;
        self.names()
    }

    pub(super) fn names(&self) -> Vec<BulkheadName> {
        let shared = self.entries.values().filter(|entry| !entry.is_rejected);
        let mut names: Vec<_> = shared.map(|entry| entry.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn ids_named(&self, name: &BulkheadName) -> Vec<MemberId> {
        self.by_name.get(name).cloned().unwrap_or_default()
    }

    fn forget_name(&mut self, name: &BulkheadName, id: MemberId) {
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    pub(super) const fn has_unregistered(&self) -> bool {
        self.unregistered
    }

    /// Returns whether a circuit's state has not been loaded from the store.
    pub(super) fn has_unloaded(&self) -> bool {
        let mut shared = self.entries.values().filter(|entry| !entry.is_rejected);
        shared.any(|entry| !entry.member.is_loaded())
    }

    /// Returns all circuits to their local rules.
    pub(super) fn detach_all(&self) {
        for entry in self.entries.values() {
            entry.circuit.detach_driver();
            let _dropped = entry.circuit.set_gate(Gate::Local);
        }
    }

    /// Publishes the status if an input may have changed it.
    pub(super) fn publish_status(&mut self) {
        if !std::mem::take(&mut self.status_changed) {
            return;
        }
        let members = || self.entries.values().map(|entry| &entry.member);
        // A rejected circuit is ready, too: it uses its local rules.
        let is_ready = |entry: &&MemberEntry| entry.is_rejected || entry.member.is_loaded();
        let loaded = self.entries.values().filter(is_ready).count();
        let pending = members().filter(|member| member.has_unpublished()).count();
        self.publish_circuits();
        // After the circuits have adopted their states: this is what `wait_ready` waits for.
        self.shared.update(|status| {
            status.loaded = loaded;
            status.pending = pending;
        });
    }

    fn publish_circuits(&self) {
        let circuits = self.entries.values().map(|entry| {
            let member = &entry.member;
            CircuitStatus {
                name: entry.name.clone(),
                state: member.fleet_state(),
                epoch: member.epoch(),
                last_change: member.last_change(),
            }
        });
        self.shared.status(|status| {
            // Reuses the allocation: this runs once per operation.
            status.circuits.clear();
            status.circuits.extend(circuits);
        });
    }
}

impl MemberEntry {
    /// Returns the outcomes since the last call; `None` if there are none, the circuit is not
    /// closed, or a new epoch has begun.
    fn take_count_delta(&mut self) -> Option<CountsDelta> {
        let (successes, failures) = self.totals.as_ref()?()?;
        let epoch = self.member.epoch();
        let (successes_before, failures_before, epoch_before) = self.flushed;
        self.flushed = (successes, failures, epoch);
        let closed = self.member.fleet_state() == Some(FleetState::Closed);
        if epoch != epoch_before
            || !closed
            || (successes, failures) == (successes_before, failures_before)
        {
            return None;
        }
        Some(CountsDelta::new(
            self.name.clone(),
            epoch,
            successes.saturating_sub(successes_before),
            failures.saturating_sub(failures_before),
        ))
    }
}

/// The least time between two checks for demand.
const MIN_DEMAND_CHECK_PAUSE: Duration = Duration::from_millis(50);

/// Updates of one circuit per round.
const MAX_UPDATES_PER_ROUND: usize = 8;
