//! When a call's time is over: its limits, the moments it passed, and the one timer it needs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::config::BulkheadConfig;
use crate::runtime::{Runtime, Sleep};

/// The three limits of a call, each `None` for unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    /// Queue and run together.
    pub(crate) timeout: Option<Duration>,
    /// The queue alone.
    pub(crate) max_wait: Option<Duration>,
    /// The run alone.
    pub(crate) run_timeout: Option<Duration>,
}

impl TimeLimits {
    pub(crate) const fn of(config: &BulkheadConfig) -> Self {
        let (timeout, max_wait, run_timeout) = config.times();
        Self { timeout, max_wait, run_timeout }
    }
}

/// What one call says about its limits; `None`: as configured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) max_wait: Option<Option<Duration>>,
    pub(crate) run_timeout: Option<Option<Duration>>,
}

impl Overrides {
    const fn any(&self) -> bool {
        self.timeout.is_some() || self.max_wait.is_some() || self.run_timeout.is_some()
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

/// Nanoseconds that stand for no limit; what is longer than this (584 years) is none either.
const UNLIMITED: u64 = u64::MAX;

impl ConfiguredLimits {
    pub(crate) fn new(limits: TimeLimits) -> Self {
        let configured = Self {
            any: AtomicBool::new(false),
            timeout: AtomicU64::new(UNLIMITED),
            max_wait: AtomicU64::new(UNLIMITED),
            run_timeout: AtomicU64::new(UNLIMITED),
        };
        configured.set(limits);
        configured
    }

    pub(crate) fn set(&self, limits: TimeLimits) {
        let pack = |limit: Option<Duration>| {
            limit.and_then(|limit| u64::try_from(limit.as_nanos()).ok()).unwrap_or(UNLIMITED)
        };
        self.timeout.store(pack(limits.timeout), Ordering::Relaxed);
        self.max_wait.store(pack(limits.max_wait), Ordering::Relaxed);
        self.run_timeout.store(pack(limits.run_timeout), Ordering::Relaxed);
        self.any.store(limits != TimeLimits::default(), Ordering::Relaxed);
    }

    fn with(&self, overrides: &Overrides) -> TimeLimits {
        let unpack = |limit: &AtomicU64| match limit.load(Ordering::Relaxed) {
            UNLIMITED => None,
            nanos => Some(Duration::from_nanos(nanos)),
        };
        TimeLimits {
            timeout: overrides.timeout.unwrap_or_else(|| unpack(&self.timeout)),
            max_wait: overrides.max_wait.unwrap_or_else(|| unpack(&self.max_wait)),
            run_timeout: overrides.run_timeout.unwrap_or_else(|| unpack(&self.run_timeout)),
        }
    }
}

/// One call's times. Without limits, and unless somebody wants them, it never reads the clock.
#[derive(Default)]
pub(crate) struct Deadlines {
    limits: TimeLimits,
    began: Option<Instant>,
    running: Option<Instant>,
    ended: Option<Instant>,
    timer: Option<(Instant, Sleep)>,
}

impl Deadlines {
    /// The call begins. `wanted`: somebody will ask for the times, whatever the limits.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        configured: &ConfiguredLimits,
        overrides: &Overrides,
        wanted: bool,
        runtime: &dyn Runtime,
    ) {
        if wanted || overrides.any() || configured.any.load(Ordering::Relaxed) {
            self.limits = configured.with(overrides);
            self.began = Some(runtime.now());
        }
    }

    pub(crate) const fn limits(&self) -> &TimeLimits {
        &self.limits
    }

    /// Whether the call may wait for a permit at all.
    pub(crate) const fn may_wait(&self) -> bool {
        !matches!(self.limits.max_wait, Some(Duration::ZERO))
    }

    /// When the call must have left the queue. A time that overflows never comes.
    pub(crate) fn queue(&self) -> Option<Instant> {
        earlier(self.after_begin(self.limits.max_wait), self.total())
    }

    /// When the whole call must be over.
    pub(crate) fn total(&self) -> Option<Instant> {
        self.after_begin(self.limits.timeout)
    }

    /// The operation begins. `wanted`: the circuit needs to know how long it takes.
    #[inline]
    pub(crate) fn run(&mut self, waited: bool, wanted: bool, runtime: &dyn Runtime) {
        self.timer = None;
        if let Some(began) = self.began {
            // Without a wait no time has passed that is worth a clock reading.
            self.running = Some(if waited { runtime.now() } else { began });
        } else if wanted {
            self.running = Some(runtime.now());
        }
    }

    /// When the operation must be over.
    pub(crate) fn run_until(&self) -> Option<Instant> {
        let run = self.limits.run_timeout.and_then(|limit| self.running?.checked_add(limit));
        earlier(run, self.total())
    }

    /// The call is over: how long the operation ran, if the clock was read when it began.
    #[inline]
    pub(crate) fn end(&mut self, runtime: &dyn Runtime) -> Option<Duration> {
        let running = self.running?;
        let now = runtime.now();
        self.ended = Some(now);
        Some(now.saturating_duration_since(running))
    }

    /// How long the call waited and how long its operation ran, as of `now` where one goes on.
    pub(crate) fn spent(&self, now: Instant) -> (Duration, Duration) {
        let between = |from: Instant, to: Option<Instant>| to.unwrap_or(now).saturating_duration_since(from);
        let queued = self.began.map_or(Duration::ZERO, |began| between(began, self.running));
        let ran = self.running.map_or(Duration::ZERO, |running| between(running, self.ended));
        (queued, ran)
    }

    /// Whether only the total timeout has passed in a call that waited longer than it ran: our
    /// queue is not the dependency's fault.
    pub(crate) fn is_queues_fault(&self, now: Instant) -> bool {
        let (queued, ran) = self.spent(now);
        self.limits.run_timeout.is_none_or(|limit| ran < limit) && queued > ran
    }

    /// Completes at `deadline`. The timer is made at the first poll, and once.
    pub(crate) fn poll(
        &mut self,
        deadline: Instant,
        runtime: &dyn Runtime,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let timer = match &mut self.timer {
            Some((until, timer)) if *until == deadline => timer,
            _ => &mut self.timer.insert((deadline, runtime.sleep_until(deadline))).1,
        };
        timer.as_mut().poll(cx)
    }

    /// The same moments, for somebody who needs no timer.
    pub(crate) fn without_timer(&self) -> Self {
        Self { limits: self.limits, began: self.began, running: self.running, ended: self.ended, timer: None }
    }

    fn after_begin(&self, limit: Option<Duration>) -> Option<Instant> {
        self.began?.checked_add(limit?)
    }
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadlines")
            .field("limits", &self.limits)
            .field("began", &self.began)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
