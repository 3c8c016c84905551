//! A fixed limit.

use crate::limiter::Limiter;

/// A limit that never changes.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u64);

impl Limiter for Fixed {
    fn limit(&self, _now: f64) -> u64 {
        self.0
    }
}
