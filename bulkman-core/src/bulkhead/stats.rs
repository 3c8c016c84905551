//! The counters of a bulkhead.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Bulkhead;
use crate::adaptive::SampleMask;
use crate::call::outcome::Outcome;
use crate::circuit_breaker::{CircuitBreaker, CircuitRejections, CircuitState};
use crate::name::BulkheadName;
use crate::sync::{Mutex, lock};

/// A reading of a bulkhead's counters.
///
/// In every reading `started = successful + failed + ignored + cancelled + active`. Rejected calls
/// never started; [`rejected`](Self::rejected) counts them by reason.
///
/// Counters count since the bulkhead was created, or since
/// [`reset_stats`](crate::Bulkhead::reset_stats).
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), ClockOnly)?;
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>(()));
/// let _ = bulkhead.execute_sync(|| Err::<(), _>("rejected by the server"));
/// let stats = bulkhead.stats();
/// assert_eq!(
///     (stats.started, stats.successful, stats.failed, stats.active),
///     (2, 1, 1, 0)
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadStats {
    /// The bulkhead's name.
    pub bulkhead: BulkheadName,
    /// Calls that acquired a permit and were admitted by the circuit.
    pub started: u64,
    /// Calls with the outcome [`Outcome::Success`].
    pub successful: u64,
    /// Calls with the outcome [`Outcome::Failure`] or [`Outcome::Overloaded`]: errors, timeouts
    /// while running, panics, requests for less load.
    pub failed: u64,
    /// Calls with the outcome [`Outcome::Ignored`].
    pub ignored: u64,
    /// Calls that were cancelled while running: their future or permit was dropped.
    pub cancelled: u64,
    /// Calls that are running. Blocking work counts until its closure has returned.
    pub active: u64,
    /// Calls that never started, by reason.
    pub rejected: Rejections,
    /// Calls that were cancelled while waiting for a permit: their future was dropped.
    pub cancelled_in_queue: u64,
    /// Calls that timed out while running. Blocking work counts here when the caller gets its
    /// error, and as `failed` when its closure has returned.
    pub timed_out_running: u64,
    /// Calls that panicked. They also count as `failed`.
    pub panicked: u64,
    /// Calls with the outcome [`Outcome::Overloaded`]. They also count as `failed`.
    pub overloaded: u64,
    /// Calls that are waiting for permits.
    pub waiting: usize,
    /// Calls that are waiting because their key holds as many permits as it may:
    /// [`max_per_key`](crate::bulkhead::Fairness::max_per_key).
    pub waiting_at_key_maximum: usize,
    /// The maximum of `waiting` since the last reset.
    pub peak_waiting: usize,
    /// Permits that are held, by the [weight](crate::call::Call::weight) of each call. Exceeds
    /// `max_concurrent_calls` only after that was reduced. Calls without a permit, in observe mode,
    /// count in `active` only.
    pub permits_in_use: usize,
    /// The current limit of concurrent calls: with an adaptive limit, the smaller one of the two.
    pub max_concurrent_calls: usize,
    /// The current capacity of the queue, in calls.
    pub max_queue_size: usize,
    /// The state of the circuit; `None` without a circuit breaker.
    pub circuit: Option<CircuitState>,
}

/// Counts of calls that never started, by reason.
///
/// In the serialized form the fields of `circuit` stand beside the others, and all names are those
/// of the label `reason` of the metric `bulkman_rejections_total`.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("mail")
///     .max_concurrent_calls(1)
///     .max_queue_size(0);
/// let bulkhead = Bulkhead::new(config, ClockOnly)?;
/// let running = bulkhead.try_acquire().unwrap();
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("sent"));
/// bulkhead.circuit_breaker().unwrap().force_open();
/// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("sent"));
/// let rejected = bulkhead.stats().rejected;
/// assert_eq!(
///     (
///         rejected.full,
///         rejected.circuit.forced_open,
///         rejected.total()
///     ),
///     (1, 1, 2)
/// );
/// # drop(running);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Rejections {
    /// Calls that the circuit rejected, including those that were queued when it opened.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub circuit: CircuitRejections,
    /// Calls that found no permit available and the queue full.
    pub full: u64,
    /// Calls that were waiting for a permit when their deadline passed.
    pub timed_out_in_queue: u64,
    /// Calls that arrived after the shutdown, or were queued at its time.
    pub shutdown: u64,
    /// Calls whose key had as many waiting calls as
    /// [`max_queue_per_key`](crate::bulkhead::Fairness::max_queue_per_key) admits.
    pub key_queue_full: u64,
    /// Calls that had to leave a full queue for one of another key.
    pub evicted: u64,
    /// Calls whose weight is above the configured maximum, so that they can never run.
    pub weight_too_large: u64,
}

impl Rejections {
    /// Returns the total.
    ///
    /// ```
    /// # use bulkman::bulkhead::Rejections;
    /// assert_eq!(Rejections::default().total(), 0);
    /// ```
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.circuit.total()
            + self.full
            + self.timed_out_in_queue
            + self.shutdown
            + self.key_queue_full
            + self.evicted
            + self.weight_too_large
    }
}

impl Bulkhead {
    /// Returns a reading of the counters, the limits and the circuit's state.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, &str>("found"));
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// let stats = bulkhead.stats();
    /// assert_eq!((stats.started, stats.successful, stats.failed), (2, 1, 1));
    /// assert_eq!(
    ///     (stats.active, stats.waiting, stats.rejected.total()),
    ///     (0, 0, 0)
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> BulkheadStats {
        let inner = &*self.inner;
        let reading = inner.counters.read(inner.circuit_rejections());
        let limits = inner.queue.limits();
        BulkheadStats {
            bulkhead: inner.name.clone(),
            started: reading.started,
            successful: reading.successful,
            failed: reading.failed,
            ignored: reading.ignored,
            cancelled: reading.cancelled,
            active: reading.active(),
            rejected: Rejections {
                circuit: reading.circuit,
                full: reading.event(Event::Full),
                timed_out_in_queue: reading.event(Event::TimedOutWaiting),
                shutdown: reading.event(Event::Shutdown),
                key_queue_full: reading.event(Event::KeyQueueFull),
                evicted: reading.event(Event::Evicted),
                weight_too_large: reading.event(Event::WeightTooLarge),
            },
            cancelled_in_queue: reading.event(Event::CancelledWaiting),
            timed_out_running: reading.event(Event::TimedOutRunning),
            panicked: reading.event(Event::Panicked),
            overloaded: reading.event(Event::Overloaded),
            waiting: inner.queue.waiting(),
            waiting_at_key_maximum: inner.queue.waiting_at_key_maximum(),
            peak_waiting: inner.queue.peak_waiting(),
            permits_in_use: inner.queue.in_use(),
            max_concurrent_calls: limits.permits,
            max_queue_size: limits.queue_capacity,
            circuit: inner.circuit.as_ref().map(CircuitBreaker::state),
        }
    }

    /// Sets the counters to zero.
    ///
    /// Running calls count as started after the reset. `peak_waiting` becomes the present number of
    /// waiting calls. Neither the circuit nor the metrics are reset.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("found"));
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.reset_stats();
    /// assert_eq!(
    ///     (bulkhead.stats().started, bulkhead.stats().successful),
    ///     (1, 0)
    /// );
    /// running.succeed();
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reset_stats(&self) {
        self.inner.counters.reset(self.inner.circuit_rejections());
        self.inner.queue.reset_peak_waiting();
    }
}

/// The counters behind [`BulkheadStats`].
///
/// A successful call writes two of them. `active` is derived: calls that have started and not
/// ended.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicU64,
    /// Which of the started calls are samples of the limit.
    pub(crate) sample_mask: SampleMask,
    successful: AtomicU64,
    rare: Rare,
    /// Subtracted from all later readings. Boxed, since few bulkheads are ever reset.
    base: Mutex<Option<Box<Reading>>>,
}

/// The counters that a successful call does not write.
#[derive(Debug, Default)]
struct Rare {
    failed: AtomicU64,
    ignored: AtomicU64,
    cancelled: AtomicU64,
    events: [AtomicU64; Event::COUNT],
}

/// Events other than the end of a call that ran.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Full,
    Shutdown,
    TimedOutWaiting,
    CancelledWaiting,
    TimedOutRunning,
    Panicked,
    Overloaded,
    WeightTooLarge,
    KeyQueueFull,
    Evicted,
}

impl Event {
    const COUNT: usize = Self::Evicted as usize + 1;
}

/// A reading of all counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) started: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) cancelled: u64,
    pub(crate) events: [u64; Event::COUNT],
    pub(crate) circuit: CircuitRejections,
}

impl Counters {
    /// Counts the start of a call, and returns its number. The first one is 1.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.started.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the number of calls that started.
    #[inline]
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that succeeded.
    pub(crate) fn successful(&self) -> u64 {
        self.successful.load(Ordering::Relaxed)
    }

    /// Counts the end of a call that ran. `None`: it was cancelled.
    #[inline]
    pub(crate) fn end(&self, outcome: Option<Outcome>) {
        let counter = match outcome {
            Some(Outcome::Success) => &self.successful,
            Some(Outcome::Failure) => &self.rare.failed,
            Some(Outcome::Overloaded) => {
                self.count(Event::Overloaded);
                &self.rare.failed
            }
            Some(Outcome::Ignored) => &self.rare.ignored,
            None => &self.rare.cancelled,
        };
        // Release: a reader of this end also reads the start before it.
        counter.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn count(&self, event: Event) {
        self.rare.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a reading since the last reset. `circuit` are the present counts of the circuit.
    pub(crate) fn read(&self, circuit: CircuitRejections) -> Reading {
        let base = lock(&self.base).as_deref().copied().unwrap_or_default();
        self.read_all(circuit).since(&base)
    }

    /// Starts again at zero. Running calls count as started after the reset.
    pub(crate) fn reset(&self, circuit: CircuitRejections) {
        let mut base = lock(&self.base);
        let mut now = self.read_all(circuit);
        now.started = now.ended();
        *base = Some(Box::new(now));
    }

    /// Returns a reading since the bulkhead was created, regardless of resets.
    #[cfg(feature = "metrics")]
    pub(crate) fn lifetime(&self, circuit: CircuitRejections) -> Reading {
        self.read_all(circuit)
    }

    /// Ends are read before starts, so that no reading has more ends than starts.
    fn read_all(&self, circuit: CircuitRejections) -> Reading {
        let ends = Ordering::Acquire;
        let mut reading = Reading {
            started: 0,
            successful: self.successful.load(ends),
            failed: self.rare.failed.load(ends),
            ignored: self.rare.ignored.load(ends),
            cancelled: self.rare.cancelled.load(ends),
            events: std::array::from_fn(|i| self.rare.events[i].load(Ordering::Relaxed)),
            circuit,
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
        // A reading that races with a reset may be older than its base by a few events.
        let since = |now: u64, base: u64| now.saturating_sub(base);
        Self {
            started: since(self.started, base.started),
            successful: since(self.successful, base.successful),
            failed: since(self.failed, base.failed),
            ignored: since(self.ignored, base.ignored),
            cancelled: since(self.cancelled, base.cancelled),
            events: std::array::from_fn(|i| since(self.events[i], base.events[i])),
            circuit: self.circuit.since(&base.circuit),
        }
    }
}
