//! What a bulkhead counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::call::outcome::Outcome;
use crate::circuit_breaker::{CircuitRejections, CircuitState};
use crate::name::BulkheadName;
use crate::sync::{Mutex, lock};

/// A reading of a bulkhead's counters.
///
/// In every reading `started = successful + failed + ignored + cancelled + active`. Refused calls
/// never started; they are counted by reason in [`rejected`](Self::rejected).
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), ClockOnly)?;
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>(()));
/// let _ = bulkhead.execute_sync(|| Err::<(), _>("refused by the server"));
/// let stats = bulkhead.stats();
/// assert_eq!((stats.started, stats.successful, stats.failed, stats.active), (2, 1, 1, 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadStats {
    /// The bulkhead.
    pub bulkhead: BulkheadName,
    /// Calls that got a permit and were admitted by the circuit.
    pub started: u64,
    /// Calls whose outcome was [`Outcome::Success`].
    pub successful: u64,
    /// Calls whose outcome was [`Outcome::Failure`]: errors, timeouts while running, panics.
    pub failed: u64,
    /// Calls whose outcome was [`Outcome::Ignored`].
    pub ignored: u64,
    /// Calls dropped while they ran.
    pub cancelled: u64,
    /// Calls running now. Blocking work counts until its closure has ended.
    pub active: u64,
    /// Calls that never started, by reason.
    pub rejected: Rejections,
    /// Calls that waited and went away before they got a permit; their callers dropped them.
    pub cancelled_in_queue: u64,
    /// Of the calls that started: those that timed out while running. Counted as soon as the
    /// caller is told, so for blocking work before `failed`.
    pub timed_out_running: u64,
    /// Of `failed`: those that panicked.
    pub panicked: u64,
    /// Calls waiting for a permit now.
    pub waiting: usize,
    /// The most calls that waited at once since the last reset.
    pub peak_waiting: usize,
    /// Permits held now. Above `max_concurrent_calls` only after shrinking.
    pub permits_in_use: usize,
    /// The limit of running calls in force.
    pub max_concurrent_calls: usize,
    /// The limit of waiting calls in force.
    pub max_queue_size: usize,
    /// The circuit's state; `None` without a circuit breaker.
    pub circuit: Option<CircuitState>,
}

/// Calls that never started, by reason.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
///
/// let config = BulkheadConfig::new("mail").max_concurrent_calls(1).max_queue_size(0);
/// let bulkhead = Bulkhead::new(config, ClockOnly)?;
/// let running = bulkhead.try_acquire().unwrap();
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("sent"));
/// bulkhead.circuit_breaker().unwrap().force_open();
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("sent"));
/// let refused = bulkhead.stats().rejected;
/// assert_eq!((refused.full, refused.forced_open, refused.total()), (1, 1, 2));
/// # drop(running);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Rejections {
    /// The circuit was open, also when it opened while the call waited.
    pub circuit_open: u64,
    /// The circuit was half-open and all its probes were out.
    pub probe_limit_reached: u64,
    /// The circuit was held open by hand.
    pub forced_open: u64,
    /// The circuit was half-open and its probes were held by other processes of the fleet.
    pub no_probe_lease: u64,
    /// No permit and no place in the queue.
    pub full: u64,
    /// The deadline passed in the queue.
    pub timed_out_in_queue: u64,
    /// The bulkhead was shut down.
    pub shutdown: u64,
}

impl Rejections {
    /// All of them.
    ///
    /// ```
    /// # use bulkman::bulkhead::Rejections;
    /// assert_eq!(Rejections::default().total(), 0);
    /// ```
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.circuit_open
            + self.probe_limit_reached
            + self.forced_open
            + self.no_probe_lease
            + self.full
            + self.timed_out_in_queue
            + self.shutdown
    }
}

/// The counters behind [`BulkheadStats`].
///
/// A call that starts and succeeds touches two of them; `active` is what has started and not
/// ended.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicU64,
    successful: AtomicU64,
    rare: Rare,
    /// What a reset takes off all later readings. Few bulkheads are ever reset.
    base: Mutex<Option<Box<Reading>>>,
}

/// Kept apart from the two that every call writes.
#[derive(Debug, Default)]
struct Rare {
    failed: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    events: [AtomicU64; 6],
}

/// Things that are counted and are not the end of a call that ran.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Full,
    Shutdown,
    TimedOutWaiting,
    CancelledWaiting,
    TimedOutRunning,
    Panicked,
}

/// All counters at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) started: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) cancelled: u64,
    pub(crate) events: [u64; 6],
    pub(crate) refused: CircuitRejections,
}

impl Counters {
    #[inline]
    pub(crate) fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that ran has ended; `None`: it was dropped.
    #[inline]
    pub(crate) fn end(&self, outcome: Option<Outcome>) {
        let counter = match outcome {
            Some(Outcome::Success) => &self.successful,
            Some(Outcome::Failure) => &self.rare.failed,
            Some(Outcome::Ignored) => &self.rare.ignored,
            None => &self.rare.cancelled,
        };
        // Whoever reads this end also reads the start before it.
        counter.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn count(&self, event: Event) {
        self.rare.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A reading since the last reset; `refused` is the circuit's counters now.
    pub(crate) fn read(&self, refused: CircuitRejections) -> Reading {
        let base = lock(&self.base).as_deref().copied().unwrap_or_default();
        self.read_all(refused).since(&base)
    }

    /// Begins again at zero. Calls that run now count as started after the reset.
    pub(crate) fn reset(&self, refused: CircuitRejections) {
        let mut base = lock(&self.base);
        let mut now = self.read_all(refused);
        now.started = now.ended();
        *base = Some(Box::new(now));
    }

    /// A reading since the bulkhead was made, whatever was reset.
    #[cfg(feature = "metrics")]
    pub(crate) fn lifetime(&self, refused: CircuitRejections) -> Reading {
        self.read_all(refused)
    }

    /// Ends are read before starts, so that no call is seen to end before it began.
    fn read_all(&self, refused: CircuitRejections) -> Reading {
        let ends = Ordering::Acquire;
        let mut reading = Reading {
            started: 0,
            successful: self.successful.load(ends),
            failed: self.rare.failed.load(ends),
            ignored: self.rare.ignored.load(ends),
            cancelled: self.rare.cancelled.load(ends),
            events: std::array::from_fn(|i| self.rare.events[i].load(Ordering::Relaxed)),
            refused,
        };
        reading.started = self.started.load(Ordering::Relaxed);
        reading
    }
}

impl Reading {
    pub(crate) const fn active(&self) -> u64 {
        self.started - self.ended()
    }

    pub(crate) const fn event(&self, event: Event) -> u64 {
        self.events[event as usize]
    }

    const fn ended(&self) -> u64 {
        self.successful + self.failed + self.ignored + self.cancelled
    }

    pub(crate) fn since(&self, base: &Self) -> Self {
        // A reading that raced with a reset may be older than its base by a few events.
        let since = |now: u64, base: u64| now.saturating_sub(base);
        Self {
            started: since(self.started, base.started),
            successful: since(self.successful, base.successful),
            failed: since(self.failed, base.failed),
            ignored: since(self.ignored, base.ignored),
            cancelled: since(self.cancelled, base.cancelled),
            events: std::array::from_fn(|i| since(self.events[i], base.events[i])),
            refused: self.refused.since(&base.refused),
        }
    }
}
