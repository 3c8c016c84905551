//! The calls that are counted while they are in flight.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::{Shared, nanos};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::in_flight::Stamp;
use crate::circuit_breaker::machine::Machine;
use crate::circuit_breaker::packed_state::Ticket;

impl Shared {
    /// Returns `true` if calls are counted while they are in flight.
    #[inline]
    pub(crate) fn counts_in_flight(&self) -> bool {
        self.load_state().counts_in_flight()
    }

    /// Counts an admitted call, which starts to run at `now`, until its outcome is recorded.
    ///
    /// Returns the ticket's new id. It is the old one if the state counts no calls in flight.
    #[inline(never)]
    #[must_use]
    pub(in crate::circuit_breaker) fn begin_in_flight(
        &self,
        ticket: Ticket,
        now: Instant,
    ) -> Option<NonZeroU64> {
        let Ticket { state, mut id } = ticket;
        if state.counts_in_flight() {
            if let Some(in_flight) = self.in_flight.get() {
                let stamp = in_flight.begin(state.generation(), self.nanos_since_base(now));
                id = stamp.map(Stamp::bits);
            }
        }
        id
    }

    /// Counts a call in flight no longer. Returns the id of its ticket: its outcome is still to be
    /// recorded.
    #[cfg(feature = "http")]
    #[must_use]
    pub(in crate::circuit_breaker) fn end_in_flight(&self, ticket: Ticket) -> Option<NonZeroU64> {
        if !ticket.state.counts_in_flight() {
            return ticket.id;
        }
        if let (Some(id), Some(in_flight)) = (ticket.id, self.in_flight.get()) {
            in_flight.end(Stamp::from_bits(id));
        }
        None
    }

    /// Evaluates the rules that count calls in flight.
    ///
    /// Returns `false` if they were evaluated since the current eighth of the threshold began.
    #[inline]
    pub(crate) fn evaluate_in_flight(&self, now: Instant) -> bool {
        let due = self
            .in_flight
            .get()
            .is_some_and(|in_flight| in_flight.is_due(self.nanos_since_base(now)));
        if due {
            self.with_machine(|machine| self.observe_hanging(machine, now));
        }
        due
    }

    /// Returns the number of calls that hang; `None` if they are not counted.
    #[cfg(feature = "metrics")]
    pub(crate) fn hanging_calls(&self) -> Option<u32> {
        let in_flight = self.in_flight.get()?;
        let state = self.load_state();
        if !state.counts_in_flight() {
            return Some(0);
        }
        let now = self.nanos_since_base(self.runtime.now());
        Some(in_flight.hanging(state.generation(), now))
    }

    /// Passes the number of calls that hang to the machine.
    pub(super) fn observe_hanging(&self, machine: &mut Machine, now: Instant) {
        if machine.packed_state().counts_in_flight() {
            if let Some(in_flight) = self.in_flight.get() {
                let hanging = in_flight.hanging(machine.generation(), self.nanos_since_base(now));
                machine.observe_hanging(hanging, now);
            }
        }
    }

    /// Applies the rules of the machine to the counts of calls in flight. Called under the mutex.
    pub(super) fn update_in_flight(&self, machine: &mut Machine) {
        let config = machine.config();
        let threshold = config.slow_call_duration_threshold.map(nanos);
        let threshold = threshold.filter(|_| config.counts_in_flight());
        let in_flight = match threshold {
            Some(_) => Some(self.in_flight.get_or_init(Box::default)),
            None => self.in_flight.get(),
        };
        if let Some(in_flight) = in_flight {
            in_flight.set_threshold(threshold, machine.generation());
        }
    }

    /// Records the end of a call that was counted in flight.
    #[inline(never)]
    pub(super) fn record_counted(
        &self,
        ticket: Ticket,
        stamp: Stamp,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) {
        let Some(in_flight) = self.in_flight.get() else {
            return;
        };
        // Subtracted before it is recorded, so that no evaluation counts it twice.
        in_flight.end(stamp);
        let recorded = match outcome {
            Outcome::Success => {
                self.load_state().records_success() || ran.is_some_and(|ran| self.is_slow(ran))
            }
            Outcome::Failure => true,
            Outcome::Ignored | Outcome::Overloaded => false,
        };
        if recorded {
            let state = ticket.state;
            self.record_slow(Ticket { state, id: None }, outcome, ran, now);
        }
        // A cancelled call has no duration, and is no event.
        if ran.is_some_and(|ran| in_flight.may_be_due(stamp, nanos(ran))) {
            self.evaluate_in_flight(self.time(now));
        }
    }
}
