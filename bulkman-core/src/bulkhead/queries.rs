//! What can be seen of a bulkhead.

use std::time::Duration;

use super::Bulkhead;
use crate::bulkhead::state::BulkheadState;
use crate::bulkhead::stats::{BulkheadStats, Event, Rejections};
use crate::circuit_breaker::{CircuitBreaker, CircuitEvents, CircuitState};

impl Bulkhead {
    /// The bulkhead's condition. Reading it performs a due transition of the circuit, so it is
    /// right without traffic.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let config = BulkheadConfig::new("search").failure_threshold(1);
    /// let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    /// runtime.advance(Duration::from_secs(30));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded);   // the next calls are probes
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn state(&self) -> BulkheadState {
        if self.inner.queue.is_closed() {
            return BulkheadState::ShutDown;
        }
        match self.inner.circuit.as_ref().map(CircuitBreaker::state) {
            Some(CircuitState::Open | CircuitState::ForcedOpen) => BulkheadState::Isolated,
            Some(CircuitState::HalfOpen) => BulkheadState::Degraded,
            _ => BulkheadState::Healthy,
        }
    }

    /// Whether calls have a chance to pass: [`Healthy`](BulkheadState::Healthy) or
    /// [`Degraded`](BulkheadState::Degraded).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let status = |bulkhead: &Bulkhead| if bulkhead.is_healthy() { 200 } else { 503 };
    /// assert_eq!(status(&bulkhead), 200);
    /// bulkhead.circuit_breaker().unwrap().open();
    /// assert_eq!(status(&bulkhead), 503);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(
            self.state(),
            BulkheadState::Healthy | BulkheadState::Degraded
        )
    }

    /// The counters.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, &str>("found"));
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// let stats = bulkhead.stats();
    /// assert_eq!((stats.started, stats.successful, stats.failed), (2, 1, 1));
    /// assert_eq!((stats.active, stats.waiting, stats.rejected.total()), (0, 0, 0));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> BulkheadStats {
        let inner = &*self.inner;
        let reading = inner.counters.read(inner.refused_by_circuit());
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
                circuit_open: reading.refused.open,
                probe_limit_reached: reading.refused.probe_limit_reached,
                forced_open: reading.refused.forced_open,
                no_probe_lease: reading.refused.no_probe_lease,
                full: reading.event(Event::Full),
                timed_out_in_queue: reading.event(Event::TimedOutWaiting),
                shutdown: reading.event(Event::Shutdown),
            },
            cancelled_in_queue: reading.event(Event::CancelledWaiting),
            timed_out_running: reading.event(Event::TimedOutRunning),
            panicked: reading.event(Event::Panicked),
            waiting: inner.queue.waiting(),
            peak_waiting: inner.queue.peak_waiting(),
            permits_in_use: inner.queue.in_use(),
            max_concurrent_calls: limits.permits,
            max_queue_size: limits.queue_capacity,
            circuit: inner.circuit.as_ref().map(CircuitBreaker::state),
        }
    }

    /// Sets the counters to zero. Calls that run now count as started after it.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("found"));
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.reset_stats();
    /// assert_eq!((bulkhead.stats().started, bulkhead.stats().successful), (1, 0));
    /// running.succeed();
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reset_stats(&self) {
        self.inner.counters.reset(self.inner.refused_by_circuit());
        self.inner.queue.reset_peak_waiting();
    }

    /// The circuit breaker; `None` when the configuration has none.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// if let Some(circuit) = bulkhead.circuit_breaker() {
    ///     circuit.force_open();              // by hand: the server is being moved
    /// }
    /// assert!(!bulkhead.is_healthy());
    ///
    /// let config = BulkheadConfig::new("reports").circuit_breaker_enabled(false);
    /// assert!(Bulkhead::new(config, ClockOnly)?.circuit_breaker().is_none());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<&CircuitBreaker> {
        self.inner.circuit.as_ref()
    }

    /// When an open circuit lets the next call through; `None` when it is not open, or held open by
    /// hand.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// assert_eq!(bulkhead.retry_after(), None);
    /// bulkhead.circuit_breaker().unwrap().open();
    /// runtime.advance(Duration::from_secs(10));
    /// assert_eq!(bulkhead.retry_after(), Some(Duration::from_secs(20)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner
            .circuit
            .as_ref()
            .and_then(CircuitBreaker::retry_after)
    }

    /// The circuit's transitions from now on, in order: see [`CircuitEvents`].
    ///
    /// Ends at once without a circuit breaker. A slow reader never holds up a call: it is told
    /// how many it missed.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::circuit_breaker::{CircuitEvent, CircuitState};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").failure_threshold(1), ClockOnly)?;
    /// let mut events = bulkhead.events();
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// // Or `while let Some(event) = events.next().await`, in a task of its own.
    /// let Some(CircuitEvent::Transition(transition)) = events.try_next() else { panic!("no news") };
    /// assert_eq!((transition.from, transition.to), (CircuitState::Closed, CircuitState::Open));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn events(&self) -> CircuitEvents {
        self.inner
            .circuit
            .as_ref()
            .map_or_else(CircuitEvents::ended, CircuitBreaker::events)
    }
}
