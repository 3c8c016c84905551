//! The end of a window, and what follows from it.

use std::sync::TryLockError;
use std::time::Instant;

use super::sample_mask::SampleMask;
use super::sampler::{Counts, Opening};
use super::{LimitDriver, duration, nanos_of};
use crate::adaptive::adjustment::{LimitAdjustment, LimitChangeCause};
use crate::adaptive::change::LimitChange;
use crate::adaptive::collector::WindowEnd;
use crate::adaptive::policy::WindowPolicy;
use crate::adaptive::rule::LimitRule;
use crate::adaptive::window::ClosedWindow;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Decider {
    /// `None` without an adaptive limit.
    pub(super) rule: Option<LimitRule>,
    /// The circuit does not admit all calls.
    pub(super) suspended: bool,
    /// The origin of the times of the rule, in nanoseconds.
    pub(super) created_at: u64,
    /// The successful calls before the window.
    successes_before: u64,
    opened_at: u64,
    pub(super) last: LastWindow,
}

/// The figures of the last window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LastWindow {
    pub(super) latency: Option<f64>,
    pub(super) throughput: f64,
    pub(super) reached: bool,
    pub(super) closed_at: u64,
}

impl LastWindow {
    pub(super) const fn none(now: u64) -> Self {
        Self {
            latency: None,
            throughput: 0.0,
            reached: false,
            closed_at: now,
        }
    }
}

impl Decider {
    pub(super) const fn new(suspended: bool) -> Self {
        Self {
            rule: None,
            suspended,
            created_at: 0,
            successes_before: 0,
            opened_at: 0,
            last: LastWindow::none(0),
        }
    }
}

/// A decision. The caller resizes the queue if the permits changed, then calls
/// [`reopen`](LimitDriver::reopen), and then wakes the readers of a published change.
#[derive(Debug)]
#[must_use]
pub(crate) struct LimitDecision {
    /// The number of permits changed.
    pub(crate) change: Option<LimitChange>,
    adjustment: Option<LimitAdjustment>,
    latency: f64,
    throughput: f64,
    now: u64,
}

impl LimitDriver {
    /// Decides, if the window is complete and no other call is deciding.
    ///
    /// `started` is the start of the call that ends, if it is known. `successes` is the number of
    /// successful calls so far.
    pub(crate) fn try_decide(
        &self,
        started: Option<Instant>,
        now: Instant,
        successes: u64,
        mask: &SampleMask,
    ) -> Option<LimitDecision> {
        let nanos = self.nanos(now);
        let mut decider = match self.decider.try_lock() {
            Ok(decider) => decider,
            // As `lock` does: a panic must not end all further decisions.
            Err(TryLockError::Poisoned(decider)) => decider.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // Another call may have decided since.
        if !self.sampler.is_due(nanos) {
            return None;
        }
        let latency = started.map(|it| now.saturating_duration_since(it).as_secs_f64());
        let end = self.end_window(&mut decider, nanos, latency, successes);
        self.sampler.publish_stride(mask);
        let end = end?;
        let Decider {
            rule,
            created_at,
            last,
            ..
        } = &mut *decider;
        let rule = rule.as_mut()?;
        let at = seconds(nanos.saturating_sub(*created_at));
        let (window, adjustment) = match end {
            WindowEnd::Closed(window) => (window, rule.on_window(&window, at)),
            WindowEnd::Discarded(window) => (window, rule.on_discarded_window()),
        };
        *last = LastWindow {
            latency: (window.successes > 0).then_some(window.latency),
            throughput: window.throughput,
            reached: window.reached,
            closed_at: nanos,
        };
        decider.successes_before = successes;
        Some(self.decided(&decider, adjustment, &window, nanos, now))
    }

    /// Starts again from a small limit, because the circuit admits all calls again.
    pub(crate) fn resume(&self, now: Instant) -> Option<LimitDecision> {
        let nanos = self.nanos(now);
        let mut decider = lock(&self.decider);
        decider.suspended = false;
        let adjustment = decider.rule.as_mut()?.on_circuit_closed();
        let window = ClosedWindow::default();
        Some(self.decided(&decider, adjustment, &window, nanos, now))
    }

    /// Opens the next window. The queue was resized before, so that no call is admitted under the
    /// old limit in the new generation.
    pub(crate) fn reopen(&self, decision: &LimitDecision, mask: &SampleMask) {
        let mut decider = lock(&self.decider);
        let LimitDecision {
            adjustment, now, ..
        } = *decision;
        let current = self.sampler.stride();
        let stride = decider.stride(decision, current);
        // Samples of another stride must not be scaled by this one.
        let restrided = current != stride;
        let reduced = adjustment.filter(LimitAdjustment::reduces_permits);
        let quiet = reduced.is_some_and(|it| it.needs_quiet_time());
        let quiet_until = if quiet || (restrided && reduced.is_none()) {
            now.saturating_add(nanos_of(decision.latency))
        } else {
            now
        };
        let new_generation = (reduced.is_some() || restrided).then_some(now);
        self.open(&mut decider, now, quiet_until, new_generation, stride);
        self.sampler.publish_stride(mask);
    }

    /// Opens a window under the lock.
    pub(super) fn open(
        &self,
        decider: &mut Decider,
        now: u64,
        quiet_until: u64,
        new_generation_at: Option<u64>,
        stride: Option<u64>,
    ) {
        decider.opened_at = now.max(quiet_until);
        let rule = decider.rule.as_ref().filter(|_| !decider.suspended);
        let baseline = rule.and_then(LimitRule::baseline);
        self.sampler.open(&Opening {
            new_generation_at,
            quiet_until,
            check_at: rule.map_or(u64::MAX, |rule| {
                let shortest = nanos_of(rule.settings().window);
                decider.opened_at.saturating_add(shortest)
            }),
            baseline: baseline.map(nanos_of),
            cap: rule.map_or(u64::MAX, |rule| nanos_of(policy(rule).sample_cap(baseline))),
            stride: rule.and(stride),
        });
    }

    /// Ends the window if it is complete or expired. Otherwise moves the next check.
    fn end_window(
        &self,
        decider: &mut Decider,
        now: u64,
        latency: Option<f64>,
        successes: u64,
    ) -> Option<WindowEnd> {
        let stride = self.sampler.stride()?;
        let (policy, limit, permits, baseline) = {
            let rule = decider.rule.as_ref()?;
            (policy(rule), rule.limit(), rule.permits(), rule.baseline())
        };
        let counts = self.sampler.counts();
        let elapsed = seconds(now.saturating_sub(decider.opened_at));
        let samples = counts.word.samples();
        let mean = counts
            .word
            .mean()
            .or(latency)
            .or(baseline)
            .unwrap_or_default();
        let close = |counts: Counts| ClosedWindow {
            overloads: counts.overloads,
            reached: counts.reached || counts.peak >= permits,
            peak: counts.peak,
            ..counts.word.close(elapsed, stride)
        };
        if policy.is_complete(elapsed, mean, samples + counts.overloads, limit) {
            // Some call succeeded, and none of those was a sample.
            if samples == 0 && stride > 1 && successes > decider.successes_before {
                self.sampler.sample_every_call();
                self.sampler.check_again_at(now);
                return None;
            }
            return Some(WindowEnd::Closed(close(self.sampler.close())));
        }
        if policy.is_expired(elapsed, mean) {
            return Some(WindowEnd::Discarded(close(self.sampler.close())));
        }
        let shortest = policy.shortest(mean);
        // A loss of capacity slows calls down, too, and the rule has to learn it from this window.
        if stride > 1 && elapsed > 3.0 * shortest {
            // The load fell. The rule learns nothing from a window that is not full.
            self.sampler.close();
            decider.successes_before = successes;
            self.open(decider, now, now, Some(now), Some(1));
            return None;
        }
        // From then on each end of a call checks.
        let earliest = decider.opened_at.saturating_add(nanos_of(shortest));
        self.sampler.check_again_at(earliest.max(now));
        None
    }

    /// Stores the new limit and records the change, under the lock.
    fn decided(
        &self,
        decider: &Decider,
        adjustment: Option<LimitAdjustment>,
        window: &ClosedWindow,
        nanos: u64,
        now: Instant,
    ) -> LimitDecision {
        let latency = (window.successes > 0).then_some(window.latency);
        let mut change = None;
        if let (Some(adjustment), Some(rule)) = (&adjustment, &decider.rule) {
            self.limit.store(rule.permits(), Ordering::Release);
            change = self.push_change(adjustment, latency, window.throughput, rule.baseline(), now);
        }
        LimitDecision {
            change,
            adjustment,
            latency: window.latency,
            throughput: window.throughput,
            now: nanos,
        }
    }

    /// Records a change of whole permits.
    pub(super) fn push_change(
        &self,
        adjustment: &LimitAdjustment,
        latency: Option<f64>,
        throughput: f64,
        baseline: Option<f64>,
        now: Instant,
    ) -> Option<LimitChange> {
        let (from, to) = (adjustment.from as usize, adjustment.to as usize);
        if from == to {
            return None;
        }
        let change = LimitChange {
            from,
            to,
            cause: adjustment.cause,
            at: now,
            age: std::time::Duration::ZERO,
            latency: latency.and_then(duration),
            throughput,
            baseline: baseline.and_then(duration),
        };
        if let Some(index) = LimitChangeCause::ALL
            .iter()
            .position(|cause| *cause == change.cause)
        {
            self.changes_by_cause[index].fetch_add(1, Ordering::Relaxed);
        }
        self.changes.push(change.clone());
        Some(change)
    }
}

impl Decider {
    /// Returns the stride that fills the next window one to two times; `None` if nothing is
    /// sampled.
    fn stride(&self, decision: &LimitDecision, current: Option<u64>) -> Option<u64> {
        let rule = self.rule.as_ref()?;
        let shrunk = decision
            .adjustment
            .map_or(1.0, |it| f64::min(it.to / it.from, 1.0));
        let expected = decision.throughput * policy(rule).shortest(decision.latency) * shrunk;
        let windows = expected / rule.settings().samples as f64;
        let current = current.unwrap_or(1) as f64;
        // Each change of the stride costs a quiet time, so a small change of the load keeps it.
        let keep = (0.8 * current..2.5 * current).contains(&windows);
        // Not a number and infinity are strides of one, too.
        Some(if keep {
            current as u64
        } else if windows >= 2.0 && windows.is_finite() {
            1 << (windows.log2() as u32).min(MAX_STRIDE)
        } else {
            1
        })
    }
}

fn policy(rule: &LimitRule) -> WindowPolicy {
    WindowPolicy::new(rule.settings())
}

/// The power of two of the largest stride.
const MAX_STRIDE: u32 = 40;

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
