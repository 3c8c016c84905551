//! The concurrency limiter of Palantir dialogue.

use crate::limiter::{EndedCall, Limiter, Outcome};
use crate::random::Random;

/// Palantir dialogue: one more a round of successes, a tenth less an overload.
#[derive(Clone, Copy, Debug)]
pub struct Palantir {
    limit: f64,
}

impl Default for Palantir {
    fn default() -> Self {
        Self { limit: 20.0 }
    }
}

impl Limiter for Palantir {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        if call.outcome == Outcome::Success && call.in_flight as f64 >= (self.limit * 0.9).floor() {
            self.limit += 1.0 / self.limit;
        } else if call.is_overload() {
            self.limit = (self.limit * 0.9).floor().max(1.0);
        }
    }
}
