//! The limit of a bulkhead: the rule, driven by concurrent calls.
//!
//! Calls update the counters of a [`Sampler`] without a lock. The end of a call that completes a
//! window decides, under a lock that no call waits for: if another call holds it, that one decides.
//! There is no timer and no task. What a decision changes is stored in atomics, and the queue
//! computes the limit in force from them under its own lock, so that no order of concurrent changes
//! ends with an old value.

mod decision;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
mod mark;
mod sample_mask;
mod sampler;
mod window_word;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::decision::LimitDecision;
use self::decision::{Decider, LastWindow};
pub(crate) use self::mark::Mark;
pub(crate) use self::sample_mask::SampleMask;
use self::sampler::Sampler;
use super::adjustment::LimitChangeCause;
use super::change::{LimitChange, LimitChanges};
use super::config::AdaptiveLimit;
use super::enforcement::Enforcement;
use super::rule::LimitRule;
use super::settings::LimitSettings;
use super::status::LimitStatus;
use crate::call::Outcome;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::broadcast::Broadcast;
use crate::sync::{Mutex, lock};

/// The limit of a bulkhead that adapts or is observed.
#[derive(Debug)]
pub(crate) struct LimitDriver {
    sampler: Sampler,
    /// The origin of all times.
    base: Instant,
    flags: AtomicU32,
    maximum: AtomicU64,
    /// The adaptive limit in whole permits; [`NO_LIMIT`] without one.
    limit: AtomicU64,
    /// Running calls that found no permit.
    without_permit: AtomicU64,
    /// The permits of a limit that is only estimated.
    virtual_permits_in_use: AtomicU64,
    would_wait: AtomicU64,
    would_reject: AtomicU64,
    changes_by_cause: [AtomicU64; LimitChangeCause::ALL.len()],
    changes: Arc<Broadcast<LimitChange>>,
    decider: Mutex<Decider>,
    /// The counts that were recorded already.
    #[cfg(feature = "metrics")]
    published: Mutex<LimitCounts>,
}

/// The settings of a driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriverConfig<'a> {
    pub(crate) maximum: usize,
    pub(crate) adaptive: Option<&'a AdaptiveLimit>,
    /// Whether any limit of the bulkhead is enforced.
    pub(crate) enforcement: Enforcement,
}

impl DriverConfig<'_> {
    /// Returns `true` if the bulkhead needs a driver.
    pub(crate) fn is_needed(&self) -> bool {
        self.adaptive.is_some() || self.enforcement == Enforcement::Observe
    }

    /// Returns which calls carry a mark.
    pub(crate) fn marks(&self) -> Marks {
        if !self.is_needed() {
            Marks::None
        } else if self.estimates() {
            Marks::All
        } else {
            Marks::Samples
        }
    }

    /// Returns `true` if the adaptive limit is only estimated, and the maximum is enforced.
    fn estimates(&self) -> bool {
        let observes = |it: &AdaptiveLimit| it.enforcement == Enforcement::Observe;
        self.enforcement == Enforcement::Enforce && self.adaptive.is_some_and(observes)
    }
}

/// Which calls carry a [`Mark`] even without limits of time, if they find a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    None,
    Samples,
    /// Each call holds a virtual permit or lacks one.
    All,
}

/// What the end of a call means for the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitOutcome {
    /// A latency sample, if the call is sampled.
    Success,
    /// The dependency was overloaded.
    Overload,
    /// The caller gave up while the call ran.
    Cancelled,
    /// Nothing, unless failures shrink the limit.
    Failure,
    /// Nothing.
    Nothing,
}

impl LimitOutcome {
    /// Returns what the outcome of a call that did not time out means.
    pub(crate) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
            Outcome::Overloaded => Self::Overload,
            Outcome::Ignored => Self::Nothing,
        }
    }
}

/// The counters of a driver, for metrics.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LimitCounts {
    /// In the order of [`LimitChangeCause::ALL`].
    pub(crate) changes: [u64; LimitChangeCause::ALL.len()],
    pub(crate) would_wait: u64,
    pub(crate) would_reject: u64,
}

#[cfg(feature = "metrics")]
impl LimitCounts {
    fn since(&self, before: &Self) -> Self {
        Self {
            changes: std::array::from_fn(|i| self.changes[i] - before.changes[i]),
            would_wait: self.would_wait - before.would_wait,
            would_reject: self.would_reject - before.would_reject,
        }
    }
}

/// A limit is adapted.
const ADAPTIVE: u32 = 1;
/// The adaptive limit is estimated, and the maximum is enforced.
const ESTIMATES: u32 = 1 << 1;
/// No limit is enforced.
const OBSERVES: u32 = 1 << 2;
const SHRINKS_ON_FAILURE: u32 = 1 << 3;

const NO_LIMIT: u64 = u64::MAX;
/// The number of changes that a slow reader may lag behind.
const CHANGES_KEPT: usize = 128;
/// The number of changes kept for snapshots.
const HISTORY: usize = 16;

impl LimitDriver {
    /// Creates a driver at the initial limit.
    ///
    /// `suspended`: the circuit does not admit all calls.
    pub(crate) fn new(
        config: DriverConfig<'_>,
        suspended: bool,
        mask: &SampleMask,
        now: Instant,
    ) -> Self {
        let driver = Self {
            sampler: Sampler::new(),
            base: now,
            flags: AtomicU32::new(0),
            maximum: AtomicU64::new(config.maximum as u64),
            limit: AtomicU64::new(NO_LIMIT),
            without_permit: AtomicU64::new(0),
            virtual_permits_in_use: AtomicU64::new(0),
            would_wait: AtomicU64::new(0),
            would_reject: AtomicU64::new(0),
            changes_by_cause: std::array::from_fn(|_| AtomicU64::new(0)),
            changes: Arc::new(Broadcast::new(CHANGES_KEPT, HISTORY)),
            decider: Mutex::new(Decider::new(suspended)),
            #[cfg(feature = "metrics")]
            published: Mutex::new(LimitCounts::default()),
        };
        driver.reconfigure(config, mask, now);
        driver
    }

    /// Applies new settings. The caller resizes the queue and then
    /// [publishes](Self::wake_readers) the change.
    pub(crate) fn reconfigure(
        &self,
        config: DriverConfig<'_>,
        mask: &SampleMask,
        now: Instant,
    ) -> bool {
        let nanos = self.nanos(now);
        let observes = config.enforcement == Enforcement::Observe;
        let mut decider = lock(&self.decider);
        self.maximum.store(config.maximum as u64, Ordering::Release);
        let mut flags = if observes { OBSERVES } else { 0 };
        let mut change = None;
        if let Some(adaptive) = config.adaptive {
            flags |= ADAPTIVE;
            if adaptive.shrinks_on_failure() {
                flags |= SHRINKS_ON_FAILURE;
            }
            let mut settings = LimitSettings::new(adaptive, config.maximum);
            if observes {
                settings.enforcement = Enforcement::Observe;
            }
            if config.estimates() {
                flags |= ESTIMATES;
            }
            if let Some(rule) = &mut decider.rule {
                let adjustment = rule.reconfigure(settings);
                let baseline = rule.baseline();
                self.limit.store(rule.permits(), Ordering::Release);
                change = adjustment.and_then(|it| self.push_change(&it, None, 0.0, baseline, now));
            } else {
                let rule = LimitRule::new(settings);
                self.limit.store(rule.permits(), Ordering::Release);
                decider.rule = Some(rule);
                decider.created_at = nanos;
                decider.last = LastWindow::none(nanos);
                self.open(&mut decider, nanos, nanos, Some(nanos), Some(1));
            }
        } else if decider.rule.take().is_some() {
            self.limit.store(NO_LIMIT, Ordering::Release);
            decider.last = LastWindow::none(nanos);
            self.sampler.close();
            self.open(&mut decider, nanos, nanos, Some(nanos), None);
        }
        self.sampler.publish_stride(mask);
        self.flags.store(flags, Ordering::Release);
        change.is_some()
    }

    /// Returns the number of permits. The queue calls it under its lock: it only loads values.
    pub(crate) fn permits_in_force(&self) -> usize {
        let maximum = self.maximum.load(Ordering::Acquire);
        let limit = self.limit.load(Ordering::Acquire);
        let permits = if self.has_flag(ESTIMATES) {
            maximum
        } else {
            maximum.min(limit)
        };
        permits as usize
    }

    /// Returns `true` if a limit is adapted, so that calls carry a [`Mark`].
    #[inline]
    pub(crate) fn is_adaptive(&self) -> bool {
        self.has_flag(ADAPTIVE)
    }

    /// Returns `true` if calls run without a permit when none is available.
    pub(crate) fn observes(&self) -> bool {
        self.has_flag(OBSERVES)
    }

    /// Returns `true` if a call needs the permits in use when it starts.
    #[inline]
    pub(crate) fn estimates(&self) -> bool {
        self.has_flag(ESTIMATES)
    }

    /// Returns the mark of a call that is no sample.
    pub(crate) fn mark_unsampled(&self) -> Mark {
        self.sampler.mark_unsampled()
    }

    /// Adds the start of a sampled call to its mark, and counts the calls in flight.
    pub(crate) fn start_sample(&self, mark: Mark, started: Instant, in_flight: usize) -> Mark {
        self.sampler.record_peak(in_flight as u64);
        mark.started_at(self.nanos(started))
    }

    /// Records that a call lacked a permit.
    #[inline]
    pub(crate) fn record_lack_of_permit(&self) {
        self.sampler.record_lack_of_permit();
    }

    /// Acquires the permits of a call under the estimated limit, or counts what would happen
    /// without them.
    ///
    /// `running` are the permits that calls hold, with the `weight` of this one.
    pub(crate) fn acquire_virtual_permits(
        &self,
        mark: Mark,
        weight: u32,
        running: usize,
        queue_capacity: usize,
        may_wait: bool,
    ) -> Mark {
        let limit = self.limit.load(Ordering::Relaxed);
        let permits = &self.virtual_permits_in_use;
        let mut in_use = permits.load(Ordering::Relaxed);
        let weight = u64::from(weight);
        // A call that is heavier than the limit would run alone.
        while in_use + weight <= limit || in_use == 0 {
            match permits.compare_exchange_weak(
                in_use,
                in_use + weight,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return mark.with_virtual_permit(),
                Err(current) => in_use = current,
            }
        }
        self.record_lack_of_permit();
        let ahead = (running as u64).saturating_sub(weight + in_use);
        self.count_lack(ahead, queue_capacity, may_wait);
        mark
    }

    pub(crate) fn release_virtual_permits(&self, mark: Mark, weight: u32) {
        if mark.has_virtual_permit() {
            self.virtual_permits_in_use
                .fetch_sub(u64::from(weight), Ordering::Relaxed);
        }
    }

    /// Starts a call without a permit, and counts what would have happened to it.
    ///
    /// Returns `false`, and has no effect, if `is_closed` returns `true`.
    pub(crate) fn start_without_permit(
        &self,
        queue_capacity: usize,
        may_wait: bool,
        is_closed: impl FnOnce() -> bool,
    ) -> bool {
        let ahead = self.without_permit.fetch_add(1, Ordering::SeqCst);
        // Either this finds the queue closed, or the one that closes it finds this call.
        fence(Ordering::SeqCst);
        if is_closed() {
            self.end_without_permit();
            return false;
        }
        self.count_lack(ahead, queue_capacity, may_wait);
        true
    }

    /// Ends a call without a permit. Returns `true` if it was the last.
    pub(crate) fn end_without_permit(&self) -> bool {
        self.without_permit.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Returns the number of running calls without a permit.
    pub(crate) fn without_permit(&self) -> usize {
        self.without_permit.load(Ordering::SeqCst) as usize
    }

    /// Returns what the end of a call means with this mark and these settings.
    pub(crate) fn outcome_of(&self, mark: Mark, outcome: LimitOutcome) -> LimitOutcome {
        if mark.is_uncounted() || !self.is_adaptive() {
            return LimitOutcome::Nothing;
        }
        match outcome {
            LimitOutcome::Success | LimitOutcome::Cancelled if !mark.is_sampled() => {
                LimitOutcome::Nothing
            }
            LimitOutcome::Failure if self.has_flag(SHRINKS_ON_FAILURE) => LimitOutcome::Overload,
            LimitOutcome::Failure => LimitOutcome::Nothing,
            outcome => outcome,
        }
    }

    /// Records the end of a call. Returns `true` if the window may be complete.
    pub(crate) fn record(
        &self,
        mark: Mark,
        outcome: LimitOutcome,
        started: Option<Instant>,
        now: Instant,
    ) -> bool {
        let nanos = self.nanos(now);
        // A start before the creation, and a clock that goes back, count as no time.
        let started_at = started.map(|started| self.nanos(started).min(nanos));
        match (outcome, started_at) {
            (LimitOutcome::Success, Some(started_at)) => {
                self.sampler.record_sample(started_at, nanos)
            }
            (LimitOutcome::Overload, _) => {
                self.sampler.record_overloads(mark, started_at, nanos, 1)
            }
            // A timeout of the caller around the call has this effect.
            (LimitOutcome::Cancelled, _) if mark.least_duration(nanos) > self.sampler.cap() => {
                let stride = self.sampler.stride().unwrap_or(1);
                self.sampler.record_overloads(mark, None, nanos, stride)
            }
            _ => false,
        }
    }

    /// Returns `true` if this outcome of a call that did not time out is an overload.
    pub(crate) fn is_overload(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Overloaded => true,
            Outcome::Failure => self.has_flag(SHRINKS_ON_FAILURE),
            Outcome::Success | Outcome::Ignored => false,
        }
    }

    /// Records an overload of a call that carries no mark.
    ///
    /// When it started is not known. The quiet time after a reduction covers most calls that
    /// started before. Returns `true` if the window may be complete.
    pub(crate) fn record_unmarked_overload(&self, now: Instant) -> bool {
        self.sampler.record_unmarked_overload(self.nanos(now))
    }

    /// Drops the window, because the circuit no longer admits all calls.
    pub(crate) fn suspend(&self, mask: &SampleMask, now: Instant) {
        let nanos = self.nanos(now);
        let mut decider = lock(&self.decider);
        decider.suspended = true;
        self.sampler.close();
        self.open(&mut decider, nanos, nanos, Some(nanos), None);
        self.sampler.publish_stride(mask);
    }

    /// Returns what was counted since the last call of this method.
    #[cfg(feature = "metrics")]
    pub(crate) fn unpublished_counts(&self) -> LimitCounts {
        let mut published = lock(&self.published);
        // Read under the lock: of two publishers, the later one has the later reading.
        let now = LimitCounts {
            changes: std::array::from_fn(|i| self.changes_by_cause[i].load(Ordering::Relaxed)),
            would_wait: self.would_wait.load(Ordering::Relaxed),
            would_reject: self.would_reject.load(Ordering::Relaxed),
        };
        now.since(&std::mem::replace(&mut *published, now))
    }

    /// Returns the state for a snapshot; `limit` is the number of permits of the queue.
    pub(crate) fn status(&self, limit: usize, now: Instant) -> Option<LimitStatus> {
        let decider = lock(&self.decider);
        if decider.rule.is_none() && !self.observes() {
            return None;
        }
        let maximum = self.maximum.load(Ordering::Acquire) as usize;
        let last = &decider.last;
        let rule = decider.rule.as_ref();
        let observed = self.has_flag(OBSERVES | ESTIMATES);
        Some(LimitStatus {
            limit,
            estimate: rule.map_or(maximum as f64, LimitRule::limit),
            maximum,
            enforcement: if observed {
                Enforcement::Observe
            } else {
                Enforcement::Enforce
            },
            baseline: rule.and_then(LimitRule::baseline).and_then(duration),
            latency: last.latency.and_then(duration),
            throughput: last.throughput,
            reached: last.reached,
            measuring: rule.is_some_and(LimitRule::is_measuring),
            age: Duration::from_nanos(self.nanos(now).saturating_sub(last.closed_at)),
            would_wait: self.would_wait.load(Ordering::Relaxed),
            would_reject: self.would_reject.load(Ordering::Relaxed),
            // Pushed under this lock, so it is consistent with the rest.
            recent: self
                .changes
                .newest(HISTORY)
                .into_iter()
                .map(|change| change.with_age(now))
                .collect(),
        })
    }

    /// Returns the smallest limit; zero without an adaptive limit.
    #[cfg(feature = "tracing")]
    pub(crate) fn minimum(&self) -> usize {
        lock(&self.decider)
            .rule
            .as_ref()
            .map_or(0, |rule| rule.settings().min as usize)
    }

    /// Subscribes to the changes from now on.
    pub(crate) fn changes(&self) -> LimitChanges {
        LimitChanges::new(&self.changes)
    }

    /// Wakes the readers of [`changes`](Self::changes). The caller holds no lock.
    pub(crate) fn wake_readers(&self) {
        self.changes.wake_readers();
    }

    fn count_lack(&self, ahead: u64, queue_capacity: usize, may_wait: bool) {
        let counter = if may_wait && ahead < queue_capacity as u64 {
            &self.would_wait
        } else {
            &self.would_reject
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn has_flag(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base);
        // Without a product of 128 bits.
        (since.as_secs().saturating_mul(1_000_000_000)).saturating_add(since.subsec_nanos().into())
    }
}

impl Drop for LimitDriver {
    fn drop(&mut self) {
        self.changes.close();
    }
}

fn nanos_of(seconds: f64) -> u64 {
    // Saturates, also for infinity.
    (seconds * 1e9).round() as u64
}

fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}
