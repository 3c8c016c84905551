//! How long to wait: drawn at random, so that a fleet does not move in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::random::Random;
use crate::store::OperationId;

#[derive(Debug)]
pub(super) struct Pace {
    random: Random,
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Pace {
    /// Backs off from `min` to `max`.
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self::seeded(RandomState::new().hash_one(std::process::id()), min, max)
    }

    pub(super) fn seeded(seed: u64, min: Duration, max: Duration) -> Self {
        Self {
            random: Random::new(seed),
            min,
            max,
            failures: 0,
        }
    }

    /// The wait after one more failure: uniform between zero and a bound that doubles.
    pub(super) fn back_off(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.up_to(self.min.saturating_mul(doubled).min(self.max))
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn up_to(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.random.fraction())
    }

    pub(super) fn number_up_to(&mut self, most: u64) -> u64 {
        ((most as f64 + 1.0) * self.random.fraction()) as u64
    }

    /// `interval`, or up to a tenth less: an interval promises when something will have been
    /// looked at, so it is never exceeded.
    pub(super) fn within(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(1.0 - 0.1 * self.random.fraction())
    }

    pub(super) fn operation(&mut self) -> OperationId {
        // Zero is nobody's.
        OperationId(self.random.bits() | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_vary_and_are_never_exceeded() {
        let interval = Duration::from_secs(1);
        let mut pace = Pace::seeded(1, interval, interval);
        let drawn: Vec<_> = (0..200).map(|_| pace.within(interval)).collect();
        assert!(
            drawn
                .iter()
                .all(|drawn| *drawn <= interval && *drawn >= interval * 9 / 10)
        );
        assert!(drawn.iter().any(|drawn| *drawn < interval * 92 / 100));
        assert!(drawn.iter().any(|drawn| *drawn > interval * 98 / 100));
    }

    #[test]
    fn the_bound_doubles_up_to_the_largest_and_starts_again() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut pace = Pace::seeded(1, min, max);
        for bound in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            assert!(pace.back_off() <= Duration::from_millis(bound));
        }
        let waits: Vec<_> = (0..200).map(|_| pace.back_off()).collect();
        assert!(
            waits.iter().any(|wait| *wait < max / 10)
                && waits.iter().any(|wait| *wait > max * 9 / 10)
        );
        pace.succeeded();
        assert!(pace.back_off() <= min);
    }
}
