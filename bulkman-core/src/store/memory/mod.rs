//! A store in the memory of this process.

mod circuit;
mod namespace;
mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use self::namespace::Namespace;
use self::session::MemorySession;
use super::view::StoreTime;
use super::{
    CircuitStore, StoreCapabilities, StoreFuture, StoreSession, StoreSettings, check_namespace,
};
use crate::config_error::ConfigError;
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::{Mutex, lock};

/// A store in the memory of this process.
///
/// It shares circuits between several managers of one process, and serves tests of everything that
/// uses a store. Clones share their data, which is dropped with the last clone.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
///
/// let shop = MemoryStore::new(ClockOnly);
/// let stock = shop.in_namespace("stock")?; // shares the data, with separate circuits
///     
/// # let _ = stock;
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    namespace: Arc<str>,
    settings: StoreSettings,
}

struct Shared {
    clock: Arc<dyn Runtime>,
    origin: Instant,
    namespaces: Mutex<BTreeMap<Arc<str>, Namespace>>,
}

impl MemoryStore {
    /// Creates an empty store that takes its time from `clock`.
    ///
    /// ```
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let manager = BulkheadManager::new(runtime.clone());
    /// manager.share_through(MemoryStore::new(runtime))?;
    /// assert_eq!(manager.fleet().unwrap().namespace(), "default");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn new(clock: impl Runtime) -> Self {
        let origin = clock.now();
        Self {
            shared: Arc::new(Shared {
                clock: Arc::new(clock),
                origin,
                namespaces: Mutex::new(BTreeMap::new()),
            }),
            namespace: Arc::from("default"),
            settings: StoreSettings::new(),
        }
    }

    /// Returns a store over the same data, bound to another namespace.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] if [`check_namespace`] rejects the name.
    ///
    /// ```
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let store = MemoryStore::new(runtime.clone()).in_namespace("stock")?;
    /// let manager = BulkheadManager::new(runtime);
    /// manager.share_through(store)?;
    /// assert_eq!(manager.fleet().unwrap().namespace(), "stock");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn in_namespace(&self, namespace: impl Into<Arc<str>>) -> Result<Self, ConfigError> {
        let namespace = namespace.into();
        check_namespace(&namespace)?;
        Ok(Self {
            namespace,
            ..self.clone()
        })
    }

    /// Returns a store over the same data, used with other settings.
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// let store =
    ///     MemoryStore::new(ClockOnly).with_settings(StoreSettings::new().probe_limit(3));
    /// assert_eq!(store.settings().probe_limit, 3);
    /// ```
    #[must_use]
    pub fn with_settings(&self, settings: StoreSettings) -> Self {
        Self {
            settings,
            ..self.clone()
        }
    }

    /// Returns a copy of this namespace, for [`restore`](Self::restore).
    ///
    /// It serves tests of restored backups and lagging standbys.
    ///
    /// ```
    /// # use bulkman::store::{CircuitStore, FleetAction, FleetCommand, FleetState, OperationId};
    /// # use bulkman::bulkhead::BulkheadName;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::MemoryStore;
    /// # use futures_lite::future::block_on;
    /// let mail = BulkheadName::new("mail")?;
    /// let store = MemoryStore::new(ClockOnly);
    /// let mut session = block_on(store.open_session(std::slice::from_ref(&mail)))?;
    /// let backup = store.backup();
    /// let command = FleetCommand::new(mail, FleetAction::ForceOpen, OperationId(7), "ann", "");
    /// block_on(session.command(&command))?;
    /// store.restore(&backup);
    /// assert_eq!(block_on(session.snapshot(None))?.circuits[0].state, FleetState::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    #[must_use]
    pub fn backup(&self) -> MemoryBackup {
        MemoryBackup(Arc::new(self.with(|namespace, _| namespace.backup())))
    }

    /// Replaces this namespace by a copy. Existing sessions stay open and receive no event.
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn restore(&self, backup: &MemoryBackup) {
        self.with(|namespace, _| namespace.restore(&backup.0));
    }

    fn now(&self) -> StoreTime {
        StoreTime::default().saturating_add(
            self.shared
                .clock
                .now()
                .saturating_duration_since(self.shared.origin),
        )
    }

    /// Runs `action` on the namespace, then wakes the listeners of its changes.
    fn with<T>(&self, action: impl FnOnce(&mut Namespace, StoreTime) -> T) -> T {
        let now = self.now();
        let mut namespaces = lock(&self.shared.namespaces);
        let namespace = namespaces.entry(Arc::clone(&self.namespace)).or_default();
        let result = action(namespace, now);
        let wakers = namespace.take_wakers();
        // Wakers may run user code: never under the lock.
        drop(namespaces);
        wakers.into_iter().for_each(std::task::Waker::wake);
        result
    }
}

impl CircuitStore for MemoryStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::ALL
    }

    fn settings(&self) -> StoreSettings {
        self.settings.clone()
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        Box::pin(async move {
            let session = MemorySession::new(self.clone(), circuits);
            Ok(Box::new(session) as Box<dyn StoreSession>)
        })
    }
}

/// A copy of a namespace, returned by [`MemoryStore::backup`].
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[derive(Clone)]
pub struct MemoryBackup(Arc<Namespace>);

#[cfg(feature = "test-util")]
impl fmt::Debug for MemoryBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackup").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
