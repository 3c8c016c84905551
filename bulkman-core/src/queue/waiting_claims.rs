//! Calls that ask for several permits or have a key, and have to wait for them.

use std::task::{Poll, Waker};
use std::time::Instant;

use super::claim::Claim;
use super::limits::NO_MAX_WEIGHT;
use super::order::Priority;
use super::results::{Enqueue, WaitResult};
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::waiters::Waiters;
use super::wake_list::SmallWakeList;
use super::{Ordering, WaitQueue, drop_catching, lock};
use crate::sync::MutexGuard;

/// What a call asks for that may wait, beside its claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    /// The share of its key, 1 or more.
    pub(crate) share: u32,
}

impl Request {
    /// Returns the request of a call without a key.
    pub(super) const fn plain(priority: Priority, deadline: Option<Instant>) -> Self {
        Self {
            priority,
            deadline,
            share: 1,
        }
    }
}

impl WaitQueue {
    /// As [`enqueue`](Self::enqueue), for a claim.
    ///
    /// If the call acquires all permits of a limit that is smaller than its claim, the claim is
    /// changed.
    pub(crate) fn enqueue_claim(
        &self,
        request: Request,
        claim: &mut Claim,
        waker: &Waker,
        is_rejected: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Enqueue {
        let waker = waker.clone();
        self.grants.allocate();
        let (waiters, now) = self.lock_with_time(now, request.deadline.is_some());
        self.set_key(claim);
        self.enqueue_special(waiters, now, request, claim, waker, is_rejected)
    }

    /// As [`enqueue`](Self::enqueue), while waiters are special.
    #[cold]
    #[inline(never)]
    pub(super) fn enqueue_among_special(
        &self,
        waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
        request: Request,
        waker: Waker,
        is_rejected: impl FnOnce() -> bool,
    ) -> Enqueue {
        self.enqueue_special(
            waiters,
            now,
            request,
            &mut Claim::ONE.clone(),
            waker,
            is_rejected,
        )
    }

    fn enqueue_special(
        &self,
        mut waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
        request: Request,
        claim: &mut Claim,
        waker: Waker,
        is_rejected: impl FnOnce() -> bool,
    ) -> Enqueue {
        let state = self.state();
        let mut wake = SmallWakeList::default();
        let mut resolved = if state.is_closed() {
            Some(Enqueue::Rejected(QueueRejection::Shutdown))
        } else if is_rejected() {
            Some(Enqueue::Rejected(QueueRejection::CircuitOpened))
        } else if self.acquire_idle(&mut waiters, state, claim) {
            Some(Enqueue::Acquired)
        } else {
            self.lack_of_room(&waiters, *claim)
        };
        if matches!(resolved, Some(Enqueue::Full | Enqueue::KeyFull)) {
            resolved = if self.acquire_as_next(&mut waiters, now, request, claim, &mut wake) {
                Some(Enqueue::Acquired)
            } else {
                // Waiters may have left.
                self.lack_of_room(&waiters, *claim)
            };
        }
        if resolved == Some(Enqueue::Full) && self.may_evict(&waiters, *claim) {
            if let Some(evicted) = waiters.evict(claim.key(), request.priority) {
                wake.push(evicted.waker);
                resolved = None;
                self.update_state(&mut waiters, |state| state);
            }
        }
        if let Some(result) = resolved {
            self.settle(&mut waiters);
            drop(waiters);
            wake.wake();
            // A panic of its drop must not leak permits that were just acquired.
            drop_catching(waker);
            return result;
        }
        let Request {
            priority,
            deadline,
            share,
        } = request;
        let (id, changes_level) = waiters.push_claim(priority, deadline, *claim, share, waker);
        self.count_waiter(self.state(), deadline);
        // Suspended waiters have not set the flag. A permit that is released from now on is found.
        self.available.contend();
        if changes_level {
            waiters.set_level_of(claim.key());
        }
        // Permits may be available although others wait: a heavy waiter collects them, or the
        // keys of all others are at their maximum.
        if self.idle_permits() > 0 {
            wake.append(self.assign_permits(&mut waiters, now));
        } else {
            self.settle(&mut waiters);
        }
        drop(waiters);
        wake.wake();
        Enqueue::Waiting(id)
    }

    /// Returns why a call may not wait; `None` if it may.
    fn lack_of_room(&self, waiters: &Waiters, claim: Claim) -> Option<Enqueue> {
        if claim.key() != 0 && waiters.is_key_full(claim.key()) {
            return Some(Enqueue::KeyFull);
        }
        let is_full = waiters.waiting() as usize >= self.limits().queue_capacity
            || self.exceeds_queue_weight(waiters, claim);
        is_full.then_some(Enqueue::Full)
    }

    /// Returns `true` if a call would have room once another has left.
    fn may_evict(&self, waiters: &Waiters, claim: Claim) -> bool {
        claim.key() != 0
            && waiters.evicts()
            && waiters.waiting() as usize == self.limits().queue_capacity
            && !self.exceeds_queue_weight(waiters, claim)
    }

    fn exceeds_queue_weight(&self, waiters: &Waiters, claim: Claim) -> bool {
        let max = self.max_queue_weight.load(Ordering::Relaxed);
        max != NO_MAX_WEIGHT
            && waiters.queued_permits() + u64::from(claim.permits()) > u64::from(max)
    }

    /// As [`poll`](Self::poll), for a claim. It is changed if the waiter was granted fewer permits.
    pub(crate) fn poll_claim(
        &self,
        id: WaiterId,
        claim: &mut Claim,
        waker: &Waker,
    ) -> Poll<WaitResult> {
        // Recent grants are visible without the lock.
        if self.grants.contains(id) {
            return Poll::Ready(WaitResult::Granted);
        }
        let mut waiters = lock(&self.waiters);
        let polled = waiters.poll_claim(id, claim, waker);
        drop(waiters);
        let state = polled.unwrap_or_else(|| {
            // Cloning and dropping wakers runs code of the executor: not under the lock.
            let waker = waker.clone();
            let (state, unused) = lock(&self.waiters).register_waker_of(id, claim, waker);
            drop_catching(unused);
            state
        });
        state.into_poll()
    }

    /// As [`expire`](Self::expire), for a claim.
    pub(crate) fn expire_claim(
        &self,
        id: WaiterId,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> WaitResult {
        self.remove_claim(id, claim, now).into_expired()
    }

    /// As [`cancel`](Self::cancel), for a claim.
    pub(crate) fn cancel_claim(
        &self,
        id: WaiterId,
        mut claim: Claim,
        now: impl Fn() -> Instant,
    ) -> bool {
        self.remove_claim(id, &mut claim, &now) == WaiterState::Granted
            && self.release_claim(claim, now)
    }

    fn remove_claim(
        &self,
        id: WaiterId,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> WaiterState {
        let mut waiters = lock(&self.waiters);
        let (state, waker) = waiters.remove_claim(id, claim);
        let mut collected = false;
        if state == WaiterState::Waiting {
            self.update_state(&mut waiters, |state| state);
            collected = self.has_collected(&waiters);
        }
        drop(waiters);
        drop_catching(waker);
        if collected {
            self.assign_released(0, now);
        }
        state
    }
}
