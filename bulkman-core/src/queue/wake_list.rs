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
