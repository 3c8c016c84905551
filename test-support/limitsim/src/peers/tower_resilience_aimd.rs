//! The additive increase and multiplicative decrease of tower-resilience.

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// tower-resilience, AIMD: one more a success, half after an overload or 100 ms.
#[derive(Clone, Copy, Debug)]
pub struct TowerResilienceAimd {
    limit: u64,
}

impl Default for TowerResilienceAimd {
    fn default() -> Self {
        Self { limit: 10 }
    }
}

impl Limiter for TowerResilienceAimd {
    fn limit(&self, _now: f64) -> u64 {
        self.limit
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        self.limit = if call.is_overload() || call.latency() > 0.1 {
            (self.limit / 2).max(1)
        } else {
            (self.limit + 1).min(100)
        };
    }
}
