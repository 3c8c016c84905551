//! The steps of the rule while the limit is only estimated.
//!
//! An unenforced limit has no effect on the load, so experiments and measurements mean nothing. The
//! limit is estimated by Little's law instead: calls in flight are throughput times latency.

use super::{CONFIRMED, CUT, LimitRule, SLOW_START, baseline_age};
use crate::adaptive::adjustment::{LimitAdjustment, LimitChangeCause};
use crate::adaptive::window::ClosedWindow;

impl LimitRule {
    /// Evaluates a closed window without control over the load.
    pub(super) fn on_observed_window(
        &mut self,
        window: &ClosedWindow,
        now: f64,
    ) -> Option<LimitAdjustment> {
        if window.successes == 0 {
            return self.set(self.limit / 2.0, LimitChangeCause::NoReply);
        }
        let baseline = self.estimate_baseline(window, now);
        let allowed = self.settings.allowed_latency(baseline);
        let overloaded = window.is_overloaded();
        if overloaded || window.latency > allowed {
            self.queueing = self.queueing.saturating_add(1);
            if self.queueing == 1 && !overloaded {
                return None;
            }
            self.hold = HOLD_AFTER_ESTIMATE;
            let estimate = f64::min(self.limit * SLOW_START, window.throughput * allowed);
            let cause = if overloaded {
                LimitChangeCause::Overload
            } else {
                LimitChangeCause::Queueing
            };
            return self.set(f64::max(self.limit * CUT, estimate), cause);
        }
        self.queueing = 0;
        if let Some(decided) = self.check_unused(window.peak) {
            return decided;
        }
        if self.hold > 0 {
            self.hold -= 1;
            None
        } else if window.reached {
            self.set(
                f64::max(self.limit + 1.0, self.limit * SLOW_START),
                LimitChangeCause::Growth,
            )
        } else {
            None
        }
    }

    /// Returns the smallest latency, or that of unreached windows once the old baseline is
    /// unconfirmed.
    fn estimate_baseline(&mut self, window: &ClosedWindow, now: f64) -> f64 {
        let latency = window.latency;
        let Some(baseline) = self
            .baseline
            .filter(|baseline| latency > CONFIRMED * baseline)
        else {
            let baseline = self
                .baseline
                .map_or(latency, |baseline| latency.min(baseline));
            self.baseline = Some(baseline);
            self.confirmed_at = now;
            self.unloaded = None;
            return baseline;
        };
        if !window.reached {
            self.unloaded = Some(
                self.unloaded
                    .map_or(latency, |unloaded| latency.min(unloaded)),
            );
        }
        let due = self
            .settings
            .baseline_interval
            .is_some_and(|interval| now - self.confirmed_at > baseline_age(interval, baseline));
        match self.unloaded.filter(|_| due) {
            Some(unloaded) => {
                self.baseline = Some(unloaded);
                self.confirmed_at = now;
                self.unloaded = None;
                unloaded
            }
            None => baseline,
        }
    }
}

const HOLD_AFTER_ESTIMATE: u32 = 3;
