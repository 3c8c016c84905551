//! The steps of the rule while the limit is enforced.

use super::experiment::{Evaluation, ExperimentKind};
use super::{CONFIRMED, CUT, LimitRule, SLOW_START, baseline_age};
use crate::adaptive::adjustment::{LimitAdjustment, LimitChangeCause};
use crate::adaptive::window::ClosedWindow;

impl LimitRule {
    /// Evaluates a closed window; the first step that applies decides.
    pub(super) fn on_enforced_window(
        &mut self,
        window: &ClosedWindow,
        now: f64,
    ) -> Option<LimitAdjustment> {
        if window.successes == 0 {
            return self.halve();
        }
        let (latency, throughput) = (window.latency, window.throughput);
        if let Some(restore) = self.restore_to.take() {
            return self.end_measurement(restore, latency, now);
        }
        let baseline = self.update_baseline(latency, now);
        if window.is_overloaded() {
            return self.reduce_overload();
        }
        self.failing = false;

        let mut restore = self.limit;
        let mut cause = LimitChangeCause::Measuring;
        // The load did not test a limit that was not reached.
        if let Some(experiment) = self.experiment.take().filter(|_| window.reached) {
            match experiment.evaluate(self.limit, throughput, latency) {
                Evaluation::NoGain => {
                    self.threshold = experiment.limit;
                    self.hold = HOLD_AFTER_NO_GAIN;
                    self.held_latency = Some(experiment.latency);
                    return self.set(experiment.limit, LimitChangeCause::NoGain);
                }
                Evaluation::LatencyShift => {
                    self.confirmed_at = f64::NEG_INFINITY;
                    restore = experiment.limit;
                    cause = LimitChangeCause::LatencyShift;
                }
                Evaluation::Confirmed => {}
            }
        }
        if self.is_measurement_due(baseline, window.reached, now) {
            self.measured_at = now;
            self.restore_to = Some(restore);
            return self.set(self.limit * MEASURING_SHARE, cause);
        }

        let allowed = self.settings.allowed_latency(baseline);
        if latency > allowed {
            return self.reduce_queue(window, allowed);
        }
        self.queueing = 0;
        if let Some(decided) = self.check_unused(window.peak) {
            return decided;
        }
        self.grow(window)
    }

    /// Halves the limit, because no call of the window succeeded.
    ///
    /// Only the first of consecutive failures lowers the threshold. A dependency that hangs and
    /// then works again has its old capacity, and exponential growth returns to it.
    fn halve(&mut self) -> Option<LimitAdjustment> {
        self.restore_to = None;
        self.experiment = None;
        if !self.failing {
            self.lower_threshold(self.limit / 2.0);
        }
        self.failing = true;
        self.set(self.limit / 2.0, LimitChangeCause::NoReply)
    }

    /// Reduces the limit, because the dependency reported overload.
    fn reduce_overload(&mut self) -> Option<LimitAdjustment> {
        if !self.failing {
            self.lower_threshold(self.limit * CUT);
        }
        self.ceiling = self.limit;
        self.experiment = None;
        self.hold = HOLD_AFTER_OVERLOAD;
        self.held_latency = None;
        self.set(self.limit * CUT, LimitChangeCause::Overload)
    }

    /// Adopts the latency of a measurement as the baseline, and restores the limit.
    fn end_measurement(&mut self, restore: f64, latency: f64, now: f64) -> Option<LimitAdjustment> {
        self.baseline = Some(latency);
        self.confirmed_at = now;
        self.queueing = 0;
        self.hold = HOLD_AFTER_MEASUREMENT;
        self.set(restore, LimitChangeCause::Measured)
    }

    /// Lowers the baseline to a smaller latency, or confirms it by a similar one.
    fn update_baseline(&mut self, latency: f64, now: f64) -> f64 {
        match self.baseline {
            Some(baseline) if latency >= baseline => {
                if latency <= CONFIRMED * baseline {
                    self.confirmed_at = now;
                }
                baseline
            }
            _ => {
                self.baseline = Some(latency);
                self.confirmed_at = now;
                latency
            }
        }
    }

    /// Returns `true` if the baseline must be measured now.
    ///
    /// A queue that never changes confirms its own baseline. So a limit that is reached is measured
    /// after six intervals whatever the windows confirmed.
    fn is_measurement_due(&self, baseline: f64, reached: bool, now: f64) -> bool {
        let Some(interval) = self.settings.baseline_interval else {
            return false;
        };
        let interval = baseline_age(interval, baseline);
        let unconfirmed =
            now - self.confirmed_at > interval && now - self.measured_at > interval / 2.0;
        unconfirmed || (reached && now - self.measured_at.max(0.0) > 6.0 * interval)
    }

    /// Reduces the limit in the second consecutive window with queueing.
    ///
    /// The reduction is larger than the queue requires. Clients that share a dependency then leave
    /// room for each other, and their queue does not become part of a baseline.
    fn reduce_queue(&mut self, window: &ClosedWindow, allowed: f64) -> Option<LimitAdjustment> {
        self.held_latency = None;
        self.queueing = self.queueing.saturating_add(1);
        if self.queueing == 1 {
            return None;
        }
        if window.reached {
            self.begin(ExperimentKind::Cut, window.throughput, window.latency);
        }
        self.lower_threshold(self.limit * CUT);
        let factor = f64::max(CUT, QUEUE_CUT * allowed / window.latency);
        self.set(self.limit * factor, LimitChangeCause::Queueing)
    }

    /// Raises a limit that was reached without queueing, unless growth is on hold.
    fn grow(&mut self, window: &ClosedWindow) -> Option<LimitAdjustment> {
        self.check_hold(window);
        if self.hold > 0 {
            self.hold -= 1;
            return None;
        }
        if !window.reached || self.limit >= self.settings.max {
            return None;
        }
        self.begin(ExperimentKind::Growth, window.throughput, window.latency);
        let to = if self.limit < self.threshold {
            f64::max(
                self.limit + 1.0,
                f64::min(self.limit * SLOW_START, self.threshold),
            )
        } else {
            self.next_above_threshold()
        };
        self.set(to, LimitChangeCause::Growth)
    }

    /// Ends a hold early if latency fell at the same limit, because the capacity rose.
    fn check_hold(&mut self, window: &ClosedWindow) {
        let Some(latency) = self.held_latency else {
            return;
        };
        if self.hold == 0 || !window.reached {
            self.held_latency = None;
        } else if window.latency < RELIEVED * latency {
            self.held_latency = None;
            self.hold = 0;
        }
    }

    /// Returns the next limit of additive growth, in single permits near the last overload.
    fn next_above_threshold(&self) -> f64 {
        let next = self.limit + f64::max(1.0, self.limit.sqrt());
        let near = CEILING_SHARE * self.ceiling;
        if self.limit < self.ceiling && next > near {
            f64::max(near, self.limit + 1.0)
        } else {
            next
        }
    }
}

/// The share of the limit in force while the baseline is measured.
///
/// A quarter is enough for 4 clients of one dependency, and not for 12.
const MEASURING_SHARE: f64 = 0.1;
const HOLD_AFTER_OVERLOAD: u32 = 3;
const HOLD_AFTER_NO_GAIN: u32 = 10;
const HOLD_AFTER_MEASUREMENT: u32 = 2;
/// A reduction goes this much below the limit at which the queue would have the allowed length.
const QUEUE_CUT: f64 = 0.95;
/// A latency below this share of the earlier one shows that a queue has gone.
const RELIEVED: f64 = 0.9;
/// The share of the limit at the last overload from which growth is in single permits.
const CEILING_SHARE: f64 = 0.85;
