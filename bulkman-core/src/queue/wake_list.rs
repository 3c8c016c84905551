//! Wakers to call once the lock is released.

use std::task::Waker;

use crate::sync::waker_set::wake_catching;

/// Wakers collected under the lock.
#[derive(Debug, Default)]
#[must_use = "call `wake` once the lock is released"]
pub(super) struct WakeList(Vec<Waker>);

impl WakeList {
    pub(super) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }

    /// Wakes all. The caller does not hold the lock.
    #[inline]
    pub(super) fn wake(self) {
        // Usually empty: then there is no iterator to set up.
        if !self.0.is_empty() {
            self.0.into_iter().for_each(wake_catching);
        }
    }
}

/// A list that stores its first waker in place: a release usually grants one call its permits.
///
/// It is larger than a [`WakeList`], which is usually empty.
#[derive(Debug, Default)]
#[must_use = "call `wake` once the lock is released"]
pub(super) struct SmallWakeList {
    first: Option<Waker>,
    others: WakeList,
}

impl SmallWakeList {
    pub(super) fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.others.push(waker),
        }
    }

    /// Moves the wakers of another list to this one.
    pub(super) fn append(&mut self, other: Self) {
        for waker in other.first.into_iter().chain(other.others.0) {
            self.push(waker);
        }
    }

    /// Returns the list of the wakers after the first.
    pub(super) const fn others(&mut self) -> &mut WakeList {
        &mut self.others
    }

    /// Wakes all. The caller does not hold the lock.
    #[inline]
    pub(super) fn wake(self) {
        if let Some(first) = self.first {
            wake_catching(first);
        }
        self.others.wake();
    }
}
