//! The yardstick.

use crate::limiter::Limiter;
use crate::scenario::Scenario;

/// A limit that equals the number of workers at every moment.
#[derive(Clone, Copy, Debug)]
pub struct Oracle<'a>(pub &'a dyn Scenario);

impl Limiter for Oracle<'_> {
    fn limit(&self, now: f64) -> u64 {
        self.0.workers(now)
    }
}
