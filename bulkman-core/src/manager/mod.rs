//! A registry of bulkheads by name.

mod apply;
mod config;
#[cfg(feature = "serde")]
mod repr;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use thiserror::Error;

pub use self::apply::AppliedConfig;
pub use self::config::ManagerConfig;
use crate::bulkhead::Bulkhead;
use crate::bulkhead::config::BulkheadConfig;
use crate::bulkhead::state::BulkheadState;
use crate::bulkhead::stats::BulkheadStats;
use crate::call::classifier::DefaultClassifier;
use crate::call::execute::ExecuteOwned;
use crate::config_error::ConfigError;
use crate::error::BulkheadError;
use crate::fleet::Fleet;
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::snapshot::ManagerSnapshot;
use crate::store::CircuitStore;

/// A registry that creates bulkheads and finds them by name.
///
/// Cloning is cheap, and all clones share the same registry.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{BulkheadConfig, BulkheadManager};
///
/// let runtime = ManualRuntime::new();
/// let manager = BulkheadManager::new(runtime.clone());
/// manager.create_bulkhead(BulkheadConfig::new("database").max_concurrent_calls(5))?;
/// let rows = manager.execute_in_bulkhead("database", async { Ok::<_, ()>(42) });
/// assert_eq!(runtime.block_on(rows), Ok(42));
/// assert_eq!(manager.all_stats()[0].successful, 1);
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
///
/// # Methods
///
/// Setup:
///
/// * [`new`](Self::new): when bulkheads are created in code.
/// * [`from_config`](Self::from_config), [`apply_config`](Self::apply_config): when a file
///   describes all bulkheads, and is read again when it changes.
/// * [`share_through`](Self::share_through), [`fleet`](Self::fleet): to share all circuits with
///   other processes.
///
/// Bulkheads:
///
/// * [`create_bulkhead`](Self::create_bulkhead): when the name must be new.
/// * [`get_or_create_bulkhead`](Self::get_or_create_bulkhead): when several places in the code may
///   be first.
/// * [`get_bulkhead`](Self::get_bulkhead): when the bulkhead is created elsewhere.
/// * [`remove_bulkhead`](Self::remove_bulkhead): when a dependency is no longer used.
///
/// Calls:
///
/// * [`execute_in_bulkhead`](Self::execute_in_bulkhead): when the name is known only at run time.
///   Otherwise keep a [`Bulkhead`] and call its methods.
///
/// Queries:
///
/// * [`bulkheads`](Self::bulkheads), [`len`](Self::len), [`is_empty`](Self::is_empty): to iterate.
/// * [`all_stats`](Self::all_stats): for the counters of all bulkheads.
/// * [`health_status`](Self::health_status): for health endpoints.
/// * [`snapshot`](Self::snapshot): for operators, with circuits and the fleet.
///
/// Shutdown:
///
/// * [`shutdown`](Self::shutdown): to reject new and queued calls of all bulkheads.
/// * [`drained`](Self::drained): to wait for their running calls.
#[derive(Clone)]
pub struct BulkheadManager {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    bulkheads: RwLock<HashMap<BulkheadName, Bulkhead>>,
    /// Written and read together with `bulkheads` under its write lock, where a bulkhead must be
    /// attached exactly once.
    fleet: OnceLock<Fleet>,
}

/// The error returned by [`BulkheadManager`].
///
/// ```
/// use bulkman::manager::ManagerError;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{BulkheadConfig, BulkheadManager};
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("database"))?;
/// let error = manager
///     .create_bulkhead(BulkheadConfig::new("database"))
///     .unwrap_err();
/// assert!(matches!(error, ManagerError::AlreadyExists { .. }));
/// assert_eq!(
///     error.to_string(),
///     "a bulkhead named \"database\" exists already"
/// );
/// # Ok::<(), ManagerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// A bulkhead of this name exists already.
    #[error("a bulkhead named {name:?} exists already")]
    AlreadyExists {
        /// The name.
        name: BulkheadName,
    },

    /// A bulkhead of this name exists with a different configuration.
    #[error("a bulkhead named {name:?} exists with another `{field}`")]
    Conflict {
        /// The name.
        name: BulkheadName,
        /// The first field that differs.
        field: &'static str,
    },

    /// One of several configurations is invalid.
    #[error("bulkhead {bulkhead:?}: {source}")]
    Invalid {
        /// The name of the bulkhead, as given.
        bulkhead: Box<str>,
        /// The error of its configuration.
        source: ConfigError,
    },

    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BulkheadManager {
    /// Creates an empty registry for bulkheads on `runtime`.
    ///
    /// ```
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::runtime::ClockOnly;
    /// let manager = BulkheadManager::new(ClockOnly);
    /// assert!(manager.is_empty());
    /// ```
    #[must_use]
    pub fn new(runtime: impl Runtime) -> Self {
        Self {
            shared: Arc::new(Shared {
                runtime: Arc::new(runtime),
                bulkheads: RwLock::default(),
                fleet: OnceLock::new(),
            }),
        }
    }

    /// Shares the circuits of all bulkheads with other processes through `store`.
    ///
    /// Includes the bulkheads that are created later. All clones of the manager are affected. See
    /// [`Fleet`].
    ///
    /// # Errors
    ///
    /// * As [`Fleet::new`]; then nothing has changed.
    /// * [`ConfigError::Conflict`] if the manager has a store already; then nothing has changed.
    /// * As [`Fleet::attach`], if a bulkhead was shared through another fleet before. It stays with
    ///   that fleet, and all others are shared through `store`.
    ///
    /// ```
    /// use bulkman::store::MemoryStore;
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use std::time::Duration;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let manager = BulkheadManager::new(runtime.clone());
    /// manager.share_through(store)?;
    /// manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    /// // Before the first call, wait until the states of the circuits are known:
    /// let ready =
    ///     runtime.block_on(manager.fleet().unwrap().wait_ready(Duration::from_secs(1)));
    /// assert!(ready);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn share_through(&self, store: impl CircuitStore) -> Result<(), ConfigError> {
        let taken = || ConfigError::conflict("store", "the store that the manager already uses");
        if self.fleet().is_some() {
            return Err(taken());
        }
        let fleet = Fleet::new(store, Arc::clone(&self.shared.runtime))?;
        let existing: Vec<_> = {
            let bulkheads = self.write();
            self.shared.fleet.set(fleet.clone()).map_err(|_| taken())?;
            bulkheads.values().cloned().collect()
        };
        let mut result = Ok(());
        for bulkhead in existing {
            let attached = fleet.attach(&bulkhead);
            result = result.and(attached);
        }
        result
    }

    /// Returns the fleet created by [`share_through`](Self::share_through).
    ///
    /// ```
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let manager = BulkheadManager::new(runtime.clone());
    /// assert!(manager.fleet().is_none());
    /// manager.share_through(MemoryStore::new(runtime))?;
    /// assert!(manager.fleet().is_some());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.shared.fleet.get()
    }

    /// Creates a bulkhead under the name in its configuration.
    ///
    /// # Errors
    ///
    /// * [`ManagerError::AlreadyExists`] if the name is taken.
    /// * [`ManagerError::Config`] if the configuration is invalid, as for [`Bulkhead::new`].
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::manager::ManagerError;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let config = BulkheadConfig::new("database").max_concurrent_calls(5);
    /// let database = manager.create_bulkhead(config.clone())?;
    /// assert_eq!(database.stats().max_concurrent_calls, 5);
    /// let taken = manager.create_bulkhead(config);
    /// assert!(matches!(taken, Err(ManagerError::AlreadyExists { .. })));
    /// # Ok::<(), ManagerError>(())
    /// ```
    pub fn create_bulkhead(&self, config: BulkheadConfig) -> Result<Bulkhead, ManagerError> {
        let name = config.checked_name()?;
        if self.read().contains_key(&name) {
            return Err(ManagerError::AlreadyExists { name });
        }
        // Created outside the lock, since that calls the runtime, which is user code.
        let bulkhead = Bulkhead::with_shared_runtime(config, Arc::clone(&self.shared.runtime))?;
        let fleet = match self.write().entry(name) {
            Entry::Occupied(taken) => {
                return Err(ManagerError::AlreadyExists {
                    name: taken.key().clone(),
                });
            }
            Entry::Vacant(free) => {
                free.insert(bulkhead.clone());
                self.fleet()
            }
        };
        if let Some(Err(error)) = fleet.map(|fleet| fleet.attach(&bulkhead)) {
            self.remove_bulkhead(bulkhead.name().as_str());
            return Err(error.into());
        }
        Ok(bulkhead)
    }

    /// Returns the bulkhead of this name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// assert!(manager.get_bulkhead("database").is_some());
    /// assert!(manager.get_bulkhead("data base").is_none());
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn get_bulkhead(&self, name: &str) -> Option<Bulkhead> {
        self.read().get(name).cloned()
    }

    /// Returns the bulkhead of the configured name, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// * [`ManagerError::Conflict`] if the bulkhead exists and its current configuration differs.
    ///   To change it, use [`Bulkhead::reconfigure`].
    /// * [`ManagerError::Config`] if the configuration is invalid.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::manager::ManagerError;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let config = BulkheadConfig::new("database").max_concurrent_calls(5);
    /// for _ in 0..2 {
    ///     manager.get_or_create_bulkhead(config.clone())?;
    /// }
    /// let other = manager.get_or_create_bulkhead(config.max_concurrent_calls(9));
    /// assert!(matches!(
    ///     other,
    ///     Err(ManagerError::Conflict {
    ///         field: "max_concurrent_calls",
    ///         ..
    ///     })
    /// ));
    /// # Ok::<(), ManagerError>(())
    /// ```
    pub fn get_or_create_bulkhead(&self, config: BulkheadConfig) -> Result<Bulkhead, ManagerError> {
        let name = config.checked_name()?;
        let known = self.get_bulkhead(name.as_str());
        if let Some(bulkhead) = known {
            return same_or_conflict(bulkhead, &config, name);
        }
        match self.create_bulkhead(config.clone()) {
            // Another thread has created it in the meantime.
            Err(ManagerError::AlreadyExists { .. }) => self.get_or_create_bulkhead(config),
            created => created,
        }
    }

    /// Runs a future through the bulkhead of this name.
    ///
    /// The bulkhead is looked up by this method, not when the future is polled.
    ///
    /// # Errors
    ///
    /// [`BulkheadError::NotFound`] if no bulkhead has this name. Otherwise as
    /// [`Bulkhead::execute`].
    ///
    /// # Cancel safety
    ///
    /// As [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadError, BulkheadManager};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let manager = BulkheadManager::new(runtime.clone());
    /// manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// # runtime.block_on(async {
    /// let rows = manager
    ///     .execute_in_bulkhead("database", async { Ok::<_, ()>(42) })
    ///     .await;
    /// assert_eq!(rows, Ok(42));
    /// let missing = manager
    ///     .execute_in_bulkhead("data base", async { Ok::<_, ()>(42) })
    ///     .await;
    /// assert_eq!(
    ///     missing,
    ///     Err(BulkheadError::NotFound {
    ///         name: "data base".into()
    ///     })
    /// );
    /// # });
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn execute_in_bulkhead<F, T, E>(&self, name: &str, operation: F) -> ExecuteInBulkhead<F>
    where
        F: Future<Output = Result<T, E>>,
    {
        let lookup = match self.get_bulkhead(name) {
            Some(bulkhead) => Lookup::Found {
                execute: bulkhead.into_execute(operation),
            },
            None => Lookup::NotFound {
                name: Some(name.into()),
            },
        };
        ExecuteInBulkhead { lookup }
    }

    /// Returns the counters of all bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// for name in ["search", "database"] {
    ///     manager.create_bulkhead(BulkheadConfig::new(name))?;
    /// }
    /// let stats = manager.all_stats();
    /// assert_eq!(stats[0].bulkhead, "database");
    /// assert_eq!(stats[1].bulkhead, "search");
    /// assert_eq!(stats.iter().map(|bulkhead| bulkhead.failed).sum::<u64>(), 0);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn all_stats(&self) -> Vec<BulkheadStats> {
        self.bulkheads().iter().map(Bulkhead::stats).collect()
    }

    /// Returns the states of all bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// # for name in ["search", "database"] {
    /// #     manager.create_bulkhead(BulkheadConfig::new(name))?;
    /// # }
    /// manager
    ///     .get_bulkhead("search")
    ///     .unwrap()
    ///     .circuit_breaker()
    ///     .unwrap()
    ///     .open();
    /// let status = manager.health_status();
    /// assert_eq!(
    ///     (status[0].0.as_str(), status[0].1),
    ///     ("database", BulkheadState::Healthy)
    /// );
    /// assert_eq!(
    ///     (status[1].0.as_str(), status[1].1),
    ///     ("search", BulkheadState::Isolated)
    /// );
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn health_status(&self) -> Vec<(BulkheadName, BulkheadState)> {
        self.bulkheads()
            .iter()
            .map(|bulkhead| (bulkhead.name().clone(), bulkhead.state()))
            .collect()
    }

    /// Returns a snapshot of all bulkheads, and of the fleet.
    ///
    /// It takes about one microsecond for each bulkhead, so it can be read every second. It locks
    /// one circuit at a time.
    ///
    /// ```
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let payments = manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    /// payments.circuit_breaker().unwrap().force_open();
    ///
    /// let snapshot = manager.snapshot();
    /// assert_eq!(snapshot.bulkheads[0].stats.max_concurrent_calls, 10);
    /// println!("{snapshot}");
    /// // BULKHEAD  STATE     CIRCUIT      SINCE  RUNNING  WAITING  ...  LAST CHANGE
    /// // payments  isolated  forced_open    0ms     0/10    0/100  ...  ... -> forced_open: manual
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> ManagerSnapshot {
        ManagerSnapshot {
            bulkheads: self.bulkheads().iter().map(Bulkhead::snapshot).collect(),
            fleet: self.fleet().map(Fleet::snapshot),
        }
    }

    /// Returns all bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// # for name in ["search", "database"] {
    /// #     manager.create_bulkhead(BulkheadConfig::new(name))?;
    /// # }
    /// for bulkhead in manager.bulkheads() {
    ///     println!("{}: {}", bulkhead.name(), bulkhead.state());
    /// }
    /// assert_eq!(manager.bulkheads().len(), 2);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn bulkheads(&self) -> Vec<Bulkhead> {
        let mut bulkheads: Vec<_> = self.read().values().cloned().collect();
        bulkheads.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        bulkheads
    }

    /// Returns the number of bulkheads.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// assert_eq!(manager.len(), 1);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Returns `true` if there are no bulkheads.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// let manager = BulkheadManager::new(ClockOnly);
    /// assert!(manager.is_empty());
    /// manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// assert!(!manager.is_empty());
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Removes a bulkhead from the registry, and returns it.
    ///
    /// Its other clones continue to work. To reject further calls, shut it down.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let held = manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// if let Some(removed) = manager.remove_bulkhead("database") {
    ///     removed.shutdown();
    /// }
    /// assert!(manager.get_bulkhead("database").is_none());
    /// assert_eq!(held.state(), BulkheadState::ShutDown);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn remove_bulkhead(&self, name: &str) -> Option<Bulkhead> {
        self.write().remove(name)
    }

    /// Rejects new and queued calls of all bulkheads; running calls continue.
    ///
    /// See [`Bulkhead::shutdown`]. Bulkheads that are created later are not shut down.
    ///
    /// If no call is running, the fleet's driver now publishes pending decisions, releases probe
    /// leases and stops. Otherwise [`drained`](Self::drained) waits for the calls, and then stops
    /// it. Bulkheads that are created later are not shared.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let database = manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// manager.shutdown();
    /// assert!(database.execute_sync(|| Ok::<_, ()>(42)).is_err());
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn shutdown(&self) {
        for bulkhead in self.bulkheads() {
            bulkhead.shutdown();
        }
        if let Some(fleet) = self.fleet() {
            // A running call may be a probe, with an outcome to report.
            if self.bulkheads().iter().all(|it| it.stats().active == 0) {
                fleet.begin_shutdown();
            }
        }
    }

    /// Waits until all bulkheads are shut down and their last calls have ended.
    ///
    /// Includes the bulkheads that are in the registry when the future is first polled. See
    /// [`Bulkhead::drained`]. Then the fleet, if any, is shut down: see [`Fleet::shutdown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the future can be dropped at any time, and the method called again.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::zip;
    /// # let runtime = ManualRuntime::new();
    /// # let manager = BulkheadManager::new(runtime.clone());
    /// let database = manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// let running = database.try_acquire().unwrap();
    /// manager.shutdown();
    /// runtime.block_on(zip(manager.drained(), async { running.succeed() }));
    /// assert_eq!(
    ///     (database.stats().active, database.stats().successful),
    ///     (0, 1)
    /// );
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub async fn drained(&self) {
        for bulkhead in self.bulkheads() {
            bulkhead.drained().await;
        }
        if let Some(fleet) = self.fleet() {
            fleet.shutdown().await;
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn downgrade(&self) -> WeakManager {
        WeakManager(Arc::downgrade(&self.shared))
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.shared.runtime
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<BulkheadName, Bulkhead>> {
        self.shared
            .bulkheads
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<BulkheadName, Bulkhead>> {
        self.shared
            .bulkheads
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reference for background tasks, which must not keep a registry alive.
#[cfg(feature = "metrics")]
pub(crate) struct WeakManager(std::sync::Weak<Shared>);

#[cfg(feature = "metrics")]
impl WeakManager {
    pub(crate) fn upgrade(&self) -> Option<BulkheadManager> {
        self.0.upgrade().map(|shared| BulkheadManager { shared })
    }
}

impl fmt::Debug for BulkheadManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadManager")
            .field("bulkheads", &self.len())
            .finish_non_exhaustive()
    }
}

fn same_or_conflict(
    bulkhead: Bulkhead,
    config: &BulkheadConfig,
    name: BulkheadName,
) -> Result<Bulkhead, ManagerError> {
    match bulkhead.config().difference(config) {
        None => Ok(bulkhead),
        Some(field) => Err(ManagerError::Conflict { name, field }),
    }
}

pin_project! {
    /// The future returned by [`BulkheadManager::execute_in_bulkhead`].
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ExecuteInBulkhead<F> {
        #[pin]
        lookup: Lookup<F>,
    }
}

pin_project! {
    #[project = LookupProjection]
    enum Lookup<F> {
        Found {
            #[pin]
            execute: ExecuteOwned<F, DefaultClassifier>,
        },
        NotFound {
            name: Option<Box<str>>,
        },
    }
}

impl<F, T, E> Future for ExecuteInBulkhead<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, BulkheadError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().lookup.project() {
            LookupProjection::Found { execute } => execute.poll(cx),
            LookupProjection::NotFound { name } => {
                let name = name
                    .take()
                    .expect("`ExecuteInBulkhead` polled after completion");
                Poll::Ready(Err(BulkheadError::NotFound { name }))
            }
        }
    }
}

impl<F> fmt::Debug for ExecuteInBulkhead<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteInBulkhead").finish_non_exhaustive()
    }
}
