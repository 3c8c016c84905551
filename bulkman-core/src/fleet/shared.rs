//! State shared by the handles, the circuits and the driver of one fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::counters::FleetCounters;
use super::driver::ParkedDriver;
use super::events::FleetEvent;
use crate::circuit_breaker::WeakCircuit;
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::store::{Epoch, FleetState};
use crate::sync::broadcast::Broadcast;
use crate::sync::waker_set::{WakerKey, WakerSet};
use crate::sync::{Mutex, lock};

/// Identifies a circuit within this process's fleet.
pub(super) type MemberId = u64;

/// Returns a circuit's total successes and failures; `None` once the circuit was dropped.
pub(super) type CallTotals = Box<dyn Fn() -> Option<(u64, u64)> + Send + Sync>;

/// State shared by the handles, the circuits and the driver of one fleet.
pub(super) struct FleetShared {
    pub(super) runtime: Arc<dyn Runtime>,
    /// The store's namespace, which distinguishes the fleets of one process.
    pub(super) namespace: Arc<str>,
    #[cfg(feature = "metrics")]
    pub(super) created_at: Instant,
    inbox: Mutex<Inbox>,
    /// The driver, while it has no task.
    pub(super) parked_driver: ParkedDriver,
    /// Wakes the driver when the inbox changes.
    driver_waker: WakerSet,
    status: Mutex<Status>,
    /// Wakes the callers of [`wait_for`](Self::wait_for) when the status changes.
    status_changed: WakerSet,
    pub(super) events: Arc<Broadcast<FleetEvent>>,
    /// The counters at the last reading for metrics; `None` before the first.
    #[cfg(feature = "metrics")]
    pub(super) published: Mutex<Option<FleetCounters>>,
}

/// Input for the driver.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) attached: Vec<Attachment>,
    pub(super) changed: BTreeSet<MemberId>,
    pub(super) shutdown: Option<Shutdown>,
    last_id: MemberId,
}

/// How the driver stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// After publishing pending decisions.
    Flush,
    /// Immediately: the last handle was dropped.
    Immediate,
}

/// A circuit to share.
pub(super) struct Attachment {
    pub(super) id: MemberId,
    pub(super) name: BulkheadName,
    pub(super) circuit: WeakCircuit,
    pub(super) totals: Option<CallTotals>,
}

/// The driver's status, as handles report it.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) connected: bool,
    pub(super) polling: bool,
    pub(super) read_only: bool,
    /// When the store last responded.
    pub(super) synced_at: Option<Instant>,
    pub(super) degraded_since: Option<Instant>,
    pub(super) error: Option<String>,
    /// The number of attached circuits that have been loaded from the store.
    pub(super) loaded: usize,
    pub(super) attached: usize,
    pub(super) pending: usize,
    pub(super) counters: FleetCounters,
    /// Unordered.
    pub(super) circuits: Vec<CircuitStatus>,
    pub(super) stopped: bool,
}

/// A circuit as stored.
#[derive(Debug)]
pub(super) struct CircuitStatus {
    pub(super) name: BulkheadName,
    /// `None` before it has been loaded.
    pub(super) state: Option<FleetState>,
    pub(super) epoch: Epoch,
    /// `None` if it never changed.
    pub(super) last_change: Option<Arc<LastChange>>,
}

/// The last change of a circuit in the store.
#[derive(Debug)]
pub(super) struct LastChange {
    /// `None` if it was before the clock began.
    pub(super) at: Option<Instant>,
    pub(super) author: Arc<str>,
    pub(super) reason: Arc<str>,
}

impl FleetShared {
    pub(super) fn new(runtime: Arc<dyn Runtime>, namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            #[cfg(feature = "metrics")]
            created_at: runtime.now(),
            runtime,
            namespace: namespace.into(),
            inbox: Mutex::new(Inbox::default()),
            parked_driver: ParkedDriver::new(None),
            driver_waker: WakerSet::new(),
            status: Mutex::new(Status::default()),
            status_changed: WakerSet::new(),
            events: Arc::new(Broadcast::new(EVENT_CAPACITY, 1)),
            #[cfg(feature = "metrics")]
            published: Mutex::new(None),
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.runtime.now()
    }

    pub(super) fn next_id(&self) -> MemberId {
        let mut inbox = lock(&self.inbox);
        inbox.last_id += 1;
        inbox.last_id
    }

    pub(super) fn attach(&self, attachment: Attachment) {
        lock(&self.status).attached += 1;
        lock(&self.inbox).attached.push(attachment);
        self.wake_driver();
    }

    /// Asks the driver to observe the circuit `id`.
    pub(super) fn notify_changed(&self, id: MemberId) {
        let is_new = lock(&self.inbox).changed.insert(id);
        // An earlier attempt to resume the driver may have failed for lack of a runtime.
        self.resume_driver();
        if is_new {
            self.driver_waker.wake_all();
        }
    }

    /// Asks the driver to stop. The first request determines how.
    pub(super) fn request_shutdown(&self, shutdown: Shutdown) {
        lock(&self.inbox).shutdown.get_or_insert(shutdown);
        if shutdown == Shutdown::Immediate || !self.resume_driver() {
            self.end_parked();
        }
        self.driver_waker.wake_all();
    }

    fn wake_driver(&self) {
        self.resume_driver();
        self.driver_waker.wake_all();
    }

    pub(super) fn shutdown(&self) -> Option<Shutdown> {
        lock(&self.inbox).shutdown
    }

    /// Takes everything from the inbox, except a requested shutdown.
    pub(super) fn take_inbox(&self) -> Inbox {
        let mut inbox = lock(&self.inbox);
        Inbox {
            attached: std::mem::take(&mut inbox.attached),
            changed: std::mem::take(&mut inbox.changed),
            shutdown: inbox.shutdown,
            last_id: inbox.last_id,
        }
    }

    pub(super) fn has_input(&self) -> bool {
        let inbox = lock(&self.inbox);
        !(inbox.attached.is_empty() && inbox.changed.is_empty())
    }

    /// Creates the registration for [`poll_inbox`](Self::poll_inbox).
    pub(super) fn watch_inbox(&self) -> Registration<'_> {
        Registration::new(&self.driver_waker)
    }

    /// Completes when the inbox has input.
    pub(super) fn poll_inbox(
        &self,
        registration: &mut Registration<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        registration.register(cx);
        if self.has_input() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    pub(super) fn status<R>(&self, read: impl FnOnce(&mut Status) -> R) -> R {
        read(&mut lock(&self.status))
    }

    /// Changes the status and wakes the tasks that wait for a change.
    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
        self.status_changed.wake_all();
    }

    /// Counts an event and sends it to all receivers.
    pub(super) fn emit(&self, event: FleetEvent) {
        #[cfg(feature = "tracing")]
        crate::observe::fleet(&event);
        lock(&self.status).counters.record(&event);
        self.events.push(event);
        self.events.wake_readers();
    }

    /// Waits until `condition` holds, for at most `timeout`. Returns whether it holds.
    pub(super) async fn wait_for(
        &self,
        timeout: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> bool {
        let mut timer = self
            .now()
            .checked_add(timeout)
            .map(|at| self.runtime.sleep_until(at));
        let mut registration = Registration::new(&self.status_changed);
        std::future::poll_fn(|cx| {
            registration.register(cx);
            if condition(&lock(&self.status)) {
                return Poll::Ready(true);
            }
            match timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(false),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// A task's registration in a set of wakers. Dropping it removes the waker.
pub(super) struct Registration<'a> {
    wakers: &'a WakerSet,
    key: Option<WakerKey>,
}

impl<'a> Registration<'a> {
    const fn new(wakers: &'a WakerSet) -> Self {
        Self { wakers, key: None }
    }

    /// Registers the task of `cx`. The caller must check its condition after this.
    fn register(&mut self, cx: &Context<'_>) {
        self.wakers.register(&mut self.key, cx.waker());
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.wakers.remove(&mut self.key);
    }
}

/// The number of events that a receiver may lag behind before it misses some.
const EVENT_CAPACITY: usize = 1024;
