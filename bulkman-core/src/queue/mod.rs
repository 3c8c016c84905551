//! The semaphore of a bulkhead: permits, and a bounded priority queue of calls that wait for one.
//!
//! It is implemented as an atomic counter of available permits and, under a mutex, one queue of
//! waiters for each priority. While no call waits, calls take no lock: acquiring a permit is one
//! compare-and-swap, releasing it one addition. Once a call waits, new calls join the queue behind
//! it, and a released permit is granted directly to the next waiter.
//!
//! It guarantees that:
//!
//! * Permits go to waiters in the order of priority and arrival (or, with LIFO, of reverse
//!   arrival). A new call never overtakes a waiter.
//! * No permit is available while a call waits.
//! * A waiter is never granted a permit after its deadline.
//! * A waiter that leaves after it was granted a permit passes the permit on.
//! * What happened before a permit was released happens before what follows its acquisition.
//!
//! # The reserve
//!
//! Permits that no call has acquired yet are in an [`async_lock::Semaphore`]. A call that finds no
//! available permit acquires one from this reserve. It releases the permit to the counter, from
//! which the next call acquires it. The semaphore thus supplies permits, also those that a larger
//! limit adds, and does nothing else. No call waits for it, and it decides no order: the waiters
//! are in the queues of this module.
//!
//! Its own waiters would not do. The semaphore wakes a waiter without assigning the permit to it,
//! so a new call may acquire the permit first, and two releases may wake only one waiter. The
//! number of its waiters is not bounded. Releasing to it also locks its list of listeners, for
//! every call.
//!
//! # Why no wake-up is lost
//!
//! A call may release its permit just when another starts to wait. The number of available permits
//! and the *contended* flag share one atomic word, [`AvailablePermits`]. The release adds its
//! permit and, by the same operation, learns whether the flag is set. The waiter sets the flag and,
//! after that operation, finds every permit that was added before it. One of the two operations
//! comes first. Either the waiter finds the permit, or the release finds the waiter. While the flag
//! is set, only the holder of the lock acquires permits. `loom_tests.rs` checks this.
//!
//! # Shrinking and closing
//!
//! A smaller limit removes available permits at once. Permits that calls still hold are counted as
//! *permits to forget*. The next releases take the lock and forget them. Closing shrinks the limit
//! to zero: the queue is drained when no permit is left to forget.

mod available;
mod chunks;
mod claim;
mod grants;
mod key_hash;
mod limits;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
#[cfg(all(test, not(bulkman_loom)))]
mod model_tests;
mod order;
mod results;
mod running_keys;
mod special_waiters;
mod state;
#[cfg(all(test, not(bulkman_loom)))]
mod tests;
mod waiter;
mod waiters;
mod waiting_keys;
mod wake_list;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::unwind::{catch, drop_catching};
use crate::sync::waker_set::wake_catching;
use crate::sync::{Mutex, MutexGuard, Semaphore, lock};

use available::AvailablePermits;
pub(crate) use claim::Claim;
use grants::Grants;
use key_hash::BuildKeyHasher;
use limits::NO_MAX_WEIGHT;
pub(crate) use limits::{KeyRules, Limits, MAX_PERMITS, MAX_QUEUE_CAPACITY, QueueSettings};
pub use order::{Priority, QueueOrder};
pub(crate) use results::{Enqueue, TryAcquire, WaitResult};
use running_keys::RunningKeys;
use state::QueueState;
use waiter::WaiterState;
pub(crate) use waiter::{QueueRejection, WaiterId};
use waiters::Waiters;
use wake_list::WakeList;

/// The permits of a bulkhead and the calls that wait for them. See the [module](self).
///
/// A caller that receives `Acquired` or `Granted` owns a permit, and must pass it to
/// [`release`](Self::release) once.
// Fields in this order, and from the beginning of a cache line, so that what waiting and ending
// calls write arrives together with the lock.
#[repr(C, align(64))]
pub(crate) struct WaitQueue {
    available: AvailablePermits,
    /// A [`QueueState`]. `available` is contended unless it is `IDLE`. Written under the lock only.
    state: AtomicU64,
    waiters: Mutex<Waiters>,
    /// A hint: some waiter may have a deadline, so a grant needs the time, which is read before the
    /// lock is taken. Written under the lock only.
    has_deadlines: AtomicBool,
    /// The [`Limits`] in force. Written under the lock only.
    limits: AtomicU64,
    /// The largest number of waiters since the last reset. Written under the lock only.
    peak_waiting: AtomicU32,
    /// The largest number of permits that all waiters may ask for together; [`NO_MAX_WEIGHT`]
    /// without one. Written under the lock only.
    max_queue_weight: AtomicU32,
    /// Odd while permits are moved from the reserve to the counter, which happens under the lock.
    moves: AtomicU32,
    /// The bits of the [`KeyRules`] in force. Written under the lock only.
    key_rules: AtomicU64,
    /// Allocated when permits are first shared between keys, and then kept.
    running_keys: OnceLock<Arc<RunningKeys>>,
    grants: Grants,
    /// Permits that no call has acquired yet.
    reserve: Semaphore,
}

/// What a call asks for that may wait, beside its claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    /// The share of its key, 1 or more.
    pub(crate) share: u32,
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

/// The number of waiters rejected while the lock is held once.
const REJECT_BATCH: usize = 64;

impl WaitQueue {
    /// Creates a queue, within [`MAX_PERMITS`] and [`MAX_QUEUE_CAPACITY`].
    pub(crate) fn new(permits: usize, settings: QueueSettings) -> Self {
        let limits = Limits {
            permits,
            queue_capacity: settings.capacity,
        };
        let queue = Self {
            available: AvailablePermits::new(),
            reserve: Semaphore::new(permits),
            state: AtomicU64::new(QueueState::IDLE.to_bits()),
            has_deadlines: AtomicBool::new(false),
            limits: AtomicU64::new(limits.to_bits()),
            peak_waiting: AtomicU32::new(0),
            max_queue_weight: AtomicU32::new(settings.max_weight_bits()),
            moves: AtomicU32::new(0),
            waiters: Mutex::new(Waiters::new(settings.order)),
            key_rules: AtomicU64::new(0),
            running_keys: OnceLock::new(),
            grants: Grants::new(),
        };
        if settings.keys.is_some() || settings.max_weight.is_some() {
            queue.set_key_rules(&mut lock(&queue.waiters), settings, permits, false);
        }
        queue
    }

    /// Shares permits between keys from now on, or ceases to. The caller holds the lock.
    ///
    /// `reordered`: the order of waiters has changed.
    fn set_key_rules(
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

    /// Acquires a permit if one is available and no call waits.
    #[inline]
    pub(crate) fn try_acquire(&self) -> TryAcquire {
        if self.available.try_acquire() {
            TryAcquire::Acquired
        } else {
            self.try_acquire_slow()
        }
    }

    /// As [`try_acquire`](Self::try_acquire), for a call that asks for several permits or has a
    /// key.
    ///
    /// Acquires all of them or none. If the limit is smaller than the claim, acquires all permits
    /// of the limit, and changes the claim.
    pub(crate) fn try_acquire_claim(
        &self,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> TryAcquire {
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

    /// Releases a permit: to the next waiter, if there is one.
    ///
    /// Calls `now` only if a waiter has, or recently had, a deadline. Returns `true` if this
    /// drained the queue.
    #[inline]
    pub(crate) fn release(&self, now: impl FnOnce() -> Instant) -> bool {
        if self.available.is_contended() {
            return self.release_to_next(now, false);
        }
        self.available.release(1) && self.release_to_next(now, true)
    }

    /// Releases the permits of a call. See [`release`](Self::release).
    pub(crate) fn release_claim(&self, claim: Claim, now: impl FnOnce() -> Instant) -> bool {
        if claim.is_plain() {
            return self.release(now);
        }
        if claim.key() != 0 {
            if let Some(running) = self.running_keys.get() {
                running.remove(claim.key(), claim.permits());
            }
        }
        // While the counter is contended, only the holder of the lock acquires permits.
        self.available.release(claim.permits()) && self.assign_released(claim.key(), now)
    }

    /// Starts to wait, unless the permits have become available.
    ///
    /// If the call acquires all permits of a limit that is smaller than its claim, the claim is
    /// changed. `is_rejected` is called under the lock: it must only load a value. A circuit that
    /// opens later finds this waiter in the queue.
    pub(crate) fn enqueue(
        &self,
        request: Request,
        claim: &mut Claim,
        waker: &Waker,
        is_rejected: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Enqueue {
        let waker = waker.clone();
        self.grants.allocate();
        let (mut waiters, now) = self.lock_with_time(now, request.deadline.is_some());
        if waiters.has_special() || !claim.is_plain() {
            return self.enqueue_special(waiters, now, request, claim, waker, is_rejected);
        }
        let state = self.state();
        let resolved = self.resolve_without_waiting(&mut waiters, state, claim, is_rejected);
        if let Some(result) = resolved {
            drop(waiters);
            // A panic of its drop must not leak a permit that was just acquired.
            drop_catching(waker);
            return result;
        }
        let id = waiters.push(request.priority, request.deadline, Claim::ONE, 1, waker);
        let waiting = self.count_waiter(state, request.deadline);
        // Behind another waiter no permit is available: the counter has been contended since the
        // first of them.
        if waiting > 1 {
            return Enqueue::Waiting(id);
        }
        let wake = self.assign_permits(&mut waiters, now);
        drop(waiters);
        // This may be the new waiter itself: its next poll finds the permit.
        wake.wake();
        Enqueue::Waiting(id)
    }

    /// As [`enqueue`](Self::enqueue), if not all waiters and the new call are as most calls.
    #[cold]
    #[inline(never)]
    fn enqueue_special(
        &self,
        mut waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
        request: Request,
        claim: &mut Claim,
        waker: Waker,
        is_rejected: impl FnOnce() -> bool,
    ) -> Enqueue {
        self.set_key(claim);
        let mut state = self.state();
        let mut resolved = self.resolve_without_waiting(&mut waiters, state, claim, is_rejected);
        let bounded = resolved.is_none() || resolved == Some(Enqueue::Full);
        if bounded && claim.key() != 0 && waiters.is_key_full(claim.key()) {
            resolved = Some(Enqueue::KeyFull);
        } else if bounded && self.exceeds_queue_weight(&waiters, *claim) {
            resolved = Some(Enqueue::Full);
        }
        let mut evicted = None;
        if resolved == Some(Enqueue::Full) && self.may_evict(&waiters, *claim) {
            evicted = waiters.evict(claim.key(), request.priority);
        }
        if let Some(result) = resolved.filter(|_| evicted.is_none()) {
            drop(waiters);
            drop_catching(waker);
            return result;
        }
        if evicted.is_some() {
            self.update_state(&waiters, |state| state);
            state = self.state();
        }
        let Request {
            priority,
            deadline,
            share,
        } = request;
        let id = waiters.push(priority, deadline, *claim, share, waker);
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

    /// Counts a waiter that has just been stored, and returns the number of waiters. `state` is
    /// that from before.
    #[inline]
    fn count_waiter(&self, state: QueueState, deadline: Option<Instant>) -> u32 {
        let waiting = state.waiting() + 1;
        if waiting > self.peak_waiting.load(Ordering::Relaxed) {
            self.peak_waiting.store(waiting, Ordering::Relaxed);
        }
        self.set_state(state, state.with_waiting(waiting));
        if deadline.is_some() {
            self.set_has_deadlines(true);
        }
        waiting
    }

    /// Returns the result for a new call that need not wait. The caller holds the lock.
    #[inline]
    fn resolve_without_waiting(
        &self,
        waiters: &mut Waiters,
        state: QueueState,
        claim: &mut Claim,
        is_rejected: impl FnOnce() -> bool,
    ) -> Option<Enqueue> {
        if state.is_closed() {
            Some(Enqueue::Rejected(QueueRejection::Shutdown))
        } else if is_rejected() {
            Some(Enqueue::Rejected(QueueRejection::CircuitOpened))
        } else if self.acquire_idle(waiters, state, claim) {
            Some(Enqueue::Acquired)
        } else if state.waiting() as usize >= self.limits().queue_capacity {
            Some(Enqueue::Full)
        } else {
            None
        }
    }

    /// Acquires the permits of a new call, if no call waits. The caller holds the lock.
    #[inline]
    fn acquire_idle(&self, waiters: &mut Waiters, state: QueueState, claim: &mut Claim) -> bool {
        if claim.key() != 0 {
            return self.acquire_for_key(waiters, state, claim);
        }
        if state.is_closed() || state.waiting() > 0 || state.permits_to_forget() > 0 {
            false
        } else if claim.permits() == 1 {
            self.available.try_acquire() || self.acquire_from_reserve()
        } else {
            self.acquire_many_idle(claim)
        }
    }

    #[inline(never)]
    fn acquire_many_idle(&self, claim: &mut Claim) -> bool {
        let permits = self.permits_to_grant(claim.permits());
        let acquired = permits > 0 && self.acquire_locked(permits, permits, false);
        if acquired {
            *claim = claim.with_permits(permits);
        }
        acquired
    }

    /// Acquires the permits of a new call with a key, unless it has to wait behind another. Waiters
    /// whose key is at its maximum do not count. The caller holds the lock.
    #[inline(never)]
    fn acquire_for_key(&self, waiters: &mut Waiters, state: QueueState, claim: &mut Claim) -> bool {
        self.set_key(claim);
        if claim.key() == 0 {
            return self.acquire_idle(waiters, state, claim);
        }
        let rules = KeyRules::from_bits(self.key_rules.load(Ordering::Relaxed));
        let (Some(rules), Some(running)) = (rules, self.running_keys.get()) else {
            return false;
        };
        let waits = state.waiting() > 0;
        let permits = self.permits_to_grant(claim.permits());
        if state.is_closed()
            || state.permits_to_forget() > 0
            || (waits && waiters.blocks_new_calls(claim.key()))
            || permits == 0
        {
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

    /// Acquires permits if `needed` are available. The caller holds the lock.
    fn acquire_locked(&self, permits: u32, needed: u32, contended: bool) -> bool {
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
    fn permits_to_grant(&self, permits: u32) -> u32 {
        permits.min(self.limits().permits as u32)
    }

    #[inline]
    fn exceeds_queue_weight(&self, waiters: &Waiters, claim: Claim) -> bool {
        let max = self.max_queue_weight.load(Ordering::Relaxed);
        max != NO_MAX_WEIGHT
            && waiters.queued_permits() + u64::from(claim.permits()) > u64::from(max)
    }

    /// Polls a waiter. Its identifier is invalid once this returns `Ready`.
    pub(crate) fn poll(&self, id: WaiterId, waker: &Waker) -> Poll<WaitResult> {
        // Recent grants are visible without the lock.
        if self.grants.contains(id) {
            return Poll::Ready(WaitResult::Granted);
        }
        let polled = lock(&self.waiters).poll(id, waker);
        let state = polled.unwrap_or_else(|| {
            // Cloning and dropping wakers runs code of the executor: not under the lock.
            let waker = waker.clone();
            let (state, unused) = lock(&self.waiters).register_waker(id, waker);
            drop_catching(unused);
            state
        });
        match state {
            WaiterState::Waiting => Poll::Pending,
            WaiterState::Granted => Poll::Ready(WaitResult::Granted),
            WaiterState::GrantedFewer(permits) => Poll::Ready(WaitResult::GrantedFewer(permits)),
            WaiterState::Rejected(reason) => Poll::Ready(WaitResult::Rejected(reason)),
            WaiterState::Expired => Poll::Ready(WaitResult::Expired),
        }
    }

    /// Ends a wait because its deadline has passed. Permits that were granted before are kept.
    pub(crate) fn expire(&self, id: WaiterId, now: impl FnOnce() -> Instant) -> WaitResult {
        match self.remove(id, now) {
            WaiterState::Waiting | WaiterState::Expired => WaitResult::Expired,
            WaiterState::Granted => WaitResult::Granted,
            WaiterState::GrantedFewer(permits) => WaitResult::GrantedFewer(permits),
            WaiterState::Rejected(reason) => WaitResult::Rejected(reason),
        }
    }

    /// Ends a wait because the call was dropped. Permits that were granted before are released.
    ///
    /// Returns `true` if this drained the queue.
    pub(crate) fn cancel(&self, id: WaiterId, claim: Claim, now: impl Fn() -> Instant) -> bool {
        match self.remove(id, &now) {
            WaiterState::Granted => self.release_claim(claim, now),
            WaiterState::GrantedFewer(permits) => {
                self.release_claim(claim.with_permits(permits), now)
            }
            _ => false,
        }
    }

    /// Rejects all present waiters. Later calls may wait.
    pub(crate) fn reject_all(&self, reason: QueueRejection, now: impl FnOnce() -> Instant) {
        // A rejected heavy waiter may have collected permits. Calls that arrived meanwhile wait for
        // them.
        if self.reject_present(reason) {
            self.assign_released(0, now);
        }
    }

    /// Rejects all present waiters. Returns `true` if others wait although permits are available.
    fn reject_present(&self, reason: QueueRejection) -> bool {
        // Lock even if no call seems to wait. A new call that has not seen the reason yet either is
        // in the queue by now, or sees it under the lock.
        let watermark = lock(&self.waiters).watermark();
        loop {
            let mut wake = WakeList::default();
            let mut waiters = lock(&self.waiters);
            let done = waiters.reject(reason, watermark, REJECT_BATCH, &mut wake);
            self.update_state(&waiters, |state| state);
            let collected = self.has_collected(&waiters);
            drop(waiters);
            wake.wake();
            if done {
                return collected;
            }
        }
    }

    /// Rejects new calls and waiters permanently. Permits that calls hold stay valid.
    ///
    /// Returns `false` if the queue was closed already.
    pub(crate) fn close(&self) -> bool {
        let mut waiters = lock(&self.waiters);
        if self.state().is_closed() {
            return false;
        }
        let permits = self.limits().permits;
        self.update_state(&waiters, |state| {
            state
                .with_closed()
                .with_permits_to_forget(state.permits_to_forget() + permits)
        });
        let wake = self.assign_permits(&mut waiters, None);
        drop(waiters);
        wake.wake();
        self.reject_present(QueueRejection::Shutdown);
        true
    }

    /// Changes the limits. Running calls and waiters stay, even beyond the new limits.
    ///
    /// `permits` is called under the lock: it must only load values. Of two concurrent changes, the
    /// later one then has the newest values.
    pub(crate) fn resize(
        &self,
        permits: impl FnOnce() -> usize,
        settings: QueueSettings,
        now: impl FnOnce() -> Instant,
    ) {
        let (mut waiters, now) = self.lock_with_time(now, false);
        let reordered = waiters.set_order(settings.order);
        self.max_queue_weight
            .store(settings.max_weight_bits(), Ordering::Relaxed);
        let limits = Limits {
            permits: permits(),
            queue_capacity: settings.capacity,
        };
        self.set_key_rules(&mut waiters, settings, limits.permits, reordered);
        self.apply_limits(limits, waiters, now);
    }

    /// Changes the number of permits only. See [`resize`](Self::resize).
    pub(crate) fn set_permits(
        &self,
        permits: impl FnOnce() -> usize,
        now: impl FnOnce() -> Instant,
    ) {
        let (waiters, now) = self.lock_with_time(now, false);
        let limits = Limits {
            permits: permits(),
            ..self.limits()
        };
        self.apply_limits(limits, waiters, now);
    }

    fn apply_limits(
        &self,
        limits: Limits,
        mut waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
    ) {
        let permits = limits.permits;
        let before = self.limits().permits;
        self.limits.store(limits.to_bits(), Ordering::Relaxed);
        if self.running_keys.get().is_some() {
            waiters.set_limit(permits as u32);
        }
        if self.state().is_closed() {
            return;
        }
        // Available permits are forgotten first, while the counter is not contended. So a new call
        // is not rejected while permits that stay are available.
        let surplus = before.saturating_sub(permits);
        let forgotten = self.forget_up_to(surplus);
        let to_forget = self.state().permits_to_forget() + surplus - forgotten;
        let added = permits.saturating_sub(before);
        self.update_state(&waiters, |state| {
            state.with_permits_to_forget(to_forget.saturating_sub(added))
        });
        self.reserve.add_permits(added.saturating_sub(to_forget));
        let wake = self.assign_permits(&mut waiters, now);
        drop(waiters);
        wake.wake();
    }

    /// Returns `true` after [`close`](Self::close).
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed()
    }

    /// Returns `true` if the queue is closed and no call holds a permit.
    pub(crate) fn is_drained(&self) -> bool {
        self.state().is_drained()
    }

    /// Returns the number of waiters.
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting() as usize
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

    /// Returns the largest number of waiters since the last reset.
    pub(crate) fn peak_waiting(&self) -> usize {
        self.peak_waiting.load(Ordering::Relaxed) as usize
    }

    /// Sets the peak to the present number of waiters.
    pub(crate) fn reset_peak_waiting(&self) {
        let waiters = lock(&self.waiters);
        self.peak_waiting
            .store(waiters.waiting(), Ordering::Relaxed);
    }

    /// Returns the number of permits that calls hold.
    pub(crate) fn in_use(&self) -> usize {
        let state = self.state();
        let permits = if state.is_closed() {
            0
        } else {
            self.limits().permits
        };
        (permits + state.permits_to_forget())
            .saturating_sub(self.available.available() + self.reserve.available_permits())
    }

    /// Returns the limits in force.
    #[inline]
    pub(crate) fn limits(&self) -> Limits {
        Limits::from_bits(self.limits.load(Ordering::Relaxed))
    }

    /// Acquires a permit when the counter is empty or contended.
    #[inline(never)]
    fn try_acquire_slow(&self) -> TryAcquire {
        let state = self.state();
        if state.is_closed() {
            TryAcquire::Closed
        } else if (!self.available.is_contended() && self.acquire_from_reserve())
            || (self.moves.load(Ordering::Acquire) != 0 && self.try_acquire_moved())
        {
            TryAcquire::Acquired
        } else if state.waiting() as usize >= self.limits().queue_capacity {
            TryAcquire::Full
        } else {
            TryAcquire::MustWait
        }
    }

    /// Acquires a permit that may have been moved from the reserve to the counter meanwhile.
    ///
    /// A call that reads the counter before the move, and the reserve after it, finds no permit in
    /// either. It is not rejected for that: it tries again until there was no move.
    #[cold]
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

    /// Moves all permits from the reserve to the counter. The caller holds the lock.
    ///
    /// A call needs several permits at once, and the reserve gives up one at a time.
    fn empty_reserve(&self) {
        if self.reserve.available_permits() == 0 {
            return;
        }
        self.moves.fetch_add(1, Ordering::AcqRel);
        while self.acquire_from_reserve() {
            self.available.release(1);
        }
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    /// Acquires a permit that no call has acquired before.
    fn acquire_from_reserve(&self) -> bool {
        self.reserve
            .try_acquire()
            .map(|permit| permit.forget())
            .is_some()
    }

    /// Forgets up to `max` permits that no call holds, and returns how many.
    fn forget_up_to(&self, max: usize) -> usize {
        let mut forgotten = self.available.acquire_up_to(max);
        while forgotten < max && self.acquire_from_reserve() {
            forgotten += 1;
        }
        forgotten
    }

    /// Forgets a permit if there are permits to forget. Otherwise grants it to the next waiter, or
    /// returns it to the counter.
    ///
    /// `is_available`: the permit was added to the counter, from which another call may have
    /// acquired it by now. Returns `true` if this drained the queue.
    #[cold]
    #[inline(never)]
    fn release_to_next(&self, now: impl FnOnce() -> Instant, is_available: bool) -> bool {
        let mut expired = WakeList::default();
        let (mut waiters, now) = self.lock_with_time(now, false);
        let before = self.state();
        if is_available && (before == QueueState::IDLE || !self.available.try_acquire_locked()) {
            return before.is_drained();
        }
        let (state, granted) = if before.permits_to_forget() > 0 {
            let left = before.permits_to_forget() - 1;
            (before.with_permits_to_forget(left), None)
        } else if waiters.has_special() {
            self.available.release(1);
            let wake = self.assign_permits(&mut waiters, now);
            let state = self.state();
            drop(waiters);
            wake.wake();
            return state.is_drained();
        } else {
            let granted = waiters.grant(now, &mut expired);
            let gone = u32::from(granted.is_some()) + expired.len();
            if granted.is_none() {
                self.available.release(1);
            }
            (before.with_waiting(before.waiting() - gone), granted)
        };
        self.set_state(before, state);
        drop(waiters);
        if let Some(granted) = granted {
            wake_catching(granted.publish(&self.grants));
        }
        expired.wake();
        state.is_drained()
    }

    /// Assigns the permits in the counter. Returns `true` if this drained the queue.
    ///
    /// `key`: one that holds less than before; zero for none.
    #[cold]
    fn assign_released(&self, key: u64, now: impl FnOnce() -> Instant) -> bool {
        let (mut waiters, now) = self.lock_with_time(now, false);
        if key != 0 {
            waiters.set_level_of(key);
        }
        let wake = self.assign_permits(&mut waiters, now);
        let drained = self.state().is_drained();
        drop(waiters);
        wake.wake();
        drained
    }

    /// Returns `true` if calls wait although permits are available.
    ///
    /// A heavy waiter collects permits until it has enough of them. If it leaves, the permits have
    /// to be assigned.
    fn has_collected(&self, waiters: &Waiters) -> bool {
        waiters.waiting() > 0 && self.available.available() > 0
    }

    /// Uses the permits that no call holds: first to forget permits, then for the waiters.
    fn assign_permits(&self, waiters: &mut Waiters, now: Option<Instant>) -> WakeList {
        let mut wake = WakeList::default();
        // Sets the flag before the counter is read.
        self.update_state(waiters, |state| state);
        loop {
            let must_forget = self.state().permits_to_forget() > 0;
            if !must_forget && waiters.waiting() == 0 {
                break;
            }
            if !must_forget && waiters.has_special() {
                let available = self.available.available() + self.reserve.available_permits();
                if available > 0 && self.grant_collected(waiters, now, &mut wake) {
                    continue;
                }
                break;
            }
            if !self.available.try_acquire_locked() && !self.acquire_from_reserve() {
                break;
            }
            if must_forget {
                self.update_state(waiters, |state| {
                    state.with_permits_to_forget(state.permits_to_forget() - 1)
                });
            } else {
                let granted = waiters.grant(now, &mut wake);
                self.update_state(waiters, |state| state);
                let Some(granted) = granted else {
                    self.available.release(1);
                    break;
                };
                wake.push(granted.publish(&self.grants));
            }
        }
        wake
    }

    /// Grants its permits to the next waiter, if that many are available.
    ///
    /// Otherwise they stay in the counter. It is contended, so they accumulate there until they are
    /// enough, and nobody has to return them if the waiter leaves.
    fn grant_collected(
        &self,
        waiters: &mut Waiters,
        now: Option<Instant>,
        wake: &mut WakeList,
    ) -> bool {
        let head = waiters.peek(now, wake);
        let permits = head.map_or(0, |head| self.permits_to_grant(head.permits));
        let reserved = head.map_or(0, |head| head.reserved);
        let needed = (permits + reserved).min(self.limits().permits as u32);
        let acquired = permits > 0 && self.acquire_locked(permits, needed, true);
        let granted = head
            .filter(|_| acquired)
            .and_then(|head| waiters.grant_head(head, permits));
        self.update_state(waiters, |state| state);
        if let Some(granted) = granted {
            wake.push(granted.publish(&self.grants));
        }
        acquired
    }

    fn remove(&self, id: WaiterId, now: impl FnOnce() -> Instant) -> WaiterState {
        let mut waiters = lock(&self.waiters);
        let had_special = waiters.has_special();
        let (state, waker) = waiters.remove(id);
        if state == WaiterState::Waiting {
            let before = self.state();
            self.set_state(before, before.with_waiting(before.waiting() - 1));
        }
        if had_special && state == WaiterState::Waiting && self.has_collected(&waiters) {
            drop(waiters);
            drop_catching(waker);
            self.assign_released(0, now);
            return state;
        }
        drop(waiters);
        drop_catching(waker);
        state
    }

    /// Locks the waiters, and returns the time if a waiter has a deadline.
    ///
    /// `with_deadline`: the caller adds one. The clock is user code: it runs before the lock is
    /// taken, and its panic must not leak a permit. Without the time, a grant checks no deadline.
    fn lock_with_time(
        &self,
        now: impl FnOnce() -> Instant,
        with_deadline: bool,
    ) -> (MutexGuard<'_, Waiters>, Option<Instant>) {
        if !with_deadline && !self.has_deadlines.load(Ordering::Relaxed) {
            let waiters = lock(&self.waiters);
            // A waiter with a deadline may have arrived since.
            if !waiters.has_deadlines() {
                return (waiters, None);
            }
        }
        let now = catch(now);
        let waiters = lock(&self.waiters);
        if !with_deadline && !waiters.has_deadlines() {
            self.set_has_deadlines(false);
        }
        (waiters, now)
    }

    /// Sets the hint. Does not write the cache line if nothing changes.
    fn set_has_deadlines(&self, has_deadlines: bool) {
        if self.has_deadlines.load(Ordering::Relaxed) != has_deadlines {
            self.has_deadlines.store(has_deadlines, Ordering::Relaxed);
        }
    }

    #[inline]
    fn state(&self) -> QueueState {
        QueueState::from_bits(self.state.load(Ordering::Acquire))
    }

    /// Applies `change` to the state, with the present number of waiters.
    fn update_state(&self, waiters: &Waiters, change: impl FnOnce(QueueState) -> QueueState) {
        let before = self.state();
        self.set_state(before, change(before.with_waiting(waiters.waiting())));
    }

    /// Replaces the state `before`, and then the contended flag if it has to change.
    #[inline]
    fn set_state(&self, before: QueueState, state: QueueState) {
        self.state.store(state.to_bits(), Ordering::Release);
        let contended = state != QueueState::IDLE;
        if contended != (before != QueueState::IDLE) {
            self.available.set_contended(contended);
        }
    }
}

// Takes no lock, and prints the number of waiters only.
impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            permits,
            queue_capacity,
        } = self.limits();
        f.debug_struct("WaitQueue")
            .field("permits", &permits)
            .field("in_use", &self.in_use())
            .field("queue_capacity", &queue_capacity)
            .field("waiting", &self.waiting())
            .field("closed", &self.is_closed())
            .finish()
    }
}
