//! What the handles, the circuits and the synchroniser of one fleet share.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::counted::Counted;
use super::event::FleetEvent;
use crate::circuit_breaker::SharedCircuit;
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::store::{Epoch, FleetState, StoreError};
use crate::sync::broadcast::Broadcast;
use crate::sync::waker_set::{WakerKey, WakerSet};
use crate::sync::{Mutex, lock};

/// The number of a circuit in this process's fleet.
pub(super) type MemberId = u64;

/// Successes and failures of a circuit's calls since it was made; `None` once it is gone.
pub(super) type Tallies = Box<dyn Fn() -> Option<(u64, u64)> + Send + Sync>;

pub(crate) struct Hub {
    pub(super) runtime: Arc<dyn Runtime>,
    /// The store's, which tells fleets of one process apart.
    pub(super) namespace: Arc<str>,
    #[cfg(feature = "metrics")]
    pub(super) born: Instant,
    inbox: Mutex<Inbox>,
    /// The synchroniser waits for the inbox.
    awake: WakerSet,
    status: Mutex<Status>,
    /// Users wait for the status.
    told: WakerSet,
    pub(super) events: Arc<Broadcast<FleetEvent>>,
    /// What a recorder has been handed already; `None`: nothing yet.
    #[cfg(feature = "metrics")]
    pub(super) published: Mutex<Option<Counted>>,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) attached: Vec<Attached>,
    pub(super) changed: Vec<MemberId>,
    pub(super) ending: Option<End>,
    next: MemberId,
}

/// How the synchroniser is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Publish what is pending first.
    Flush,
    /// Nobody is left to wait for it.
    Now,
}

pub(super) struct Attached {
    pub(super) id: MemberId,
    pub(super) name: BulkheadName,
    pub(super) circuit: SharedCircuit,
    pub(super) tallies: Option<Tallies>,
}

/// What can be seen from outside.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) connected: bool,
    pub(super) polling: bool,
    /// Of the last answer.
    pub(super) synced_at: Option<Instant>,
    pub(super) degraded_since: Option<Instant>,
    pub(super) error: Option<StoreError>,
    /// Circuits attached of which the store has been heard.
    pub(super) known: usize,
    pub(super) attached: usize,
    pub(super) pending: usize,
    pub(super) counted: Counted,
    /// In no order.
    pub(super) circuits: Vec<(BulkheadName, Option<FleetState>, Epoch)>,
    pub(super) ended: bool,
}

impl Hub {
    pub(super) fn new(runtime: Arc<dyn Runtime>, namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            #[cfg(feature = "metrics")]
            born: runtime.now(),
            runtime,
            namespace: namespace.into(),
            inbox: Mutex::new(Inbox::default()),
            awake: WakerSet::new(),
            status: Mutex::new(Status::default()),
            told: WakerSet::new(),
            events: Arc::new(Broadcast::new(EVENTS_KEPT, 1)),
            #[cfg(feature = "metrics")]
            published: Mutex::new(None),
        })
    }

    pub(super) fn next_id(&self) -> MemberId {
        let mut inbox = lock(&self.inbox);
        inbox.next += 1;
        inbox.next
    }

    pub(super) fn attach(&self, attached: Attached) {
        lock(&self.status).attached += 1;
        lock(&self.inbox).attached.push(attached);
        self.awake.wake_all();
    }

    /// A circuit wants to be looked at.
    pub(super) fn changed(&self, id: MemberId) {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.changed.contains(&id) {
                return;
            }
            inbox.changed.push(id);
        }
        self.awake.wake_all();
    }

    pub(super) fn end(&self, end: End) {
        lock(&self.inbox).ending.get_or_insert(end);
        self.awake.wake_all();
    }

    /// Takes all that has come in; how to end stays.
    pub(super) fn take(&self) -> Inbox {
        let mut inbox = lock(&self.inbox);
        Inbox {
            attached: std::mem::take(&mut inbox.attached),
            changed: std::mem::take(&mut inbox.changed),
            ending: inbox.ending,
            next: inbox.next,
        }
    }

    /// Whether there is something to take; if not, the synchroniser is woken when there is.
    pub(super) fn poll_inbox(&self, key: &mut Option<WakerKey>, cx: &mut Context<'_>) -> Poll<()> {
        self.awake.register(key, cx.waker());
        if self.has_news() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    pub(super) fn has_news(&self) -> bool {
        let inbox = lock(&self.inbox);
        !(inbox.attached.is_empty() && inbox.changed.is_empty())
    }

    pub(super) fn leave_inbox(&self, key: &mut Option<WakerKey>) {
        self.awake.remove(key);
    }

    pub(super) fn ending(&self) -> Option<End> {
        lock(&self.inbox).ending
    }

    pub(super) fn status<R>(&self, read: impl FnOnce(&mut Status) -> R) -> R {
        read(&mut lock(&self.status))
    }

    /// Changes the status and tells those who wait for it.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
        self.told.wake_all();
    }

    pub(super) fn emit(&self, event: FleetEvent) {
        #[cfg(feature = "tracing")]
        crate::observe::fleet(&event);
        lock(&self.status).counted.count(&event);
        self.events.push(event);
        self.events.wake_readers();
    }

    /// Waits until the status is as wanted, or the time is over; whether it is.
    pub(super) async fn wait_for(&self, limit: Duration, wanted: impl Fn(&Status) -> bool) -> bool {
        struct Place<'a>(&'a WakerSet, Option<WakerKey>);

        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.remove(&mut self.1);
            }
        }

        let mut timer = self
            .runtime
            .now()
            .checked_add(limit)
            .map(|at| self.runtime.sleep_until(at));
        let mut place = Place(&self.told, None);
        std::future::poll_fn(|cx| {
            let Place(told, key) = &mut place;
            told.register(key, cx.waker());
            if wanted(&lock(&self.status)) {
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

/// Events that a slow listener may be behind.
const EVENTS_KEPT: usize = 1024;
