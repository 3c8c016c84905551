//! A fleet, as its users hold it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "metrics")]
use super::counted::Counted;
use super::driver::Driver;
use super::event::FleetEvents;
use super::hub::{Attached, End, Hub, Tallies};
use super::snapshot::{FleetCircuit, FleetSnapshot};
use crate::bulkhead::Bulkhead;
use crate::circuit_breaker::{CircuitBreaker, Gate};
use crate::config_error::ConfigError;
use crate::runtime::Runtime;
use crate::store::{CircuitStore, OnOutage, StoreSettings};

/// This process's part in a fleet that shares circuits through a store. Cheap to clone; when the
/// last clone is dropped, the circuits go on by themselves.
///
/// ```
/// use std::time::Duration;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::fleet::Fleet;
/// use bulkman::store::MemoryStore;
///
/// let runtime = ManualRuntime::new();
/// let store = MemoryStore::new(runtime.clone());
/// // Two processes, in one here.
/// let [here, there] = [(); 2].map(|()| {
///     let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
///     let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone()).unwrap();
///     fleet.attach(&bulkhead).unwrap();
///     (fleet, bulkhead)
/// });
/// runtime.block_on(async {
///     assert!(here.0.wait_ready(Duration::from_secs(1)).await && there.0.wait_ready(Duration::from_secs(1)).await);
/// });
/// here.1.circuit_breaker().unwrap().open();
/// runtime.run_until_stalled();
/// assert!(!there.1.is_healthy());
/// ```
#[derive(Clone)]
pub struct Fleet {
    handle: Arc<Handle>,
}

struct Handle {
    hub: Arc<Hub>,
    settings: StoreSettings,
}

impl Fleet {
    /// Starts the synchroniser of `store` on `runtime`. It connects by itself, now and whenever
    /// the store comes back.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the store's settings can't be used, or ask for what the store can't do;
    /// or if the runtime has no timers or tasks.
    ///
    /// ```
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::ConfigError;
    /// use bulkman::fleet::Fleet;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::store::MemoryStore;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let fleet = Fleet::new(store.clone(), runtime)?;
    /// assert_eq!(fleet.namespace(), "default");
    /// let refused = Fleet::new(store, ClockOnly);              // it has nothing to wait with
    /// assert!(matches!(refused, Err(ConfigError::Unsupported { setting: "store", .. })));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(store: impl CircuitStore, runtime: impl Runtime) -> Result<Self, ConfigError> {
        Self::from_parts(Arc::new(store), Arc::new(runtime))
    }

    /// As [`new`](Self::new), sharing both.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::Runtime;
    /// use bulkman::fleet::Fleet;
    /// use bulkman::store::{CircuitStore, MemoryStore};
    /// use std::sync::Arc;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store: Arc<dyn CircuitStore> = Arc::new(MemoryStore::new(runtime.clone()));
    /// let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    /// let fleet = Fleet::from_parts(store, runtime)?;
    /// # let _ = fleet;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn from_parts(
        store: Arc<dyn CircuitStore>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConfigError> {
        let settings = store.settings();
        settings.validate()?;
        settings.supported_by(store.capabilities())?;
        let able = runtime.capabilities();
        if !(able.timers && able.tasks) {
            return Err(ConfigError::Unsupported {
                setting: "store",
                needs: "timers and tasks",
            });
        }
        let hub = Hub::new(Arc::clone(&runtime), store.namespace());
        runtime.spawn(Box::pin(
            Driver::new(Arc::clone(&hub), store, settings.clone()).run(),
        ));
        Ok(Self {
            handle: Arc::new(Handle { hub, settings }),
        })
    }

    /// Shares the circuit of `bulkhead`; nothing if it has none. Its name identifies it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Immutable`] if it is shared already.
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
    /// assert!(matches!(fleet.attach(&bulkhead), Err(ConfigError::Immutable { .. })));
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn attach(&self, bulkhead: &Bulkhead) -> Result<(), ConfigError> {
        let Some(circuit) = bulkhead.circuit_breaker() else {
            return Ok(());
        };
        let weak = bulkhead.downgrade();
        let tallies: Tallies = Box::new(move || {
            let stats = weak.upgrade()?.stats();
            Some((stats.successful, stats.failed))
        });
        self.attach_with(circuit, Some(tallies))
    }

    /// Shares a circuit that belongs to no bulkhead. Fleet-wide counts don't see its calls.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Immutable`] if it is shared already.
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

    /// Waits until the store has been heard of every circuit attached so far, so that a process
    /// that starts while its fleet's circuit is open refuses from its first call; at most `limit`.
    /// Says whether it has. Calls need not wait for it.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again at any time.
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
    /// assert!(!runtime.block_on(fleet.wait_ready(second)));         // the store is down: go on by local rules
    /// store.clear();
    /// assert!(runtime.block_on(fleet.wait_ready(5 * second)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn wait_ready(&self, limit: Duration) -> bool {
        self.handle
            .hub
            .wait_for(limit, |status| {
                status.connected && status.known >= status.attached
            })
            .await
    }

    /// How fresh the view of the fleet is, and what is yet to be told.
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
        let hub = &self.handle.hub;
        let now = hub.runtime.now();
        let mut snapshot = hub.status(|status| FleetSnapshot {
            connected: status.connected,
            polling: status.polling,
            staleness: status.synced_at.map(|at| now.saturating_duration_since(at)),
            degraded_for: status
                .degraded_since
                .map(|at| now.saturating_duration_since(at)),
            error: status.error.as_ref().map(ToString::to_string),
            pending: status.pending,
            superseded: status.counted.superseded(),
            refused: status.counted.refused(),
            circuits: status
                .circuits
                .iter()
                .map(|(name, state, epoch)| FleetCircuit {
                    name: name.clone(),
                    state: *state,
                    epoch: *epoch,
                })
                .collect(),
        });
        snapshot
            .circuits
            .sort_unstable_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }

    /// The store's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.handle.hub.namespace
    }

    /// What happens to the link and to this process's decisions, from now on.
    ///
    /// ```
    /// # use bulkman::fleet::{DecisionOutcome, FleetEvent};
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # use futures_lite::StreamExt;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone())?;
    /// # fleet.attach(&bulkhead)?;
    /// let mut events = fleet.events();
    /// runtime.block_on(async {
    ///     assert!(matches!(events.next().await, Some(FleetEvent::Synchronized { after: None })));
    ///     bulkhead.circuit_breaker().unwrap().open();
    ///     let told = events.next().await;
    ///     assert!(matches!(told, Some(FleetEvent::DecisionResolved { ending: DecisionOutcome::Published, .. })));
    /// });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn events(&self) -> FleetEvents {
        FleetEvents::new(&self.handle.hub.events)
    }

    /// Publishes what is pending, gives leases back, and ends the synchroniser; at most for
    /// `shutdown_flush`. Says whether everything was told. The circuits go on by themselves.
    ///
    /// # Cancel safety
    ///
    /// The shutdown begins with the first poll and goes on when the future is dropped.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// assert!(runtime.block_on(fleet.shutdown()), "nothing is left untold");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn shutdown(&self) -> bool {
        let hub = &self.handle.hub;
        hub.end(End::Flush);
        let limit = self.handle.settings.shutdown_flush;
        let ended = hub.wait_for(limit, |status| status.ended).await;
        hub.status(|status| ended && status.pending == 0)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.handle.hub.runtime
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn downgrade(&self) -> WeakFleet {
        WeakFleet(Arc::downgrade(&self.handle))
    }

    /// What its metrics are made of. What is counted is handed out once.
    #[cfg(feature = "metrics")]
    pub(crate) fn take_reading(&self) -> FleetReading {
        let hub = &self.handle.hub;
        let now = hub.runtime.now();
        let since = |at: Instant| now.saturating_duration_since(at);
        // Read under the lock, so that of two publishers the later one has the later reading.
        let mut published = crate::sync::lock(&hub.published);
        let mut reading = hub.status(|status| FleetReading {
            connected: status.connected,
            polling: status.polling,
            staleness: since(status.synced_at.unwrap_or(hub.born)),
            degraded: status.degraded_since.map_or(Duration::ZERO, since),
            pending: status.pending,
            counted: status.counted,
        });
        let before = published.replace(reading.counted).unwrap_or_default();
        reading.counted = reading.counted.since(&before);
        reading
    }

    fn attach_with(
        &self,
        circuit: &CircuitBreaker,
        tallies: Option<Tallies>,
    ) -> Result<(), ConfigError> {
        let hub = &self.handle.hub;
        let id = hub.next_id();
        let link = Arc::downgrade(hub);
        let shared = circuit.attach_driver(Arc::new(move || {
            if let Some(hub) = Weak::upgrade(&link) {
                hub.changed(id);
            }
        }));
        let Some(shared) = shared else {
            return Err(ConfigError::immutable("store", "in use", "another"));
        };
        // Until the store is heard of, as when it is away.
        let _gone = shared.set_gate(outage_gate(self.handle.settings.on_outage));
        hub.attach(Attached {
            id,
            name: circuit.name().clone(),
            circuit: shared,
            tallies,
        });
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hub.end(End::Now);
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fleet").field(&self.snapshot()).finish()
    }
}

/// A fleet that may be gone.
#[cfg(feature = "metrics")]
#[derive(Clone)]
pub(crate) struct WeakFleet(Weak<Handle>);

#[cfg(feature = "metrics")]
impl WeakFleet {
    pub(crate) fn upgrade(&self) -> Option<Fleet> {
        self.0.upgrade().map(|handle| Fleet { handle })
    }
}

/// A fleet's part of the metrics.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetReading {
    pub(crate) connected: bool,
    pub(crate) polling: bool,
    /// Before the store has ever answered: since the fleet was made.
    pub(crate) staleness: Duration,
    pub(crate) degraded: Duration,
    pub(crate) pending: usize,
    /// Since the last reading.
    pub(crate) counted: Counted,
}

pub(super) const fn outage_gate(on_outage: OnOutage) -> Gate {
    match on_outage {
        OnOutage::ProbeLocally { probes } => Gate::Outage { probes },
        OnOutage::HoldOpen => Gate::Outage { probes: 0 },
    }
}
