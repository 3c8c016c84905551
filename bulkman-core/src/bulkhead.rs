//! The bulkhead: what its users hold.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::blocking::ExecuteBlocking;
use crate::bulkhead_state::BulkheadState;
use crate::call::{Call, CallOptions};
use crate::circuit_breaker::{CircuitBreaker, CircuitEvents, CircuitState, Refusals, Ticket};
use crate::classified::Classified;
use crate::classify::ByResult;
use crate::config::BulkheadConfig;
use crate::deadlines::{ConfiguredLimits, TimeLimits};
use crate::drained::Drained;
use crate::error::{BulkheadError, ConfigError};
use crate::execute::Execute;
use crate::fleet::Fleet;
use crate::guard::Seat;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::permit::{Acquire, Permit};
use crate::queue::{Refusal, WaitQueue};
use crate::runtime::{Capabilities, Runtime};
use crate::stats::{BulkheadStats, Counters, Event, Rejections};
use crate::store::CircuitStore;
use crate::sync::{Mutex, lock};
use crate::wake::WakerSet;

/// Bounds the calls to one dependency, and stops calling it while it fails.
///
/// Cheap to clone; all clones are the same bulkhead. Make one for each dependency, keep it as
/// long as the dependency is used, and send every call through it. See the crate's front page for
/// the whole picture.
///
/// * Call: [`execute`](Self::execute), [`execute_blocking`](Self::execute_blocking),
///   [`execute_sync`](Self::execute_sync); [`acquire`](Self::acquire) and
///   [`try_acquire`](Self::try_acquire) in two steps; [`wrap`](Self::wrap) and
///   [`classified`](Self::classified) once and for all; [`call`](Self::call) with settings of
///   its own.
/// * Look: [`state`](Self::state), [`is_healthy`](Self::is_healthy), [`stats`](Self::stats),
///   [`snapshot`](Self::snapshot), [`events`](Self::events), [`retry_after`](Self::retry_after).
/// * Steer: [`reconfigure`](Self::reconfigure), [`circuit_breaker`](Self::circuit_breaker),
///   [`health_check`](Self::health_check), [`with_store`](Self::with_store).
/// * End: [`shutdown`](Self::shutdown), [`drained`](Self::drained).
///
/// ```
/// use bulkman_core::testing::ManualRuntime;
/// use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError};
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("payments").max_concurrent_calls(5).failure_threshold(2);
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
///
/// runtime.block_on(async {
///     assert_eq!(bulkhead.execute(async { Ok::<_, &str>("paid") }).await, Ok("paid"));
///     for _ in 0..2 {
///         let _ = bulkhead.execute(async { Err::<(), _>("gateway down") }).await;
///     }
///     let refused = bulkhead.execute(async { Ok::<_, &str>("paid") }).await.unwrap_err();
///     assert!(matches!(refused, BulkheadError::CircuitOpen { .. }));
///     assert_eq!(refused.retry_after(), Some(std::time::Duration::from_secs(30)));
/// });
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
///
/// # When not to use it
///
/// For work that must happen (a refusal is an answer here, not a failure), or for a limit per unit
/// of time, which is a rate limiter's.
///
/// # Nesting
///
/// An operation that calls its own bulkhead needs a second permit while it holds the first: on a
/// bulkhead of one slot it waits for itself, until `max_wait` or `timeout` ends it. Give such
/// calls a limit, or a bulkhead of their own.
#[derive(Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

/// What the clones of a bulkhead share. The fields that every call touches come first.
pub(crate) struct Inner {
    pub(crate) queue: WaitQueue,
    pub(crate) counters: Counters,
    pub(crate) circuit: Option<CircuitBreaker>,
    pub(crate) limits: ConfiguredLimits,
    pub(crate) capabilities: Capabilities,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) name: Name,
    /// Notified when the circuit's state changes, if somebody asked for it, and when the bulkhead
    /// ends: shut down, drained, dropped.
    pub(crate) ended: Arc<WakerSet>,
    #[cfg(feature = "metrics")]
    pub(crate) meter: crate::metrics::Meter,
    /// A fleet of its own; one that belongs to a manager is kept there.
    fleet: OnceLock<Fleet>,
    /// The settings, and how often they were changed.
    config: Mutex<(u64, BulkheadConfig)>,
}

impl Bulkhead {
    /// Makes a bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field, its value and the range; or the setting that this runtime
    /// can't honour.
    ///
    /// ```
    /// use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(5), ClockOnly)?;
    /// assert_eq!(bulkhead.name(), "search");
    ///
    /// let error = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(0), ClockOnly).unwrap_err();
    /// assert_eq!(error.to_string(), "`max_concurrent_calls` is 0, must be 1 to 1,000,000");
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn new(config: BulkheadConfig, runtime: impl Runtime) -> Result<Self, ConfigError> {
        Self::with_runtime(config, Arc::new(runtime))
    }

    /// As [`new`](Self::new), sharing a runtime.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly, Runtime};
    /// use std::sync::Arc;
    ///
    /// let runtime: Arc<dyn Runtime> = Arc::new(ClockOnly);
    /// let search = Bulkhead::with_runtime(BulkheadConfig::new("search"), Arc::clone(&runtime))?;
    /// let mail = Bulkhead::with_runtime(BulkheadConfig::new("mail"), runtime)?;
    /// assert!(search.is_healthy() && mail.is_healthy());
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn with_runtime(config: BulkheadConfig, runtime: Arc<dyn Runtime>) -> Result<Self, ConfigError> {
        config.validate()?;
        let capabilities = runtime.capabilities();
        config.supported_by(capabilities)?;
        let name = config.checked_name()?;
        let circuit = config
            .circuit()
            .map(|circuit| CircuitBreaker::from_parts(name.clone(), circuit, Arc::clone(&runtime)))
            .transpose()?;
        let (permits, places, order) = config.limits();
        let inner = Arc::new(Inner {
            queue: WaitQueue::new(permits, places, order),
            counters: Counters::default(),
            circuit,
            limits: ConfiguredLimits::new(TimeLimits::of(&config)),
            capabilities,
            runtime,
            name,
            ended: Arc::default(),
            #[cfg(feature = "metrics")]
            meter: crate::metrics::Meter::default(),
            fleet: OnceLock::new(),
            config: Mutex::new((0, config)),
        });
        if let Some(circuit) = &inner.circuit {
            follow_circuit(circuit, Arc::downgrade(&inner));
        }
        Ok(Self { inner })
    }

    /// Shares this bulkhead's circuit through a store, by a link of its own: see [`Fleet`]. Several
    /// bulkheads of one process better share one, by [`Fleet::attach`] or a manager's
    /// [`with_store`](crate::BulkheadManager::with_store).
    ///
    /// # Errors
    ///
    /// As [`Fleet::new`]; [`ConfigError::Immutable`] if the circuit is shared already.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, MemoryStore, testing::ManualRuntime};
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let here = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?.with_store(store.clone())?;
    /// let there = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?.with_store(store)?;
    /// runtime.run_until_stalled();           // both have a link now
    /// here.circuit_breaker().unwrap().open();
    /// runtime.advance(Duration::from_secs(1));
    /// assert!(!there.is_healthy());          // it has heard
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn with_store(self, store: impl CircuitStore) -> Result<Self, ConfigError> {
        let fleet = Fleet::from_parts(Arc::new(store), Arc::clone(&self.inner.runtime))?;
        fleet.attach(&self)?;
        let taken = ConfigError::immutable("store", "in use", "another");
        self.inner.fleet.set(fleet).map_err(|_| taken)?;
        Ok(self)
    }

    /// The fleet that [`with_store`](Self::with_store) made.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, MemoryStore, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// assert!(bulkhead.fleet().is_none());
    /// let bulkhead = bulkhead.with_store(MemoryStore::new(runtime))?;
    /// assert!(bulkhead.fleet().is_some());
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.inner.fleet.get()
    }

    /// Runs a future under the bulkhead's protection.
    ///
    /// The operation is polled in the caller's task; it need not be `Send`, and it may borrow.
    /// `Err` of the operation, a panic in it and a timeout while it runs count as failures of the
    /// dependency; see [`classified`](Self::classified) to decide otherwise.
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Operation`] is the operation's own; all others are the bulkhead's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives back all it holds. See [`Execute`].
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("docs"), runtime.clone()).unwrap();
    /// # async fn fetch(_: &str) -> Result<String, std::io::Error> { Ok(String::from("page")) }
    /// # runtime.block_on(async {
    /// let page = bulkhead.execute(fetch("/index.html")).await?;
    /// # assert_eq!(page, "page");
    /// # Ok::<(), bulkman_core::BulkheadError<std::io::Error>>(()) }).unwrap();
    /// ```
    #[inline]
    pub fn execute<F, T, E>(&self, operation: F) -> Execute<&Self, F, ByResult>
    where
        F: Future<Output = Result<T, E>>,
    {
        Execute::new(self, operation, ByResult, CallOptions::NONE)
    }

    /// Runs a closure where blocking does no harm to the executor.
    ///
    /// The closure keeps its permit until it has ended, whatever becomes of the caller; a timeout
    /// is prompt all the same.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); a panic comes back as [`BulkheadError::Panicked`], work that
    /// the runtime dropped as [`BulkheadError::Shutdown`].
    ///
    /// # Cancel safety
    ///
    /// See [`ExecuteBlocking`].
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("files"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let text = bulkhead.execute_blocking(|| std::fs::read_to_string("Cargo.toml")).await?;
    /// assert!(text.contains("[package]"));
    /// # Ok::<(), bulkman_core::BulkheadError<std::io::Error>>(()) }).unwrap();
    /// ```
    pub fn execute_blocking<F, T, E>(&self, operation: F) -> ExecuteBlocking<F, T, E, ByResult>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.call().execute_blocking(operation)
    }

    /// Runs a closure on the calling thread, for callers without an executor.
    ///
    /// Waits for a permit by parking the thread, bounded by `max_wait` and `timeout`. The closure
    /// itself can't be interrupted: if it overruns, its value is returned and the call is
    /// recorded as a failure.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("files"), ClockOnly)?;
    /// let text = bulkhead.execute_sync(|| std::fs::read_to_string("Cargo.toml"));
    /// assert!(text.is_ok());
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn execute_sync<F, T, E>(&self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
    {
        self.call().execute_sync(operation)
    }

    /// Begins a call with settings of its own: see [`Call`].
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// // Whatever the bulkhead is set to, this call rather goes without than waits.
    /// let hits = bulkhead.call().max_wait(Duration::ZERO).execute_sync(|| Ok::<_, ()>(12));
    /// assert_eq!(hits, Ok(12));
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[inline]
    pub const fn call(&self) -> Call<'_> {
        Call::new(self)
    }

    /// A function that goes through the bulkhead whenever it is called.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
    /// let search = bulkhead.wrap(|word: &'static str| async move { Ok::<_, ()>(word.len()) });
    /// assert_eq!(runtime.block_on(search("bulkhead")), Ok(8));
    /// ```
    pub fn wrap<A, Fut, T, E>(
        &self,
        function: impl Fn(A) -> Fut,
    ) -> impl Fn(A) -> Execute<Self, Fut, ByResult>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let bulkhead = self.clone();
        move |argument| bulkhead.clone().into_execute(function(argument))
    }

    /// A view of the bulkhead with a classifier of its own for one type of result.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, Outcome, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone()).unwrap();
    /// let users = bulkhead.classified(|result: &Result<String, u16>| match result {
    ///     Err(404) => Outcome::Ignored,            // says nothing about the server's health
    ///     Err(_) => Outcome::Failure,
    ///     Ok(_) => Outcome::Success,
    /// });
    /// let _ = runtime.block_on(users.execute(async { Err(404) }));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// ```
    pub fn classified<T, E, C>(&self, classifier: C) -> Classified<T, E, C>
    where
        C: Fn(&Result<T, E>) -> Outcome,
    {
        Classified::new(self.clone(), classifier)
    }

    /// Waits for a permit: see [`Permit`].
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), but for the operation's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue and loses nothing.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let permit = bulkhead.acquire().await?;
    /// // .. hold a connection for as long as it is of use ..
    /// permit.succeed();
    /// # Ok::<(), bulkman_core::BulkheadError<std::convert::Infallible>>(()) }).unwrap();
    /// ```
    pub fn acquire(&self) -> Acquire {
        self.call().acquire()
    }

    /// Takes a permit if one is free: see [`Permit`].
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Full`] if it would have to wait; otherwise as [`acquire`](Self::acquire).
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError, ClockOnly};
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp").max_concurrent_calls(1), ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// assert!(matches!(bulkhead.try_acquire(), Err(BulkheadError::Full { .. })));
    /// permit.succeed();
    /// assert!(bulkhead.try_acquire().is_ok());
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit, BulkheadError<Infallible>> {
        Permit::now(self)
    }

    /// The bulkhead's condition. Reading it performs a due transition of the circuit, so it is
    /// right without traffic.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadState, testing::ManualRuntime};
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let config = BulkheadConfig::new("search").failure_threshold(1);
    /// let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    /// runtime.advance(Duration::from_secs(30));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded);   // the next calls are probes
    /// # Ok::<(), bulkman_core::ConfigError>(())
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
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let status = |bulkhead: &Bulkhead| if bulkhead.is_healthy() { 200 } else { 503 };
    /// assert_eq!(status(&bulkhead), 200);
    /// bulkhead.circuit_breaker().unwrap().open();
    /// assert_eq!(status(&bulkhead), 503);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self.state(), BulkheadState::Healthy | BulkheadState::Degraded)
    }

    /// The counters.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, &str>("found"));
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// let stats = bulkhead.stats();
    /// assert_eq!((stats.started, stats.successful, stats.failed), (2, 1, 1));
    /// assert_eq!((stats.active, stats.waiting, stats.rejected.total()), (0, 0, 0));
    /// # Ok::<(), bulkman_core::ConfigError>(())
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
                probes_out: reading.refused.probes_out,
                forced_open: reading.refused.forced_open,
                no_lease: reading.refused.no_lease,
                full: reading.event(Event::Full),
                timed_out_waiting: reading.event(Event::TimedOutWaiting),
                shutdown: reading.event(Event::Shutdown),
            },
            cancelled_waiting: reading.event(Event::CancelledWaiting),
            timed_out_running: reading.event(Event::TimedOutRunning),
            panicked: reading.event(Event::Panicked),
            waiting: inner.queue.waiting(),
            waiting_high_water: inner.queue.high_water(),
            permits_in_use: inner.queue.in_use(),
            max_concurrent_calls: limits.permits,
            max_queue_size: limits.places,
            circuit: inner.circuit.as_ref().map(CircuitBreaker::state),
        }
    }

    /// Sets the counters to zero. Calls that run now count as started after it.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let _ = bulkhead.execute_sync(|| Ok::<_, ()>("found"));
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.reset_stats();
    /// assert_eq!((bulkhead.stats().started, bulkhead.stats().successful), (1, 0));
    /// running.succeed();
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn reset_stats(&self) {
        self.inner.counters.reset(self.inner.refused_by_circuit());
        self.inner.queue.reset_high_water();
    }

    /// The circuit breaker; `None` when the configuration has none.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// if let Some(circuit) = bulkhead.circuit_breaker() {
    ///     circuit.force_open();              // by hand: the server is being moved
    /// }
    /// assert!(!bulkhead.is_healthy());
    ///
    /// let config = BulkheadConfig::new("reports").circuit_breaker_enabled(false);
    /// assert!(Bulkhead::new(config, ClockOnly)?.circuit_breaker().is_none());
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<&CircuitBreaker> {
        self.inner.circuit.as_ref()
    }

    /// When an open circuit lets the next call through; `None` when it is not open, or held open by
    /// hand.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// assert_eq!(bulkhead.retry_after(), None);
    /// bulkhead.circuit_breaker().unwrap().open();
    /// runtime.advance(Duration::from_secs(10));
    /// assert_eq!(bulkhead.retry_after(), Some(Duration::from_secs(20)));
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.circuit.as_ref().and_then(CircuitBreaker::retry_after)
    }

    /// The circuit's transitions from now on, in order: see [`CircuitEvents`].
    ///
    /// Ends at once without a circuit breaker. A slow reader never holds up a call: it is told
    /// how many it missed.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, CircuitEvent, CircuitState, ClockOnly};
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").failure_threshold(1), ClockOnly)?;
    /// let mut events = bulkhead.events();
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// // Or `while let Some(event) = events.next().await`, in a task of its own.
    /// let Some(CircuitEvent::Transition(transition)) = events.try_next() else { panic!("no news") };
    /// assert_eq!((transition.from, transition.to), (CircuitState::Closed, CircuitState::Open));
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn events(&self) -> CircuitEvents {
        self.inner.circuit.as_ref().map_or_else(CircuitEvents::ended, CircuitBreaker::events)
    }

    /// Changes the settings in place: limits, timeouts and the circuit's rules.
    ///
    /// Holders and waiters stay, with the deadlines they came with, even beyond smaller limits;
    /// the circuit keeps its state, a running isolation and its window.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`ConfigError::Immutable`] for another name or for switching
    /// the circuit breaker on or off. Nothing has changed then.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// bulkhead.reconfigure(bulkhead.config().max_concurrent_calls(3))?;
    /// assert_eq!(bulkhead.stats().max_concurrent_calls, 3);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, config: BulkheadConfig) -> Result<(), ConfigError> {
        self.check_reconfigure(&config)?;
        let mut applied = {
            let mut current = lock(&self.inner.config);
            *current = (current.0 + 1, config);
            current.clone()
        };
        // Applied outside the lock, since it wakes tasks. If somebody else has changed the settings
        // meanwhile, one of the two may have overwritten the other's: whoever ends last applies what
        // is in force once more.
        loop {
            self.inner.apply(&applied.1)?;
            let current = lock(&self.inner.config);
            if current.0 == applied.0 {
                return Ok(());
            }
            applied = current.clone();
        }
    }

    /// Everything for which [`reconfigure`](Self::reconfigure) would refuse.
    pub(crate) fn check_reconfigure(&self, config: &BulkheadConfig) -> Result<(), ConfigError> {
        config.validate()?;
        config.supported_by(self.inner.capabilities)?;
        // The name and whether there is a circuit never change, so the answer stays right.
        lock(&self.inner.config).1.check_fixed(config)?;
        match (&self.inner.circuit, config.circuit()) {
            (Some(circuit), Some(rules)) => circuit.check_config(rules),
            _ => Ok(()),
        }
    }

    /// The settings in force.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(3);
    /// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
    /// assert_eq!(bulkhead.config(), config);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn config(&self) -> BulkheadConfig {
        lock(&self.inner.config).1.clone()
    }

    /// The name.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// assert_eq!(bulkhead.name(), "search");
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// Runs `check` every `interval` while the circuit is open; a success starts half-open early.
    ///
    /// A failure prolongs nothing. A check that takes longer than `interval`, or panics, has
    /// failed. It stops with the bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an interval of zero, for a runtime that has no timers or tasks, and for
    /// a bulkhead without a circuit breaker.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadState, testing::ManualRuntime};
    /// # use std::time::Duration;
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// bulkhead.health_check(Duration::from_secs(5), || ping())?;
    /// # bulkhead.circuit_breaker().unwrap().open();
    /// // The circuit opens, for 30 s; but the dependency is back already.
    /// # runtime.run_until_stalled();
    /// # runtime.advance(Duration::from_secs(5));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn health_check<F, Fut, T, E>(&self, interval: Duration, check: F) -> Result<(), ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        crate::health_check::start(self, interval, check)
    }

    /// Refuses new and waiting calls from now on. Running calls go on: see
    /// [`drained`](Self::drained).
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError, ClockOnly};
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.shutdown();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert!(matches!(refused, BulkheadError::Shutdown { .. }));
    /// running.succeed();                     // what runs may end
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    pub fn shutdown(&self) {
        if self.inner.queue.close() {
            self.inner.ended.wake_all();
        }
    }

    /// Waits until the bulkhead is shut down and its last call has ended, blocking work included.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again at any time.
    ///
    /// ```
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadState, testing::ManualRuntime};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// bulkhead.shutdown();
    /// bulkhead.drained().await;
    /// # });
    /// assert_eq!(bulkhead.state(), BulkheadState::ShutDown);
    /// assert_eq!(bulkhead.stats().active, 0);
    /// ```
    pub fn drained(&self) -> Drained<'_> {
        Drained::new(&self.inner)
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn downgrade(&self) -> WeakBulkhead {
        WeakBulkhead(Arc::downgrade(&self.inner))
    }

    pub(crate) fn into_execute<F>(self, operation: F) -> Execute<Self, F, ByResult> {
        Execute::new(self, operation, ByResult, CallOptions::NONE)
    }
}

/// For background tasks, which must not keep a bulkhead alive.
#[derive(Clone)]
pub(crate) struct WeakBulkhead(Weak<Inner>);

impl WeakBulkhead {
    pub(crate) fn upgrade(&self) -> Option<Bulkhead> {
        self.0.upgrade().map(|inner| Bulkhead { inner })
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Inner {
    /// Steps 5 and 6: tells the circuit and the statistics how the call ended, and gives its
    /// permit to the next in line.
    #[inline]
    pub(crate) fn finish(&self, seat: Seat, outcome: Outcome, ran: Option<Duration>) {
        match (seat.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) if circuit.hears(ticket, outcome) => {
                self.finish_heard(circuit, ticket, outcome, ran);
            }
            // The way of a success that is no news to the circuit: nothing here can panic.
            _ => {
                self.counters.end(Some(outcome));
                self.release();
            }
        }
    }

    fn finish_heard(
        &self,
        circuit: &CircuitBreaker,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) {
        let _ended = Ends(self, Some(outcome));
        circuit.settle(ticket, outcome, ran);
    }

    /// As [`finish`](Self::finish), for a call that was dropped while it ran.
    pub(crate) fn abandon(&self, seat: Seat) {
        let _ended = Ends(self, None);
        if let (Some(ticket), Some(circuit)) = (seat.ticket, &self.circuit) {
            circuit.abandon(ticket);
        }
    }

    /// Puts checked settings into force.
    fn apply(&self, config: &BulkheadConfig) -> Result<(), ConfigError> {
        if let (Some(circuit), Some(rules)) = (&self.circuit, config.circuit()) {
            circuit.reconfigure(rules)?;
        }
        self.limits.set(TimeLimits::of(config));
        let (permits, places, order) = config.limits();
        self.queue.resize(permits, places, order, || self.runtime.now());
        Ok(())
    }

    /// Step 6: the permit goes to the next in line.
    #[inline]
    pub(crate) fn release(&self) {
        if self.queue.release(|| self.runtime.now()) {
            self.notify_if_drained();
        }
    }

    #[cold]
    pub(crate) fn notify_if_drained(&self) {
        if self.queue.is_drained() {
            self.ended.wake_all();
        }
    }

    pub(crate) fn refused_by_circuit(&self) -> Refusals {
        self.circuit.as_ref().map_or_else(Refusals::default, CircuitBreaker::refusals)
    }
}

/// Counts a call's end and frees its permit, also when the runtime's clock, or a listener that is
/// told of a transition, panics before.
struct Ends<'a>(&'a Inner, Option<Outcome>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let Self(inner, outcome) = self;
        inner.counters.end(*outcome);
        inner.release();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        crate::metrics::publish_last_counts(self);
        self.ended.wake_all();
    }
}

// The runtime alone is not unwind-safe by itself; it is never called with anything half done.
impl RefUnwindSafe for Inner {}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.inner.name)
            .field("queue", &self.inner.queue)
            .finish_non_exhaustive()
    }
}

/// Whoever waits is refused when the circuit opens.
fn follow_circuit(circuit: &CircuitBreaker, bulkhead: Weak<Inner>) {
    circuit.on_transition(Arc::new(move |transition| {
        let Some(inner) = bulkhead.upgrade() else { return };
        #[cfg(feature = "metrics")]
        inner.meter.count_transition(transition.to);
        if transition.to.refuses_all() {
            inner.queue.refuse_all(Refusal::Circuit);
        }
    }));
}
