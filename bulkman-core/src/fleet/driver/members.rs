//! This process's circuits: what they say is taken in, and what follows is told.

use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{Driver, Slot};
use crate::circuit_breaker::Adopted;
use crate::fleet::event::{DecisionOutcome, FleetEvent};
use crate::fleet::hub::{Attached, MemberId};
use crate::fleet::member::{Member, Order, Rules, Step};
use crate::name::BulkheadName;
use crate::store::{CountsDelta, Epoch, FleetState, SharingMode};

impl Driver {
    /// Takes in what was attached and what has changed.
    pub(super) fn take_inbox(&mut self) {
        let inbox = self.hub.take();
        let mut changed = inbox.changed;
        for attached in inbox.attached {
            changed.push(attached.id);
            self.admit(attached);
        }
        for id in changed {
            self.observe(id);
        }
    }

    pub(super) fn admit(&mut self, attached: Attached) {
        let quorum = match self.settings.share {
            SharingMode::State { quorum, .. } => quorum,
            SharingMode::Counts(_) => 1,
        };
        let mut member = Member::new(Rules {
            quorum,
            on_outage: self.settings.on_outage,
            leases: self.store.capabilities().probes,
            lease_ttl: self.settings.lease_ttl,
            ask_again: self.settings.poll_interval,
        });
        member.set_connected(self.linked);
        let Attached {
            id,
            name,
            circuit,
            tallies,
        } = attached;
        let counted = (0, 0, Epoch(0));
        self.members.insert(
            id,
            Slot {
                name,
                circuit,
                member,
                tallies,
                told_pending: None,
                counted,
            },
        );
        self.unregistered = true;
    }

    /// Looks at a circuit; forgets it when it is gone.
    pub(super) fn observe(&mut self, id: MemberId) {
        let ask_at = self.now() + self.pace.up_to(self.settings.probe_jitter);
        self.observe_and_ask(id, ask_at);
    }

    /// Looks whether a lease is wanted that nobody has spoken of; what is found is asked for at once.
    fn look_for_want(&mut self, id: MemberId, now: Instant) {
        self.observe_and_ask(id, now);
        let pause = self.settings.probe_jitter.max(SHORTEST_PAUSE);
        if let Some(slot) = self.members.get_mut(&id) {
            if !slot.member.looked(now, pause) {
                slot.circuit.heed_again();
            }
        }
    }

    fn observe_and_ask(&mut self, id: MemberId, ask_at: Instant) {
        let Some(slot) = self.members.get_mut(&id) else {
            return;
        };
        let Some(observed) = slot.circuit.observe() else {
            self.members.remove(&id);
            self.hub
                .tell(|status| status.attached = status.attached.saturating_sub(1));
            return;
        };
        let pace = &mut self.pace;
        let ending = slot.member.observe(&observed, ask_at, || pace.operation());
        self.settled(id, ending);
        if !self.linked {
            self.tell_pending(id);
        }
    }

    /// Tells that a decision waits for the store, once.
    pub(super) fn tell_pending(&mut self, id: MemberId) {
        let Some(slot) = self.members.get_mut(&id) else {
            return;
        };
        let waiting = slot.member.decision();
        if waiting.is_some() && slot.told_pending != waiting {
            slot.told_pending = waiting;
            self.hub.emit(FleetEvent::Pending {
                circuit: slot.name.clone(),
            });
        }
    }

    /// Tells the circuits what follows from what is known.
    pub(super) fn give_orders(&mut self) {
        // All at one moment, and few have something to be told: this is done at every turn.
        let now = self.now();
        let due = self
            .members
            .iter()
            .filter(|(_, slot)| slot.member.is_look_due(now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.look_for_want(id, now);
        }
        let ids: Vec<_> = self
            .members
            .iter_mut()
            .filter_map(|(id, slot)| {
                let ending = slot.member.expire(now);
                (ending.is_some() || slot.member.order(now).is_some()).then_some((*id, ending))
            })
            .collect();
        for (id, ending) in ids {
            self.settled(id, ending);
            // An order fails when something has happened in the circuit, and then it is looked at
            // and asked again; one that keeps changing so fast is left for the next time.
            for _ in 0..ORDERS_AT_ONCE {
                let Some(order) = self
                    .members
                    .get_mut(&id)
                    .and_then(|slot| slot.member.order(now))
                else {
                    break;
                };
                if !self.carry_out(id, order) {
                    self.observe(id);
                }
            }
        }
    }

    pub(super) fn carry_out(&mut self, id: MemberId, order: Order) -> bool {
        let jitter = self.pace.up_to(self.settings.probe_jitter);
        let now = self.now();
        let Some(slot) = self.members.get_mut(&id) else {
            return true;
        };
        match order {
            Order::Gate(gate) => {
                slot.member.gated(gate);
                slot.circuit.set_gate(gate).is_some()
            }
            Order::Adopt { expected, state } => match slot.circuit.adopt(expected, state) {
                Some(Ok(generation)) => {
                    let look_at = match state {
                        Adopted::Open { remaining, .. } => remaining.checked_add(jitter),
                        Adopted::HalfOpen { .. } => Some(jitter),
                        _ => None,
                    };
                    let look_at = look_at.and_then(|after| now.checked_add(after));
                    slot.member.adopted(state, generation, look_at);
                    true
                }
                Some(Err(())) | None => false,
            },
        }
    }

    pub(super) fn settled(&self, id: MemberId, ending: Option<DecisionOutcome>) {
        if let (Some(ending), Some(slot)) = (ending, self.members.get(&id)) {
            self.hub.emit(FleetEvent::DecisionResolved {
                circuit: slot.name.clone(),
                ending,
            });
        }
    }

    /// What to ask of the store next: the circuits take turns. When there is nothing to ask, whose
    /// turn is the first is drawn, so that processes in which the same circuits fail at once begin
    /// with different ones, and seldom meet.
    pub(super) fn next_step(&mut self, now: Instant) -> Option<(MemberId, Step)> {
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let mut in_turn = self
            .members
            .range(after)
            .chain(self.members.range(..=self.turn));
        let next = in_turn.find_map(|(id, slot)| Some((*id, slot.member.step(now)?)));
        self.turn = match next {
            Some((id, _)) => id,
            None => self
                .members
                .keys()
                .next_back()
                .map_or(0, |last| self.pace.number_up_to(*last)),
        };
        next
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.members
            .values()
            .filter_map(|slot| slot.member.deadline(now))
            .min()
    }

    pub(super) fn names(&self) -> Vec<BulkheadName> {
        let mut names: Vec<_> = self
            .members
            .values()
            .map(|slot| slot.name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn by_name(&self, name: &BulkheadName) -> Vec<MemberId> {
        self.members
            .iter()
            .filter(|(_, slot)| slot.name == *name)
            .map(|(id, _)| *id)
            .collect()
    }
}

impl Slot {
    /// What has been counted since the last time, unless nothing has, or an epoch began.
    pub(super) fn count(&mut self) -> Option<CountsDelta> {
        let (successes, failures) = self.tallies.as_ref()?()?;
        let epoch = self.member.epoch();
        let (successes_before, failures_before, epoch_before) = self.counted;
        self.counted = (successes, failures, epoch);
        let closed = self.member.fleet_state() == Some(FleetState::Closed);
        if epoch != epoch_before
            || !closed
            || (successes, failures) == (successes_before, failures_before)
        {
            return None;
        }
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let name = self.name.clone();
        Some(CountsDelta::new(
            name,
            epoch,
            since(successes, successes_before),
            since(failures, failures_before),
        ))
    }
}

/// Between two looks for the same want.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Orders that one circuit is given in a row.
const ORDERS_AT_ONCE: usize = 8;
