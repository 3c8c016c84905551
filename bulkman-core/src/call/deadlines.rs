//! The deadlines of a call: the instants it has passed, and its timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::call::limits::{ConfiguredLimits, Limit, TimeLimits};
use crate::runtime::{Runtime, Sleep};

/// The limits of one call and the instants it has passed.
pub(crate) enum Deadlines {
    /// The call sets no limits and its duration is not needed. The clock is not read unless the
    /// bulkhead has limits.
    Untracked,
    /// The limits that the call sets. It was not polled yet.
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
    /// Returns `true` if the times of the call are needed.
    #[inline]
    pub(crate) const fn is_tracked(&self) -> bool {
        !matches!(self, Self::Untracked)
    }

    /// Returns the limits of the call: its own, completed by the configured limits.
    pub(crate) fn limits(&self, configured: &ConfiguredLimits) -> TimeLimits {
        match self {
            Self::Untracked => configured.resolve(TimeLimits::AS_CONFIGURED),
            Self::Requested(own) => configured.resolve(*own),
            Self::Started(_) => TimeLimits::NONE,
            Self::Tracked(times) => times.limits(),
        }
    }

    /// Starts to track the call, which begins at `now`.
    pub(crate) fn begin(&mut self, limits: TimeLimits, now: Instant) {
        *self = Self::Tracked(Times::new(limits, now));
    }

    /// Returns when the call began, and starts to track it without limits if it was not tracked.
    pub(crate) fn began(&mut self, runtime: &dyn Runtime) -> Instant {
        if !matches!(self, Self::Tracked(_)) {
            self.begin(TimeLimits::NONE, runtime.now());
        }
        match self {
            Self::Tracked(times) => times.began,
            _ => unreachable!("it is tracked"),
        }
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
        self.poll_timer(|| runtime.sleep_until(deadline), cx)
    }

    /// As [`poll`](Self::poll), with the timer that `timer` creates.
    pub(crate) fn poll_timer(
        &mut self,
        timer: impl FnOnce() -> Sleep,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Self::Tracked(times) = self else {
            return Poll::Pending;
        };
        times.timer.get_or_insert_with(timer).as_mut().poll(cx)
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
