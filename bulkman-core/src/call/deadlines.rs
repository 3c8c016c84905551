//! When a call's time is over: its limits, the moments it passed, and the one timer it needs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::bulkhead::config::BulkheadConfig;
use crate::call::rejection::Lack;
use crate::runtime::{Runtime, Sleep};

/// A time limit in eight bytes: nanoseconds, or none. What is longer than 584 years is none.
///
/// Futures carry these around, so they are kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u64);

impl Limit {
    /// No limit.
    pub(crate) const NONE: Self = Self(u64::MAX);
    /// For a call that says nothing: the configured limit.
    const AS_CONFIGURED: Self = Self(u64::MAX - 1);

    pub(crate) fn new(limit: Option<Duration>) -> Self {
        limit
            .and_then(|limit| u64::try_from(limit.as_nanos()).ok())
            .map_or(Self::NONE, |nanos| {
                if nanos >= Self::AS_CONFIGURED.0 {
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

/// The three limits of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    /// Queue and run together.
    pub(crate) timeout: Limit,
    /// The queue alone.
    pub(crate) max_wait: Limit,
    /// The run alone.
    pub(crate) run_timeout: Limit,
}

impl TimeLimits {
    const NONE: Self = Self {
        timeout: Limit::NONE,
        max_wait: Limit::NONE,
        run_timeout: Limit::NONE,
    };

    /// What a call that says nothing about its limits begins with.
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

    /// The first limit that wants a timer.
    pub(crate) fn needs_timer(&self) -> Option<&'static Lack> {
        // Who never waits needs no timer for it.
        let max_wait = if self.max_wait == Limit(0) {
            Limit::NONE
        } else {
            self.max_wait
        };
        let limits = [
            (&Lack::TIMEOUT, self.timeout),
            (&Lack::MAX_WAIT, max_wait),
            (&Lack::RUN_TIMEOUT, self.run_timeout),
        ];
        limits
            .into_iter()
            .find_map(|(lack, limit)| (limit != Limit::NONE).then_some(lack))
    }
}

/// The configured limits, readable while they are changed.
#[derive(Debug)]
pub(crate) struct ConfiguredLimits {
    any: AtomicBool,
    timeout: AtomicU64,
    max_wait: AtomicU64,
    run_timeout: AtomicU64,
}

impl ConfiguredLimits {
    pub(crate) fn new(limits: TimeLimits) -> Self {
        let none = || AtomicU64::new(Limit::NONE.0);
        let configured = Self {
            any: AtomicBool::new(false),
            timeout: none(),
            max_wait: none(),
            run_timeout: none(),
        };
        configured.set(limits);
        configured
    }

    pub(crate) fn set(&self, limits: TimeLimits) {
        self.timeout.store(limits.timeout.0, Ordering::Relaxed);
        self.max_wait.store(limits.max_wait.0, Ordering::Relaxed);
        self.run_timeout
            .store(limits.run_timeout.0, Ordering::Relaxed);
        self.any
            .store(limits != TimeLimits::NONE, Ordering::Relaxed);
    }

    /// Whether there is any limit.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The limits of one call.
    pub(crate) fn resolve(&self, own: TimeLimits) -> TimeLimits {
        TimeLimits {
            timeout: own.timeout.or(&self.timeout),
            max_wait: own.max_wait.or(&self.max_wait),
            run_timeout: own.run_timeout.or(&self.run_timeout),
        }
    }
}

/// One call's times.
pub(crate) enum Deadlines {
    /// The call says nothing of limits, and nobody wants to know how long it takes: unless the
    /// bulkhead has limits, the clock is never read.
    Unkept,
    /// What the call said before it began.
    Asked(TimeLimits),
    /// No limits, and the operation began at this moment.
    Running(Instant),
    /// The call has begun.
    Kept(Times),
}

pub(crate) struct Times {
    timeout: Limit,
    run_timeout: Limit,
    phase: RunPhase,
    began: Instant,
    /// For the deadline of the phase that the call is in.
    timer: Option<Sleep>,
}

/// What has to be remembered of the phase that a call is in, in eight bytes: while it has no permit, how
/// long it may wait for one; afterwards, how long it has waited.
///
/// In nanoseconds. The uppermost bit tells the one from the other, and 292 years fit below it.
#[derive(Clone, Copy)]
struct RunPhase(u64);

impl RunPhase {
    const RUNS: u64 = 1 << 63;

    /// A limit that would not fit never comes.
    const fn waits(max_wait: Limit) -> Self {
        Self(if max_wait.0 < Self::RUNS {
            max_wait.0
        } else {
            Limit::NONE.0
        })
    }

    fn runs(after: Duration) -> Self {
        Self(
            Self::RUNS
                | u64::try_from(after.as_nanos())
                    .unwrap_or(u64::MAX)
                    .min(Self::RUNS - 2),
        )
    }

    const fn max_wait(self) -> Limit {
        if self.0 < Self::RUNS {
            Limit(self.0)
        } else {
            Limit::NONE
        }
    }

    const fn waited(self) -> Option<Duration> {
        if self.0 < Self::RUNS || self.0 == Limit::NONE.0 {
            return None;
        }
        Some(Duration::from_nanos(self.0 ^ Self::RUNS))
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
            phase: RunPhase::waits(max_wait),
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

    /// When the operation began.
    fn running(&self) -> Option<Instant> {
        self.began.checked_add(self.phase.waited()?)
    }

    /// A time that overflows never comes.
    fn total(&self) -> Option<Instant> {
        self.began.checked_add(self.timeout.get()?)
    }

    fn queue(&self) -> Option<Instant> {
        let wait = self
            .phase
            .max_wait()
            .get()
            .and_then(|limit| self.began.checked_add(limit));
        earlier(wait, self.total())
    }

    fn run_until(&self) -> Option<Instant> {
        let run = self
            .run_timeout
            .get()
            .and_then(|limit| self.running()?.checked_add(limit));
        earlier(run, self.total())
    }
}

impl Deadlines {
    /// Whether the call's times matter.
    #[inline]
    pub(crate) const fn matter(&self) -> bool {
        !matches!(self, Self::Unkept)
    }

    /// The limits that the call has, with what it said itself.
    pub(crate) fn limits(&self, configured: &ConfiguredLimits) -> TimeLimits {
        match self {
            Self::Unkept => configured.resolve(TimeLimits::AS_CONFIGURED),
            Self::Asked(own) => configured.resolve(*own),
            Self::Running(_) => TimeLimits::NONE,
            Self::Kept(times) => times.limits(),
        }
    }

    /// The call begins.
    pub(crate) fn begin(&mut self, limits: TimeLimits, now: Instant) {
        *self = Self::Kept(Times::new(limits, now));
    }

    /// Whether the call may wait for a permit at all.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        !matches!(self, Self::Kept(times) if times.phase.max_wait() == Limit(0))
    }

    /// When the call must have left the queue.
    #[inline]
    pub(crate) fn queue(&self) -> Option<Instant> {
        self.times()?.queue()
    }

    /// When the whole call must be over.
    #[inline]
    pub(crate) fn total(&self) -> Option<Instant> {
        self.times()?.total()
    }

    /// The operation begins, and somebody wants to know for how long it runs.
    pub(crate) fn run(&mut self, waited: bool, runtime: &dyn Runtime) {
        match self {
            // Without a wait no time has passed that is worth a clock reading.
            Self::Kept(times) if !waited => times.phase = RunPhase::runs(Duration::ZERO),
            Self::Kept(times) => {
                times.timer = None;
                times.phase = RunPhase::runs(runtime.now().saturating_duration_since(times.began));
            }
            Self::Unkept | Self::Asked(_) | Self::Running(_) => {
                *self = Self::Running(runtime.now())
            }
        }
    }

    /// When the operation must be over.
    #[inline]
    pub(crate) fn run_until(&self) -> Option<Instant> {
        self.times()?.run_until()
    }

    /// When the operation began, if the clock was read then.
    pub(crate) fn running(&self) -> Option<Instant> {
        match self {
            Self::Running(since) => Some(*since),
            Self::Kept(times) => times.running(),
            Self::Unkept | Self::Asked(_) => None,
        }
    }

    /// The call is over: how long the operation ran, if the clock was read when it began.
    pub(crate) fn ran(&self, runtime: &dyn Runtime) -> Option<Duration> {
        let running = self.running()?;
        Some(runtime.now().saturating_duration_since(running))
    }

    /// How long the call waited and how long its operation ran, as of `now` where one goes on.
    pub(crate) fn spent(&self, now: Instant) -> (Duration, Duration) {
        let between =
            |from: Instant, to: Option<Instant>| to.unwrap_or(now).saturating_duration_since(from);
        let ran = self
            .running()
            .map_or(Duration::ZERO, |running| between(running, None));
        let waited = self.times().map_or(Duration::ZERO, |times| {
            between(times.began, times.running())
        });
        (waited, ran)
    }

    /// Whether only the total timeout has passed in a call that waited longer than it ran: our
    /// queue is not the dependency's fault.
    pub(crate) fn is_queues_fault(&self, now: Instant) -> bool {
        let (queued, ran) = self.spent(now);
        let run_limit = self.times().and_then(|times| times.run_timeout.get());
        run_limit.is_none_or(|limit| ran < limit) && queued > ran
    }

    /// Completes at `deadline`, that of the present phase. The timer is made at the first poll.
    pub(crate) fn poll(
        &mut self,
        deadline: Instant,
        runtime: &dyn Runtime,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Self::Kept(times) = self else {
            return Poll::Pending;
        };
        times
            .timer
            .get_or_insert_with(|| runtime.sleep_until(deadline))
            .as_mut()
            .poll(cx)
    }

    /// The same moments, for somebody who needs no timer.
    pub(crate) fn without_timer(&self) -> Self {
        match self {
            Self::Kept(times) => {
                let Times {
                    timeout,
                    run_timeout,
                    phase,
                    began,
                    timer: _,
                } = *times;
                Self::Kept(Times {
                    timeout,
                    run_timeout,
                    phase,
                    began,
                    timer: None,
                })
            }
            Self::Running(since) => Self::Running(*since),
            Self::Unkept | Self::Asked(_) => Self::Unkept,
        }
    }

    #[inline]
    const fn times(&self) -> Option<&Times> {
        match self {
            Self::Kept(times) => Some(times),
            Self::Unkept | Self::Asked(_) | Self::Running(_) => None,
        }
    }
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let times = self.times();
        f.debug_struct("Deadlines")
            .field("limits", &times.map(Times::limits))
            .field("began", &times.map(|times| times.began))
            .field("running", &self.running())
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
    fn a_phase_is_a_limit_or_a_moment() {
        let nanos = Duration::from_nanos;
        for limit in [nanos(0), nanos(1), Duration::from_secs(200 * 365 * 86_400)] {
            let phase = RunPhase::waits(Limit::new(Some(limit)));
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
            let phase = RunPhase::waits(Limit::new(never));
            assert_eq!((phase.max_wait(), phase.waited()), (Limit::NONE, None));
        }
        for waited in [nanos(0), nanos(1), Duration::from_secs(200 * 365 * 86_400)] {
            let phase = RunPhase::runs(waited);
            assert_eq!(
                (phase.max_wait(), phase.waited()),
                (Limit::NONE, Some(waited))
            );
        }
        assert!(RunPhase::runs(Duration::MAX).waited().is_some());
    }

    #[test]
    fn a_call_carries_no_more_than_this() {
        assert!(size_of::<Deadlines>() <= 56, "{}", size_of::<Deadlines>());
    }
}
