//! The bulkhead: what its users hold.

mod calls;
pub(crate) mod config;
pub(crate) mod drained;
mod health_check;
mod queries;
mod shared;
pub(crate) mod state;
pub(crate) mod stats;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub use self::config::BulkheadConfig;
use self::drained::Drained;
pub(crate) use self::shared::Inner;
pub use self::state::BulkheadState;
use self::stats::Counters;
pub use self::stats::{BulkheadStats, Rejections};
use crate::call::deadlines::{ConfiguredLimits, TimeLimits};
use crate::circuit_breaker::CircuitBreaker;
use crate::config_error::ConfigError;
use crate::fleet::Fleet;
pub use crate::name::BulkheadName;
use crate::queue::{QueueRejection, WaitQueue};
use crate::runtime::Runtime;
use crate::store::CircuitStore;
use crate::sync::{Mutex, lock};

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
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
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
/// # Ok::<(), bulkman::ConfigError>(())
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

impl Bulkhead {
    /// Makes a bulkhead.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field, its value and the range; or the setting that this runtime
    /// can't honour.
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(5), ClockOnly)?;
    /// assert_eq!(bulkhead.name(), "search");
    ///
    /// let error = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(0), ClockOnly).unwrap_err();
    /// assert_eq!(error.to_string(), "`max_concurrent_calls` is 0, must be 1 to 1,000,000");
    /// # Ok::<(), bulkman::ConfigError>(())
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
    /// use bulkman::{Bulkhead, BulkheadConfig, Runtime};
    /// use bulkman::runtime::ClockOnly;
    /// use std::sync::Arc;
    ///
    /// let runtime: Arc<dyn Runtime> = Arc::new(ClockOnly);
    /// let search = Bulkhead::with_runtime(BulkheadConfig::new("search"), Arc::clone(&runtime))?;
    /// let mail = Bulkhead::with_runtime(BulkheadConfig::new("mail"), runtime)?;
    /// assert!(search.is_healthy() && mail.is_healthy());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn with_runtime(
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
        let (permits, places, order) = config.limits();
        let cooperation = runtime.cooperation();
        let inner = Arc::new(Inner {
            queue: WaitQueue::new(permits, places, order),
            counters: Counters::default(),
            circuit,
            limits: ConfiguredLimits::new(TimeLimits::of(&config), cooperation.is_some()),
            cooperation,
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
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let here = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?.with_store(store.clone())?;
    /// let there = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?.with_store(store)?;
    /// runtime.run_until_stalled();           // both have a link now
    /// here.circuit_breaker().unwrap().open();
    /// runtime.advance(Duration::from_secs(1));
    /// assert!(!there.is_healthy());          // it has heard
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn with_store(self, store: impl CircuitStore) -> Result<Self, ConfigError> {
        let fleet = Fleet::new(store, Arc::clone(&self.inner.runtime))?;
        fleet.attach(&self)?;
        let taken = ConfigError::immutable("store", "in use", "another");
        self.inner.fleet.set(fleet).map_err(|_| taken)?;
        Ok(self)
    }

    /// The fleet that [`with_store`](Self::with_store) made.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// assert!(bulkhead.fleet().is_none());
    /// let bulkhead = bulkhead.with_store(MemoryStore::new(runtime))?;
    /// assert!(bulkhead.fleet().is_some());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.inner.fleet.get()
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
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(3);
    /// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
    /// assert_eq!(bulkhead.config(), config);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn config(&self) -> BulkheadConfig {
        lock(&self.inner.config).1.clone()
    }

    /// The name.
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

    /// Runs `check` every `interval` while the circuit is open; a success starts half-open early.
    ///
    /// A failure prolongs nothing. A check that takes longer than `interval`, or panics, has
    /// failed. It stops with the bulkhead. Called again, it adds another check beside the first: either may
    /// find that the dependency is back.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an interval of zero, for a runtime that has no timers or tasks, and for
    /// a bulkhead without a circuit breaker.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
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
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn health_check<F, Fut, T, E>(
        &self,
        interval: Duration,
        check: F,
    ) -> Result<(), ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        health_check::start(self, interval, check)
    }

    /// Refuses new and waiting calls from now on. Running calls go on: see
    /// [`drained`](Self::drained).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.shutdown();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert!(matches!(refused, BulkheadError::Shutdown { .. }));
    /// running.succeed();                     // what runs may end
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
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
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
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
        let Some(inner) = bulkhead.upgrade() else {
            return;
        };
        #[cfg(feature = "metrics")]
        inner.meter.count_transition(transition.to);
        if transition.to.rejects_all() {
            inner.queue.reject_all(QueueRejection::CircuitOpened);
        }
    }));
}
