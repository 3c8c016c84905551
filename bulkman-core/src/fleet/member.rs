//! One circuit of a fleet, as this process sees it: what it has seen of the store, what it has to
//! tell, and what to do next. Pure: no clock, no lock, no async; `now` is an argument.
//!
//! Two things move: the circuit (by its own rules and by hand) and the store (by everybody's). A
//! decision of the circuit is *pending* until it is published, superseded by what the store says,
//! replaced by a newer one of this process, or over. While none is pending the circuit takes over
//! what the store says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::Ending;
use super::handle::outage_gate;
use crate::circuit_breaker::{Adopted, CircuitState, Gate, Observation, TransitionCause, Verdict};
use crate::store::{CircuitView, Epoch, FleetState, OnOutage, OperationId, ProbeLease, ProbeReport, Refusal};

/// What a member goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) quorum: u16,
    pub(super) on_outage: OnOutage,
    /// Whether the store leases probes; if not, everybody probes as in an outage.
    pub(super) leases: bool,
    pub(super) lease_ttl: Duration,
    /// How long to wait after all leases were found taken.
    pub(super) ask_again: Duration,
}

#[derive(Debug)]
pub(super) struct Member {
    rules: Rules,
    connected: bool,
    known: Option<Known>,
    /// The store's state is to be taken over.
    to_adopt: bool,
    /// The circuit's generation that is accounted for, and its state in it.
    seen: u64,
    local: CircuitState,
    /// Put there by a hand of this process, which the fleet does not overrule.
    held: bool,
    /// This process's opening is its own: below the quorum.
    own: bool,
    pending: Option<Pending>,
    /// The gate that the circuit has.
    gate: Gate,
    lease: Option<Lease>,
    /// Verdicts to report, each as one operation.
    verdicts: VecDeque<(Verdict, OperationId)>,
    /// A lease is wanted, and is to be asked for at this time.
    ask_at: Option<Instant>,
    ask_after: Option<Instant>,
}

/// The store's view, with its durations as deadlines of the local clock.
#[derive(Clone, Copy, Debug)]
struct Known {
    epoch: Epoch,
    state: FleetState,
    /// While open. `None`: beyond the clock.
    open_until: Option<Instant>,
    open_count: u32,
}

/// A decision of this process that is to be the fleet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) target: FleetState,
    /// For an opening: its end. `None`: never.
    pub(super) until: Option<Instant>,
    pub(super) made_at: Instant,
    pub(super) by_hand: bool,
    pub(super) cause: TransitionCause,
    pub(super) operation: OperationId,
    /// Whether the circuit is there already, or waits for the store to agree.
    pub(super) done_here: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    lease: ProbeLease,
    epoch: Epoch,
    renew_at: Option<Instant>,
    /// Not renewed beyond this: a holder without calls must not bar those that have some.
    keep_until: Option<Instant>,
    /// As the store sees it, or earlier: counted from when it was asked for.
    expires: Option<Instant>,
}

/// What to ask of the store next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Publish { base: Epoch, pending: Pending, vote: bool },
    StartProbing { base: Epoch },
    Acquire { epoch: Epoch },
    Renew { epoch: Epoch, lease: ProbeLease },
    Report { epoch: Epoch, lease: ProbeLease, verdict: Verdict, operation: OperationId },
}

/// What to tell the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Take over a state, unless something has happened since this generation.
    Adopt {
        expected: u64,
        state: Adopted,
    },
    Gate(Gate),
}

/// Inputs: the circuit.
impl Member {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            connected: false,
            known: None,
            to_adopt: false,
            seen: 0,
            local: CircuitState::Closed,
            held: false,
            own: false,
            pending: None,
            gate: outage_gate(rules.on_outage),
            lease: None,
            verdicts: VecDeque::new(),
            ask_at: None,
            ask_after: None,
        }
    }

    /// Takes in what the circuit says. `ask_at` is when to ask for a lease that is wanted now. Says
    /// how a pending decision ended that this one takes the place of.
    pub(super) fn observe(
        &mut self,
        observed: &Observation,
        ask_at: Instant,
        mut operation: impl FnMut() -> OperationId,
    ) -> Option<Ending> {
        let mut ending = None;
        if observed.generation != self.seen {
            let first = self.seen == 0;
            let before = self.pending;
            self.begin(observed);
            // How the circuit began is no decision: the fleet knows better.
            let mut ended = None;
            if !(first && observed.cause == TransitionCause::Manual) {
                ended = self.decide(observed, &mut operation);
            }
            let replaced = before.filter(|_| self.pending != before).map(|_| Ending::Replaced);
            ending = replaced.or(ended);
        }
        if observed.wanted && self.lease.is_none() {
            let ask_at = self.ask_after.map_or(ask_at, |after| after.max(ask_at));
            self.ask_at.get_or_insert(ask_at);
        }
        for verdict in &observed.verdicts {
            self.gate = Gate::Fleet { leased: false };
            if verdict.generation == self.seen && self.lease.is_some() {
                self.verdicts.push_back((*verdict, operation()));
            }
        }
        ending
    }

    /// The circuit took over what it was ordered to, and is in this generation.
    pub(super) fn adopted(&mut self, state: Adopted, generation: u64) {
        self.seen = generation;
        self.to_adopt = false;
        self.held = false;
        self.own = false;
        self.local = match state {
            Adopted::Closed => CircuitState::Closed,
            Adopted::Open { .. } => CircuitState::Open,
            Adopted::HalfOpen { .. } => CircuitState::HalfOpen,
            Adopted::ForcedOpen => CircuitState::ForcedOpen,
            Adopted::Disabled => CircuitState::Disabled,
        };
        self.state_began();
    }

    /// The circuit has the gate that it was ordered to.
    pub(super) fn gated(&mut self, gate: Gate) {
        self.gate = gate;
    }

    fn begin(&mut self, observed: &Observation) {
        self.seen = observed.generation;
        self.local = observed.state;
        let special = matches!(
            observed.state,
            CircuitState::ForcedOpen | CircuitState::Disabled | CircuitState::MetricsOnly
        );
        self.held = special && observed.cause != TransitionCause::Fleet;
        self.state_began();
    }

    /// As in the circuit: a new state begins without a lease.
    fn state_began(&mut self) {
        if self.local != CircuitState::HalfOpen {
            self.lease = None;
            self.ask_at = None;
        }
        self.verdicts.clear();
        if let Gate::Fleet { .. } = self.gate {
            self.gate = Gate::Fleet { leased: false };
        }
    }

    /// The circuit went somewhere by itself, or by somebody's hand. Says how that ended if it did at
    /// once.
    fn decide(
        &mut self,
        observed: &Observation,
        operation: &mut impl FnMut() -> OperationId,
    ) -> Option<Ending> {
        let by_hand = matches!(observed.cause, TransitionCause::Manual | TransitionCause::HealthCheck);
        let fleet = self.known.map_or(FleetState::Closed, |known| known.state);
        let target = match observed.state {
            CircuitState::Open => FleetState::Open,
            CircuitState::Closed if fleet != FleetState::Closed => FleetState::Closed,
            CircuitState::HalfOpen if by_hand && !self.own && fleet != FleetState::HalfOpen => {
                FleetState::HalfOpen
            }
            // An isolation that is over decides nothing, and takes nothing back.
            CircuitState::HalfOpen => return None,
            // Closed like the fleet, or held by hand: this process's own affair.
            _ => {
                self.own = false;
                self.pending = None;
                return None;
            }
        };
        if target == FleetState::Open
            && !by_hand
            && self.known.is_some_and(|it| it.is_open_at(observed.since))
        {
            // Another process was first, and this one tripped before it took that over: together
            // they make one opening, not a second and longer one.
            self.own = false;
            self.pending = None;
            self.to_adopt = true;
            return Some(Ending::Superseded);
        }
        // Where the fleet is not closed, it has decided already, or an operator has.
        self.own =
            target == FleetState::Open && fleet == FleetState::Closed && !by_hand && self.rules.quorum > 1;
        self.pending = Some(Pending {
            target,
            until: observed.open_until,
            made_at: observed.since,
            by_hand,
            cause: observed.cause,
            operation: operation(),
            done_here: true,
        });
        None
    }
}

/// Inputs: the store.
impl Member {
    /// The link is there, or gone.
    pub(super) fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        if !connected {
            self.lease = None;
            self.verdicts.clear();
            self.ask_at = None;
            self.ask_after = None;
        }
    }

    /// Takes in a view. Says how a pending decision ended by it.
    pub(super) fn merge(&mut self, view: &CircuitView, received: Instant) -> Option<Ending> {
        if self.known.is_some_and(|known| view.epoch <= known.epoch) {
            return None;
        }
        self.learn(view, received);
        let ending = self.judge_pending(view, received);
        let ended = if ending.is_some() { self.pending.take() } else { None };
        if self.pending.is_none() {
            // Our own change, heard of in another way than by its answer.
            let done_here = ended.is_some_and(|ended| ended.done_here);
            self.to_adopt = !(ending == Some(Ending::Published) && done_here);
            self.own &= self.to_adopt;
        }
        ending
    }

    /// The fleet's counts say that the circuit should open.
    pub(super) fn open_by_counts(&mut self, wait: Duration, now: Instant, operation: OperationId) {
        let closed = self.known.is_some_and(|known| known.state == FleetState::Closed);
        if closed && self.pending.is_none() && self.local == CircuitState::Closed {
            self.pending = Some(Pending {
                target: FleetState::Open,
                until: now.checked_add(wait),
                made_at: now,
                by_hand: false,
                cause: TransitionCause::FailureCount,
                operation,
                done_here: false,
            });
        }
    }

    /// The store has lost history. What it says from now on is the truth, but an opening that has
    /// time left is told again.
    pub(super) fn forget(&mut self, now: Instant, operation: OperationId) {
        let running = self
            .known
            .take()
            .filter(|known| known.state == FleetState::Open && self.local == CircuitState::Open)
            .and_then(|known| known.open_until)
            .filter(|until| *until > now);
        self.lease = None;
        self.verdicts.clear();
        if let (None, Some(until)) = (self.pending, running) {
            self.pending = Some(Pending {
                target: FleetState::Open,
                until: Some(until),
                made_at: now,
                by_hand: false,
                cause: TransitionCause::Fleet,
                operation,
                done_here: true,
            });
        }
    }

    /// A change of this process's is made: a pending decision, or the start of probing.
    pub(super) fn made(
        &mut self,
        operation: OperationId,
        view: &CircuitView,
        received: Instant,
    ) -> Option<Ending> {
        self.learn(view, received);
        let published = self.pending.filter(|pending| pending.operation == operation);
        if let Some(pending) = published {
            self.pending = None;
            self.own = false;
            self.to_adopt = !pending.done_here;
        }
        published.map(|_| Ending::Published)
    }

    /// A change of this process's is not made.
    pub(super) fn refused(
        &mut self,
        operation: OperationId,
        why: Refusal,
        view: &CircuitView,
        received: Instant,
    ) -> Option<Ending> {
        if self.known.is_none_or(|known| view.epoch > known.epoch) {
            return self.merge(view, received);
        }
        match why {
            // The time is read anew, and it is tried again.
            Refusal::TooLate => None,
            // The store's clock knows better when the opening is over.
            Refusal::NotDue => {
                self.learn(view, received);
                self.ask_at = self.known.and_then(|known| known.open_until);
                None
            }
            _ => {
                self.learn(view, received);
                self.to_adopt = true;
                self.pending.take_if(|pending| pending.operation == operation).map(|_| Ending::Superseded)
            }
        }
    }

    /// A vote counts, and does not open yet: the opening stays this process's own.
    pub(super) fn counted(&mut self, operation: OperationId) -> Option<Ending> {
        self.pending.take_if(|pending| pending.operation == operation).map(|_| Ending::Voted)
    }

    /// A lease that was asked for at `asked`, or none.
    pub(super) fn acquired(&mut self, epoch: Epoch, lease: Option<ProbeLease>, asked: Instant) {
        self.ask_at = None;
        let current = self.local == CircuitState::HalfOpen
            && self.known.is_some_and(|known| known.epoch == epoch && known.state == FleetState::HalfOpen);
        match lease {
            Some(lease) if current => {
                let keep_until = asked.checked_add(self.rules.lease_ttl * UNUSED_TERMS);
                self.lease = Some(self.term(lease, epoch, keep_until, asked));
            }
            Some(_) => {}
            None => self.ask_after = asked.checked_add(self.rules.ask_again),
        }
    }

    /// Whoever made the circuit half-open asks for a lease at once.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.local == CircuitState::HalfOpen {
            self.ask_at = Some(now);
        }
    }

    /// A renewal that was asked for at `asked`.
    pub(super) fn renewed(&mut self, lease: Option<ProbeLease>, asked: Instant) {
        let Some(held) = self.lease else { return };
        self.lease = lease.map(|lease| self.term(lease, held.epoch, held.keep_until, asked));
    }

    /// What became of the first verdict.
    pub(super) fn reported(
        &mut self,
        report: &ProbeReport,
        asked: Instant,
        received: Instant,
    ) -> Option<Ending> {
        self.verdicts.pop_front();
        match report {
            ProbeReport::Counted { lease, current } => {
                if self.lease.is_some() {
                    let keep_until = asked.checked_add(self.rules.lease_ttl * UNUSED_TERMS);
                    self.lease = Some(self.term(*lease, current.epoch, keep_until, asked));
                }
                None
            }
            ProbeReport::Decided(view) | ProbeReport::Lost { current: Some(view) } => {
                self.lease = None;
                self.verdicts.clear();
                self.merge(view, received)
            }
            ProbeReport::Lost { current: None } => {
                self.lease = None;
                self.verdicts.clear();
                None
            }
        }
    }

    fn learn(&mut self, view: &CircuitView, received: Instant) {
        if self.lease.is_some_and(|lease| lease.epoch != view.epoch) {
            self.lease = None;
            self.verdicts.clear();
        }
        self.known = Some(Known {
            epoch: view.epoch,
            state: view.state,
            open_until: received.checked_add(view.remaining.min(view.wait)),
            open_count: view.open_count,
        });
    }

    /// How a pending decision ends, now that the store has moved on from what it was made on.
    fn judge_pending(&self, view: &CircuitView, now: Instant) -> Option<Ending> {
        let pending = self.pending.as_ref()?;
        let age = now.saturating_duration_since(pending.made_at);
        // A circuit that never changed is as old as its registration, which decided nothing.
        let younger = view.epoch > Epoch(0) && view.age < age;
        if pending.operation == view.operation {
            Some(Ending::Published)
        } else if view.state.is_forced() || younger || (view.state == pending.target && view.epoch > Epoch(0))
        {
            Some(Ending::Superseded)
        } else if pending.is_over(now) {
            Some(Ending::Expired)
        } else {
            // Ours is the younger: it is published on the new epoch.
            None
        }
    }

    fn term(&self, lease: ProbeLease, epoch: Epoch, keep_until: Option<Instant>, asked: Instant) -> Lease {
        let ttl = self.rules.lease_ttl;
        let renew_at = asked.checked_add(ttl / 3).filter(|at| keep_until.is_none_or(|until| *at < until));
        Lease { lease, epoch, renew_at, keep_until, expires: asked.checked_add(ttl) }
    }
}

/// Outputs.
impl Member {
    /// Lets go of what is over at `now`; how a pending decision ended by that.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Ending> {
        if self.lease.is_some_and(|lease| is_past(lease.expires, now)) {
            self.lease = None;
            self.verdicts.clear();
        }
        if !self.connected {
            // Until somebody hears of it, it is what this process goes by.
            return None;
        }
        let over = self.pending.take_if(|pending| pending.is_over(now))?;
        self.to_adopt = self.known.is_some() && !self.own;
        Some(if over.done_here { Ending::Expired } else { Ending::Superseded })
    }

    /// What the circuit is to be told; asked for again until there is nothing.
    pub(super) fn order(&mut self, now: Instant) -> Option<Order> {
        if self.to_adopt && self.connected && !self.held && self.pending.is_none() {
            match self.known.and_then(|known| known.adoptable(self.local, now)) {
                Some(state) => return Some(Order::Adopt { expected: self.seen, state }),
                None => {
                    self.to_adopt = false;
                    self.own = false;
                }
            }
        }
        let gate = self.wanted_gate();
        (gate != self.gate).then_some(Order::Gate(gate))
    }

    /// What to ask of the store.
    pub(super) fn step(&self, now: Instant) -> Option<Step> {
        let known = self.known.filter(|_| self.connected)?;
        if let (Some(lease), Some((verdict, operation))) = (self.lease, self.verdicts.front()) {
            return Some(Step::Report {
                epoch: lease.epoch,
                lease: lease.lease,
                verdict: *verdict,
                operation: *operation,
            });
        }
        if let Some(mut pending) = self.pending {
            // The same state over again, on the very epoch that it was decided on.
            pending.by_hand |= known.state == pending.target;
            let vote = self.own && !pending.by_hand;
            return Some(Step::Publish { base: known.epoch, pending, vote });
        }
        if let Some(lease) = self.lease.filter(|lease| is_past(lease.renew_at, now)) {
            return Some(Step::Renew { epoch: lease.epoch, lease: lease.lease });
        }
        if self.local == CircuitState::HalfOpen && self.lease.is_none() && is_past(self.ask_at, now) {
            return match known.state {
                FleetState::Open if is_past(known.open_until, now) => {
                    Some(Step::StartProbing { base: known.epoch })
                }
                FleetState::HalfOpen => Some(Step::Acquire { epoch: known.epoch }),
                _ => None,
            };
        }
        None
    }

    /// When there may be something to do that there is not now.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease;
        [
            self.ask_at,
            self.ask_at.and(self.known).and_then(|known| known.open_until),
            self.pending.and_then(|pending| pending.until),
            lease.and_then(|lease| lease.renew_at),
            lease.and_then(|lease| lease.expires),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.known.map_or(Epoch(0), |known| known.epoch)
    }

    pub(super) fn fleet_state(&self) -> Option<FleetState> {
        self.known.map(|known| known.state)
    }

    /// The decision that is pending.
    pub(super) fn decision(&self) -> Option<OperationId> {
        self.pending.map(|pending| pending.operation)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some() || !self.verdicts.is_empty()
    }

    pub(super) fn lease(&self) -> Option<(Epoch, ProbeLease)> {
        self.lease.map(|lease| (lease.epoch, lease.lease))
    }

    fn wanted_gate(&self) -> Gate {
        if self.own {
            return Gate::Own;
        }
        if !(self.connected && self.rules.leases) {
            return outage_gate(self.rules.on_outage);
        }
        Gate::Fleet { leased: self.lease.is_some() && self.verdicts.is_empty() }
    }
}

impl Pending {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.target == FleetState::Open && is_past(self.until, now)
    }
}

impl Known {
    /// Whether it is open, and that is not over.
    fn is_open_at(&self, now: Instant) -> bool {
        self.state == FleetState::Open && !is_past(self.open_until, now)
    }

    /// The state for a circuit to take over, unless it is there.
    fn adoptable(&self, local: CircuitState, now: Instant) -> Option<Adopted> {
        let open_count = self.open_count;
        match (self.state, local) {
            // Nothing was ever decided.
            (FleetState::Closed, CircuitState::Closed) if self.epoch == Epoch(0) => None,
            (FleetState::Closed, _) => Some(Adopted::Closed),
            (FleetState::HalfOpen, CircuitState::HalfOpen) => None,
            (FleetState::HalfOpen, _) => Some(Adopted::HalfOpen { open_count }),
            (FleetState::Open, local) => {
                let until = self.open_until;
                let remaining = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
                // That opening is over here as well.
                let over = remaining.is_zero() && local == CircuitState::HalfOpen;
                (!over).then_some(Adopted::Open { remaining, open_count })
            }
            (FleetState::ForcedOpen, _) => Some(Adopted::ForcedOpen),
            (FleetState::Disabled, _) => Some(Adopted::Disabled),
        }
    }
}

fn is_past(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}

/// So many terms a lease is kept for a next call.
const UNUSED_TERMS: u32 = 10;
