//! The queue estimate of Netflix concurrency-limits.

use super::log10;
use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// Netflix concurrency-limits, `VegasLimit`: the queue is estimated from the smallest latency.
#[derive(Clone, Copy, Debug)]
pub struct NetflixVegas {
    limit: f64,
    smallest: f64,
    samples: u64,
    jitter: f64,
}

impl NetflixVegas {
    /// Creates the rule; the time of the first baseline probe is random.
    pub fn new(random: &mut Random) -> Self {
        Self {
            limit: 20.0,
            smallest: 0.0,
            samples: 0,
            jitter: random.uniform(0.5, 1.0),
        }
    }
}

impl Limiter for NetflixVegas {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        let latency = call.latency().max(1e-9);
        self.samples += 1;
        if self.jitter * 30.0 * self.limit <= self.samples as f64 {
            self.jitter = random.uniform(0.5, 1.0);
            self.samples = 0;
            self.smallest = latency;
            return;
        }
        if self.smallest == 0.0 || latency < self.smallest {
            self.smallest = latency;
            return;
        }
        let queue = (self.limit * (1.0 - self.smallest / latency)).ceil();
        let step = log10(self.limit.trunc());
        let mut limit = self.limit;
        if call.is_overload() {
            limit -= step;
        } else if (call.in_flight as f64) * 2.0 < limit {
            return;
        } else if queue <= step {
            limit += 6.0 * step;
        } else if queue < 3.0 * step {
            limit += step;
        } else if queue > 6.0 * step {
            limit -= step;
        }
        self.limit = limit.clamp(1.0, 1000.0);
    }
}
