//! One circuit of a [`MemoryStore`](super::MemoryStore): pure rules, no lock and no clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::name::BulkheadName;
use crate::store::counts::{BucketedWindow, CountsDelta, FleetCounts};
use crate::store::history::HistoryEntry;
use crate::store::probe::{
    ProbeLease, ProbeOutlook, ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult,
};
use crate::store::transition::{
    FleetAction, FleetCommand, RejectReason, StoreChange, StoreTransition, StoreVote,
};
use crate::store::view::{CircuitView, Epoch, FleetState, OperationId, Revision, StoreTime};

#[cfg_attr(feature = "test-util", derive(Clone))]
pub(super) struct Circuit {
    epoch: Epoch,
    revision: Revision,
    state: FleetState,
    changed_at: StoreTime,
    open_until: StoreTime,
    wait: Duration,
    open_count: u32,
    plan: ProbePolicy,
    tally: Tally,
    slots: Vec<Slot>,
    votes: Vec<(Arc<str>, StoreTime)>,
    counts: HashMap<BucketedWindow, VecDeque<Bucket>>,
    author: Author,
    history: VecDeque<Entry>,
}

/// Verdicts of one half-open stay.
#[derive(Clone, Copy, Default)]
struct Tally {
    succeeded: u32,
    failed: u32,
    slow: u32,
}

/// The right to probe: free when it belongs to another epoch, or has expired.
#[derive(Clone, Default)]
struct Slot {
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

/// Who made a change, and why.
#[derive(Clone)]
struct Author {
    operation: OperationId,
    by: Arc<str>,
    reason: Arc<str>,
}

#[cfg_attr(feature = "test-util", derive(Clone))]
struct Entry {
    epoch: Epoch,
    revision: Revision,
    from: FleetState,
    to: FleetState,
    wait: Duration,
    at: StoreTime,
    author: Author,
}

/// A change to be made: computed first, made when the namespace has given a revision for it.
pub(super) struct Change {
    to: FleetState,
    wait: Duration,
    plan: Option<ProbePolicy>,
    author: Author,
}

impl Circuit {
    pub(super) fn new(now: StoreTime) -> Self {
        Self {
            epoch: Epoch::default(),
            revision: Revision::default(),
            state: FleetState::Closed,
            changed_at: now,
            open_until: now,
            wait: Duration::ZERO,
            open_count: 0,
            plan: ProbePolicy::default(),
            tally: Tally::default(),
            slots: Vec::new(),
            votes: Vec::new(),
            counts: HashMap::new(),
            author: Author::new(OperationId::default(), "", ""),
            history: VecDeque::new(),
        }
    }

    /// Makes a change, under a revision that is this change's alone.
    pub(super) fn apply(&mut self, change: Change, revision: Revision, now: StoreTime) {
        let from = std::mem::replace(&mut self.state, change.to);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.revision = revision;
        self.changed_at = now;
        self.wait = change.wait;
        self.open_until = now.after(change.wait);
        self.open_count = match change.to {
            FleetState::Open => self.open_count.saturating_add(1),
            FleetState::HalfOpen => self.open_count,
            _ => 0,
        };
        if let Some(plan) = change.plan {
            self.plan = plan;
            self.slots
                .resize_with(usize::from(plan.limit), Slot::default);
        }
        self.tally = Tally::default();
        self.votes.clear();
        self.author = change.author;
        if self.history.len() == HISTORY {
            self.history.pop_back();
        }
        self.history.push_front(Entry {
            epoch: self.epoch,
            revision,
            from,
            to: change.to,
            wait: change.wait,
            at: now,
            author: self.author.clone(),
        });
    }

    pub(super) fn last_operation(&self) -> OperationId {
        self.author.operation
    }

    /// Whether an earlier try of this operation made the last change.
    pub(super) fn was_made_by(&self, operation: OperationId) -> bool {
        operation != OperationId::default() && self.author.operation == operation
    }

    pub(super) fn judge(
        &self,
        transition: &StoreTransition,
        now: StoreTime,
    ) -> Result<Change, RejectReason> {
        let (to, wait, plan) = match transition.change {
            StoreChange::Open { wait } => (FleetState::Open, wait, None),
            StoreChange::HalfOpen { plan } => (FleetState::HalfOpen, Duration::ZERO, Some(plan)),
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
        if !transition.by_hand {
            if self.state == to {
                return Err(RejectReason::AlreadyInState);
            }
            let due = self.state == FleetState::Open && now >= self.open_until;
            if to == FleetState::HalfOpen && !due {
                return Err(RejectReason::NotDue);
            }
        }
        let author = Author::new(transition.operation, &transition.by, &transition.reason);
        Ok(Change {
            to,
            wait,
            plan,
            author,
        })
    }

    /// Counts a vote; the change, if it makes the quorum.
    pub(super) fn vote(
        &mut self,
        vote: &StoreVote,
        now: StoreTime,
    ) -> Result<Option<Change>, RejectReason> {
        let change = self.judge(&vote.opening, now)?;
        self.votes
            .retain(|(voter, at)| *voter != vote.voter && at.after(vote.window) > now);
        self.votes.push((Arc::clone(&vote.voter), now));
        Ok((self.votes.len() >= usize::from(vote.quorum)).then_some(change))
    }

    pub(super) fn votes(&self) -> u32 {
        u32::try_from(self.votes.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn command(&mut self, command: &FleetCommand) -> Change {
        let to = match command.action {
            FleetAction::ForceOpen => FleetState::ForcedOpen,
            FleetAction::Disable => FleetState::Disabled,
            FleetAction::Close | FleetAction::Reset => FleetState::Closed,
        };
        if command.action == FleetAction::Reset {
            self.counts.clear();
        }
        let author = Author::new(command.operation, &command.by, &command.reason);
        Change {
            to,
            wait: Duration::ZERO,
            plan: None,
            author,
        }
    }

    pub(super) fn acquire(&mut self, request: &ProbeRequest, now: StoreTime) -> Option<ProbeLease> {
        if self.state != FleetState::HalfOpen || self.epoch != request.epoch {
            return None;
        }
        let limit = usize::from(self.plan.limit);
        let holder = &request.holder;
        let slots = &self.slots[..limit.min(self.slots.len())];
        let index = slots
            .iter()
            .position(|slot| slot.epoch == self.epoch && slot.holder.as_ref() == Some(holder))
            .or_else(|| slots.iter().position(|slot| slot.is_free(self.epoch, now)))?;
        let slot = &mut self.slots[index];
        *slot = Slot {
            epoch: request.epoch,
            // A verdict moves the token on by one, a change of hands by two, so that a verdict of
            // the former holder is never taken for a repetition.
            token: slot.token + 2,
            holder: Some(Arc::clone(holder)),
            expires_at: now.after(request.ttl),
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
            slot.expires_at = now.after(request.ttl);
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

    /// Counts a verdict: the report, or the change that it decides.
    pub(super) fn verdict(
        &mut self,
        verdict: &ProbeResult,
        name: &BulkheadName,
        now: StoreTime,
    ) -> Result<ProbeReportResult, Change> {
        if self.was_made_by(verdict.operation) {
            return Ok(ProbeReportResult::Decided(self.view(name, now)));
        }
        let probing = self.state == FleetState::HalfOpen && self.epoch == verdict.request.epoch;
        let slot = if probing {
            self.slot_of(&verdict.request, verdict.lease)
        } else {
            None
        };
        let Some(slot) = slot else {
            return Ok(ProbeReportResult::Lost {
                current: Some(self.view(name, now)),
            });
        };
        let lease = verdict.lease;
        let fresh = slot.token == lease.token && slot.expires_at > now;
        let repeated = slot.token == lease.token + 1;
        if !fresh && !repeated {
            return Ok(ProbeReportResult::Lost {
                current: Some(self.view(name, now)),
            });
        }
        slot.token = lease.token + 1;
        slot.expires_at = now.after(verdict.request.ttl);
        if fresh {
            self.tally.add(verdict.success, verdict.slow);
        }
        let author = || Author::new(verdict.operation, &verdict.by, &verdict.reason);
        let outlook =
            self.plan
                .decision
                .judge(self.tally.succeeded, self.tally.failed, self.tally.slow);
        match outlook {
            ProbeOutlook::Undecided => Ok(ProbeReportResult::Counted {
                lease: ProbeLease::new(lease.slot, lease.token + 1),
                current: self.view(name, now),
            }),
            ProbeOutlook::Close => Err(Change {
                to: FleetState::Closed,
                wait: Duration::ZERO,
                plan: None,
                author: author(),
            }),
            ProbeOutlook::Reopen => Err(Change {
                to: FleetState::Open,
                wait: verdict.wait,
                plan: None,
                author: author(),
            }),
        }
    }

    /// Adds to the window's newest bucket; nothing of an epoch that is over.
    pub(super) fn add_counts(
        &mut self,
        window: BucketedWindow,
        delta: &CountsDelta,
        now: StoreTime,
    ) -> Option<FleetCounts> {
        if delta.epoch < self.epoch {
            return None;
        }
        let width = i64::try_from(window.bucket.as_micros())
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
            wait: self.wait,
            age: between(self.changed_at, now),
            open_count: self.open_count,
            plan: self.plan,
            probes_succeeded: self.tally.succeeded,
            probes_failed: self.tally.failed,
            operation: self.author.operation,
            changed_by: Arc::clone(&self.author.by),
            reason: Arc::clone(&self.author.reason),
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
            wait: entry.wait,
            by: Arc::clone(&entry.author.by),
            reason: Arc::clone(&entry.author.reason),
            ..HistoryEntry::new(
                name.clone(),
                entry.epoch,
                entry.revision,
                (entry.from, entry.to),
                between(entry.at, now),
            )
        })
    }

    fn slot_of(&mut self, request: &ProbeRequest, lease: ProbeLease) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(lease.slot)).filter(|slot| {
            slot.epoch == request.epoch && slot.holder.as_ref() == Some(&request.holder)
        })
    }
}

impl Tally {
    fn add(&mut self, success: bool, slow: bool) {
        *(if success {
            &mut self.succeeded
        } else {
            &mut self.failed
        }) += 1;
        self.slow += u32::from(slow);
    }
}

impl Slot {
    fn is_free(&self, epoch: Epoch, now: StoreTime) -> bool {
        self.epoch < epoch || self.holder.is_none() || self.expires_at <= now
    }
}

impl Change {
    pub(super) fn operation(&self) -> OperationId {
        self.author.operation
    }
}

impl Author {
    fn new(operation: OperationId, by: &str, reason: &str) -> Self {
        Self {
            operation,
            by: cut(by),
            reason: cut(reason),
        }
    }
}

/// At most [`TEXT`] bytes, cut between characters.
fn cut(text: &str) -> Arc<str> {
    let end = (0..=TEXT.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    Arc::from(&text[..end])
}

fn between(earlier: StoreTime, later: StoreTime) -> Duration {
    Duration::from_micros(u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(0))
}

/// Changes that are remembered for each circuit.
const HISTORY: usize = 100;

/// Bytes that are kept of an author and of a reason.
const TEXT: usize = 200;
