//! The adaptive request concurrency of Vector.

use crate::limiter::{EndedCall, Limiter, Outcome};
use crate::random::Random;

/// Vector, adaptive request concurrency: additive growth, a tenth less above 2.5 deviations.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    limit: u64,
    mean: Option<f64>,
    variance: f64,
    next: f64,
    sum: f64,
    samples: u64,
    overloaded: bool,
    reached: bool,
}

impl Default for Vector {
    fn default() -> Self {
        Self {
            limit: 1,
            mean: None,
            variance: 0.0,
            next: 0.0,
            sum: 0.0,
            samples: 0,
            overloaded: false,
            reached: false,
        }
    }
}

impl Limiter for Vector {
    fn limit(&self, _now: f64) -> u64 {
        self.limit
    }

    fn start(&mut self, _now: f64, in_flight: u64) {
        self.reached |= in_flight >= self.limit;
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        match call.outcome {
            Outcome::Success => {
                self.sum += call.latency();
                self.samples += 1;
            }
            Outcome::Overload => self.overloaded = true,
        }
        let current = (self.samples > 0).then(|| self.sum / self.samples as f64);
        let Some(mean) = self.mean else {
            if let Some(current) = current {
                self.mean = Some(current);
                self.next = call.now + current;
            }
            return;
        };
        if call.now < self.next {
            return;
        }
        let healthy =
            self.reached && !self.overloaded && current.is_some_and(|current| current <= mean);
        let slow = current.unwrap_or(0.0) >= mean + 2.5 * self.variance.sqrt();
        if self.limit < 200 && healthy {
            self.limit += 1;
        } else if self.limit > 1 && (self.overloaded || slow) {
            self.limit = ((self.limit as f64 * 0.9) as u64).max(1);
        }
        let mut updated = mean;
        if let Some(current) = current {
            let difference = current - mean;
            let increment = 0.4 * difference;
            updated += increment;
            self.variance = 0.6 * (self.variance + difference * increment);
        }
        *self = Self {
            limit: self.limit,
            mean: Some(updated),
            variance: self.variance,
            next: call.now + updated,
            ..Self::default()
        };
    }
}
