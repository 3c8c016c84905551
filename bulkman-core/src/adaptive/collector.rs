//! Collects the calls of a sampling window.

use super::adjustment::LimitAdjustment;
use super::policy::WindowPolicy;
use super::rule::LimitRule;
use super::window::ClosedWindow;

/// Collects starts and ends of calls into sampling windows, for one thread.
///
/// Times are in seconds since any fixed moment, and must not decrease.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowCollector {
    policy: WindowPolicy,
    opened_at: f64,
    latency_sum: f64,
    counts: ClosedWindow,
    /// The last reduction of whole permits. Calls that started before it are not counted.
    generation_at: f64,
    /// The end of the quiet time after a reduction. Calls that end before it are not counted.
    quiet_until: f64,
}

/// The end of a sampling window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WindowEnd {
    /// The window is complete.
    Closed(ClosedWindow),
    /// Too few calls ended in the window.
    Discarded(ClosedWindow),
}

impl WindowCollector {
    /// Creates a collector with an open window.
    #[must_use]
    pub fn new(policy: WindowPolicy, now: f64) -> Self {
        Self {
            policy,
            opened_at: now,
            latency_sum: 0.0,
            counts: ClosedWindow::default(),
            generation_at: now,
            quiet_until: now,
        }
    }

    /// Records an admitted call; `in_flight` includes it.
    pub(super) fn record_start(&mut self, in_flight: u64, permits: u64) {
        self.counts.peak = self.counts.peak.max(in_flight);
        self.counts.reached |= in_flight >= permits;
    }

    /// Records a call that waited or was rejected for lack of a permit.
    pub(super) fn record_lack_of_permit(&mut self) {
        self.counts.reached = true;
    }

    /// Records a successful call.
    pub(super) fn record_success(
        &mut self,
        started_at: f64,
        now: f64,
        rule: &LimitRule,
    ) -> Option<WindowEnd> {
        if !self.counts_call(started_at, now) {
            return None;
        }
        let latency = f64::min(now - started_at, self.policy.sample_cap(rule.baseline()));
        self.counts.successes += 1;
        self.latency_sum += latency;
        self.check(now, latency, rule)
    }

    /// Records a call that ended by an overload.
    pub(super) fn record_overload(
        &mut self,
        started_at: f64,
        now: f64,
        rule: &LimitRule,
    ) -> Option<WindowEnd> {
        if !self.counts_call(started_at, now) {
            return None;
        }
        self.counts.overloads += 1;
        self.check(now, now - started_at, rule)
    }

    /// Opens the next window, after the quiet time that a reduction of the limit needs.
    pub(super) fn reopen(&mut self, now: f64, adjustment: Option<&LimitAdjustment>, latency: f64) {
        if let Some(adjustment) = adjustment.filter(|adjustment| adjustment.reduces_permits()) {
            self.generation_at = now;
            self.quiet_until = if adjustment.needs_quiet_time() {
                now + latency
            } else {
                now
            };
        }
        self.opened_at = now.max(self.quiet_until);
        self.latency_sum = 0.0;
        self.counts = ClosedWindow::default();
    }

    /// Replaces the conditions; the open window stays.
    pub(super) fn set_policy(&mut self, policy: WindowPolicy) {
        self.policy = policy;
    }

    fn counts_call(&self, started_at: f64, now: f64) -> bool {
        started_at >= self.generation_at && now >= self.quiet_until
    }

    fn check(&self, now: f64, latency: f64, rule: &LimitRule) -> Option<WindowEnd> {
        let successes = self.counts.successes;
        let mean = if successes > 0 {
            self.latency_sum / successes as f64
        } else {
            latency
        };
        let elapsed = now - self.opened_at;
        let mut counts = self.counts;
        if self
            .policy
            .is_complete(elapsed, mean, successes + counts.overloads, rule.limit())
        {
            if successes > 0 {
                counts.latency = mean;
            }
            counts.throughput = successes as f64 / elapsed;
            Some(WindowEnd::Closed(counts))
        } else if self.policy.is_expired(elapsed, mean) {
            Some(WindowEnd::Discarded(counts))
        } else {
            None
        }
    }
}
