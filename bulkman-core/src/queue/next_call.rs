//! New calls that are next, although others wait.
//!
//! Permits are available while calls wait if the next of them needs more: it collects them, or they
//! are reserved for keys that hold fewer than the minimum. A new call of a higher priority or of
//! another key may come before it, and then need not wait.

use std::task::Waker;
use std::time::Instant;

use super::WaitQueue;
use super::claim::Claim;
use super::claims::Request;
use super::waiter::WaiterState;
use super::waiters::Waiters;
use super::wake_list::SmallWakeList;

impl WaitQueue {
    /// Acquires the permits of a call that must not wait, if it is next.
    ///
    /// If the call acquires all permits of a limit that is smaller than its claim, the claim is
    /// changed.
    #[cold]
    #[inline(never)]
    pub(crate) fn try_acquire_as_next(
        &self,
        request: Request,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if !self.may_be_next(*claim) {
            return false;
        }
        self.grants.allocate();
        let (mut waiters, now) = self.lock_with_time(now, false);
        self.set_key(claim);
        let mut wake = SmallWakeList::default();
        let acquired = self.acquire_as_next(&mut waiters, now, request, claim, &mut wake);
        drop(waiters);
        wake.wake();
        acquired
    }

    /// Returns `false` if a new call has to wait, whichever of the calls is next.
    #[inline]
    pub(super) fn may_be_next(&self, claim: Claim) -> bool {
        self.available.is_contended()
            && self.idle_permits() >= claim.permits().min(self.limits().permits as u32) as usize
    }

    /// As [`try_acquire_as_next`](Self::try_acquire_as_next). The caller holds the lock.
    pub(super) fn acquire_as_next(
        &self,
        waiters: &mut Waiters,
        now: Option<Instant>,
        request: Request,
        claim: &mut Claim,
        wake: &mut SmallWakeList,
    ) -> bool {
        let state = self.state();
        let must_wait = state.is_closed() || state.permits_to_forget() > 0 || state.waiting() == 0;
        if must_wait || !waiters.has_special() || !self.may_be_next(*claim) {
            return false;
        }
        // The order of the queue decides: the call joins, and leaves if it is granted nothing.
        let Request {
            priority, share, ..
        } = request;
        let waker = Waker::noop().clone();
        let (id, changes_level) = waiters.push_claim(priority, None, *claim, share, waker);
        if changes_level {
            waiters.set_level_of(claim.key());
        }
        *wake = self.assign_permits(waiters, now);
        let (joined, _) = waiters.remove_claim(id, claim);
        self.update_state(waiters, |state| state);
        joined == WaiterState::Granted
    }
}
