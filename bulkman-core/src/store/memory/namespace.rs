//! The circuits of one namespace, and who wants to know of their changes.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use super::circuit::Circuit;
use super::lock;
use crate::name::BulkheadName;
use crate::store::StoreEvent;
use crate::store::view::{CircuitView, Fingerprint, OperationId, Revision, Snapshot, StoreTime};

pub(super) struct Namespace {
    pub(super) circuits: BTreeMap<BulkheadName, Circuit>,
    revision: Revision,
    fingerprint: Fingerprint,
    incarnation: u64,
    listeners: Vec<Weak<Listener>>,
    /// Changes of which listeners are yet to be told.
    made: Vec<Snapshot>,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            circuits: BTreeMap::new(),
            revision: Revision::default(),
            fingerprint: Fingerprint::default(),
            // The standard library's only source of randomness.
            incarnation: RandomState::new().build_hasher().finish(),
            listeners: Vec::new(),
            made: Vec::new(),
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

    /// The revision for a change by `is` that is about to be made to a circuit that `was` had
    /// changed last.
    pub(super) fn next_revision(&mut self, was: OperationId, is: OperationId) -> Revision {
        self.revision = Revision(self.revision.0 + 1);
        self.fingerprint = self.fingerprint.with_replaced(was, is);
        self.revision
    }

    /// Listeners will be told of a change that has just been made.
    pub(super) fn announce(&mut self, view: CircuitView, now: StoreTime) {
        self.made.push(Snapshot::new(
            self.revision,
            self.incarnation,
            self.fingerprint,
            now,
            vec![view],
        ));
    }

    /// What a backup has of it.
    #[cfg(feature = "test-util")]
    pub(super) fn saved(&self) -> Self {
        Self {
            circuits: self.circuits.clone(),
            listeners: Vec::new(),
            made: Vec::new(),
            ..*self
        }
    }

    /// Becomes what it was; nobody is told.
    #[cfg(feature = "test-util")]
    pub(super) fn restore(&mut self, saved: &Self) {
        let listeners = std::mem::take(&mut self.listeners);
        *self = Self {
            listeners,
            ..saved.saved()
        };
    }

    pub(super) fn listen(&mut self) -> Arc<Listener> {
        self.listeners
            .retain(|listener| listener.strong_count() > 0);
        let listener = Arc::new(Listener::default());
        self.listeners.push(Arc::downgrade(&listener));
        listener
    }

    /// Tells all listeners of the changes since the last time, and returns whom to wake.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for made in self.made.drain(..) {
            let listeners = self.listeners.iter().filter_map(Weak::upgrade);
            wakers.extend(listeners.filter_map(|listener| listener.announce(&made)));
        }
        wakers
    }
}

/// One session's ear.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    events: VecDeque<StoreEvent>,
    waker: Option<Waker>,
}

impl Listener {
    fn announce(&self, made: &Snapshot) -> Option<Waker> {
        let mut heard = lock(&self.0);
        if heard.events.len() < MOST_UNHEARD {
            heard
                .events
                .push_back(StoreEvent::Applied(Box::new(made.clone())));
        } else {
            // Who is so far behind does better to look.
            heard.events.clear();
            heard.events.push_back(StoreEvent::Changed {
                revision: made.revision,
            });
        }
        heard.waker.take()
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<StoreEvent> {
        // Cloning and dropping wakers is code of others too.
        let waker = waker.clone();
        let mut heard = lock(&self.0);
        match heard.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                let replaced = heard.waker.replace(waker);
                drop(heard);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}

/// Events that wait for a session to ask.
const MOST_UNHEARD: usize = 256;
