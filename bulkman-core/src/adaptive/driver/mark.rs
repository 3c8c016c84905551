//! What an admitted call carries for the limit.

/// The word that a call of a bulkhead with a changing limit carries from its start to its end.
///
/// ```text
///  14 ............ 4       3         2            1         0
/// | sample's start or    | virtual | without    | sampled | always |
/// | sampling generation  | permit  | a permit   |         |        |
/// ```
///
/// It fits beside the state of the circuit in the ticket of the call, so that an admission is no
/// larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u16);

const ALWAYS: u16 = 1;
const SAMPLED: u16 = 1 << 1;
const WITHOUT_PERMIT: u16 = 1 << 2;
const VIRTUAL_PERMIT: u16 = 1 << 3;
const VALUE_SHIFT: u32 = 4;
/// The largest value, which no generation has: the limit learns nothing from the call.
const UNCOUNTED: u16 = 0x7ff;
/// The number of sampling generations before they repeat.
pub(super) const GENERATIONS: u64 = UNCOUNTED as u64;
/// The power of two of the unit of start times, in nanoseconds: 17 ms. They repeat after 34 s.
const START_UNIT: u32 = 24;

impl Mark {
    /// The mark of a call from which the limit learns nothing.
    pub(crate) const UNCOUNTED: Self = Self(ALWAYS | UNCOUNTED << VALUE_SHIFT);

    /// Returns the mark in these bits, if there is one.
    #[inline]
    pub(crate) const fn from_bits(bits: u16) -> Option<Self> {
        if bits & ALWAYS == 0 {
            None
        } else {
            Some(Self(bits))
        }
    }

    #[inline]
    pub(crate) const fn to_bits(self) -> u16 {
        self.0
    }

    /// Returns a mark for a call that is not sampled, of this generation.
    pub(super) const fn of_generation(generation: u64) -> Self {
        Self(ALWAYS | ((generation % GENERATIONS) as u16) << VALUE_SHIFT)
    }

    /// Returns a mark for a sampled call. The value is set once the call has started.
    pub(crate) const fn sample() -> Self {
        Self(ALWAYS | SAMPLED)
    }

    /// Sets the start of a sampled call, in nanoseconds.
    pub(super) const fn started_at(self, nanos: u64) -> Self {
        let value = (nanos >> START_UNIT) as u16 & UNCOUNTED;
        Self(self.0 & !(UNCOUNTED << VALUE_SHIFT) | value << VALUE_SHIFT)
    }

    /// Returns the mark of the same permit, from which the limit learns nothing.
    pub(crate) const fn uncounted(self) -> Self {
        Self(self.0 & (WITHOUT_PERMIT | VIRTUAL_PERMIT) | Self::UNCOUNTED.0)
    }

    pub(crate) const fn without_permit(self) -> Self {
        Self(self.0 | WITHOUT_PERMIT)
    }

    pub(super) const fn with_virtual_permit(self) -> Self {
        Self(self.0 | VIRTUAL_PERMIT)
    }

    /// Returns `true` if the latency of the call is a sample.
    pub(crate) const fn is_sampled(self) -> bool {
        self.0 & SAMPLED != 0
    }

    pub(crate) const fn lacks_permit(self) -> bool {
        self.0 & WITHOUT_PERMIT != 0
    }

    pub(super) const fn has_virtual_permit(self) -> bool {
        self.0 & VIRTUAL_PERMIT != 0
    }

    /// Returns `true` if the end of a successful call has nothing to do for the limit.
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (SAMPLED | WITHOUT_PERMIT | VIRTUAL_PERMIT) == 0
    }

    /// Returns `true` if the limit learns nothing from the call.
    pub(super) const fn is_uncounted(self) -> bool {
        self.0 & SAMPLED == 0 && self.value() == UNCOUNTED
    }

    /// Returns `true` for a call of this generation that is not sampled.
    pub(super) const fn is_of_generation(self, generation: u64) -> bool {
        self.0 & SAMPLED == 0 && self.value() as u64 == generation % GENERATIONS
    }

    /// Returns how long a sampled call has surely run, in nanoseconds, unless it ran for 34 s.
    pub(super) const fn least_duration(self, now: u64) -> u64 {
        let now = (now >> START_UNIT) as u16;
        let units = now.wrapping_sub(self.value()) & UNCOUNTED;
        (units.saturating_sub(1) as u64) << START_UNIT
    }

    const fn value(self) -> u16 {
        self.0 >> VALUE_SHIFT
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_read_back() {
        let mark = Mark::of_generation(GENERATIONS + 7).without_permit();
        let mark = Mark::from_bits(mark.to_bits()).unwrap();
        assert!(mark.is_of_generation(7) && !mark.is_of_generation(8));
        assert!(mark.lacks_permit() && mark.to_bits() >> 15 == 0);
        assert!(!mark.is_sampled() && !mark.has_virtual_permit());
        assert_eq!(Mark::from_bits(0), None);
        assert!(Mark::UNCOUNTED.is_uncounted() && Mark::UNCOUNTED.is_plain());
        let sample = Mark::sample().with_virtual_permit().started_at(1 << 40);
        let uncounted = sample.uncounted();
        assert!(uncounted.is_uncounted() && !uncounted.is_sampled());
        assert!(uncounted.has_virtual_permit() && !uncounted.lacks_permit());
        assert!(!(0..GENERATIONS).any(|it| Mark::UNCOUNTED.is_of_generation(it)));
    }

    #[test]
    fn least_duration_is_never_too_long() {
        let ms = 1_000_000;
        for start in [0, 5 * ms, 33_000 * ms, 34_355 * ms, 1 << 62] {
            let mark = Mark::sample().with_virtual_permit().started_at(start);
            assert!(mark.is_sampled() && mark.has_virtual_permit() && !mark.is_uncounted());
            for ran in [0, ms, 40 * ms, 700 * ms, 30_000 * ms] {
                let least = mark.least_duration(start + ran);
                assert!(least <= ran, "{least} of {ran}");
                assert!(least + 34 * ms >= ran, "{least} of {ran}");
            }
        }
    }
}
