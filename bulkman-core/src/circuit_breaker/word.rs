//! The state as one atomic word: all that a call needs to know while the circuit is closed.

use std::num::NonZeroU64;

use super::circuit_state::CircuitState;

/// State (3 bits), three flags, a bit that is always set, and the generation.
///
/// Two admissions with equal words were given in the same generation, under the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Never zero, so that what may have one is no larger: each call in flight carries it.
pub(crate) struct Word(NonZeroU64);

impl Word {
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

    /// Whether every call passes, which is one test of one bit.
    #[inline]
    pub(crate) const fn admits_all(self) -> bool {
        self.bits() & REFUSES == 0
    }

    /// Whether every call is refused, unless an isolation is over.
    #[inline]
    pub(crate) const fn rejects_all(self) -> bool {
        self.bits() & STATE & !1 == REFUSES
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

    /// A success changes something, also if it is not slow: a failure is outstanding, or a window
    /// has something else to count than successes.
    #[inline]
    pub(crate) const fn records_success(self) -> bool {
        self.bits() & RECORDS_SUCCESS != 0
    }

    /// Outcomes must say how long the call took.
    #[inline]
    pub(crate) const fn needs_duration(self) -> bool {
        self.bits() & NEEDS_DURATION != 0
    }

    /// No outcome can be recorded without the time.
    #[inline]
    pub(crate) const fn needs_clock(self) -> bool {
        self.bits() & NEEDS_CLOCK != 0
    }

    #[inline]
    pub(crate) const fn generation(self) -> u64 {
        self.bits() >> GENERATION
    }
}

/// What a word says besides state and generation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) records_success: bool,
    pub(crate) needs_duration: bool,
    pub(crate) needs_clock: bool,
}

const STATE: u64 = 0b111;
const REFUSES: u64 = 0b100;
const RECORDS_SUCCESS: u64 = 1 << 3;
const NEEDS_DURATION: u64 = 1 << 4;
const NEEDS_CLOCK: u64 = 1 << 5;
const ALWAYS: u64 = 1 << 6;
/// 56 bits of generation: at a transition every nanosecond they last for two years.
const GENERATION: u32 = 8;

/// The states that refuse share a bit, and of these the two that refuse everybody a second one.
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
                    let word = Word::from_bits(Word::new(state, generation, flags).bits());
                    assert_eq!(word.state(), state);
                    assert_eq!(word.generation(), generation);
                    assert_eq!(word.records_success(), flags.records_success);
                    assert_eq!(word.needs_duration(), flags.needs_duration);
                    assert_eq!(word.needs_clock(), flags.needs_clock);
                    assert_eq!(word.admits_all(), state.admits_all());
                    assert_eq!(word.rejects_all(), state.rejects_all());
                }
            }
        }
    }
}
