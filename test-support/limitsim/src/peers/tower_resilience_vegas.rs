//! The queue estimate of tower-resilience.

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// tower-resilience, Vegas: the smallest latency ever is the baseline.
#[derive(Clone, Copy, Debug)]
pub struct TowerResilienceVegas {
    limit: u64,
    smallest: f64,
    smoothed: f64,
    samples: u64,
}

impl Default for TowerResilienceVegas {
    fn default() -> Self {
        Self {
            limit: 10,
            smallest: 1e9,
            smoothed: 0.0,
            samples: 0,
        }
    }
}

impl Limiter for TowerResilienceVegas {
    fn limit(&self, _now: f64) -> u64 {
        self.limit
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        if call.is_overload() {
            self.limit = (self.limit / 2).max(1);
            return;
        }
        let latency = call.latency();
        self.smallest = self.smallest.min(latency);
        self.smoothed = if self.smoothed == 0.0 {
            latency
        } else {
            0.5 * latency + 0.5 * self.smoothed
        };
        self.samples += 1;
        if self.samples < 10 {
            return;
        }
        let excess = (self.smoothed - self.smallest).max(0.0) / self.smallest;
        let queue = (excess * self.limit as f64) as u64;
        if queue < 3 {
            self.limit = (self.limit + 1).min(100);
        } else if queue > 6 {
            self.limit = (self.limit - 1).max(1);
        }
    }
}
