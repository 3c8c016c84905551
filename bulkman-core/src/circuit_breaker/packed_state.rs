//! The state of a circuit packed into one atomic word, and the ticket of an admitted call.

use std::num::NonZeroU64;

use super::circuit_state::CircuitState;
use super::probes::ProbeId;

/// All that a call needs while the circuit is closed.
///
/// ```text
///  63 ....... 26     25      24 .. 10     9       8        7 ..... 3     2 .. 0
/// | generation    | claim  | mark      | probe | listed | flags       | state |
/// ```
///
/// The flags include a bit that is always set. Only the ticket of a call has a mark, or is that of
/// a probe, is listed or has a claim. Two calls with equal words were admitted in the same
/// generation and under the same rules.
///
/// Generations repeat after 2^38 of them: three days at one in each microsecond. A call that runs
/// as long as that has its outcome counted in the wrong generation, once. Nothing else depends on
/// words that old: permits and waiters have words of their own, and a probe has an id.
// Never zero, so that an `Option` of it is no larger: each call in flight carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedState(NonZeroU64);

impl PackedState {
    pub(crate) fn new(state: CircuitState, generation: u64, flags: Flags) -> Self {
        let mut bits = code(state) | generation << GENERATION;
        for (set, bit) in [
            (flags.records_success, RECORDS_SUCCESS),
            (flags.needs_duration, NEEDS_DURATION),
            (flags.needs_clock, NEEDS_CLOCK),
            (flags.counts_in_flight, COUNTS_IN_FLIGHT),
        ] {
            if set {
                bits |= bit;
            }
        }
        Self::from_bits(bits)
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits | ALWAYS) {
            Some(bits) => Self(bits),
            None => unreachable!(),
        }
    }

    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0.get()
    }

    /// Returns `true` if every call is admitted: a test of one bit.
    #[inline]
    pub(crate) const fn admits_all(self) -> bool {
        self.bits() & REJECTS == 0
    }

    /// Returns `true` if every call is admitted and needs nothing else: a test of one mask.
    #[inline]
    pub(crate) const fn admits_all_fast(self) -> bool {
        self.bits() & (REJECTS | COUNTS_IN_FLIGHT) == 0
    }

    /// Returns `true` if every call is rejected, unless the isolation has elapsed.
    #[inline]
    pub(crate) const fn rejects_all(self) -> bool {
        self.bits() & STATE & !1 == REJECTS
    }

    #[inline]
    pub(crate) const fn state(self) -> CircuitState {
        match self.bits() & STATE {
            0 => CircuitState::Closed,
            1 => CircuitState::Disabled,
            2 => CircuitState::MetricsOnly,
            4 => CircuitState::Open,
            5 => CircuitState::ForcedOpen,
            _ => CircuitState::HalfOpen,
        }
    }

    /// Returns `true` if recording a success has an effect, even if the call was not slow.
    #[inline]
    pub(crate) const fn records_success(self) -> bool {
        self.bits() & RECORDS_SUCCESS != 0
    }

    /// Returns `true` if every end of a call has an effect, even that of a success.
    #[inline]
    pub(crate) const fn records_all(self) -> bool {
        self.bits() & (RECORDS_SUCCESS | COUNTS_IN_FLIGHT) != 0
    }

    /// Returns `true` if calls are counted while they are in flight.
    #[inline]
    pub(crate) const fn counts_in_flight(self) -> bool {
        self.bits() & COUNTS_IN_FLIGHT != 0
    }

    /// Returns `true` if an outcome must be recorded with the duration of the call.
    #[inline]
    pub(crate) const fn needs_duration(self) -> bool {
        self.bits() & NEEDS_DURATION != 0
    }

    /// Returns `true` if no outcome can be recorded without the current time.
    #[inline]
    pub(crate) const fn needs_clock(self) -> bool {
        self.bits() & NEEDS_CLOCK != 0
    }

    #[inline]
    pub(crate) const fn generation(self) -> u64 {
        self.bits() >> GENERATION
    }

    /// Returns the generation that follows. None is zero: that is in tickets without a circuit.
    pub(super) const fn next_generation(generation: u64) -> u64 {
        if generation < u64::MAX >> GENERATION {
            generation + 1
        } else {
            1
        }
    }
}

/// The flags of a [`PackedState`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) records_success: bool,
    pub(crate) needs_duration: bool,
    pub(crate) needs_clock: bool,
    pub(crate) counts_in_flight: bool,
}

/// An admission as plain data, for callers that have their own guard.
///
/// Each ticket must be recorded or cancelled exactly once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) state: PackedState,
    /// That of a probe, the stamp of a call that is counted in flight, or the number of the slot of
    /// a call that is listed. The slot then has the id that was here before.
    pub(super) id: Option<NonZeroU64>,
}

impl Ticket {
    /// The ticket of a call without a circuit, for its mark.
    pub(crate) const WITHOUT_CIRCUIT: Self = Self {
        state: PackedState::from_bits(0),
        id: None,
    };

    /// Returns the ticket of a call that the machine has admitted.
    pub(super) fn new(state: PackedState, probe: Option<ProbeId>) -> Self {
        let flag = if probe.is_some() { PROBE } else { 0 };
        Self {
            state: PackedState::from_bits(state.bits() | flag),
            id: probe.map(ProbeId::bits),
        }
    }

    /// Returns `true` if the call is to be counted while it is in flight.
    #[inline]
    pub(crate) const fn counts_in_flight(self) -> bool {
        self.state.counts_in_flight()
    }

    /// Returns the ticket of a call that is in a slot of the list of running calls.
    ///
    /// `None`: there is no circuit.
    pub(crate) fn listed(ticket: Option<Self>, slot: u32) -> Self {
        let bits = ticket.map_or(0, |ticket| ticket.state.bits());
        Self {
            state: PackedState::from_bits(bits | LISTED),
            id: Some(NonZeroU64::MIN.saturating_add(slot.into())),
        }
    }

    /// Returns the ticket as it was before the call was listed.
    pub(crate) fn unlisted(self, id: Option<NonZeroU64>) -> Option<Self> {
        // The generations of a circuit begin at one.
        (self.state.generation() != 0 || self.mark() != 0 || self.has_claim()).then(|| Self {
            state: PackedState::from_bits(self.state.bits() & !LISTED),
            id,
        })
    }

    /// Returns the slot of a call that is listed.
    pub(crate) fn slot(self) -> Option<u32> {
        let id = self.id.filter(|_| self.is_listed())?;
        u32::try_from(id.get() - 1).ok()
    }

    #[inline]
    pub(crate) const fn is_listed(self) -> bool {
        self.state.bits() & LISTED != 0
    }

    /// Returns `true` if the end of the call needs more than its outcome.
    #[inline]
    pub(crate) const fn needs_guard(self) -> bool {
        self.state.bits() & (NEEDS_DURATION | LISTED | CLAIM | MARK_BITS << MARK) != 0
    }

    /// Returns the mark; zero without one.
    #[inline]
    pub(crate) const fn mark(self) -> u16 {
        (self.state.bits() >> MARK & MARK_BITS) as u16
    }

    /// Replaces the mark, of 15 bits, which the circuit carries for the bulkhead and ignores.
    pub(crate) const fn with_mark(self, mark: u16) -> Self {
        let bits = self.state.bits() & !(MARK_BITS << MARK) | (mark as u64 & MARK_BITS) << MARK;
        Self {
            state: PackedState::from_bits(bits),
            id: self.id,
        }
    }

    /// Marks the ticket of a call that holds a claim instead of one permit.
    #[inline]
    pub(crate) const fn with_claim(self) -> Self {
        Self {
            state: PackedState::from_bits(self.state.bits() | CLAIM),
            id: self.id,
        }
    }

    /// Returns `true` if the call holds a claim instead of one permit.
    #[inline]
    pub(crate) const fn has_claim(self) -> bool {
        self.state.bits() & CLAIM != 0
    }

    /// Returns `true` if the call holds a claim, and its end needs nothing else but its outcome.
    #[inline]
    pub(crate) const fn is_plain_claim(self) -> bool {
        const OTHERS: u64 = NEEDS_DURATION | LISTED | PROBE | MARK_BITS << MARK;
        self.state.bits() & (CLAIM | OTHERS) == CLAIM
    }

    /// Returns `true` if the call is a probe or holds a claim.
    #[inline]
    pub(crate) const fn is_probe_or_claim(self) -> bool {
        self.state.bits() & (PROBE | CLAIM) != 0
    }

    pub(crate) const fn id(self) -> Option<NonZeroU64> {
        self.id
    }

    /// Returns `true` if the outcome must be recorded with the duration of the call.
    pub(crate) const fn needs_duration(self) -> bool {
        self.state.needs_duration()
    }

    /// Returns `true` if the call is a probe.
    #[inline]
    pub(crate) const fn is_probe(self) -> bool {
        self.state.bits() & PROBE != 0
    }
}

const STATE: u64 = 0b111;
const REJECTS: u64 = 0b100;
const RECORDS_SUCCESS: u64 = 1 << 3;
const NEEDS_DURATION: u64 = 1 << 4;
const NEEDS_CLOCK: u64 = 1 << 5;
const ALWAYS: u64 = 1 << 6;
const COUNTS_IN_FLIGHT: u64 = 1 << 7;
/// Set in the ticket of a call that is in the list of running calls, never in the circuit.
const LISTED: u64 = 1 << 8;
/// Set in the ticket of a probe, never in the circuit.
const PROBE: u64 = 1 << 9;
/// The shift of the mark of a ticket.
const MARK: u32 = 10;
const MARK_BITS: u64 = 0x7fff;
/// The shift of the generation.
const GENERATION: u32 = 26;
/// Set in the ticket of a call that holds a claim instead of one permit, never in the circuit.
const CLAIM: u64 = 1 << 25;

/// The states that reject calls share a bit; the two that reject every call share another.
const fn code(state: CircuitState) -> u64 {
    match state {
        CircuitState::Closed => 0,
        CircuitState::Disabled => 1,
        CircuitState::MetricsOnly => 2,
        CircuitState::Open => 4,
        CircuitState::ForcedOpen => 5,
        CircuitState::HalfOpen => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_reads_back() {
        use CircuitState::{Closed, Disabled, ForcedOpen, HalfOpen, MetricsOnly, Open};
        for state in [Closed, Open, HalfOpen, ForcedOpen, Disabled, MetricsOnly] {
            for generation in [0, 1, (1 << 38) - 1] {
                for bits in 0..16 {
                    let flags = Flags {
                        records_success: bits & 1 != 0,
                        needs_duration: bits & 2 != 0,
                        needs_clock: bits & 4 != 0,
                        counts_in_flight: bits & 8 != 0,
                    };
                    let bits = PackedState::new(state, generation, flags).bits();
                    let packed = PackedState::from_bits(bits);
                    assert_eq!(packed.state(), state);
                    assert_eq!(packed.generation(), generation);
                    assert_eq!(packed.records_success(), flags.records_success);
                    assert_eq!(packed.needs_duration(), flags.needs_duration);
                    assert_eq!(packed.needs_clock(), flags.needs_clock);
                    assert_eq!(packed.counts_in_flight(), flags.counts_in_flight);
                    assert_eq!(
                        packed.records_all(),
                        flags.records_success || flags.counts_in_flight
                    );
                    assert_eq!(packed.admits_all(), state.admits_all());
                    assert_eq!(
                        packed.admits_all_fast(),
                        state.admits_all() && !flags.counts_in_flight
                    );
                    assert_eq!(packed.rejects_all(), state.rejects_all());
                    let ticket = Ticket::new(packed, None);
                    assert_eq!(
                        (ticket.mark(), ticket.needs_guard()),
                        (0, flags.needs_duration)
                    );
                    let marked = ticket.with_mark(1).with_mark(0x7ffe);
                    assert_eq!((marked.mark(), marked.needs_guard()), (0x7ffe, true));
                    assert_eq!(marked.state.generation(), generation);
                    assert_eq!(marked.state.state(), state);
                    assert_eq!(marked.needs_duration(), flags.needs_duration);
                }
            }
        }
    }

    /// The list of running calls replaces the id, and a call without a circuit keeps its mark.
    #[test]
    fn mark_outlasts_the_list_of_running_calls() {
        let flags = Flags::default();
        let state = PackedState::new(CircuitState::Closed, 1, flags);
        for ticket in [Ticket::new(state, None), Ticket::WITHOUT_CIRCUIT] {
            let ticket = ticket.with_mark(3);
            let listed = Ticket::listed(Some(ticket), 7);
            assert_eq!(
                (listed.mark(), listed.slot(), listed.is_listed()),
                (3, Some(7), true)
            );
            let unlisted = listed.unlisted(None).unwrap();
            assert_eq!((unlisted.mark(), unlisted.is_listed()), (3, false));
            assert_eq!(unlisted.state, ticket.state);
        }
        assert!(Ticket::listed(None, 7).unlisted(None).is_none());
    }

    #[test]
    fn generations_repeat_and_are_never_zero() {
        for (generation, next) in [
            (0, 1),
            (1, 2),
            ((1 << 38) - 2, (1 << 38) - 1),
            ((1 << 38) - 1, 1),
        ] {
            assert_eq!(PackedState::next_generation(generation), next);
        }
    }
}
