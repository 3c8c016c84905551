//! The handle to a fleet.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "metrics")]
use super::counters::FleetCounters;
use super::driver::{Driver, DriverTask};
use super::events::FleetEvents;
use super::member::outage_gate;
use super::shared::{Attachment, CallTotals, FleetShared, Shutdown};
use super::snapshot::{FleetCircuit, FleetSnapshot};
use crate::bulkhead::Bulkhead;
use crate::circuit_breaker::CircuitBreaker;
use crate::config_error::ConfigError;
use crate::runtime::Runtime;
use crate::store::{CircuitStore, StoreSettings};

/// A handle to the background task that shares circuits through a store.
///
/// The task, called the *driver*, publishes what this process decides about its circuits and
/// adopts what other processes decide. Calls never wait for it or for the store. Cheap to clone:
/// all clones share one driver. When the last clone is dropped the driver stops, and the circuits
/// continue with their local rules.
///
/// A task that ends earlier, with its runtime for example, is reported like an outage. It starts
/// again when a circuit changes its state, a call needs a probe lease, or a method of a fleet is
/// called, if a runtime is current then.
///
/// # Its methods
///
/// * **Start:** [`new`](Self::new), once per store and process. A bulkhead or a manager that is
///   given a store does this for you.
/// * **Share:** [`attach`](Self::attach) for the circuit of a bulkhead,
///   [`attach_circuit`](Self::attach_circuit) for a circuit breaker without a bulkhead.
/// * **Wait:** [`wait_ready`](Self::wait_ready) at startup, if the first call must already respect
///   the fleet's state.
/// * **Observe:** [`snapshot`](Self::snapshot) for dashboards and health endpoints,
///   [`events`](Self::events) for logs and alerts, [`namespace`](Self::namespace) to label both.
/// * **Stop:** [`shutdown`](Self::shutdown) before the process exits, so that pending decisions
///   are published and probe leases become available to other processes.
///
/// # Example
///
/// Two fleets on one store, as in two processes:
///
/// ```
/// use bulkman::fleet::Fleet;
/// use bulkman::store::MemoryStore;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use std::time::Duration;
///
/// let runtime = ManualRuntime::new();
/// let store = MemoryStore::new(runtime.clone());
/// let [first, second] = [(); 2].map(|()| {
///     let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
///     let bulkhead =
///         Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone()).unwrap();
///     fleet.attach(&bulkhead).unwrap();
///     (fleet, bulkhead)
/// });
/// let timeout = Duration::from_secs(1);
/// runtime.block_on(async {
///     assert!(first.0.wait_ready(timeout).await && second.0.wait_ready(timeout).await);
/// });
/// first.1.circuit_breaker().unwrap().open();
/// runtime.run_until_stalled();
/// assert!(!second.1.is_healthy());
/// ```
#[derive(Clone)]
pub struct Fleet {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<FleetShared>,
    settings: Arc<StoreSettings>,
}

impl Fleet {
    /// Spawns the background task that keeps circuits in sync with `store`.
    ///
    /// The task connects on its own, and reconnects with a backoff. Both arguments may be an
    /// `Arc`, including one of a trait object.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the store's settings are invalid or need a capability that the store
    /// lacks, or if the runtime has no timers or tasks, or does not run the task now.
    ///
    /// ```
    /// use bulkman::ConfigError;
    /// use bulkman::fleet::Fleet;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::store::MemoryStore;
    /// use bulkman::testing::ManualRuntime;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let fleet = Fleet::new(store.clone(), runtime)?;
    /// assert_eq!(fleet.namespace(), "default");
    /// // `ClockOnly` has neither timers nor tasks.
    /// let rejected = Fleet::new(store, ClockOnly);
    /// assert!(matches!(
    ///     rejected,
    ///     Err(ConfigError::Unsupported {
    ///         setting: "store",
    ///         ..
    ///     })
    /// ));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    ///
    /// With trait objects:
    ///
    /// ```
    /// use bulkman::Runtime;
    /// use bulkman::fleet::Fleet;
    /// use bulkman::store::{CircuitStore, MemoryStore};
    /// use bulkman::testing::ManualRuntime;
    /// use std::sync::Arc;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store: Arc<dyn CircuitStore> = Arc::new(MemoryStore::new(runtime.clone()));
    /// let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    /// let fleet = Fleet::new(store, runtime)?;
    /// # let _ = fleet;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(store: impl CircuitStore, runtime: impl Runtime) -> Result<Self, ConfigError> {
        Self::spawn(Arc::new(store), Arc::new(runtime))
    }

    fn spawn(store: Arc<dyn CircuitStore>, runtime: Arc<dyn Runtime>) -> Result<Self, ConfigError> {
        let settings = store.settings();
        settings.validate()?;
        settings.supported_by(store.capabilities())?;
        let capabilities = runtime.capabilities();
        if !(capabilities.timers && capabilities.tasks) {
            return Err(ConfigError::Unsupported {
                setting: "store",
                needs: "timers and tasks",
            });
        }
        let settings = Arc::new(settings);
        let shared = FleetShared::new(Arc::clone(&runtime), store.namespace());
        let driver = Driver::new(Arc::clone(&shared), store, Arc::clone(&settings));
        if !DriverTask::spawn(Box::new(driver), false) {
            shared.request_shutdown(Shutdown::Immediate);
            return Err(ConfigError::not_spawned("store"));
        }
        Ok(Self {
            handle: Arc::new(Handle { shared, settings }),
        })
    }

    /// Shares the circuit of `bulkhead`; does nothing if the bulkhead has none.
    ///
    /// The circuits of one fleet that have the same name share one state.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Conflict`] if the circuit is already shared.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig, ConfigError};
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime)?;
    /// fleet.attach(&bulkhead)?;
    /// assert!(matches!(
    ///     fleet.attach(&bulkhead),
    ///     Err(ConfigError::Conflict { .. })
    /// ));
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn attach(&self, bulkhead: &Bulkhead) -> Result<(), ConfigError> {
        let Some(circuit) = bulkhead.circuit_breaker() else {
            return Ok(());
        };
        let weak = bulkhead.downgrade();
        let totals: CallTotals = Box::new(move || {
            let stats = weak.upgrade()?.stats();
            Some((stats.successful, stats.failed))
        });
        self.attach_with(circuit, Some(totals))
    }

    /// Shares a circuit that belongs to no bulkhead.
    ///
    /// Its calls are not included in fleet-wide counts.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Conflict`] if the circuit is already shared.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// let breaker = CircuitBreaker::new("payments", CircuitBreakerConfig::new(), runtime)?;
    /// fleet.attach_circuit(&breaker)?;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn attach_circuit(&self, circuit: &CircuitBreaker) -> Result<(), ConfigError> {
        self.attach_with(circuit, None)
    }

    /// Waits until every attached circuit has been loaded from the store, for at most `timeout`.
    ///
    /// Returns whether all are loaded. A process that waits for this rejects calls from the first
    /// one on if its fleet's circuit is open. Calls are possible without waiting; they use local
    /// rules until the circuits are loaded.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the future can be dropped at any time, and the method called again.
    ///
    /// ```
    /// # use bulkman::store::{Fault, FaultStore};
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let store = FaultStore::new(MemoryStore::new(runtime.clone()), runtime.clone());
    /// # store.set(Fault::Down);
    /// # let fleet = Fleet::new(store.clone(), runtime.clone())?;
    /// let second = Duration::from_secs(1);
    /// // The store is down: use local rules.
    /// assert!(!runtime.block_on(fleet.wait_ready(second)));
    /// store.clear();
    /// assert!(runtime.block_on(fleet.wait_ready(5 * second)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn wait_ready(&self, timeout: Duration) -> bool {
        self.handle.shared.resume_driver();
        self.handle
            .shared
            .wait_for(timeout, |status| {
                status.connected && status.loaded >= status.attached
            })
            .await
    }

    /// Returns connection status, staleness, and the number of unpublished decisions.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone())?;
    /// # fleet.attach(&bulkhead)?;
    /// assert!(!fleet.snapshot().connected);
    /// runtime.block_on(fleet.wait_ready(Duration::from_secs(1)));
    /// let view = fleet.snapshot();
    /// assert_eq!((view.connected, view.staleness, view.pending), (true, Some(Duration::ZERO), 0));
    /// assert_eq!(view.circuits[0].state.unwrap().as_str(), "closed");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> FleetSnapshot {
        let shared = &self.handle.shared;
        shared.resume_driver();
        let now = shared.now();
        let mut snapshot = shared.status(|status| FleetSnapshot {
            connected: status.connected,
            read_only: status.read_only,
            polling: status.polling || status.read_only,
            staleness: status.synced_at.map(|at| now.saturating_duration_since(at)),
            degraded_for: status
                .degraded_since
                .map(|at| now.saturating_duration_since(at)),
            error: status.error.clone(),
            pending: status.pending,
            superseded: status.counters.superseded(),
            rejected: status.counters.rejected(),
            circuits: status
                .circuits
                .iter()
                .map(|circuit| FleetCircuit::new(circuit, now))
                .collect(),
        });
        snapshot
            .circuits
            .sort_unstable_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }

    /// Returns the store's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.handle.shared.namespace
    }

    /// Returns a stream of the fleet's events from now on.
    ///
    /// ```
    /// # use bulkman::fleet::{DecisionOutcome, FleetEvent};
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone())?;
    /// # fleet.attach(&bulkhead)?;
    /// let mut events = fleet.events();
    /// runtime.block_on(async {
    ///     assert!(matches!(events.next().await, Some(FleetEvent::Synchronized { after: None })));
    ///     bulkhead.circuit_breaker().unwrap().open();
    ///     let event = events.next().await;
    ///     assert!(matches!(
    ///         event,
    ///         Some(FleetEvent::DecisionResolved { outcome: DecisionOutcome::Published, .. })
    ///     ));
    /// });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn events(&self) -> FleetEvents {
        FleetEvents::new(&self.handle.shared.events)
    }

    /// Publishes pending decisions, releases leases and stops the driver.
    ///
    /// Returns `true` if everything was published within
    /// [`shutdown_flush`](StoreSettings::shutdown_flush). The circuits continue with their local
    /// rules.
    ///
    /// # Cancel safety
    ///
    /// The shutdown begins at the first poll and continues if the future is dropped.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// assert!(
    ///     runtime.block_on(fleet.shutdown()),
    ///     "nothing was left to publish"
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn shutdown(&self) -> bool {
        self.begin_shutdown();
        let shared = &self.handle.shared;
        let timeout = self.handle.settings.shutdown_flush;
        let stopped = shared.wait_for(timeout, |status| status.stopped).await;
        shared.status(|status| stopped && status.pending == 0)
    }

    /// Begins what [`shutdown`](Self::shutdown) waits for.
    pub(crate) fn begin_shutdown(&self) {
        self.handle.shared.request_shutdown(Shutdown::Flush);
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.handle.shared.runtime
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn downgrade(&self) -> WeakFleet {
        WeakFleet(Arc::downgrade(&self.handle))
    }

    /// Returns the values for metrics. Each count is returned once.
    #[cfg(feature = "metrics")]
    pub(crate) fn take_reading(&self) -> FleetReading {
        let shared = &self.handle.shared;
        shared.resume_driver();
        let now = shared.now();
        let since = |at: Instant| now.saturating_duration_since(at);
        // Reading under this lock gives concurrent publishers disjoint differences.
        let mut published = crate::sync::lock(&shared.published);
        let mut reading = shared.status(|status| FleetReading {
            connected: status.connected,
            polling: status.polling,
            staleness: since(status.synced_at.unwrap_or(shared.created_at)),
            degraded: status.degraded_since.map_or(Duration::ZERO, since),
            pending: status.pending,
            counters: status.counters,
        });
        let before = published.replace(reading.counters).unwrap_or_default();
        reading.counters = reading.counters.since(&before);
        reading
    }

    fn attach_with(
        &self,
        circuit: &CircuitBreaker,
        totals: Option<CallTotals>,
    ) -> Result<(), ConfigError> {
        let shared = &self.handle.shared;
        let id = shared.next_id();
        let weak = Arc::downgrade(shared);
        let circuit_handle = circuit.attach_driver(Arc::new(move || {
            if let Some(shared) = Weak::upgrade(&weak) {
                shared.notify_changed(id);
            }
        }));
        let Some(circuit_handle) = circuit_handle else {
            return Err(ConfigError::conflict(
                "store",
                "the store that this circuit is already attached to",
            ));
        };
        // Until its state is loaded, the circuit behaves as in an outage.
        let _dropped = circuit_handle.set_gate(outage_gate(self.handle.settings.on_outage));
        shared.attach(Attachment {
            id,
            name: circuit.name().clone(),
            circuit: circuit_handle,
            totals,
        });
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.request_shutdown(Shutdown::Immediate);
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fleet").field(&self.snapshot()).finish()
    }
}

/// A weak reference to a fleet.
#[cfg(feature = "metrics")]
#[derive(Clone)]
pub(crate) struct WeakFleet(Weak<Handle>);

#[cfg(feature = "metrics")]
impl WeakFleet {
    pub(crate) fn upgrade(&self) -> Option<Fleet> {
        self.0.upgrade().map(|handle| Fleet { handle })
    }
}

/// A fleet's values for metrics.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetReading {
    pub(crate) connected: bool,
    pub(crate) polling: bool,
    /// Time since the last response of the store, or since the fleet was created.
    pub(crate) staleness: Duration,
    pub(crate) degraded: Duration,
    pub(crate) pending: usize,
    /// Counts since the last reading.
    pub(crate) counters: FleetCounters,
}
