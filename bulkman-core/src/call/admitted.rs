//! The admission of one call.

use crate::adaptive::Mark;
use crate::circuit_breaker::Ticket;

/// An admitted call: it has a permit and was admitted by the circuit.
///
/// This is plain data, so that a call that completes at its first poll keeps it in registers. It
/// must be passed to [`Inner::finish`](crate::bulkhead::Inner::finish) exactly once, or to a
/// [`CallGuard`](super::guard::CallGuard), which does so. One with a [`Mark`] must be passed to
/// [`Inner::finish_marked`](crate::bulkhead::Inner::finish_marked) instead, one with a claim to
/// [`Inner::finish_claim`](crate::bulkhead::Inner::finish_claim).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// `None`: there is no circuit, or the outcome was already recorded by it.
    pub(crate) ticket: Option<Ticket>,
}

impl Admitted {
    /// Returns `true` if a rule of the circuit needs the duration of the operation.
    #[inline]
    pub(crate) fn needs_duration(self) -> bool {
        self.ticket.is_some_and(Ticket::needs_duration)
    }

    /// Returns `true` if the end of the call needs its guard: for a duration, to be unlisted, or
    /// because it has a [`Mark`].
    #[inline]
    pub(crate) fn needs_guard(self) -> bool {
        self.ticket.is_some_and(Ticket::needs_guard)
    }

    /// Returns what the call carries for a limit that adapts or is observed.
    #[inline]
    pub(crate) fn mark(self) -> Option<Mark> {
        self.ticket
            .and_then(|ticket| Mark::from_bits(ticket.mark()))
    }

    /// Returns `true` if the latency of the call is a sample for the limit.
    pub(crate) fn is_sample(self) -> bool {
        self.mark().is_some_and(Mark::is_sampled)
    }

    /// Marks a call that holds a claim instead of one permit. Its guard has the claim.
    #[inline]
    pub(crate) fn with_claim(self) -> Self {
        let ticket = self.ticket.unwrap_or(Ticket::WITHOUT_CIRCUIT);
        Self {
            ticket: Some(ticket.with_claim()),
        }
    }

    /// Returns `true` if the call holds a claim instead of one permit.
    #[inline]
    pub(crate) fn has_claim(self) -> bool {
        self.ticket.is_some_and(Ticket::has_claim)
    }

    /// Returns `true` if the call holds a claim, and its end needs nothing else of its guard.
    #[inline]
    pub(crate) fn is_plain_claim(self) -> bool {
        self.ticket.is_some_and(Ticket::is_plain_claim)
    }

    /// Returns `true` if the call is a probe or holds a claim.
    #[inline]
    pub(crate) fn is_probe_or_claim(self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe_or_claim)
    }

    /// Replaces the mark.
    pub(crate) fn with_mark(self, mark: Mark) -> Self {
        let ticket = self.ticket.unwrap_or(Ticket::WITHOUT_CIRCUIT);
        Self {
            ticket: Some(ticket.with_mark(mark.to_bits())),
        }
    }

    /// Returns the admission of a call whose outcome was recorded: its permit is left.
    pub(crate) fn recorded(self) -> Self {
        let none = Self { ticket: None };
        let none = if self.has_claim() {
            none.with_claim()
        } else {
            none
        };
        match self.mark() {
            Some(mark) => none.with_mark(mark.uncounted()),
            None => none,
        }
    }

    /// Returns `true` if the call is in the list of running calls.
    #[inline]
    pub(crate) fn is_listed(self) -> bool {
        self.ticket.is_some_and(Ticket::is_listed)
    }

    /// Returns `true` if the call is to be counted while it is in flight.
    #[inline]
    pub(crate) fn counts_in_flight(self) -> bool {
        self.ticket.is_some_and(Ticket::counts_in_flight)
    }

    /// Returns `true` if the call is a probe of a half-open circuit.
    #[inline]
    pub(crate) fn is_probe(self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }
}
