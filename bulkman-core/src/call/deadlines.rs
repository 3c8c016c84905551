//! The deadlines of a call: its limits, the instants it has passed, and its timer.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::bulkhead::config::BulkheadConfig;
use crate::call::rejection::MissingCapability;
use crate::runtime::{Runtime, Sleep};

/// A time limit in nanoseconds, or none. A duration of more than 584 years is no limit.
///
/// Every future of a call contains three of these, so a limit takes eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u64);

impl Limit {
    /// No limit.
    pub(crate) const NONE: Self = Self(u64::MAX);
    /// The configured limit, for a call that sets none.
    const AS_CONFIGURED: Self = Self(u64::MAX - 1);
    /// Not a limit: see [`Deadlines::CLAIMS`].
    const CLAIMS: Self = Self(u64::MAX - 2);

    pub(crate) fn new(limit: Option<Duration>) -> Self {
        limit
            .and_then(|limit| u64::try_from(limit.as_nanos()).ok())
            .map_or(Self::NONE, |nanos| {
                if nanos >= Self::CLAIMS.0 {
                    Self::NONE
                } else {
                    Self(nanos)
                }
            })
    }

    fn get(self) -> Option<Duration> {
        (self != Self::NONE).then(|| Duration::from_nanos(self.0))
    }

    fn or(self, configured: &AtomicU64) -> Self {
        if self == Self::AS_CONFIGURED {
            Self(configured.load(Ordering::Relaxed))
        } else {
            self
        }
    }
}

/// The three time limits of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    /// Limits the whole call: the wait and the run.
    pub(crate) timeout: Limit,
    /// Limits the wait for a permit.
    pub(crate) max_wait: Limit,
    /// Limits the run of the operation.
    pub(crate) run_timeout: Limit,
}

impl TimeLimits {
    const NONE: Self = Self {
        timeout: Limit::NONE,
        max_wait: Limit::NONE,
        run_timeout: Limit::NONE,
    };

    /// The limits of a call that sets none.
    pub(crate) const AS_CONFIGURED: Self = Self {
        timeout: Limit::AS_CONFIGURED,
        max_wait: Limit::AS_CONFIGURED,
        run_timeout: Limit::AS_CONFIGURED,
    };

    pub(crate) fn of(config: &BulkheadConfig) -> Self {
        let (timeout, max_wait, run_timeout) = config.times();
        Self {
            timeout: Limit::new(timeout),
            max_wait: Limit::new(max_wait),
            run_timeout: Limit::new(run_timeout),
        }
    }

    /// Returns the first limit that needs a timer.
    pub(crate) fn first_timer(&self) -> Option<&'static MissingCapability> {
        // A call that never waits needs no timer for the wait.
        let max_wait = if self.max_wait == Limit(0) {
            Limit::NONE
        } else {
            self.max_wait
        };
        let limits = [
            (&MissingCapability::TIMEOUT, self.timeout),
            (&MissingCapability::MAX_WAIT, max_wait),
            (&MissingCapability::RUN_TIMEOUT, self.run_timeout),
        ];
        limits
            .into_iter()
            .find_map(|(missing, limit)| (limit != Limit::NONE).then_some(missing))
    }
}

/// A limit of time is set.
const LIMITS: u8 = 1;
/// Calls carry marks for an adaptive limit.
const MARKS: u8 = 1 << 1;
/// Permits are shared between keys, so every call has one.
const KEYS: u8 = 1 << 2;

/// The configured limits. They can be read while another thread changes them.
#[derive(Debug)]
pub(crate) struct ConfiguredLimits {
    /// What a call has to do before its admission: [`LIMITS`], [`MARKS`] and [`KEYS`].
    any: AtomicU8,
    timeout: AtomicU64,
    max_wait: AtomicU64,
    run_timeout: AtomicU64,
}

impl ConfiguredLimits {
    pub(crate) fn new(limits: TimeLimits, marks: bool, keys: bool) -> Self {
        let none = || AtomicU64::new(Limit::NONE.0);
        let configured = Self {
            any: AtomicU8::new(0),
            timeout: none(),
            max_wait: none(),
            run_timeout: none(),
        };
        configured.set(limits, marks, keys);
        configured
    }

    /// `marks`: calls carry marks for an adaptive limit. `keys`: permits are shared between keys.
    pub(crate) fn set(&self, limits: TimeLimits, marks: bool, keys: bool) {
        self.timeout.store(limits.timeout.0, Ordering::Relaxed);
        self.max_wait.store(limits.max_wait.0, Ordering::Relaxed);
        self.run_timeout
            .store(limits.run_timeout.0, Ordering::Relaxed);
        let limits = if limits == TimeLimits::NONE {
            0
        } else {
            LIMITS
        };
        let marks = if marks { MARKS } else { 0 };
        let keys = if keys { KEYS } else { 0 };
        self.any.store(limits | marks | keys, Ordering::Relaxed);
    }

    /// Returns `true` if any limit is set, or calls carry marks.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed) != 0
    }

    /// Returns `true` if calls carry marks, and no limit is set.
    #[inline]
    pub(crate) fn only_marks(&self) -> bool {
        self.any.load(Ordering::Relaxed) & (LIMITS | MARKS) == MARKS
    }

    /// Returns `true` if a limit is set.
    pub(crate) fn has_limits(&self) -> bool {
        self.any.load(Ordering::Relaxed) & LIMITS != 0
    }

    /// Returns the limits of one call: `own`, completed by the configured limits.
    pub(crate) fn resolve(&self, own: TimeLimits) -> TimeLimits {
        TimeLimits {
            timeout: own.timeout.or(&self.timeout),
            max_wait: own.max_wait.or(&self.max_wait),
            run_timeout: own.run_timeout.or(&self.run_timeout),
        }
    }
}

/// The limits of one call and the instants it has passed.
pub(crate) enum Deadlines {
    /// The call sets no limits and its duration is not needed. The clock is not read unless the
    /// bulkhead has limits.
    Untracked,
    /// The limits that the call sets. It was not polled yet, or is [`MARKED`](Self::MARKED).
    Requested(TimeLimits),
    /// There are no limits. The operation started at this instant.
    Started(Instant),
    /// The call was polled and its times are recorded.
    Tracked(Times),
}

pub(crate) struct Times {
    timeout: Limit,
    run_timeout: Limit,
    phase: PhaseTime,
    /// When the call was polled first.
    began: Instant,
    /// The timer for the deadline of the current phase.
    timer: Option<Sleep>,
}

/// The time of the phase that a call is in, in nanoseconds and in eight bytes.
///
/// While the call has no permit, this is the maximum wait; afterwards, the time it has waited. The
/// uppermost bit distinguishes the two; durations of up to 292 years fit below it.
#[derive(Clone, Copy)]
struct PhaseTime(u64);

impl PhaseTime {
    const RUNNING: u64 = 1 << 63;

    /// A limit that does not fit is no limit.
    const fn queued(max_wait: Limit) -> Self {
        Self(if max_wait.0 < Self::RUNNING {
            max_wait.0
        } else {
            Limit::NONE.0
        })
    }

    fn running(after: Duration) -> Self {
        Self(
            Self::RUNNING
                | u64::try_from(after.as_nanos())
                    .unwrap_or(u64::MAX)
                    .min(Self::RUNNING - 2),
        )
    }

    const fn max_wait(self) -> Limit {
        if self.0 < Self::RUNNING {
            Limit(self.0)
        } else {
            Limit::NONE
        }
    }

    const fn waited(self) -> Option<Duration> {
        if self.0 < Self::RUNNING || self.0 == Limit::NONE.0 {
            return None;
        }
        Some(Duration::from_nanos(self.0 ^ Self::RUNNING))
    }
}

impl Times {
    const fn new(limits: TimeLimits, began: Instant) -> Self {
        let TimeLimits {
            timeout,
            max_wait,
            run_timeout,
        } = limits;
        Self {
            timeout,
            run_timeout,
            phase: PhaseTime::queued(max_wait),
            began,
            timer: None,
        }
    }

    fn limits(&self) -> TimeLimits {
        let (timeout, run_timeout) = (self.timeout, self.run_timeout);
        TimeLimits {
            timeout,
            max_wait: self.phase.max_wait(),
            run_timeout,
        }
    }

    /// Returns when the operation started.
    fn run_started(&self) -> Option<Instant> {
        self.began.checked_add(self.phase.waited()?)
    }

    /// Returns the deadline of the whole call. A deadline that overflows the clock is none.
    fn total_deadline(&self) -> Option<Instant> {
        self.began.checked_add(self.timeout.get()?)
    }

    fn queue_deadline(&self) -> Option<Instant> {
        let wait = self
            .phase
            .max_wait()
            .get()
            .and_then(|limit| self.began.checked_add(limit));
        earlier(wait, self.total_deadline())
    }

    fn run_deadline(&self) -> Option<Instant> {
        let run = self
            .run_timeout
            .get()
            .and_then(|limit| self.run_started()?.checked_add(limit));
        earlier(run, self.total_deadline())
    }
}

impl Deadlines {
    /// There are no limits, and the call carries a mark. Its operation has not started, or the
    /// start is not needed.
    // Not a variant: with one more, the drop of every call takes six instructions more.
    pub(crate) const MARKED: Self = Self::Requested(TimeLimits::NONE);

    /// As [`MARKED`](Self::MARKED), for a call that is a sample.
    pub(crate) const SAMPLED: Self = Self::Requested(TimeLimits::AS_CONFIGURED);

    /// The call sets no limits, and asks for more than one permit. It was not polled yet.
    ///
    /// It leaves the common path at the test for limits, which exists anyway.
    pub(crate) const CLAIMS: Self = Self::Requested(TimeLimits {
        timeout: Limit::CLAIMS,
        ..TimeLimits::AS_CONFIGURED
    });

    /// Returns `true` if the times of the call are not needed, unless the bulkhead has limits.
    pub(crate) const fn needs_no_times(&self) -> bool {
        match self {
            Self::Untracked => true,
            Self::Requested(limits) => limits.timeout.0 == Limit::CLAIMS.0,
            _ => false,
        }
    }

    /// Returns `true` for [`SAMPLED`](Self::SAMPLED), of a call that was polled.
    pub(crate) const fn is_sampled(&self) -> bool {
        matches!(self, Self::Requested(limits) if limits.timeout.0 == Limit::AS_CONFIGURED.0)
    }

    /// Returns `true` if the times of the call are needed.
    #[inline]
    pub(crate) const fn is_tracked(&self) -> bool {
        !matches!(self, Self::Untracked)
    }

    /// Returns the limits of the call: its own, completed by the configured limits.
    pub(crate) fn limits(&self, configured: &ConfiguredLimits) -> TimeLimits {
        match self {
            Self::Requested(own) if !self.needs_no_times() => configured.resolve(*own),
            Self::Untracked | Self::Requested(_) => configured.resolve(TimeLimits::AS_CONFIGURED),
            Self::Started(_) => TimeLimits::NONE,
            Self::Tracked(times) => times.limits(),
        }
    }

    /// Starts to track the call, which begins at `now`.
    pub(crate) fn begin(&mut self, limits: TimeLimits, now: Instant) {
        *self = Self::Tracked(Times::new(limits, now));
    }

    /// Returns `true` if the call has limits, or its times are reported.
    pub(crate) const fn has_times(&self) -> bool {
        self.times().is_some()
    }

    /// Returns `false` if the call must not wait for a permit.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        !matches!(self, Self::Tracked(times) if times.phase.max_wait() == Limit(0))
    }

    /// Returns when the call must have left the queue.
    #[inline]
    pub(crate) fn queue_deadline(&self) -> Option<Instant> {
        self.times()?.queue_deadline()
    }

    /// Returns when the whole call must have ended.
    #[inline]
    pub(crate) fn total_deadline(&self) -> Option<Instant> {
        self.times()?.total_deadline()
    }

    /// Records that the operation starts now.
    ///
    /// Call this only if the duration of the operation is needed: it may read the clock.
    pub(crate) fn start_run(&mut self, waited: bool, runtime: &dyn Runtime) {
        match self {
            // Without a wait, the time since the call began is not worth a clock reading.
            Self::Tracked(times) if !waited => times.phase = PhaseTime::running(Duration::ZERO),
            Self::Tracked(times) => {
                times.timer = None;
                times.phase =
                    PhaseTime::running(runtime.now().saturating_duration_since(times.began));
            }
            Self::Untracked | Self::Requested(_) | Self::Started(_) => {
                *self = Self::Started(runtime.now())
            }
        }
    }

    /// Returns when the operation must have ended.
    #[inline]
    pub(crate) fn run_deadline(&self) -> Option<Instant> {
        self.times()?.run_deadline()
    }

    /// Returns when the operation started, if the clock was read then.
    pub(crate) fn run_started(&self) -> Option<Instant> {
        match self {
            Self::Started(since) => Some(*since),
            Self::Tracked(times) => times.run_started(),
            Self::Untracked | Self::Requested(_) => None,
        }
    }

    /// Returns how long the call waited and how long its operation ran.
    ///
    /// `now` is the end of the one that has not ended yet.
    pub(crate) fn elapsed(&self, now: Instant) -> (Duration, Duration) {
        let between =
            |from: Instant, to: Option<Instant>| to.unwrap_or(now).saturating_duration_since(from);
        let ran = self
            .run_started()
            .map_or(Duration::ZERO, |started| between(started, None));
        let waited = self.times().map_or(Duration::ZERO, |times| {
            between(times.began, times.run_started())
        });
        (waited, ran)
    }

    /// Returns `true` if only the total timeout has elapsed and the call waited longer than it ran.
    ///
    /// Such a timeout is caused by the queue, not by the dependency.
    pub(crate) fn mostly_queued(&self, now: Instant) -> bool {
        let (queued, ran) = self.elapsed(now);
        let run_limit = self.times().and_then(|times| times.run_timeout.get());
        run_limit.is_none_or(|limit| ran < limit) && queued > ran
    }

    /// Completes at `deadline`, which is that of the current phase.
    ///
    /// The timer is created by the first poll.
    pub(crate) fn poll(
        &mut self,
        deadline: Instant,
        runtime: &dyn Runtime,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Self::Tracked(times) = self else {
            return Poll::Pending;
        };
        times
            .timer
            .get_or_insert_with(|| runtime.sleep_until(deadline))
            .as_mut()
            .poll(cx)
    }

    /// Returns a copy of the times without the timer.
    pub(crate) fn without_timer(&self) -> Self {
        match self {
            Self::Tracked(times) => {
                let Times {
                    timeout,
                    run_timeout,
                    phase,
                    began,
                    timer: _,
                } = *times;
                Self::Tracked(Times {
                    timeout,
                    run_timeout,
                    phase,
                    began,
                    timer: None,
                })
            }
            Self::Started(since) => Self::Started(*since),
            Self::Untracked | Self::Requested(_) => Self::Untracked,
        }
    }

    #[inline]
    const fn times(&self) -> Option<&Times> {
        match self {
            Self::Tracked(times) => Some(times),
            Self::Untracked | Self::Requested(_) | Self::Started(_) => None,
        }
    }
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let times = self.times();
        f.debug_struct("Deadlines")
            .field("limits", &times.map(Times::limits))
            .field("began", &times.map(|times| times.began))
            .field("run_started", &self.run_started())
            .finish_non_exhaustive()
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_time_is_a_limit_or_the_time_waited() {
        let nanos = Duration::from_nanos;
        for limit in [nanos(0), nanos(1), Duration::from_secs(200 * 365 * 86_400)] {
            let phase = PhaseTime::queued(Limit::new(Some(limit)));
            assert_eq!(
                (phase.max_wait().get(), phase.waited()),
                (Some(limit), None)
            );
        }
        for never in [
            None,
            Some(Duration::from_secs(300 * 365 * 86_400)),
            Some(Duration::MAX),
        ] {
            let phase = PhaseTime::queued(Limit::new(never));
            assert_eq!((phase.max_wait(), phase.waited()), (Limit::NONE, None));
        }
        for waited in [nanos(0), nanos(1), Duration::from_secs(200 * 365 * 86_400)] {
            let phase = PhaseTime::running(waited);
            assert_eq!(
                (phase.max_wait(), phase.waited()),
                (Limit::NONE, Some(waited))
            );
        }
        assert!(PhaseTime::running(Duration::MAX).waited().is_some());
    }

    #[test]
    fn deadlines_take_at_most_56_bytes() {
        assert!(size_of::<Deadlines>() <= 56, "{}", size_of::<Deadlines>());
    }
}
