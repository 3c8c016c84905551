//! A store that fails when a test says so.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counts::{BucketedWindow, CountsDelta, FleetCounts};
use super::history::HistoryEntry;
use super::probe::{ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult};
use super::transition::{FleetCommand, StoreTransition, StoreVote, TransitionResult, VoteResult};
use super::view::{Revision, Snapshot};
use super::{
    CircuitStore, StoreCapabilities, StoreError, StoreEvent, StoreFuture, StoreSession,
    StoreSettings,
};
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// Any store, made to fail at will: down, slow, frozen, deaf, or losing its answers.
///
/// Every handle made by [`clone`](Clone::clone) fails alike; one made by
/// [`handle`](Self::fork) has faults of its own over the same data, as another process has
/// another network.
///
/// ```
/// use bulkman::store::{Fault, FaultStore};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::{CircuitStore, MemoryStore};
///
/// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
/// store.set(Fault::Down);
/// let refused = futures_lite::future::block_on(store.open_session(&[])).err();
/// assert!(refused.unwrap().is_transient());
/// store.clear();
/// assert!(futures_lite::future::block_on(store.open_session(&[])).is_ok());
/// ```
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn CircuitStore>,
    control: Arc<Control>,
}

/// How a [`FaultStore`] fails.
///
/// ```
/// use bulkman::store::{Fault, FaultStore};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::{CircuitStore, MemoryStore, StoreError};
///
/// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
/// store.set(Fault::Error(StoreError::denied("no right to write")));
/// let refused = futures_lite::future::block_on(store.open_session(&[])).err().unwrap();
/// assert!(!refused.is_transient());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Not at all.
    #[default]
    None,
    /// Everything fails at once; open sessions break.
    Down,
    /// Everything fails with this error.
    Error(StoreError),
    /// Operations begin and never end; nothing is done.
    Hang,
    /// Operations are done, and the answer never comes.
    ResponseLost,
    /// Operations are done, then the session breaks instead of answering.
    DisconnectAfterApply,
    /// Operations take this much longer.
    Slow(Duration),
}

struct Control {
    runtime: Arc<dyn Runtime>,
    fault: Mutex<Faults>,
    connects: AtomicUsize,
    operations: AtomicUsize,
}

#[derive(Default)]
struct Faults {
    fault: Fault,
    deaf: bool,
    /// Sessions of an earlier generation are broken.
    generation: u64,
}

impl FaultStore {
    /// Wraps `store`; delays are measured by `runtime`.
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

    /// The same store through another network: without faults, until it is given its own.
    ///
    /// ```
    /// # use bulkman::store::{Fault, FaultStore};
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::{CircuitStore, MemoryStore};
    /// # use futures_lite::future::block_on;
    /// let here = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// let there = here.fork();
    /// here.set(Fault::Down);
    /// assert!(block_on(here.open_session(&[])).is_err() && block_on(there.open_session(&[])).is_ok());
    /// ```
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            control: Control::new(Arc::clone(&self.control.runtime)),
        }
    }

    /// From now on the store fails so. [`Fault::Down`] breaks open sessions too.
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
    /// assert_eq!(bulkhead.execute_sync(|| Ok::<_, ()>("found")), Ok("found"));      // all the same
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn set(&self, fault: Fault) {
        let mut faults = self.control.faults();
        if matches!(fault, Fault::Down) {
            faults.generation += 1;
        }
        faults.fault = fault;
    }

    /// From now on nothing fails; sessions that are broken stay so.
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
        faults.deaf = false;
    }

    /// Whether notifications get lost, as behind a connection pooler.
    ///
    /// ```
    /// # use bulkman::store::FaultStore;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::store::MemoryStore;
    /// let store = FaultStore::new(MemoryStore::new(ClockOnly), ClockOnly);
    /// store.drop_notifications(true);          // sessions work, and hear of nothing
    /// # store.clear();
    /// ```
    pub fn drop_notifications(&self, deaf: bool) {
        self.control.faults().deaf = deaf;
    }

    /// Breaks all sessions once; new ones work.
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

    /// How often somebody tried to connect.
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

    /// How many operations were begun, connecting and listening not counted.
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
            fault: Mutex::default(),
            connects: AtomicUsize::new(0),
            operations: AtomicUsize::new(0),
        })
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation of a session of `generation`, or of none, under the current fault.
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
            Fault::None => operation.await,
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
}

/// Operations that differ in nothing but their name and arguments.
macro_rules! under_fault {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(
            fn $name<'a>(&'a mut self, $($argument: $type),*) -> StoreFuture<'a, $output> {
                self.control.operations.fetch_add(1, Ordering::Relaxed);
                Box::pin(self.control.run(Some(self.generation), self.inner.$name($($argument),*)))
            }
        )*
    };
}

impl StoreSession for FaultSession {
    under_fault! {
        register(circuits: &'a [BulkheadName]) -> ();
        snapshot(since: Option<Revision>) -> Snapshot;
        transition(transition: &'a StoreTransition) -> TransitionResult;
        transitions(transitions: &'a [StoreTransition]) -> Vec<TransitionResult>;
        vote(vote: &'a StoreVote) -> VoteResult;
        command(command: &'a FleetCommand) -> TransitionResult;
        acquire_probe(request: &'a ProbeRequest) -> Option<ProbeLease>;
        renew_probe(request: &'a ProbeRequest, lease: ProbeLease) -> Option<ProbeLease>;
        report_probe(verdict: &'a ProbeResult) -> ProbeReportResult;
        release_probe(request: &'a ProbeRequest, lease: ProbeLease) -> ();
        add_counts(window: BucketedWindow, deltas: &'a [CountsDelta]) -> Vec<FleetCounts>;
        history(circuit: Option<&'a BulkheadName>, limit: u32) -> Vec<HistoryEntry>;
    }

    fn changed(&mut self) -> StoreFuture<'_, StoreEvent> {
        Box::pin(async move {
            loop {
                let event = self.inner.changed().await?;
                let faults = self.control.faults();
                if faults.generation != self.generation {
                    return Err(broken());
                }
                // A link that is frozen or deaf tells nothing; what it missed, it missed.
                if !faults.deaf && !matches!(faults.fault, Fault::Hang | Fault::ResponseLost) {
                    return Ok(event);
                }
            }
        })
    }
}

fn broken() -> StoreError {
    StoreError::unavailable("the link is broken, as the test wants it")
}
