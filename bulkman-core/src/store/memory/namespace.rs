//! The circuits of one namespace, and the listeners for their changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use super::circuit::Circuit;
use crate::name::BulkheadName;
use crate::store::StoreEvent;
use crate::store::process::ProcessStatus;
use crate::store::view::{CircuitView, Fingerprint, OperationId, Revision, Snapshot, StoreTime};
use crate::sync::{Mutex, lock};

pub(super) struct Namespace {
    pub(super) circuits: BTreeMap<BulkheadName, Circuit>,
    revision: Revision,
    fingerprint: Fingerprint,
    incarnation: u64,
    listeners: Vec<Weak<Listener>>,
    /// When each process stops to count as live, by its id.
    live_until: BTreeMap<u64, StoreTime>,
    /// Changes to send to the listeners.
    unsent: Vec<Snapshot>,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            circuits: BTreeMap::new(),
            revision: Revision::default(),
            fingerprint: Fingerprint::default(),
            incarnation: OperationId::random().0,
            listeners: Vec::new(),
            live_until: BTreeMap::new(),
            unsent: Vec::new(),
        }
    }
}

impl Namespace {
    pub(super) fn register(&mut self, circuits: &[BulkheadName], now: StoreTime) {
        for name in circuits {
            self.circuits
                .entry(name.clone())
                .or_insert_with(|| Circuit::new(now));
        }
    }

    /// Handles that a process is live. Returns the number of live processes.
    pub(super) fn report_process(&mut self, status: &ProcessStatus, now: StoreTime) -> u32 {
        let until = now.saturating_add(status.valid_for);
        self.live_until.insert(status.id, until);
        self.live_until.retain(|_, until| *until > now);
        u32::try_from(self.live_until.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn withdraw_process(&mut self, status: &ProcessStatus) {
        self.live_until.remove(&status.id);
    }

    pub(super) fn snapshot(&self, since: Option<Revision>, now: StoreTime) -> Snapshot {
        let circuits = self
            .circuits
            .iter()
            .filter(|(_, circuit)| since.is_none_or(|since| circuit.revision() > since))
            .map(|(name, circuit)| circuit.view(name, now))
            .collect();
        Snapshot::new(
            self.revision,
            self.incarnation,
            self.fingerprint,
            now,
            circuits,
        )
    }

    /// Assigns the revision of a change by `new` to a circuit with last operation `old`.
    pub(super) fn next_revision(&mut self, old: OperationId, new: OperationId) -> Revision {
        self.revision = Revision(self.revision.0 + 1);
        self.fingerprint = self.fingerprint.with_replaced(old, new);
        self.revision
    }

    /// Queues a notification of a change that has just been applied.
    pub(super) fn notify(&mut self, view: CircuitView, now: StoreTime) {
        self.unsent.push(Snapshot::new(
            self.revision,
            self.incarnation,
            self.fingerprint,
            now,
            vec![view],
        ));
    }

    /// Returns a copy without listeners.
    #[cfg(feature = "test-util")]
    pub(super) fn backup(&self) -> Self {
        Self {
            circuits: self.circuits.clone(),
            live_until: BTreeMap::new(),
            listeners: Vec::new(),
            unsent: Vec::new(),
            ..*self
        }
    }

    /// Replaces the content by a copy, without a notification.
    #[cfg(feature = "test-util")]
    pub(super) fn restore(&mut self, backup: &Self) {
        let listeners = std::mem::take(&mut self.listeners);
        *self = Self {
            listeners,
            ..backup.backup()
        };
    }

    pub(super) fn listen(&mut self) -> Arc<Listener> {
        self.listeners
            .retain(|listener| listener.strong_count() > 0);
        let listener = Arc::new(Listener::default());
        self.listeners.push(Arc::downgrade(&listener));
        listener
    }

    /// Sends the queued notifications, and returns the wakers of the listeners.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for change in self.unsent.drain(..) {
            let listeners = self.listeners.iter().filter_map(Weak::upgrade);
            wakers.extend(listeners.filter_map(|listener| listener.notify(&change)));
        }
        wakers
    }
}

/// The receiver of one session.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    events: VecDeque<StoreEvent>,
    waker: Option<Waker>,
}

impl Listener {
    fn notify(&self, change: &Snapshot) -> Option<Waker> {
        let mut pending = lock(&self.0);
        if pending.events.len() < MAX_PENDING_EVENTS {
            pending
                .events
                .push_back(StoreEvent::Applied(Box::new(change.clone())));
        } else {
            // A session that lags this far reads the store instead.
            pending.events.clear();
            pending.events.push_back(StoreEvent::Changed {
                revision: change.revision,
            });
        }
        pending.waker.take()
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<StoreEvent> {
        // Cloning and dropping a waker may run user code: never under the lock.
        let waker = waker.clone();
        let mut pending = lock(&self.0);
        match pending.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                let replaced = pending.waker.replace(waker);
                drop(pending);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

/// The number of events queued for one session.
const MAX_PENDING_EVENTS: usize = 256;
