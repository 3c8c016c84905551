//! The additive increase and multiplicative decrease of Netflix concurrency-limits.

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// Netflix concurrency-limits, `AIMDLimit`: one more a success, a tenth less an overload.
#[derive(Clone, Copy, Debug)]
pub struct NetflixAimd {
    limit: f64,
}

impl Default for NetflixAimd {
    fn default() -> Self {
        Self { limit: 20.0 }
    }
}

impl Limiter for NetflixAimd {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        if call.is_overload() || call.latency() > 5.0 {
            self.limit = (self.limit * 0.9).trunc();
        } else if call.in_flight as f64 * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(1.0, 200.0);
    }
}
