//! The circuits of one namespace, and who wants to know of their changes.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use super::circuit::Circuit;
use super::lock;
use crate::name::Name;
use crate::store::view::{Fingerprint, OperationId, Revision, Snapshot, StoreTime};

pub(super) struct Namespace {
    pub(super) circuits: BTreeMap<Name, Circuit>,
    revision: Revision,
    fingerprint: Fingerprint,
    incarnation: u64,
    listeners: Vec<Weak<Listener>>,
    announce: bool,
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
            announce: false,
        }
    }
}

impl Namespace {
    pub(super) fn register(&mut self, circuits: &[Name], now: StoreTime) {
        for name in circuits {
            self.circuits.entry(name.clone()).or_insert_with(|| Circuit::new(now));
        }
    }

    pub(super) fn snapshot(&self, since: Option<Revision>, now: StoreTime) -> Snapshot {
        let circuits = self
            .circuits
            .iter()
            .filter(|(_, circuit)| since.is_none_or(|since| circuit.revision() > since))
            .map(|(name, circuit)| circuit.view(name, now))
            .collect();
        Snapshot::new(self.revision, self.incarnation, self.fingerprint, now, circuits)
    }

    /// The revision for a change by `is` that is about to be made to a circuit that `was` had
    /// changed last; listeners will be told.
    pub(super) fn next_revision(&mut self, was: OperationId, is: OperationId) -> Revision {
        self.revision = Revision(self.revision.0 + 1);
        self.fingerprint = self.fingerprint.replacing(was, is);
        self.announce = true;
        self.revision
    }

    /// What a backup has of it.
    #[cfg(feature = "test-util")]
    pub(super) fn saved(&self) -> Self {
        Self { circuits: self.circuits.clone(), listeners: Vec::new(), announce: false, ..*self }
    }

    /// Becomes what it was; nobody is told.
    #[cfg(feature = "test-util")]
    pub(super) fn restore(&mut self, saved: &Self) {
        let listeners = std::mem::take(&mut self.listeners);
        *self = Self { listeners, ..saved.saved() };
    }

    pub(super) fn listen(&mut self) -> Arc<Listener> {
        self.listeners.retain(|listener| listener.strong_count() > 0);
        let listener = Arc::new(Listener::default());
        self.listeners.push(Arc::downgrade(&listener));
        listener
    }

    /// If there was a change since the last time: tells all listeners, and returns whom to wake.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        if !std::mem::take(&mut self.announce) {
            return Vec::new();
        }
        let revision = self.revision;
        self.listeners.iter().filter_map(Weak::upgrade).filter_map(|l| l.announce(revision)).collect()
    }
}

/// One session's ear.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    revision: Option<Revision>,
    waker: Option<Waker>,
}

impl Listener {
    fn announce(&self, revision: Revision) -> Option<Waker> {
        let mut heard = lock(&self.0);
        heard.revision = Some(revision);
        heard.waker.take()
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<Revision> {
        // Cloning and dropping wakers is code of others too.
        let waker = waker.clone();
        let mut heard = lock(&self.0);
        match heard.revision.take() {
            Some(revision) => Poll::Ready(revision),
            None => {
                let replaced = heard.waker.replace(waker);
                drop(heard);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}
