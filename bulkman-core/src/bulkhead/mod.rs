//! The bulkhead, its configuration, its state and its counters.

mod calls;
pub(crate) mod config;
pub(crate) mod drained;
mod health_check;
mod key_names;
mod keys;
mod labels;
mod limit;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
pub(crate) mod running;
mod shared;
pub(crate) mod state;
pub(crate) mod stats;

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub use self::config::{BulkheadConfig, Fairness, ResolvedBulkheadConfig};
pub use self::health_check::HealthCheck;
pub use self::labels::Label;
use self::running::RunningCalls;
pub(crate) use self::shared::Inner;
use self::shared::OptionalParts;
pub use self::state::BulkheadState;
use self::stats::Counters;
pub use self::stats::{BulkheadStats, Rejections};
use crate::adaptive::{LimitChanges, LimitDriver};
use crate::call::limits::{ConfiguredLimits, TimeLimits};
use crate::circuit_breaker::{CircuitBreaker, CircuitEvents};
use crate::config_error::ConfigError;
use crate::fleet::Fleet;
pub use crate::name::BulkheadName;
use crate::queue::{QueueRejection, WaitQueue};
use crate::runtime::Runtime;
use crate::snapshot::BulkheadSnapshot;
use crate::store::CircuitStore;
use crate::sync::{Mutex, lock};

/// Limits the concurrent calls to one dependency, and stops calling it while it fails.
///
/// A bulkhead admits a limited number of calls at a time. Further calls wait in a queue of limited
/// size, and calls beyond that are rejected immediately. Its circuit breaker rejects all calls
/// while the dependency fails, and sends a few probes later to detect the recovery.
///
/// Create one bulkhead for each dependency, keep it as long as the dependency is used, and send
/// every call through it. Cloning is cheap, and all clones share the same state.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("payments")
///     .max_concurrent_calls(5)
///     .failure_threshold(2);
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
///
/// runtime.block_on(async {
///     assert_eq!(
///         bulkhead.execute(async { Ok::<_, &str>("paid") }).await,
///         Ok("paid")
///     );
///     for _ in 0..2 {
///         let _ = bulkhead
///             .execute(async { Err::<(), _>("gateway down") })
///             .await;
///     }
///     let rejected = bulkhead
///         .execute(async { Ok::<_, &str>("paid") })
///         .await
///         .unwrap_err();
///     assert!(matches!(rejected, BulkheadError::CircuitOpen { .. }));
///     assert_eq!(
///         rejected.retry_after(),
///         Some(std::time::Duration::from_secs(30))
///     );
/// });
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
///
/// # Methods
///
/// Calls:
///
/// * [`execute`](Self::execute): when the work is one future.
/// * [`execute_blocking`](Self::execute_blocking): when the work is a closure that blocks, and the
///   caller is async.
/// * [`execute_sync`](Self::execute_sync): when the caller is not async.
/// * [`acquire`](Self::acquire), [`try_acquire`](Self::try_acquire): when the work is not one
///   future or closure. The caller holds a permit and records the outcome.
/// * [`call`](Self::call): when one call needs its own timeout, priority or classifier.
/// * [`classified`](Self::classified): when many calls share a classifier.
/// * [`wrap`](Self::wrap): when every call of one function goes through the bulkhead.
///
/// Queries:
///
/// * [`state`](Self::state), [`is_healthy`](Self::is_healthy): for health endpoints.
/// * [`stats`](Self::stats), [`reset_stats`](Self::reset_stats): for the counters of calls.
/// * [`snapshot`](Self::snapshot): for operators, with the circuit and its latest transitions.
/// * [`events`](Self::events): to react to transitions of the circuit.
/// * [`limit`](Self::limit), [`limit_changes`](Self::limit_changes): for an adaptive limit.
/// * [`retry_after`](Self::retry_after): the time until the next attempt can succeed.
/// * [`name`](Self::name), [`config`](Self::config), [`fleet`](Self::fleet): how it was set up.
///
/// Control:
///
/// * [`reconfigure`](Self::reconfigure): to change limits while calls are running.
/// * [`circuit_breaker`](Self::circuit_breaker): to open, close or force the circuit manually.
/// * [`health_check`](Self::health_check), [`add_health_check`](Self::add_health_check): to detect
///   a recovery before the isolation has elapsed.
/// * [`run_health_check`](Self::run_health_check): when the check must stay on its thread.
/// * [`share_through`](Self::share_through): to share the circuit with other processes.
///
/// Shutdown:
///
/// * [`shutdown`](Self::shutdown): to reject new and queued calls.
/// * [`drained`](Self::drained): to wait for the running calls.
///
/// # When not to use it
///
/// Do not use a bulkhead for work that must never be rejected. For a limit per unit of time, use a
/// rate limiter.
///
/// # Nesting
///
/// An operation that calls its own bulkhead needs a second permit while it holds the first. With
/// one permit, the inner call waits until `max_wait` or `timeout` ends it. Set one of these
/// limits, or use a second bulkhead for the inner calls.
#[doc(alias = "semaphore")]
#[derive(Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

impl Bulkhead {
    /// Creates a bulkhead.
    ///
    /// The runtime provides the clock, the timers and the background tasks. Anything that
    /// implements [`Runtime`] will do, including an `Arc<dyn Runtime>`.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] names the first field that is out of its range.
    /// * [`ConfigError::Missing`] or [`ConfigError::Conflict`] name settings of the circuit breaker
    ///   that do not fit together.
    /// * [`ConfigError::Unsupported`] names a timeout that needs timers, if the runtime has none.
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{Bulkhead, BulkheadConfig, Runtime};
    /// use std::sync::Arc;
    ///
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(5);
    /// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
    /// assert_eq!(bulkhead.name(), "search");
    ///
    /// let error = Bulkhead::new(config.max_concurrent_calls(0), ClockOnly).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`max_concurrent_calls` is 0, must be 1 to 1,000,000"
    /// );
    ///
    /// // In a library that leaves the choice of the runtime to its users:
    /// let runtime: Arc<dyn Runtime> = Arc::new(ClockOnly);
    /// let mail = Bulkhead::new(BulkheadConfig::new("mail"), Arc::clone(&runtime))?;
    /// # let _ = mail;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(config: BulkheadConfig, runtime: impl Runtime) -> Result<Self, ConfigError> {
        Self::with_shared_runtime(config, Arc::new(runtime))
    }

    /// As [`new`](Self::new), without a second `Arc` around a runtime that is in one already.
    pub(crate) fn with_shared_runtime(
        config: BulkheadConfig,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let capabilities = runtime.capabilities();
        config.supported_by(capabilities)?;
        let name = config.checked_name()?;
        let circuit = config
            .circuit()
            .map(|circuit| CircuitBreaker::from_parts(name.clone(), circuit, Arc::clone(&runtime)))
            .transpose()?;
        let counters = Counters::default();
        let driver = config.driver();
        let driver = driver.is_needed().then(|| {
            let suspended = circuit.as_ref().is_some_and(|it| !it.admits_all());
            LimitDriver::new(driver, suspended, &counters.sample_mask, runtime.now())
        });
        let in_force = driver
            .as_ref()
            .map_or_else(|| config.permits(), LimitDriver::permits_in_force);
        let optional = driver.map(|driver| {
            Box::new(OptionalParts {
                driver: OnceLock::from(driver),
                ..OptionalParts::default()
            })
        });
        let cooperation = runtime.cooperation();
        let tracked = config.tracks_running_calls();
        let running = RunningCalls::default();
        running.configure(tracked, config.permits(), || runtime.now());
        let inner = Arc::new(Inner {
            queue: WaitQueue::new(in_force, config.queue()),
            counters,
            circuit,
            limits: ConfiguredLimits::new(
                TimeLimits::of(&config),
                tracked,
                config.driver().marks(),
                config.key_sharing(),
                cooperation.is_some(),
            ),
            max_weight: AtomicU32::new(config.max_weight()),
            cooperation,
            capabilities,
            runtime,
            name,
            ended: Arc::default(),
            #[cfg(feature = "metrics")]
            meter: crate::metrics::Meter::default(),
            optional: optional.map_or_else(OnceLock::new, OnceLock::from),
            running,
            config: Mutex::new((0, config)),
        });
        if let Some(circuit) = &inner.circuit {
            reject_waiters_on_opening(circuit, Arc::downgrade(&inner));
        }
        Ok(Self { inner })
    }

    /// Returns the name.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// assert_eq!(bulkhead.name(), "search");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &BulkheadName {
        &self.inner.name
    }

    /// Returns the current configuration.
    ///
    /// To read its values, use [`BulkheadConfig::resolve`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(3);
    /// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
    /// assert_eq!(bulkhead.config(), config);
    /// assert_eq!(bulkhead.config().resolve().max_queue_size, 100);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn config(&self) -> BulkheadConfig {
        lock(&self.inner.config).1.clone()
    }

    /// Replaces the configuration: the limits, the timeouts and the rules of the circuit.
    ///
    /// Running and queued calls keep their permits, their positions and their deadlines, even
    /// beyond smaller limits. The circuit keeps its state, its window and a running isolation. A
    /// lower threshold takes effect at the next outcome that counts.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`ConfigError::Immutable`] for another name, or another initial
    /// state of the circuit, or if the circuit breaker would be enabled or disabled. After an
    /// error, nothing has changed.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// bulkhead.reconfigure(bulkhead.config().max_concurrent_calls(3))?;
    /// assert_eq!(bulkhead.stats().max_concurrent_calls, 3);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, config: BulkheadConfig) -> Result<(), ConfigError> {
        self.check_reconfigure(&config)?;
        let mut applied = {
            let mut current = lock(&self.inner.config);
            *current = (current.0 + 1, config);
            current.clone()
        };
        // Applied outside the lock, since it wakes tasks. Of two concurrent changes, either may be
        // applied last: the thread that finishes last applies the current configuration again.
        loop {
            self.inner.apply(&applied.1)?;
            let current = lock(&self.inner.config);
            if current.0 == applied.0 {
                return Ok(());
            }
            applied = current.clone();
        }
    }

    /// Returns every error for which [`reconfigure`](Self::reconfigure) would reject `config`.
    pub(crate) fn check_reconfigure(&self, config: &BulkheadConfig) -> Result<(), ConfigError> {
        config.validate()?;
        config.supported_by(self.inner.capabilities)?;
        // What can't be changed never changes, so the result stays valid.
        lock(&self.inner.config).1.check_immutable(config)?;
        match (&self.inner.circuit, config.circuit()) {
            (Some(circuit), Some(rules)) => circuit.check_config(rules),
            _ => Ok(()),
        }
    }

    /// Returns the circuit breaker; `None` if the configuration disables it.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// if let Some(circuit) = bulkhead.circuit_breaker() {
    ///     circuit.force_open(); // during a maintenance of the server
    /// }
    /// assert!(!bulkhead.is_healthy());
    ///
    /// let config = BulkheadConfig::new("reports").circuit_breaker_enabled(false);
    /// assert!(
    ///     Bulkhead::new(config, ClockOnly)?
    ///         .circuit_breaker()
    ///         .is_none()
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<&CircuitBreaker> {
        self.inner.circuit.as_ref()
    }

    /// Returns the time until an open circuit admits the next call.
    ///
    /// `None` if the circuit is not open, or if it is forced open.
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

    /// Subscribes to the transitions of the circuit from now on, in order.
    ///
    /// The stream ends immediately without a circuit breaker. A slow reader never delays calls: it
    /// receives the number of transitions that it missed. See [`CircuitEvents`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::circuit_breaker::{CircuitEvent, CircuitState};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").failure_threshold(1);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let mut events = bulkhead.events();
    /// let _ = bulkhead.execute_sync(|| Err::<(), _>("down"));
    /// // In a background task: `while let Some(event) = events.next().await`.
    /// let Some(CircuitEvent::Transition(transition)) = events.try_next() else {
    ///     panic!("no event")
    /// };
    /// assert_eq!(
    ///     (transition.from, transition.to),
    ///     (CircuitState::Closed, CircuitState::Open)
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn events(&self) -> CircuitEvents {
        self.inner
            .circuit
            .as_ref()
            .map_or_else(CircuitEvents::ended, CircuitBreaker::events)
    }

    /// Returns a snapshot of the state, the counters and the circuit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
    /// assert_eq!(bulkhead.snapshot().name, "payments");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> BulkheadSnapshot {
        // The circuit comes first: reading it applies a due transition, which the other parts then
        // show.
        let circuit = self.inner.circuit.as_ref().map(CircuitBreaker::snapshot);
        BulkheadSnapshot {
            name: self.name().clone(),
            state: self.state(),
            stats: self.stats(),
            circuit,
            limit: self.inner.limit_status(),
            keys: self.key_status(),
            oldest: self.inner.running.oldest(|| self.inner.runtime.now()),
            untracked_calls: self.inner.running.untracked(),
        }
    }

    /// Returns the limit in force: the number of calls that may run at once.
    ///
    /// It is the smaller one of `max_concurrent_calls` and the adaptive limit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::AdaptiveLimit;
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(50);
    /// let fixed = Bulkhead::new(config.clone(), ClockOnly)?;
    /// assert_eq!(fixed.limit(), 50);
    /// let adaptive = AdaptiveLimit::new().initial(8);
    /// let adaptive = Bulkhead::new(config.adaptive_limit(adaptive), ClockOnly)?;
    /// assert_eq!(adaptive.limit(), 8);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.queue.limits().permits
    }

    /// Subscribes to the changes of the adaptive limit from now on, in order.
    ///
    /// The stream ends immediately if the bulkhead never had an adaptive limit and observes none. A
    /// slow reader never delays calls: it receives the number of changes that it missed. See
    /// [`LimitChanges`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::{AdaptiveLimit, LimitChangeCause, LimitEvent};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").adaptive_limit(AdaptiveLimit::new());
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let mut changes = bulkhead.limit_changes();
    /// bulkhead.reconfigure(bulkhead.config().max_concurrent_calls(2))?;
    /// // In a background task: `while let Some(event) = changes.next().await`.
    /// let Some(LimitEvent::Changed(change)) = changes.try_next() else {
    ///     panic!("no event")
    /// };
    /// assert_eq!((change.to, change.cause), (2, LimitChangeCause::Reconfigured));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn limit_changes(&self) -> LimitChanges {
        self.inner
            .driver()
            .map_or_else(LimitChanges::ended, |driver| driver.changes())
    }

    /// Returns the label for calls of this name, which is created if it is new.
    ///
    /// A bulkhead keeps at most 1,024 names until it is dropped. All names beyond share the label
    /// `other`. Use the names of operations, not of requests. Labels appear in snapshots only,
    /// never in metrics. Takes a lock: keep the label where calls are frequent.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("users").track_running_calls(true);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let get = bulkhead.label("GET /users");
    /// let found = bulkhead.call().label(get).execute_sync(|| Ok::<_, ()>(12));
    /// assert_eq!(found, Ok(12));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn label(&self, name: impl AsRef<str>) -> Label {
        let inner = &self.inner;
        inner.running.label(name.as_ref(), || inner.runtime.now())
    }

    /// Shares the circuit with other processes through `store`.
    ///
    /// All clones of the bulkhead are affected. Opens a separate connection to the store. Prefer
    /// [`Fleet::attach`], or [`BulkheadManager::share_through`], when several bulkheads share one
    /// store. Without a circuit breaker there is nothing to share, and only the connection is
    /// opened.
    ///
    /// # Errors
    ///
    /// As [`Fleet::new`] and [`Fleet::attach`]: [`ConfigError::Conflict`] if the bulkhead has a
    /// store already. After an error, nothing has changed.
    ///
    /// [`BulkheadManager::share_through`]: crate::BulkheadManager::share_through
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let first = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// first.share_through(store.clone())?;
    /// // In another process:
    /// let second = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// second.share_through(store)?;
    /// runtime.run_until_stalled(); // both are connected
    /// first.circuit_breaker().unwrap().open();
    /// runtime.advance(Duration::from_secs(1));
    /// assert!(!second.is_healthy());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn share_through(&self, store: impl CircuitStore) -> Result<(), ConfigError> {
        let taken = || ConfigError::conflict("store", "the store that the bulkhead already uses");
        if self.fleet().is_some() {
            return Err(taken());
        }
        let fleet = Fleet::new(store, Arc::clone(&self.inner.runtime))?;
        fleet.attach(self)?;
        self.inner
            .optional_parts()
            .fleet
            .set(fleet)
            .map_err(|_| taken())
    }

    /// Returns the fleet created by [`share_through`](Self::share_through).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// assert!(bulkhead.fleet().is_none());
    /// bulkhead.share_through(MemoryStore::new(runtime))?;
    /// assert!(bulkhead.fleet().is_some());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.inner.optional.get()?.fleet.get()
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn downgrade(&self) -> WeakBulkhead {
        WeakBulkhead(Arc::downgrade(&self.inner))
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.inner.name)
            .field("queue", &self.inner.queue)
            .finish_non_exhaustive()
    }
}

/// A reference for background tasks, which must not keep a bulkhead alive.
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

fn reject_waiters_on_opening(circuit: &CircuitBreaker, bulkhead: Weak<Inner>) {
    circuit.on_transition(Arc::new(move |transition| {
        let Some(inner) = bulkhead.upgrade() else {
            return;
        };
        #[cfg(feature = "metrics")]
        inner.meter.count_transition(transition.to);
        if transition.to.rejects_all() {
            let now = || inner.runtime.now();
            inner.queue.reject_all(QueueRejection::CircuitOpened, now);
        }
        inner.follow_circuit(transition);
    }));
}
