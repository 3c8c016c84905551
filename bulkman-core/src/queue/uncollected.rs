//! Permits that were granted to waiters that do not collect them.
//!
//! A future that was granted a permit may be alive and never be polled again, such as in a loop
//! that polls something else. Its permit would be lost to all other calls. The waker of the call's
//! timer calls [`WaitQueue::deadline_passed`], whether or not the future is polled then. If another
//! call waits, it gets the permit. Otherwise the waiter is *overdue*, and the next call that needs
//! a permit takes it. Either is decided under the lock, and so is the collection: one of them finds
//! the grant. A waiter without a deadline has no timer, and keeps its permit until it is dropped.

use std::time::Instant;

use super::claim::Claim;
use super::state::QueueState;
use super::waiter::WaiterId;
use super::waiters::Waiters;
use super::{OVERDUE, Ordering, WaitQueue, drop_catching, lock};
use crate::sync::MutexGuard;

impl WaitQueue {
    /// The deadline of a waiter has passed. A permit that it has not collected is passed on.
    ///
    /// If no call needs the permit, the waiter may still collect it until one does. Returns `true`
    /// if this drained the queue.
    pub(crate) fn deadline_passed(&self, id: WaiterId, now: impl FnOnce() -> Instant) -> bool {
        let mut waiters = lock(&self.waiters);
        if !waiters.is_uncollected(id) {
            return waiters.has_special() && self.expire_waiting(waiters, id, now);
        }
        // Calls wait, or permits are to be forgotten.
        if self.state() != QueueState::IDLE {
            let revoked = waiters.revoke(id);
            drop(waiters);
            return revoked.is_some_and(|claim| self.release_claim(claim, now));
        }
        waiters.push_overdue(id);
        self.set_has_overdue(true);
        false
    }

    /// Ends the wait of a call whose deadline has passed. Permits may be available to those behind
    /// it: it collects them, or is too heavy for its key.
    #[cold]
    fn expire_waiting(
        &self,
        mut waiters: MutexGuard<'_, Waiters>,
        id: WaiterId,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let expired = waiters.expire(id);
        self.update_state(&mut waiters, |state| state);
        let collected = self.has_collected(&waiters);
        drop(waiters);
        // The timer wakes the task.
        drop_catching(expired);
        collected && self.assign_released(0, now)
    }

    /// Passes on the permits of all waiters that are overdue, if permits are to be forgotten.
    ///
    /// Returns `true` if this drained the queue.
    pub(crate) fn release_overdue(&self, now: impl Fn() -> Instant) -> bool {
        while self.has_overdue() {
            let mut waiters = lock(&self.waiters);
            if self.state() == QueueState::IDLE {
                break;
            }
            let Some(claim) = self.revoke_overdue(&mut waiters) else {
                break;
            };
            drop(waiters);
            if self.release_claim(claim, &now) {
                return true;
            }
        }
        false
    }

    /// Takes back the permits of a waiter that is overdue. The caller has the lock, and owns them.
    fn revoke_overdue(&self, waiters: &mut Waiters) -> Option<Claim> {
        // Waiters may have collected their permits late, or left: then the hint is out of date.
        let revoked = waiters.revoke_overdue();
        self.set_has_overdue(waiters.has_overdue());
        revoked
    }

    /// Takes a permit of a waiter that is overdue. The caller holds the lock, and no call waits.
    #[cold]
    #[inline(never)]
    pub(super) fn take_overdue(&self, waiters: &mut Waiters) -> bool {
        let Some(claim) = self.revoke_overdue(waiters) else {
            return false;
        };
        self.forget_key(claim);
        if claim.permits() > 1 {
            self.available.release(claim.permits() - 1);
        }
        true
    }

    /// Returns the permits of a waiter that is overdue to the counter. The caller holds the lock,
    /// and assigns the permits.
    pub(super) fn return_overdue(&self, waiters: &mut Waiters) -> bool {
        let Some(claim) = self.revoke_overdue(waiters) else {
            return false;
        };
        self.forget_key(claim);
        self.available.release(claim.permits());
        // Calls of its key may wait, if the limit has just shrunk.
        if claim.key() != 0 {
            waiters.set_level_of(claim.key());
        }
        true
    }

    /// Returns `true` if a waiter is, or recently was, overdue.
    #[inline]
    pub(super) fn has_overdue(&self) -> bool {
        self.elsewhere.load(Ordering::Relaxed) & OVERDUE != 0
    }

    fn set_has_overdue(&self, has_overdue: bool) {
        let others = self.elsewhere.load(Ordering::Relaxed) & !OVERDUE;
        let hint = if has_overdue { OVERDUE } else { 0 };
        self.elsewhere.store(others | hint, Ordering::Relaxed);
    }

    /// Acquires a permit that was granted to a waiter that is overdue.
    pub(super) fn acquire_overdue(&self, elsewhere: u8) -> bool {
        if elsewhere & OVERDUE == 0 {
            return false;
        }
        let mut waiters = lock(&self.waiters);
        // Calls that wait come first.
        self.state() == QueueState::IDLE && self.take_overdue(&mut waiters)
    }
}
