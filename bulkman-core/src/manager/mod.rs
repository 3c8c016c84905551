//! A registry of bulkheads: one name, one bulkhead.

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
use crate::store::CircuitStore;

/// Makes bulkheads and finds them by name. Cheap to clone; all clones are one registry.
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
#[derive(Clone)]
pub struct BulkheadManager {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    bulkheads: RwLock<HashMap<BulkheadName, Bulkhead>>,
    fleet: OnceLock<Fleet>,
}

/// Why a manager does not hand out a bulkhead.
///
/// ```
/// use bulkman::{BulkheadConfig, BulkheadManager};
/// use bulkman::manager::ManagerError;
/// use bulkman::runtime::ClockOnly;
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("database"))?;
/// let error = manager.create_bulkhead(BulkheadConfig::new("database")).unwrap_err();
/// assert!(matches!(error, ManagerError::AlreadyExists { .. }));
/// assert_eq!(error.to_string(), "a bulkhead named \"database\" exists already");
/// # Ok::<(), ManagerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// There is one of this name already.
    #[error("a bulkhead named {name:?} exists already")]
    AlreadyExists {
        /// The name.
        name: BulkheadName,
    },

    /// There is one of this name, with another configuration.
    #[error("a bulkhead named {name:?} exists with another `{field}`")]
    Conflict {
        /// The name.
        name: BulkheadName,
        /// The first field that differs.
        field: &'static str,
    },

    /// One of several configurations can't be used.
    #[error("bulkhead {bulkhead:?}: {source}")]
    Invalid {
        /// Its name, as given.
        bulkhead: Box<str>,
        /// What is wrong with it.
        source: ConfigError,
    },

    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BulkheadManager {
    /// An empty registry whose bulkheads run on `runtime`.
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

    /// Shares the circuits of all bulkheads, those to come too, through a store: see [`Fleet`].
    ///
    /// # Errors
    ///
    /// As [`Fleet::new`]; [`ConfigError::Immutable`] if the manager has a store already.
    ///
    /// ```
    /// use std::time::Duration;
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use bulkman::store::MemoryStore;
    ///
    /// let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone());
    /// let manager = BulkheadManager::new(runtime.clone()).with_store(store)?;
    /// manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    /// // A process that wants to know what the fleet knows before its first call:
    /// let ready = runtime.block_on(manager.fleet().unwrap().wait_ready(Duration::from_secs(1)));
    /// assert!(ready);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn with_store(self, store: impl CircuitStore) -> Result<Self, ConfigError> {
        let fleet = Fleet::new(store, Arc::clone(&self.shared.runtime))?;
        let taken = ConfigError::immutable("store", "in use", "another");
        self.shared.fleet.set(fleet).map_err(|_| taken)?;
        for bulkhead in self.bulkheads() {
            self.share(&bulkhead)?;
        }
        Ok(self)
    }

    /// The fleet with which the circuits are shared, if they are.
    ///
    /// ```
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let manager = BulkheadManager::new(runtime.clone());
    /// assert!(manager.fleet().is_none());
    /// let manager = manager.with_store(MemoryStore::new(runtime))?;
    /// assert!(manager.fleet().is_some());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.shared.fleet.get()
    }

    fn share(&self, bulkhead: &Bulkhead) -> Result<(), ConfigError> {
        self.shared
            .fleet
            .get()
            .map_or(Ok(()), |fleet| fleet.attach(bulkhead))
    }

    /// Makes a bulkhead under its configuration's name.
    ///
    /// # Errors
    ///
    /// [`ManagerError::AlreadyExists`] if the name is taken, [`ManagerError::Config`] for a configuration
    /// that can't be used.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::manager::ManagerError;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let database = manager.create_bulkhead(BulkheadConfig::new("database").max_concurrent_calls(5))?;
    /// assert_eq!(database.stats().max_concurrent_calls, 5);
    /// let taken = manager.create_bulkhead(BulkheadConfig::new("database"));
    /// assert!(matches!(taken, Err(ManagerError::AlreadyExists { .. })));
    /// # Ok::<(), ManagerError>(())
    /// ```
    pub fn create_bulkhead(&self, config: BulkheadConfig) -> Result<Bulkhead, ManagerError> {
        let name = config.checked_name()?;
        if self.read().contains_key(&name) {
            return Err(ManagerError::AlreadyExists { name });
        }
        // Made outside the lock, since making it asks the runtime, which is the user's code.
        let bulkhead = Bulkhead::with_runtime(config, Arc::clone(&self.shared.runtime))?;
        match self.write().entry(name) {
            Entry::Occupied(taken) => {
                return Err(ManagerError::AlreadyExists {
                    name: taken.key().clone(),
                });
            }
            Entry::Vacant(free) => drop(free.insert(bulkhead.clone())),
        }
        if let Err(error) = self.share(&bulkhead) {
            self.remove_bulkhead(bulkhead.name().as_str());
            return Err(error.into());
        }
        Ok(bulkhead)
    }

    /// The bulkhead of this name.
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

    /// The bulkhead of this configuration's name, made if there is none.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Conflict`] if there is one whose configuration differs: two callers that
    /// disagree should know. [`Bulkhead::reconfigure`] changes it on purpose.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::manager::ManagerError;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// for _ in 0..2 {
    ///     manager.get_or_create_bulkhead(BulkheadConfig::new("database").max_concurrent_calls(5))?;
    /// }
    /// let other = manager.get_or_create_bulkhead(BulkheadConfig::new("database").max_concurrent_calls(9));
    /// assert!(matches!(other, Err(ManagerError::Conflict { field: "max_concurrent_calls", .. })));
    /// # Ok::<(), ManagerError>(())
    /// ```
    pub fn get_or_create_bulkhead(&self, config: BulkheadConfig) -> Result<Bulkhead, ManagerError> {
        let name = config.checked_name()?;
        let known = self.get_bulkhead(name.as_str());
        if let Some(bulkhead) = known {
            return same_or_conflict(bulkhead, &config, name);
        }
        match self.create_bulkhead(config.clone()) {
            // Somebody else was faster.
            Err(ManagerError::AlreadyExists { .. }) => self.get_or_create_bulkhead(config),
            made => made,
        }
    }

    /// Runs a future in the bulkhead of this name: see [`Bulkhead::execute`].
    ///
    /// # Errors
    ///
    /// [`BulkheadError::NotFound`] if there is none; otherwise as [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadError, BulkheadManager};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let manager = BulkheadManager::new(runtime.clone());
    /// manager.create_bulkhead(BulkheadConfig::new("database"))?;
    /// # runtime.block_on(async {
    /// let rows = manager.execute_in_bulkhead("database", async { Ok::<_, ()>(42) }).await;
    /// assert_eq!(rows, Ok(42));
    /// let nowhere = manager.execute_in_bulkhead("data base", async { Ok::<_, ()>(42) }).await;
    /// assert_eq!(nowhere, Err(BulkheadError::NotFound { name: "data base".into() }));
    /// # });
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn execute_in_bulkhead<F, T, E>(&self, name: &str, operation: F) -> ExecuteInBulkhead<F>
    where
        F: Future<Output = Result<T, E>>,
    {
        match self.get_bulkhead(name) {
            Some(bulkhead) => ExecuteInBulkhead::Found {
                execute: bulkhead.into_execute(operation),
            },
            None => ExecuteInBulkhead::Missing {
                name: Some(name.into()),
            },
        }
    }

    /// The counters of all bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// for name in ["search", "database"] {
    ///     manager.create_bulkhead(BulkheadConfig::new(name))?;
    /// }
    /// let stats = manager.all_stats();
    /// assert_eq!((stats[0].bulkhead.as_str(), stats[1].bulkhead.as_str()), ("database", "search"));
    /// assert_eq!(stats.iter().map(|bulkhead| bulkhead.failed).sum::<u64>(), 0);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn all_stats(&self) -> Vec<BulkheadStats> {
        self.bulkheads().iter().map(Bulkhead::stats).collect()
    }

    /// The condition of all bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// # for name in ["search", "database"] { manager.create_bulkhead(BulkheadConfig::new(name))?; }
    /// manager.get_bulkhead("search").unwrap().circuit_breaker().unwrap().open();
    /// let status = manager.health_status();
    /// assert_eq!((status[0].0.as_str(), status[0].1), ("database", BulkheadState::Healthy));
    /// assert_eq!((status[1].0.as_str(), status[1].1), ("search", BulkheadState::Isolated));
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn health_status(&self) -> Vec<(BulkheadName, BulkheadState)> {
        self.bulkheads()
            .iter()
            .map(|bulkhead| (bulkhead.name().clone(), bulkhead.state()))
            .collect()
    }

    /// All bulkheads, ordered by name.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// # for name in ["search", "database"] { manager.create_bulkhead(BulkheadConfig::new(name))?; }
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

    /// How many there are.
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

    /// Whether there are none.
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

    /// Takes a bulkhead out of the registry. It goes on working for those who hold it; shut it
    /// down to end it.
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

    /// Shuts all bulkheads down: see [`Bulkhead::shutdown`].
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
    }

    /// Waits until every bulkhead now in the registry is drained: see [`Bulkhead::drained`].
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
    /// assert_eq!((database.stats().active, database.stats().successful), (0, 1));
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub async fn drained(&self) {
        for bulkhead in self.bulkheads() {
            bulkhead.drained().await;
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

/// For background tasks, which must not keep a registry alive.
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
    /// The future of [`BulkheadManager::execute_in_bulkhead`].
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`].
    #[project = ExecuteProjection]
    #[must_use = "futures do nothing unless polled"]
    #[allow(missing_docs, reason = "made and polled only")]
    pub enum ExecuteInBulkhead<F> {
        #[doc(hidden)]
        Found {
            #[pin]
            execute: ExecuteOwned<F, DefaultClassifier>,
        },
        #[doc(hidden)]
        Missing {
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
        match self.project() {
            ExecuteProjection::Found { execute } => execute.poll(cx),
            ExecuteProjection::Missing { name } => {
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
