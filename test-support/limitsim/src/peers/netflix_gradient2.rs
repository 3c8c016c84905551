//! The gradient of Netflix concurrency-limits, over windows.

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// Netflix concurrency-limits, `Gradient2Limit` in a `WindowedLimit`: short against long latency.
///
/// The minimum is 1 instead of 20, which helps it in these scenarios.
#[derive(Clone, Debug)]
pub struct NetflixGradient2 {
    limit: f64,
    long: f64,
    windows: u32,
    next: f64,
    latencies: Vec<f64>,
    in_flight: u64,
}

impl Default for NetflixGradient2 {
    fn default() -> Self {
        Self {
            limit: 20.0,
            long: 0.0,
            windows: 0,
            next: 0.0,
            latencies: Vec::new(),
            in_flight: 0,
        }
    }
}

impl NetflixGradient2 {
    fn sample(&mut self, latency: f64, in_flight: u64) {
        if self.windows < 10 {
            self.windows += 1;
            self.long += (latency - self.long) / f64::from(self.windows);
        } else {
            self.long += (latency - self.long) * 2.0 / 601.0;
        }
        if self.long / latency > 2.0 {
            self.long *= 0.95;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / latency).clamp(0.5, 1.0);
        self.limit = (0.8 * self.limit + 0.2 * (self.limit * gradient + 4.0)).clamp(1.0, 200.0);
    }
}

impl Limiter for NetflixGradient2 {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        self.latencies.push(call.latency());
        self.in_flight = self.in_flight.max(call.in_flight);
        if call.now <= self.next {
            return;
        }
        self.next = call.now + 1.0;
        let latencies = std::mem::take(&mut self.latencies);
        let in_flight = std::mem::take(&mut self.in_flight);
        if latencies.len() >= 10 {
            self.sample(
                latencies.iter().sum::<f64>() / latencies.len() as f64,
                in_flight,
            );
        }
    }
}
