//! The gradient controller of Envoy's adaptive concurrency filter.

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// Envoy, gradient controller: median latency against one measured at a limit of three.
#[derive(Clone, Debug)]
pub struct Envoy {
    limit: f64,
    saved: f64,
    measuring: bool,
    baseline: f64,
    latencies: Vec<f64>,
    next: f64,
    /// When the last measurement started. Calls that started before it are not sampled.
    epoch: f64,
    measure_at: f64,
    windows_at_minimum: u32,
}

impl Default for Envoy {
    fn default() -> Self {
        Self {
            limit: 3.0,
            saved: 3.0,
            measuring: true,
            baseline: 0.0,
            latencies: Vec::new(),
            next: 0.1,
            epoch: 0.0,
            measure_at: 1e9,
            windows_at_minimum: 0,
        }
    }
}

impl Envoy {
    fn take_median(&mut self) -> f64 {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_by(f64::total_cmp);
        latencies[latencies.len() / 2]
    }

    fn update(&mut self, now: f64) {
        self.next = now + 0.1;
        let gradient = (1.25 * self.baseline / self.take_median()).clamp(0.5, 2.0);
        let before = self.limit;
        let limit = self.limit * gradient;
        self.limit = (limit + limit.sqrt()).trunc().clamp(3.0, 1000.0);
        let stays = before == 3.0 && self.limit == 3.0;
        self.windows_at_minimum = if stays {
            self.windows_at_minimum + 1
        } else {
            0
        };
    }
}

impl Limiter for Envoy {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        let now = call.now;
        if call.started_at < self.epoch {
            return;
        }
        self.latencies.push(call.latency());
        if self.measuring {
            if self.latencies.len() >= 50 {
                self.baseline = self.take_median();
                self.limit = self.saved.max(3.0);
                self.measuring = false;
                self.measure_at = now + 30.0 * random.uniform(1.0, 1.15);
                self.next = now + 0.1;
            }
            return;
        }
        if now >= self.next {
            self.update(now);
        }
        if now >= self.measure_at || self.windows_at_minimum >= 5 {
            self.saved = self.limit;
            self.limit = 3.0;
            self.measuring = true;
            self.latencies.clear();
            self.epoch = now;
            self.windows_at_minimum = 0;
        }
    }
}
