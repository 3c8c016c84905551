//! Permits that accumulate: heavy waiters collect them, and waiters of a suspended key leave them.
//!
//! The counter is contended meanwhile, so only the holder of the lock acquires permits, and they
//! stay there. Nothing has to be returned if the waiter that collects them leaves.

use std::time::Instant;

use super::claim::Claim;
use super::special_waiters::Head;
use super::state::QueueState;
use super::waiters::Waiters;
use super::wake_list::SmallWakeList;
use super::{MOVED, Ordering, WaitQueue, lock, wake_catching};
use crate::sync::MutexGuard;

impl WaitQueue {
    /// Assigns the permits in the counter. Returns `true` if this drained the queue.
    ///
    /// `key`: one that holds less than before; zero for none.
    #[cold]
    pub(super) fn assign_released(&self, key: u64, now: impl FnOnce() -> Instant) -> bool {
        let (mut waiters, now) = self.lock_with_time(now, false);
        if key != 0 {
            waiters.set_level_of(key);
        }
        self.assign_and_wake(waiters, now)
    }

    /// Releases the permit of a call of `key`, which the key still holds.
    ///
    /// Usually it is passed on to the next waiter, and is never available. If that waiter is of the
    /// same key, what the key holds does not change either. Returns `true` if this drained the
    /// queue.
    pub(super) fn pass_on(&self, key: u64, now: impl FnOnce() -> Instant) -> bool {
        let (mut waiters, now) = self.lock_with_time(now, false);
        let state = self.state();
        if state == QueueState::IDLE.with_waiting(state.waiting()) {
            if let Some(granted) = waiters.pass_on(key) {
                self.set_state(state, state.with_waiting(state.waiting() - 1));
                drop(waiters);
                wake_catching(granted.publish(&self.grants));
                return false;
            }
        }
        self.forget_key(Claim::ONE.with_key(key));
        self.available.release(1);
        waiters.set_level_of(key);
        self.assign_and_wake(waiters, now)
    }

    /// As `release_to_next`, while waiters are special.
    #[cold]
    #[inline(never)]
    pub(super) fn release_among_special(
        &self,
        waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
        is_available: bool,
    ) -> bool {
        if !is_available {
            self.available.release(1);
        }
        self.assign_and_wake(waiters, now)
    }

    fn assign_and_wake(&self, mut waiters: MutexGuard<'_, Waiters>, now: Option<Instant>) -> bool {
        let wake = self.assign_permits(&mut waiters, now);
        let drained = self.state().is_drained();
        drop(waiters);
        wake.wake();
        drained
    }

    /// Uses the permits that no call holds: first to forget permits, then for the waiters.
    pub(super) fn assign_permits(
        &self,
        waiters: &mut Waiters,
        now: Option<Instant>,
    ) -> SmallWakeList {
        if !waiters.has_special() {
            return self.assign_ordinary(waiters, now);
        }
        let mut wake = SmallWakeList::default();
        // Sets the flag before the counter is read.
        self.update_state(waiters, |state| state);
        loop {
            let to_forget = self.state().permits_to_forget();
            if to_forget > 0 {
                let forgotten = self.forget_up_to(to_forget);
                self.update_state(waiters, |state| {
                    state.with_permits_to_forget(to_forget - forgotten)
                });
                if forgotten < to_forget {
                    break;
                }
            }
            if waiters.eligible() == 0
                || self.idle_permits() == 0
                || !self.grant_collected(waiters, now, &mut wake)
            {
                break;
            }
        }
        wake
    }

    /// Grants its permits to the next waiter, if that many are available, or else to one that may
    /// overtake it.
    fn grant_collected(
        &self,
        waiters: &mut Waiters,
        now: Option<Instant>,
        wake: &mut SmallWakeList,
    ) -> bool {
        let head = waiters.peek(now, wake.others());
        let acquire = |waiter: &Head| self.acquire_for(waiter);
        let next = match head {
            Some(head) if !acquire(&head) => waiters.overtaker(head, now, wake.others(), acquire),
            head => head,
        };
        let granted = next.and_then(|next| {
            let permits = self.permits_to_grant(next.permits);
            let granted = waiters.grant_head(next, permits);
            match (&granted, head) {
                (None, _) => _ = self.available.release(permits),
                (Some(_), Some(head)) if head.id != next.id => waiters.count_overtaking(head.id),
                _ => {}
            }
            granted
        });
        self.update_state(waiters, |state| state);
        if let Some(granted) = granted {
            wake.push(granted.publish(&self.grants));
        }
        next.is_some()
    }

    /// Acquires the permits that a waiter is granted, if they are available.
    fn acquire_for(&self, waiter: &Head) -> bool {
        let permits = self.permits_to_grant(waiter.permits);
        let needed = (permits + waiter.reserved).min(self.limits().permits as u32);
        permits > 0 && self.acquire_locked(permits, needed)
    }

    /// Returns `true` if calls wait although permits are available, beside suspended ones.
    ///
    /// If the waiter that collects them leaves, they have to be assigned.
    pub(super) fn has_collected(&self, waiters: &Waiters) -> bool {
        waiters.eligible() > 0 && self.idle_permits() > 0
    }

    /// Returns the number of permits that no call holds.
    pub(super) fn idle_permits(&self) -> usize {
        self.available.available() + self.reserve.available_permits()
    }

    /// Acquires permits if `needed` are available. The caller holds the lock.
    pub(super) fn acquire_locked(&self, permits: u32, needed: u32) -> bool {
        // Only the holder of the lock changes the flag.
        let contended = self.available.is_contended();
        let try_acquire = || {
            if contended {
                self.available.try_acquire_many_locked(permits, needed)
            } else {
                self.available.try_acquire_many(permits, needed)
            }
        };
        try_acquire() || {
            self.empty_reserve();
            try_acquire()
        }
    }

    /// Moves all permits from the reserve to the counter. The caller holds the lock.
    ///
    /// A call needs several permits at once, and the reserve gives up one at a time.
    fn empty_reserve(&self) {
        if self.reserve.available_permits() == 0 {
            return;
        }
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        self.elsewhere.store(elsewhere | MOVED, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::AcqRel);
        while self.acquire_from_reserve() {
            self.available.release(1);
        }
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    /// Acquires a permit that is neither in the counter nor in the reserve.
    pub(super) fn acquire_elsewhere(&self) -> bool {
        let elsewhere = self.elsewhere.load(Ordering::Acquire);
        elsewhere != 0 && self.acquire_moved_or_overdue(elsewhere)
    }

    #[cold]
    #[inline(never)]
    fn acquire_moved_or_overdue(&self, elsewhere: u8) -> bool {
        (elsewhere & MOVED != 0 && self.try_acquire_moved()) || self.acquire_overdue(elsewhere)
    }

    /// Acquires a permit that may have been moved from the reserve to the counter meanwhile.
    ///
    /// A call that reads the counter before the move, and the reserve after it, finds no permit in
    /// either. It is not rejected for that: it tries again until there was no move.
    fn try_acquire_moved(&self) -> bool {
        loop {
            let before = self.moves.load(Ordering::Acquire);
            if before % 2 != 0 {
                // The mover holds the lock.
                drop(lock(&self.waiters));
                continue;
            }
            if self.available.is_contended() {
                return false;
            }
            if self.available.try_acquire() || self.acquire_from_reserve() {
                return true;
            }
            if self.moves.load(Ordering::Acquire) == before {
                return false;
            }
        }
    }
}
