//! One circuit of a [`MemoryStore`](super::MemoryStore): a state machine without lock or clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::name::BulkheadName;
use crate::store::counts::{BucketedWindow, CountsDelta, FleetCounts};
use crate::store::history::HistoryEntry;
use crate::store::probe::{
    ProbeDecision, ProbeLease, ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult,
};
use crate::store::transition::{
    FleetAction, FleetCommand, RejectReason, StoreChange, StoreTransition, StoreVote,
};
use crate::store::truncate_text;
use crate::store::view::{CircuitView, Epoch, FleetState, OperationId, Revision, StoreTime};

#[cfg_attr(feature = "test-util", derive(Clone))]
pub(super) struct Circuit {
    epoch: Epoch,
    revision: Revision,
    state: FleetState,
    changed_at: StoreTime,
    open_until: StoreTime,
    open_for: Duration,
    open_count: u32,
    probe_policy: ProbePolicy,
    probe_counts: ProbeCounts,
    slots: Vec<ProbeSlot>,
    votes: Vec<(Arc<str>, StoreTime)>,
    counts: HashMap<BucketedWindow, VecDeque<Bucket>>,
    origin: Origin,
    history: VecDeque<PastChange>,
}

/// The results of one half-open period.
#[derive(Clone, Copy, Default)]
struct ProbeCounts {
    succeeded: u32,
    failed: u32,
    slow: u32,
}

/// A probe slot. It is free if it belongs to an earlier epoch, has no holder, or has expired.
#[derive(Clone, Default)]
struct ProbeSlot {
    epoch: Epoch,
    token: u64,
    holder: Option<Arc<str>>,
    expires_at: StoreTime,
}

#[cfg_attr(feature = "test-util", derive(Clone))]
struct Bucket {
    number: i64,
    epoch: Epoch,
    successes: u64,
    failures: u64,
}

/// The operation, author and reason of a change.
#[derive(Clone)]
struct Origin {
    operation: OperationId,
    author: Arc<str>,
    reason: Arc<str>,
}

#[cfg_attr(feature = "test-util", derive(Clone))]
struct PastChange {
    epoch: Epoch,
    revision: Revision,
    from: FleetState,
    to: FleetState,
    open_for: Duration,
    at: StoreTime,
    origin: Origin,
}

/// An accepted change, applied once the namespace has assigned a revision.
pub(super) struct AcceptedChange {
    to: FleetState,
    open_for: Duration,
    probe_policy: Option<ProbePolicy>,
    origin: Origin,
}

impl Circuit {
    pub(super) fn new(now: StoreTime) -> Self {
        Self {
            epoch: Epoch::default(),
            revision: Revision::default(),
            state: FleetState::Closed,
            changed_at: now,
            open_until: now,
            open_for: Duration::ZERO,
            open_count: 0,
            probe_policy: ProbePolicy::default(),
            probe_counts: ProbeCounts::default(),
            slots: Vec::new(),
            votes: Vec::new(),
            counts: HashMap::new(),
            origin: Origin::new(OperationId::default(), "", ""),
            history: VecDeque::new(),
        }
    }

    /// Applies a change under its own revision.
    pub(super) fn apply(&mut self, change: AcceptedChange, revision: Revision, now: StoreTime) {
        let from = std::mem::replace(&mut self.state, change.to);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.revision = revision;
        self.changed_at = now;
        self.open_for = change.open_for;
        self.open_until = now.saturating_add(change.open_for);
        self.open_count = match change.to {
            FleetState::Open => self.open_count.saturating_add(1),
            FleetState::HalfOpen => self.open_count,
            _ => 0,
        };
        if let Some(probe_policy) = change.probe_policy {
            self.probe_policy = probe_policy;
            self.slots
                .resize_with(usize::from(probe_policy.limit), ProbeSlot::default);
        }
        self.probe_counts = ProbeCounts::default();
        self.votes.clear();
        self.origin = change.origin;
        if self.history.len() == HISTORY_LIMIT {
            self.history.pop_back();
        }
        self.history.push_front(PastChange {
            epoch: self.epoch,
            revision,
            from,
            to: change.to,
            open_for: change.open_for,
            at: now,
            origin: self.origin.clone(),
        });
    }

    pub(super) fn last_operation(&self) -> OperationId {
        self.origin.operation
    }

    /// Returns `true` if an earlier attempt of this operation made the last change.
    pub(super) fn was_changed_by(&self, operation: OperationId) -> bool {
        operation != OperationId::default() && self.origin.operation == operation
    }

    /// Checks a transition against the current state.
    pub(super) fn evaluate(
        &self,
        transition: &StoreTransition,
        now: StoreTime,
    ) -> Result<AcceptedChange, RejectReason> {
        let (to, open_for, probe_policy) = match transition.change {
            StoreChange::Open { open_for } => (FleetState::Open, open_for, None),
            StoreChange::HalfOpen { probe_policy } => {
                (FleetState::HalfOpen, Duration::ZERO, Some(probe_policy))
            }
            StoreChange::Close => (FleetState::Closed, Duration::ZERO, None),
        };
        if self.epoch != transition.base {
            return Err(RejectReason::Stale);
        }
        if self.state.is_forced() {
            return Err(RejectReason::ForcedByOperator);
        }
        if transition.not_after.is_some_and(|limit| now >= limit) {
            return Err(RejectReason::Expired);
        }
        if !transition.manual {
            if self.state == to {
                return Err(RejectReason::AlreadyInState);
            }
            let elapsed = self.state == FleetState::Open && now >= self.open_until;
            if to == FleetState::HalfOpen && !elapsed {
                return Err(RejectReason::NotDue);
            }
        }
        let origin = Origin::new(transition.operation, &transition.author, &transition.reason);
        Ok(AcceptedChange {
            to,
            open_for,
            probe_policy,
            origin,
        })
    }

    /// Counts a vote, and returns the change if it reaches the quorum.
    pub(super) fn vote(
        &mut self,
        vote: &StoreVote,
        now: StoreTime,
    ) -> Result<Option<AcceptedChange>, RejectReason> {
        let change = self.evaluate(&vote.opening, now)?;
        self.votes
            .retain(|(voter, at)| *voter != vote.voter && at.saturating_add(vote.window) > now);
        self.votes.push((Arc::clone(&vote.voter), now));
        Ok((self.votes.len() >= usize::from(vote.quorum)).then_some(change))
    }

    pub(super) fn votes(&self) -> u32 {
        u32::try_from(self.votes.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn command(&mut self, command: &FleetCommand) -> AcceptedChange {
        let to = match command.action {
            FleetAction::ForceOpen => FleetState::ForcedOpen,
            FleetAction::Disable => FleetState::Disabled,
            FleetAction::Close | FleetAction::Reset => FleetState::Closed,
        };
        if command.action == FleetAction::Reset {
            self.counts.clear();
        }
        let origin = Origin::new(command.operation, &command.author, &command.reason);
        AcceptedChange {
            to,
            open_for: Duration::ZERO,
            probe_policy: None,
            origin,
        }
    }

    pub(super) fn acquire(&mut self, request: &ProbeRequest, now: StoreTime) -> Option<ProbeLease> {
        if self.state != FleetState::HalfOpen || self.epoch != request.epoch {
            return None;
        }
        let limit = usize::from(self.probe_policy.limit);
        let holder = &request.holder;
        let slots = &self.slots[..limit.min(self.slots.len())];
        let index = slots
            .iter()
            .position(|slot| slot.epoch == self.epoch && slot.holder.as_ref() == Some(holder))
            .or_else(|| slots.iter().position(|slot| slot.is_free(self.epoch, now)))?;
        let slot = &mut self.slots[index];
        *slot = ProbeSlot {
            epoch: request.epoch,
            // A result raises the token by one, a new holder by two: a result of the previous
            // holder is never mistaken for a repeated one.
            token: slot.token + 2,
            holder: Some(Arc::clone(holder)),
            expires_at: now.saturating_add(request.ttl),
        };
        Some(ProbeLease::new(
            u16::try_from(index).unwrap_or(u16::MAX),
            slot.token,
        ))
    }

    pub(super) fn renew(
        &mut self,
        request: &ProbeRequest,
        lease: ProbeLease,
        now: StoreTime,
    ) -> bool {
        let Some(slot) = self.slot_of(request, lease) else {
            return false;
        };
        let held = slot.token == lease.token && slot.expires_at > now;
        if held {
            slot.expires_at = now.saturating_add(request.ttl);
        }
        held
    }

    pub(super) fn release(&mut self, request: &ProbeRequest, lease: ProbeLease) {
        if let Some(slot) = self.slot_of(request, lease) {
            if slot.token == lease.token {
                slot.holder = None;
            }
        }
    }

    /// Counts the result of a probe; an error is the change that it decides.
    pub(super) fn report(
        &mut self,
        result: &ProbeResult,
        name: &BulkheadName,
        now: StoreTime,
    ) -> Result<ProbeReportResult, AcceptedChange> {
        if self.was_changed_by(result.operation) {
            return Ok(ProbeReportResult::Decided(self.view(name, now)));
        }
        let probing = self.state == FleetState::HalfOpen && self.epoch == result.request.epoch;
        let slot = if probing {
            self.slot_of(&result.request, result.lease)
        } else {
            None
        };
        let Some(slot) = slot else {
            return Ok(ProbeReportResult::Lost {
                current: Some(self.view(name, now)),
            });
        };
        let lease = result.lease;
        let fresh = slot.token == lease.token && slot.expires_at > now;
        let repeated = slot.token == lease.token + 1;
        if !fresh && !repeated {
            return Ok(ProbeReportResult::Lost {
                current: Some(self.view(name, now)),
            });
        }
        slot.token = lease.token + 1;
        slot.expires_at = now.saturating_add(result.request.ttl);
        if fresh {
            self.probe_counts.add(result.success, result.slow);
        }
        let origin = || Origin::new(result.operation, &result.author, &result.reason);
        let decision = self.probe_policy.rule.evaluate(
            self.probe_counts.succeeded,
            self.probe_counts.failed,
            self.probe_counts.slow,
        );
        match decision {
            ProbeDecision::Undecided => Ok(ProbeReportResult::Counted {
                lease: ProbeLease::new(lease.slot, lease.token + 1),
                current: self.view(name, now),
            }),
            ProbeDecision::Close => Err(AcceptedChange {
                to: FleetState::Closed,
                open_for: Duration::ZERO,
                probe_policy: None,
                origin: origin(),
            }),
            ProbeDecision::Reopen => Err(AcceptedChange {
                to: FleetState::Open,
                open_for: result.open_for,
                probe_policy: None,
                origin: origin(),
            }),
        }
    }

    /// Adds to the newest bucket of the window; `None` for a delta of an earlier epoch.
    pub(super) fn add_counts(
        &mut self,
        window: BucketedWindow,
        delta: &CountsDelta,
        now: StoreTime,
    ) -> Option<FleetCounts> {
        if delta.epoch < self.epoch {
            return None;
        }
        let width = i64::try_from(window.bucket_length().as_micros())
            .unwrap_or(i64::MAX)
            .max(1);
        let number = now.0.div_euclid(width);
        let ring = self.counts.entry(window).or_default();
        ring.retain(|bucket| {
            bucket.epoch == delta.epoch && bucket.number > number - i64::from(window.buckets)
        });
        match ring.back_mut().filter(|bucket| bucket.number == number) {
            Some(bucket) => {
                bucket.successes += delta.successes;
                bucket.failures += delta.failures;
            }
            None => ring.push_back(Bucket {
                number,
                epoch: delta.epoch,
                successes: delta.successes,
                failures: delta.failures,
            }),
        }
        Some(FleetCounts::new(
            delta.circuit.clone(),
            delta.epoch,
            ring.iter().map(|bucket| bucket.successes).sum(),
            ring.iter().map(|bucket| bucket.failures).sum(),
        ))
    }

    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn view(&self, name: &BulkheadName, now: StoreTime) -> CircuitView {
        CircuitView {
            epoch: self.epoch,
            revision: self.revision,
            state: self.state,
            remaining: if self.state == FleetState::Open {
                between(now, self.open_until)
            } else {
                Duration::ZERO
            },
            open_for: self.open_for,
            age: between(self.changed_at, now),
            open_count: self.open_count,
            probe_policy: self.probe_policy,
            probes_succeeded: self.probe_counts.succeeded,
            probes_failed: self.probe_counts.failed,
            operation: self.origin.operation,
            author: Arc::clone(&self.origin.author),
            reason: Arc::clone(&self.origin.reason),
            ..CircuitView::new(name.clone())
        }
    }

    /// The latest changes, newest first.
    pub(super) fn history<'a>(
        &'a self,
        name: &'a BulkheadName,
        now: StoreTime,
    ) -> impl Iterator<Item = HistoryEntry> + 'a {
        self.history.iter().map(move |entry| HistoryEntry {
            open_for: entry.open_for,
            author: Arc::clone(&entry.origin.author),
            reason: Arc::clone(&entry.origin.reason),
            ..HistoryEntry::new(
                name.clone(),
                entry.epoch,
                entry.revision,
                (entry.from, entry.to),
                between(entry.at, now),
            )
        })
    }

    fn slot_of(&mut self, request: &ProbeRequest, lease: ProbeLease) -> Option<&mut ProbeSlot> {
        self.slots.get_mut(usize::from(lease.slot)).filter(|slot| {
            slot.epoch == request.epoch && slot.holder.as_ref() == Some(&request.holder)
        })
    }
}

impl ProbeCounts {
    fn add(&mut self, success: bool, slow: bool) {
        *(if success {
            &mut self.succeeded
        } else {
            &mut self.failed
        }) += 1;
        self.slow += u32::from(slow);
    }
}

impl ProbeSlot {
    fn is_free(&self, epoch: Epoch, now: StoreTime) -> bool {
        self.epoch < epoch || self.holder.is_none() || self.expires_at <= now
    }
}

impl AcceptedChange {
    pub(super) fn operation(&self) -> OperationId {
        self.origin.operation
    }
}

impl Origin {
    fn new(operation: OperationId, author: &str, reason: &str) -> Self {
        Self {
            operation,
            author: truncate_text(author).into(),
            reason: truncate_text(reason).into(),
        }
    }
}

fn between(earlier: StoreTime, later: StoreTime) -> Duration {
    Duration::from_micros(u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(0))
}

/// The number of past changes kept for each circuit.
const HISTORY_LIMIT: usize = 100;
