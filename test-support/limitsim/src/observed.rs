//! Observe mode.

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement};

use crate::bulkman::Bulkman;
use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// A fixed limit in force, beside an estimate that rejects nothing.
#[derive(Clone, Debug)]
pub struct Observed {
    enforced: u64,
    estimate: Bulkman,
    /// The start times of the running calls that the estimate would have admitted.
    permits: Vec<f64>,
    started: u64,
    would_reject: u64,
}

impl Observed {
    /// Enforces a fixed limit, and estimates an adaptive one.
    #[must_use]
    pub fn new(enforced: u64) -> Self {
        let config = AdaptiveLimit::new().enforcement(Enforcement::Observe);
        Self {
            enforced,
            estimate: Bulkman::new(&config),
            permits: Vec::new(),
            started: 0,
            would_reject: 0,
        }
    }

    /// Returns the share of the admitted calls that the estimate would have rejected.
    #[must_use]
    pub fn would_reject(&self) -> f64 {
        self.would_reject as f64 / self.started.max(1) as f64
    }
}

impl Limiter for Observed {
    fn limit(&self, _now: f64) -> u64 {
        self.enforced
    }

    fn start(&mut self, now: f64, in_flight: u64) {
        self.started += 1;
        if (self.permits.len() as u64) < self.estimate.limit(now) {
            self.permits.push(now);
        } else {
            self.would_reject += 1;
            self.estimate.reject(now);
        }
        self.estimate.start(now, in_flight);
    }

    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        if let Some(index) = self
            .permits
            .iter()
            .position(|started_at| *started_at == call.started_at)
        {
            self.permits.swap_remove(index);
        }
        self.estimate.end(call, random);
    }
}
