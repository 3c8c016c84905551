//! Fault injection for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::counts::{BucketedWindow, CountsDelta, FleetCounts};
use super::history::HistoryEntry;
use super::probe::{ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult};
use super::process::ProcessStatus;
use super::transition::{FleetCommand, StoreTransition, StoreVote, TransitionResult, VoteResult};
use super::view::{Revision, Snapshot};
use super::{
    CircuitStore, StoreCapabilities, StoreError, StoreEvent, StoreFuture, StoreSession,
    StoreSettings,
};
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::{Mutex, MutexGuard, lock};

/// Wraps a store and injects faults, for tests.
///
/// Handles created by [`clone`](Clone::clone) share their faults. A handle created by
/// [`fork`](Self::fork) has separate faults over the same data, like a process on another network.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::{CircuitStore, MemoryStore};
/// use bulkman::store::{Fault, FaultStore};
///
/// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
/// store.set(Fault::Down);
/// let error = futures_lite::future::block_on(store.open_session(&[])).err();
/// assert!(error.unwrap().is_transient());
/// store.clear();
/// assert!(futures_lite::future::block_on(store.open_session(&[])).is_ok());
/// ```
#[cfg(feature = "test-util")] // for the badge in crates that re-export it
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn CircuitStore>,
    control: Arc<Control>,
}

/// A fault that a [`FaultStore`] injects.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::{CircuitStore, MemoryStore, StoreError};
/// use bulkman::store::{Fault, FaultStore};
///
/// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
/// store.set(Fault::Error(StoreError::denied("missing UPDATE privilege")));
/// let error = futures_lite::future::block_on(store.open_session(&[]))
///     .err()
///     .unwrap();
/// assert!(!error.is_transient());
/// ```
#[cfg(feature = "test-util")] // for the badge in crates that re-export it
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// No fault.
    #[default]
    None,
    /// Every operation fails immediately, and open sessions break.
    Down,
    /// Every operation fails with this error.
    Error(StoreError),
    /// Operations never complete, and are not applied.
    Hang,
    /// Operations are applied, but never complete.
    ResponseLost,
    /// Operations are applied, then fail because the session breaks.
    DisconnectAfterApply,
    /// Operations are delayed by this duration.
    Slow(Duration),
    /// The store can be read, and rejects changes, as a standby does. It sends no notifications.
    ReadOnly,
}

struct Control {
    runtime: Arc<dyn Runtime>,
    faults: Mutex<Faults>,
    connects: AtomicUsize,
    operations: AtomicUsize,
}

#[derive(Default)]
struct Faults {
    fault: Fault,
    drop_notifications: bool,
    rejected: Option<BulkheadName>,
    rejects_registration: bool,
    /// Sessions of earlier generations are broken.
    generation: u64,
}

impl FaultStore {
    /// Wraps `store`, with `runtime` as the clock for delays.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::MemoryStore;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// assert_eq!((store.connects(), store.operations()), (0, 0));
    /// ```
    #[must_use]
    pub fn new(store: impl CircuitStore, runtime: impl Runtime) -> Self {
        Self {
            inner: Arc::new(store),
            control: Control::new(Arc::new(runtime)),
        }
    }

    /// Returns a second wrapper with independent fault settings, initially without a fault.
    ///
    /// ```
    /// # use bulkman::store::{Fault, FaultStore};
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// # use futures_lite::future::block_on;
    /// let first = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let second = first.fork();
    /// first.set(Fault::Down);
    /// assert!(
    ///     block_on(first.open_session(&[])).is_err()
    ///         && block_on(second.open_session(&[])).is_ok()
    /// );
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            control: Control::new(Arc::clone(&self.control.runtime)),
        }
    }

    /// Sets the current fault. [`Fault::Down`] also breaks open sessions.
    ///
    /// ```
    /// # use bulkman::store::{Fault, FaultStore};
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let store = FaultStore::new(MemoryStore::new(runtime.clone()), runtime.clone());
    /// store.set(Fault::Down);
    /// let manager = BulkheadManager::new(runtime.clone());
    /// manager.share_through(store)?;
    /// let bulkhead = manager.create_bulkhead(BulkheadConfig::new("search"))?;
    /// runtime.advance(Duration::from_secs(10));
    /// assert!(!manager.fleet().unwrap().snapshot().connected);
    /// assert_eq!(bulkhead.execute_sync(|| Ok::<_, ()>("found")), Ok("found"));      // calls are not affected
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn set(&self, fault: Fault) {
        let mut faults = self.control.faults();
        if matches!(fault, Fault::Down) {
            faults.generation += 1;
        }
        faults.fault = fault;
    }

    /// Clears all faults. Broken sessions stay broken.
    ///
    /// ```
    /// # use bulkman::store::{Fault, FaultStore};
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// # let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// store.set(Fault::Down);
    /// store.clear();
    /// assert!(futures_lite::future::block_on(store.open_session(&[])).is_ok());
    /// ```
    pub fn clear(&self) {
        let mut faults = self.control.faults();
        faults.fault = Fault::None;
        faults.drop_notifications = false;
        faults.rejected = None;
    }

    /// Rejects transitions and probe results of one circuit, and with `registration` also its
    /// registration.
    ///
    /// An operation with several circuits fails as a whole, and is not applied. Sessions stay
    /// usable.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, FaultStore, MemoryStore};
    /// # use futures_lite::future::block_on;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let name = BulkheadName::new("search")?;
    /// store.reject_circuit(name.clone(), true);
    /// assert!(block_on(store.open_session(&[name])).is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reject_circuit(&self, circuit: BulkheadName, registration: bool) {
        let mut faults = self.control.faults();
        faults.rejected = Some(circuit);
        faults.rejects_registration = registration;
    }

    /// Sets whether notifications are dropped, as behind a connection pooler.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::MemoryStore;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// store.drop_notifications(true); // sessions work, but receive no events
    ///     
    /// # store.clear();
    /// ```
    pub fn drop_notifications(&self, drop: bool) {
        self.control.faults().drop_notifications = drop;
    }

    /// Breaks all open sessions. New sessions work.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// # use futures_lite::future::block_on;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let mut session = block_on(store.open_session(&[]))?;
    /// store.break_sessions();
    /// assert!(block_on(session.snapshot(None)).is_err());
    /// assert!(block_on(block_on(store.open_session(&[]))?.snapshot(None)).is_ok());
    /// # Ok::<(), bulkman::store::StoreError>(())
    /// ```
    pub fn break_sessions(&self) {
        self.control.faults().generation += 1;
    }

    /// Returns the number of connection attempts.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let _session = futures_lite::future::block_on(store.open_session(&[]));
    /// assert_eq!(store.connects(), 1);
    /// ```
    #[must_use]
    pub fn connects(&self) -> usize {
        self.control.connects.load(Ordering::Relaxed)
    }

    /// Returns the number of operations started, without connecting and waiting for events.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// # use futures_lite::future::block_on;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let mut session = block_on(store.open_session(&[]))?;
    /// block_on(session.snapshot(None))?;
    /// assert_eq!(store.operations(), 1);
    /// # Ok::<(), bulkman::store::StoreError>(())
    /// ```
    #[must_use]
    pub fn operations(&self) -> usize {
        self.control.operations.load(Ordering::Relaxed)
    }
}

impl Control {
    fn new(runtime: Arc<dyn Runtime>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            faults: Mutex::default(),
            connects: AtomicUsize::new(0),
            operations: AtomicUsize::new(0),
        })
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    fn is_read_only(&self) -> bool {
        matches!(self.faults().fault, Fault::ReadOnly)
    }

    /// Returns an error if one of the circuits is rejected.
    fn check<'a>(
        &self,
        registration: bool,
        circuits: impl IntoIterator<Item = &'a BulkheadName>,
    ) -> Result<(), StoreError> {
        let faults = self.faults();
        let rejected = faults.rejected.as_ref();
        let applies = !registration || faults.rejects_registration;
        match circuits
            .into_iter()
            .find(|circuit| applies && Some(*circuit) == rejected)
        {
            Some(_) => Err(StoreError::invalid_argument(
                "a circuit is rejected by an injected fault",
            )),
            None => Ok(()),
        }
    }

    /// Runs an operation under the current fault; `generation` is that of its session, if any.
    async fn run<T>(
        &self,
        generation: Option<u64>,
        operation: StoreFuture<'_, T>,
    ) -> Result<T, StoreError> {
        let fault = {
            let faults = self.faults();
            if generation.is_some_and(|generation| generation != faults.generation) {
                return Err(broken());
            }
            faults.fault.clone()
        };
        match fault {
            Fault::None | Fault::ReadOnly => operation.await,
            Fault::Down => Err(broken()),
            Fault::Error(error) => Err(error),
            Fault::Hang => std::future::pending().await,
            Fault::ResponseLost => {
                operation.await?;
                std::future::pending().await
            }
            Fault::DisconnectAfterApply => {
                operation.await?;
                Err(broken())
            }
            Fault::Slow(delay) => {
                self.runtime.sleep_until(self.runtime.now() + delay).await;
                operation.await
            }
        }
    }
}

impl CircuitStore for FaultStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn settings(&self) -> StoreSettings {
        self.inner.settings()
    }

    fn namespace(&self) -> &str {
        self.inner.namespace()
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        Box::pin(async move {
            self.control.connects.fetch_add(1, Ordering::Relaxed);
            let read_only = self.control.is_read_only();
            let circuits = if read_only { &[] } else { circuits };
            self.control.check(true, circuits)?;
            let inner = self
                .control
                .run(None, self.inner.open_session(circuits))
                .await?;
            let control = Arc::clone(&self.control);
            let generation = control.faults().generation;
            Ok(Box::new(FaultSession {
                inner,
                control,
                generation,
                is_usable: false,
                read_only,
            }) as Box<dyn StoreSession>)
        })
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore")
            .field("inner", &self.inner)
            .field("fault", &self.control.faults().fault)
            .finish_non_exhaustive()
    }
}

struct FaultSession {
    inner: Box<dyn StoreSession>,
    control: Arc<Control>,
    generation: u64,
    /// Whether the last error was a rejected circuit or change.
    is_usable: bool,
    /// Whether the store rejected changes at the last operation.
    read_only: bool,
}

impl FaultSession {
    /// Begins an operation that changes the store.
    fn begin_change(&mut self) -> Result<(), StoreError> {
        self.control.operations.fetch_add(1, Ordering::Relaxed);
        self.read_only = self.control.is_read_only();
        self.is_usable = self.read_only;
        if self.read_only {
            return Err(StoreError::unavailable(READ_ONLY));
        }
        Ok(())
    }
}

/// Generates the changes that differ only in name and arguments.
macro_rules! changes_under_fault {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(
            fn $name<'a>(&'a mut self, $($argument: $type),*) -> StoreFuture<'a, $output> {
                if let Err(error) = self.begin_change() {
                    return Box::pin(std::future::ready(Err(error)));
                }
                Box::pin(self.control.run(Some(self.generation), self.inner.$name($($argument),*)))
            }
        )*
    };
}

impl StoreSession for FaultSession {
    changes_under_fault! {
        transition(transition: &'a StoreTransition) -> TransitionResult;
        vote(vote: &'a StoreVote) -> VoteResult;
        command(command: &'a FleetCommand) -> TransitionResult;
        acquire_probe(request: &'a ProbeRequest) -> Option<ProbeLease>;
        renew_probe(request: &'a ProbeRequest, lease: ProbeLease) -> Option<ProbeLease>;
        report_probe(result: &'a ProbeResult) -> ProbeReportResult;
        release_probe(request: &'a ProbeRequest, lease: ProbeLease) -> ();
        acquire_probes(requests: &'a [ProbeRequest]) -> Vec<Option<ProbeLease>>;
        renew_probes(held: &'a [(ProbeRequest, ProbeLease)]) -> Vec<Option<ProbeLease>>;
        release_probes(held: &'a [(ProbeRequest, ProbeLease)]) -> ();
        withdraw(status: &'a ProcessStatus) -> ();
        add_counts(window: BucketedWindow, deltas: &'a [CountsDelta]) -> Vec<FleetCounts>;
    }

    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot> {
        self.control.operations.fetch_add(1, Ordering::Relaxed);
        self.read_only = self.control.is_read_only();
        self.is_usable = false;
        let operation = self.inner.snapshot(since);
        Box::pin(self.control.run(Some(self.generation), operation))
    }

    fn resync<'a>(
        &'a mut self,
        since: Option<Revision>,
        status: &'a ProcessStatus,
    ) -> StoreFuture<'a, Snapshot> {
        if self.control.is_read_only() {
            return self.snapshot(since);
        }
        self.control.operations.fetch_add(1, Ordering::Relaxed);
        self.read_only = false;
        self.is_usable = false;
        let operation = self.inner.resync(since, status);
        Box::pin(self.control.run(Some(self.generation), operation))
    }

    fn live_processes(&self) -> Option<u32> {
        self.inner.live_processes()
    }

    fn history<'a>(
        &'a mut self,
        circuit: Option<&'a BulkheadName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<HistoryEntry>> {
        self.control.operations.fetch_add(1, Ordering::Relaxed);
        self.is_usable = false;
        let operation = self.inner.history(circuit, limit);
        Box::pin(self.control.run(Some(self.generation), operation))
    }

    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.begin_change()?;
            let checked = self.control.check(true, circuits);
            self.is_usable = checked.is_err();
            checked?;
            let operation = self.inner.register(circuits);
            self.control.run(Some(self.generation), operation).await
        })
    }

    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        Box::pin(async move {
            self.begin_change()?;
            let circuits = transitions.iter().map(|transition| &transition.circuit);
            let checked = self.control.check(false, circuits);
            self.is_usable = checked.is_err();
            checked?;
            let operation = self.inner.transitions(transitions);
            self.control.run(Some(self.generation), operation).await
        })
    }

    fn report_probes<'a>(
        &'a mut self,
        results: &'a [ProbeResult],
    ) -> StoreFuture<'a, Vec<ProbeReportResult>> {
        Box::pin(async move {
            self.begin_change()?;
            let circuits = results.iter().map(|result| &result.request.circuit);
            let checked = self.control.check(false, circuits);
            self.is_usable = checked.is_err();
            checked?;
            let operation = self.inner.report_probes(results);
            self.control.run(Some(self.generation), operation).await
        })
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn read_only_reason(&self) -> Option<&str> {
        self.read_only.then_some(READ_ONLY)
    }

    fn is_listening(&self) -> bool {
        self.inner.is_listening()
    }

    fn listen(&mut self) -> StoreFuture<'_, ()> {
        self.inner.listen()
    }

    fn changed(&mut self) -> StoreFuture<'_, StoreEvent> {
        Box::pin(async move {
            loop {
                let event = self.inner.changed().await?;
                let faults = self.control.faults();
                if faults.generation != self.generation {
                    return Err(broken());
                }
                // What arrives meanwhile is lost.
                if !faults.drop_notifications
                    && !matches!(
                        faults.fault,
                        Fault::Hang | Fault::ResponseLost | Fault::ReadOnly
                    )
                {
                    return Ok(event);
                }
            }
        })
    }
}

const READ_ONLY: &str = "changes are rejected by an injected fault";

fn broken() -> StoreError {
    StoreError::unavailable("the session is broken by an injected fault")
}
