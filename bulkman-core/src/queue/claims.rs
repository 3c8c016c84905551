//! Calls that ask for several permits or have a key: they acquire, wait for and release a claim.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::claim::Claim;
use super::key_hash::BuildKeyHasher;
use super::limits::{KeyRules, NO_MAX_WEIGHT, QueueSettings};
use super::order::Priority;
use super::results::{Enqueue, TryAcquire, WaitResult};
use super::running_keys::RunningKeys;
use super::state::QueueState;
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::waiters::Waiters;
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

/// What a key holds and how many of its calls wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyReading {
    pub(crate) key: u64,
    pub(crate) held: u32,
    pub(crate) waiting: u32,
    pub(crate) at_maximum: bool,
}

impl KeyReading {
    const fn of(key: u64) -> Self {
        Self {
            key,
            held: 0,
            waiting: 0,
            at_maximum: false,
        }
    }
}

/// Returns how many permits have to be available for a call whose key then holds `held`.
fn needed(permits: u32, held: u32, rules: KeyRules, limit: u32) -> u32 {
    let min = rules.min_in_force(limit);
    if held <= min {
        permits
    } else {
        (permits + min).min(limit)
    }
}

impl WaitQueue {
    /// Acquires the permits of a claim if they are available and no call waits: all or none.
    ///
    /// If the limit is smaller than the claim, acquires all permits of the limit, and changes the
    /// claim.
    pub(crate) fn try_acquire_claim(
        &self,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> TryAcquire {
        self.set_key(claim);
        if claim.is_plain() {
            return self.try_acquire();
        }
        if self.state().is_closed() {
            return TryAcquire::Closed;
        }
        let contended = self.available.is_contended();
        if !contended && self.acquire_uncontended(*claim, now) {
            return TryAcquire::Acquired;
        }
        // The limit, and permits in the reserve, need the lock. So do calls that wait for their key
        // only: a call of another key need not.
        if !contended || claim.key() != 0 {
            let mut waiters = lock(&self.waiters);
            let acquired = self.acquire_idle(&mut waiters, self.state(), claim);
            drop(waiters);
            if acquired {
                return TryAcquire::Acquired;
            }
        }
        let (state, capacity) = (self.state(), self.limits().queue_capacity);
        // In a full queue, a waiter of another key may leave for a call.
        let may_evict = claim.key() != 0 && capacity > 0;
        if state.is_closed() {
            TryAcquire::Closed
        } else if state.waiting() as usize >= capacity && !may_evict {
            TryAcquire::Full
        } else {
            TryAcquire::MustWait
        }
    }

    /// Acquires permits from a counter that is not contended, without the lock.
    #[inline]
    fn acquire_uncontended(&self, claim: Claim, now: impl FnOnce() -> Instant) -> bool {
        let (permits, limit) = (claim.permits(), self.limits().permits as u32);
        if permits > limit {
            return false;
        }
        let Some(running) = self.running_keys.get().filter(|_| claim.key() != 0) else {
            return self.available.try_acquire_many(permits, permits);
        };
        let Some(rules) = KeyRules::from_bits(self.key_rules.load(Ordering::Relaxed)) else {
            return false;
        };
        let added = if rules.has_bounds() {
            running.add(claim.key(), permits, rules.max)
        } else {
            running.insert(claim.key(), permits);
            Some(permits)
        };
        if let Some(held) = added {
            let needed = needed(permits, held, rules, limit);
            if self.available.try_acquire_many(permits, needed) {
                return true;
            }
            running.remove(claim.key(), permits);
        }
        // A waiter of the same key may have found the permits that were added for a moment.
        if self.available.release(0) {
            self.assign_released(claim.key(), now);
        }
        false
    }

    /// Releases the permits of a call. See [`release`](Self::release).
    pub(crate) fn release_claim(&self, claim: Claim, now: impl FnOnce() -> Instant) -> bool {
        if claim.is_plain() {
            return self.release(now);
        }
        self.forget_key(claim);
        // While the counter is contended, only the holder of the lock acquires permits.
        self.available.release(claim.permits()) && self.assign_released(claim.key(), now)
    }

    /// Subtracts the permits of a call from its key.
    pub(super) fn forget_key(&self, claim: Claim) {
        if claim.key() != 0 {
            if let Some(running) = self.running_keys.get() {
                running.remove(claim.key(), claim.permits());
            }
        }
    }

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
        let mut state = self.state();
        let mut resolved = if state.is_closed() {
            Some(Enqueue::Rejected(QueueRejection::Shutdown))
        } else if is_rejected() {
            Some(Enqueue::Rejected(QueueRejection::CircuitOpened))
        } else if self.acquire_idle(&mut waiters, state, claim) {
            Some(Enqueue::Acquired)
        } else if claim.key() != 0 && waiters.is_key_full(claim.key()) {
            Some(Enqueue::KeyFull)
        } else if state.waiting() as usize >= self.limits().queue_capacity
            || self.exceeds_queue_weight(&waiters, *claim)
        {
            Some(Enqueue::Full)
        } else {
            None
        };
        let mut evicted = None;
        if resolved == Some(Enqueue::Full) && self.may_evict(&waiters, *claim) {
            evicted = waiters.evict(claim.key(), request.priority);
        }
        if evicted.is_some() {
            resolved = None;
            self.update_state(&waiters, |state| state);
            state = self.state();
        }
        if let Some(result) = resolved {
            drop(waiters);
            // A panic of its drop must not leak permits that were just acquired.
            drop_catching(waker);
            return result;
        }
        let Request {
            priority,
            deadline,
            share,
        } = request;
        let id = waiters.push_claim(priority, deadline, *claim, share, waker);
        self.count_waiter(state, deadline);
        if claim.key() != 0 {
            // The counter is contended by now: a permit that is released later is found.
            waiters.set_level_of(claim.key());
        }
        // Permits may be available although others wait: a heavy waiter collects them, or the
        // keys of all others are at their maximum.
        let mut wake = self.assign_permits(&mut waiters, now);
        drop(waiters);
        if let Some(evicted) = evicted {
            wake.push(evicted.waker);
        }
        wake.wake();
        Enqueue::Waiting(id)
    }

    /// Acquires the permits of a new call, if no call waits. The caller holds the lock.
    fn acquire_idle(&self, waiters: &mut Waiters, state: QueueState, claim: &mut Claim) -> bool {
        if state.is_closed() || state.permits_to_forget() > 0 {
            return false;
        }
        let waits = state.waiting() > 0;
        if claim.key() == 0 {
            return !waits && self.acquire_or_return_overdue(waiters, || self.acquire_many(claim));
        }
        // Waiters whose key is at its maximum do not count.
        if waits && waiters.blocks_new_calls(claim.key()) {
            return false;
        }
        self.acquire_or_return_overdue(waiters, || self.acquire_for_key(waits, claim))
    }

    /// Tries to acquire permits, again after each return of those of an overdue waiter. Calls wait
    /// only once no waiter is overdue.
    fn acquire_or_return_overdue(
        &self,
        waiters: &mut Waiters,
        mut acquire: impl FnMut() -> bool,
    ) -> bool {
        loop {
            if acquire() {
                return true;
            }
            if !self.return_overdue(waiters) {
                return false;
            }
        }
    }

    fn acquire_many(&self, claim: &mut Claim) -> bool {
        let permits = self.permits_to_grant(claim.permits());
        let acquired = permits > 0 && self.acquire_locked(permits, permits, false);
        if acquired {
            *claim = claim.with_permits(permits);
        }
        acquired
    }

    /// `waits`: calls wait, so the counter is contended.
    fn acquire_for_key(&self, waits: bool, claim: &mut Claim) -> bool {
        let rules = KeyRules::from_bits(self.key_rules.load(Ordering::Relaxed));
        let (Some(rules), Some(running)) = (rules, self.running_keys.get()) else {
            return false;
        };
        let permits = self.permits_to_grant(claim.permits());
        if permits == 0 {
            return false;
        }
        if let Some(held) = running.add(claim.key(), permits, rules.max) {
            let needed = needed(permits, held, rules, self.limits().permits as u32);
            if self.acquire_locked(permits, needed, waits) {
                *claim = claim.with_permits(permits);
                return true;
            }
            running.remove(claim.key(), permits);
        }
        // Only the holder of the lock and calls that are about to take it read what was added.
        false
    }

    /// Gives a claim the key that counts: that of all calls without a key, or none if permits are
    /// not shared.
    pub(crate) fn set_key(&self, claim: &mut Claim) {
        if !self.shares_permits() {
            *claim = claim.with_key(0);
        } else if claim.key() == 0 {
            *claim = claim.with_key(Claim::SHARED_KEY);
        }
    }

    /// Returns `true` if a call would have room once another has left.
    fn may_evict(&self, waiters: &Waiters, claim: Claim) -> bool {
        claim.key() != 0
            && waiters.evicts()
            && waiters.waiting() as usize == self.limits().queue_capacity
            && !self.exceeds_queue_weight(waiters, claim)
    }

    /// Returns how many permits a call is granted that asks for `permits`: all of a smaller limit.
    pub(super) fn permits_to_grant(&self, permits: u32) -> u32 {
        permits.min(self.limits().permits as u32)
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
            let before = self.state();
            self.set_state(before, before.with_waiting(before.waiting() - 1));
            collected = self.has_collected(&waiters);
        }
        drop(waiters);
        drop_catching(waker);
        if collected {
            self.assign_released(0, now);
        }
        state
    }

    /// Shares permits between keys from now on, or ceases to. The caller holds the lock.
    ///
    /// `reordered`: the order of waiters has changed.
    pub(super) fn set_key_rules(
        &self,
        waiters: &mut Waiters,
        settings: QueueSettings,
        limit: usize,
        reordered: bool,
    ) {
        let rules = settings.keys;
        let running = rules.map(|_| {
            self.running_keys
                .get_or_init(|| Arc::new(RunningKeys::new(settings.max_permits)))
        });
        waiters.set_rules(rules, limit as u32, running, reordered);
        waiters.set_bounded(rules.is_some() || settings.max_weight.is_some());
        self.key_rules
            .store(KeyRules::to_bits(rules), Ordering::Relaxed);
    }

    /// Returns `true` if permits are shared between keys.
    #[inline]
    pub(crate) fn shares_permits(&self) -> bool {
        self.key_rules.load(Ordering::Relaxed) != 0
    }

    /// Returns the number of waiters whose key is at its maximum.
    pub(crate) fn waiting_at_key_maximum(&self) -> usize {
        if self.running_keys.get().is_none() {
            return 0;
        }
        lock(&self.waiters).suspended() as usize
    }

    /// Returns the keys that hold permits or have waiters, in no order.
    pub(crate) fn keys(&self) -> Vec<KeyReading> {
        let Some(running) = self.running_keys.get() else {
            return Vec::new();
        };
        let waiting = lock(&self.waiters).keys();
        let mut keys = HashMap::<_, KeyReading, BuildKeyHasher>::default();
        for (key, waiters, at_maximum) in waiting {
            let reading = keys.entry(key).or_insert_with(|| KeyReading::of(key));
            reading.waiting += waiters;
            reading.at_maximum |= at_maximum;
        }
        for (key, held) in running.all() {
            keys.entry(key).or_insert_with(|| KeyReading::of(key)).held += held;
        }
        keys.into_values().collect()
    }
}
