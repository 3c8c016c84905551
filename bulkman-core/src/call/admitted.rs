//! The admission of one call.

use crate::circuit_breaker::Ticket;

/// An admitted call: it has a permit and was admitted by the circuit.
///
/// This is plain data, so that a call that completes at its first poll keeps it in registers. It
/// must be passed to [`Inner::finish`](crate::bulkhead::Inner::finish) exactly once, or to a
/// [`CallGuard`](super::guard::CallGuard), which does so.
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

    /// Returns `true` if the end of the call needs its guard: for a duration, or to be unlisted.
    #[inline]
    pub(crate) fn needs_guard(self) -> bool {
        self.ticket.is_some_and(Ticket::needs_guard)
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
