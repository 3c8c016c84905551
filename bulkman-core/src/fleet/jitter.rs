//! Random delays and identifiers, so that the processes of a fleet don't act in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::random::Random;
use crate::store::OperationId;

/// A source of random delays and identifiers.
#[derive(Debug)]
pub(super) struct Jitter(Random);

impl Jitter {
    pub(super) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(std::process::id()))
    }

    pub(super) const fn seeded(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// Returns a duration between zero and `bound`, uniformly distributed.
    pub(super) fn up_to(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.0.next_f64())
    }

    /// Returns a number between zero and `max`, uniformly distributed.
    pub(super) fn number_up_to(&mut self, max: u64) -> u64 {
        ((max as f64 + 1.0) * self.0.next_f64()) as u64
    }

    /// Returns `interval`, shortened by up to a tenth.
    ///
    /// Never longer: an interval is the promised bound on how late a change is detected.
    pub(super) fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(1.0 - 0.1 * self.0.next_f64())
    }

    /// Returns a new operation id, which is never zero: zero means "no operation".
    pub(super) fn operation_id(&mut self) -> OperationId {
        OperationId(self.0.next_u64() | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_vary_and_are_never_exceeded() {
        let interval = Duration::from_secs(1);
        let mut jitter = Jitter::seeded(1);
        let drawn: Vec<_> = (0..200).map(|_| jitter.jittered(interval)).collect();
        assert!(
            drawn
                .iter()
                .all(|drawn| *drawn <= interval && *drawn >= interval * 9 / 10)
        );
        assert!(drawn.iter().any(|drawn| *drawn < interval * 92 / 100));
        assert!(drawn.iter().any(|drawn| *drawn > interval * 98 / 100));
    }
}
