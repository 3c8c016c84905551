//! A server with more load than capacity, without noise.

use bulkman_core::adaptive::{ClosedWindow, LimitRule};

/// A server: its latency and throughput follow from the limit alone.
pub(crate) struct Saturated {
    pub(crate) workers: f64,
    pub(crate) service_time: f64,
}

impl Saturated {
    /// Closes a window at the present limit, and returns the limit after it.
    pub(crate) fn window(&self, rule: &mut LimitRule, now: &mut f64) -> f64 {
        let permits = rule.permits() as f64;
        let latency = self.service_time * f64::max(1.0, permits / self.workers);
        let throughput = f64::min(permits, self.workers) / self.service_time;
        let elapsed = f64::max(0.2, 2.0 * latency).max(10.0 / throughput);
        *now += elapsed;
        let window = ClosedWindow {
            successes: (throughput * elapsed) as u64,
            latency,
            overloads: 0,
            throughput,
            reached: true,
            peak: rule.permits(),
        };
        let _ = rule.on_window(&window, *now);
        rule.limit()
    }
}
