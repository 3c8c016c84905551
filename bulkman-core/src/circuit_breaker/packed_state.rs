//! The state of a circuit packed into one atomic word, and the ticket of an admitted call.

use std::num::NonZeroU64;

use super::circuit_state::CircuitState;
use super::probes::ProbeId;

/// All that a call needs while the circuit is closed.
///
/// Holds the state (3 bits), three flags, a bit that is always set, and the generation. Two calls
/// with equal words were admitted in the same generation and under the same rules.
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
}

/// The flags of a [`PackedState`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) records_success: bool,
    pub(crate) needs_duration: bool,
    pub(crate) needs_clock: bool,
}

/// An admission as plain data, for callers that have their own guard.
///
/// Each ticket must be recorded or cancelled exactly once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) state: PackedState,
    pub(super) probe: Option<ProbeId>,
}

impl Ticket {
    /// Returns `true` if the outcome must be recorded with the duration of the call.
    pub(crate) const fn needs_duration(self) -> bool {
        self.state.needs_duration()
    }

    /// Returns `true` if the call is a probe.
    #[inline]
    pub(crate) const fn is_probe(self) -> bool {
        self.probe.is_some()
    }
}

const STATE: u64 = 0b111;
const REJECTS: u64 = 0b100;
const RECORDS_SUCCESS: u64 = 1 << 3;
const NEEDS_DURATION: u64 = 1 << 4;
const NEEDS_CLOCK: u64 = 1 << 5;
const ALWAYS: u64 = 1 << 6;
/// The shift of the generation: its 56 bits last for two years at a transition every nanosecond.
const GENERATION: u32 = 8;

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
            for generation in [0, 1, (1 << 56) - 1] {
                for bits in 0..8 {
                    let flags = Flags {
                        records_success: bits & 1 != 0,
                        needs_duration: bits & 2 != 0,
                        needs_clock: bits & 4 != 0,
                    };
                    let bits = PackedState::new(state, generation, flags).bits();
                    let packed = PackedState::from_bits(bits);
                    assert_eq!(packed.state(), state);
                    assert_eq!(packed.generation(), generation);
                    assert_eq!(packed.records_success(), flags.records_success);
                    assert_eq!(packed.needs_duration(), flags.needs_duration);
                    assert_eq!(packed.needs_clock(), flags.needs_clock);
                    assert_eq!(packed.admits_all(), state.admits_all());
                    assert_eq!(packed.rejects_all(), state.rejects_all());
                }
            }
        }
    }
}
