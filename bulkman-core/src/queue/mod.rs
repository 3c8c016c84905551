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
//! * No permit is available while a call waits that it suffices for.
//! * A waiter is never granted a permit after its deadline.
//! * A waiter that leaves after it was granted a permit passes the permit on.
//! * A permit that a waiter with a deadline has not collected by then goes to the call that needs
//!   it.
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
//!
//! # Heavy calls and keys
//!
//! A call that asks for several permits or has a key is *special*. Everything about it is in
//! `claims.rs`, `waiting_claims.rs`, `next_call.rs`, `collecting.rs`, `special_waiters.rs`,
//! `waiting_keys.rs`, `levels.rs`, `key_levels.rs`, `key_readings.rs` and `running_keys.rs`. While
//! no waiter is special, the paths of other calls execute none of that: each tests one word, which
//! is zero then.
//!
//! Waiters of a key at its maximum are *suspended*: they wait for calls of that key, and not for a
//! permit. The flag is not set for them. `running_keys.rs` describes what is used instead.

mod available;
mod chunks;
mod claim;
mod claims;
mod collecting;
mod grants;
mod key_hash;
mod key_levels;
mod key_readings;
mod levels;
mod limits;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
#[cfg(all(test, not(bulkman_loom)))]
mod model_tests;
mod next_call;
mod order;
mod overtaking;
mod results;
mod running_keys;
mod special_waiters;
mod state;
#[cfg(all(test, not(bulkman_loom)))]
mod tests;
#[cfg(all(test, not(bulkman_loom)))]
mod thread_tests;
mod uncollected;
mod waiter;
mod waiters;
mod waiting_claims;
mod waiting_keys;
mod wake_list;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::unwind::{catch, drop_catching};
use crate::sync::waker_set::wake_catching;
use crate::sync::{Mutex, MutexGuard, Semaphore, lock};

use available::AvailablePermits;
pub(crate) use claim::Claim;
pub(crate) use claims::Release;
use grants::Grants;
pub(crate) use limits::{KeyRules, Limits, MAX_PERMITS, MAX_QUEUE_CAPACITY, QueueSettings};
pub use order::{Priority, QueueOrder};
pub(crate) use results::{Enqueue, TryAcquire, WaitResult};
use running_keys::RunningKeys;
use state::QueueState;
use waiter::WaiterState;
pub(crate) use waiter::{QueueRejection, WaiterId};
use waiters::Waiters;
pub(crate) use waiting_claims::Request;
use wake_list::{SmallWakeList, WakeList};

/// The permits of a bulkhead and the calls that wait for them. See the [module](self).
///
/// A caller that receives `Acquired` or `Granted` owns a permit, and must pass it to
/// [`release`](Self::release) once.
// Fields in this order, and from the beginning of a cache line, so that what waiting and ending
// calls write arrives together with the lock.
#[repr(C, align(64))]
pub(crate) struct WaitQueue {
    available: AvailablePermits,
    /// A [`QueueState`]. `available` is contended unless it is `IDLE`, or all waiters are
    /// suspended. Written under the lock only.
    state: AtomicU64,
    waiters: Mutex<Waiters>,
    /// A hint: some waiter may have a deadline, so a grant needs the time, which is read before the
    /// lock is taken. Written under the lock only.
    has_deadlines: AtomicBool,
    /// Hints: where a call that finds no permit has to search for one under the lock, as
    /// [`OVERDUE`] and [`MOVED`]. Written under the lock only.
    elsewhere: AtomicU8,
    /// The [`Limits`] in force. Written under the lock only.
    limits: AtomicU64,
    /// The largest number of waiters since the last reset. Written under the lock only.
    peak_waiting: AtomicU32,
    /// The largest number of permits that all waiters may ask for together; `NO_MAX_WEIGHT` without
    /// one. Written under the lock only.
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

/// A permit can be taken back from a waiter that is overdue.
const OVERDUE: u8 = 1;
/// Permits were moved from the reserve to the counter.
const MOVED: u8 = 1 << 1;

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
            elsewhere: AtomicU8::new(0),
            limits: AtomicU64::new(limits.to_bits()),
            peak_waiting: AtomicU32::new(0),
            max_queue_weight: AtomicU32::new(settings.max_weight_bits()),
            moves: AtomicU32::new(0),
            waiters: Mutex::new(Waiters::new(settings.order)),
            key_rules: AtomicU64::new(0),
            running_keys: OnceLock::new(),
            grants: Grants::new(),
        };
        if settings.overtaking > 0 {
            lock(&queue.waiters).set_overtaking(settings.overtaking);
        }
        if settings.keys.is_some() || settings.max_weight.is_some() {
            queue.set_key_rules(&mut lock(&queue.waiters), settings, permits, false);
        }
        queue
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

    /// As [`try_acquire`](Self::try_acquire), if the permit is not in the reserve.
    #[inline]
    pub(crate) fn try_acquire_available(&self) -> bool {
        self.available.try_acquire()
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

    /// Starts to wait, unless a permit has become available.
    ///
    /// `is_rejected` is called under the lock: it must only load a value. A circuit that opens
    /// later finds this waiter in the queue.
    pub(crate) fn enqueue(
        &self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: &Waker,
        is_rejected: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Enqueue {
        let waker = waker.clone();
        self.grants.allocate();
        if deadline.is_none() {
            if let Some(waiters) = self.lock_ordinary() {
                return self.enqueue_locked(waiters, priority, None, waker, is_rejected, None);
            }
        }
        self.enqueue_unusual(priority, deadline, waker, is_rejected, now)
    }

    /// As [`enqueue`](Self::enqueue), if a waiter has a deadline or is special.
    #[inline(never)]
    fn enqueue_unusual(
        &self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: Waker,
        is_rejected: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Enqueue {
        let (waiters, now) = self.lock_with_time(now, deadline.is_some());
        if waiters.has_special() {
            return self.enqueue_among_special(
                waiters,
                now,
                Request::plain(priority, deadline),
                waker,
                is_rejected,
            );
        }
        self.enqueue_locked(waiters, priority, deadline, waker, is_rejected, now)
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is the end of two paths, and part of every wait"
    )]
    fn enqueue_locked(
        &self,
        mut waiters: MutexGuard<'_, Waiters>,
        priority: Priority,
        deadline: Option<Instant>,
        waker: Waker,
        is_rejected: impl FnOnce() -> bool,
        now: Option<Instant>,
    ) -> Enqueue {
        let state = self.state();
        if let Some(result) = self.resolve_without_waiting(&mut waiters, state, is_rejected) {
            drop(waiters);
            // A panic of its drop must not leak a permit that was just acquired.
            drop_catching(waker);
            return result;
        }
        let id = waiters.push(priority, deadline, waker);
        let waiting = self.count_waiter(state, deadline);
        // Behind another waiter no permit is available: the counter has been contended since the
        // first of them.
        if waiting > 1 {
            return Enqueue::Waiting(id);
        }
        let wake = self.assign_ordinary(&mut waiters, now);
        drop(waiters);
        // This may be the new waiter itself: its next poll finds the permit.
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
        is_rejected: impl FnOnce() -> bool,
    ) -> Option<Enqueue> {
        if state.is_closed() {
            Some(Enqueue::Rejected(QueueRejection::Shutdown))
        } else if is_rejected() {
            Some(Enqueue::Rejected(QueueRejection::CircuitOpened))
        } else if state.waiting() == 0
            && state.permits_to_forget() == 0
            && (self.available.try_acquire()
                || self.acquire_from_reserve()
                || (self.has_overdue() && self.take_overdue(waiters)))
        {
            Some(Enqueue::Acquired)
        } else if state.waiting() as usize >= self.limits().queue_capacity {
            Some(Enqueue::Full)
        } else {
            None
        }
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
        state.into_poll()
    }

    /// Ends a wait because its deadline has passed. A permit that was granted before is kept.
    pub(crate) fn expire(&self, id: WaiterId) -> WaitResult {
        self.remove(id).into_expired()
    }

    /// Ends a wait because the call was dropped. A permit that was granted before is released.
    ///
    /// Returns `true` if this drained the queue.
    pub(crate) fn cancel(&self, id: WaiterId, now: impl FnOnce() -> Instant) -> bool {
        self.remove(id) == WaiterState::Granted && self.release(now)
    }

    /// Rejects all present waiters. Later calls may wait.
    ///
    /// Calls `now` only if a waiter has, or recently had, a deadline.
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
            self.update_state(&mut waiters, |state| state);
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
        self.update_state(&mut waiters, |state| {
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
        waiters.set_overtaking(settings.overtaking);
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
            self.settle(&mut waiters);
            return;
        }
        // Available permits are forgotten first, while the counter is not contended. So a new call
        // is not rejected while permits that stay are available.
        let surplus = before.saturating_sub(permits);
        let forgotten = self.forget_up_to(surplus);
        let to_forget = self.state().permits_to_forget() + surplus - forgotten;
        let added = permits.saturating_sub(before);
        self.update_state(&mut waiters, |state| {
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
        } else if !self.available.is_contended()
            && (self.acquire_from_reserve() || self.acquire_elsewhere())
        {
            TryAcquire::Acquired
        } else if state.waiting() as usize >= self.limits().queue_capacity
            && !self.available.is_collected()
        {
            TryAcquire::Full
        } else {
            TryAcquire::MustWait
        }
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
        if let Some(waiters) = self.lock_ordinary() {
            return self.release_locked(waiters, None, is_available);
        }
        let (waiters, now) = self.lock_with_time(now, false);
        if waiters.has_special() {
            return self.release_among_special(waiters, now, is_available);
        }
        self.release_locked(waiters, now, is_available)
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is the end of two paths, and part of every grant"
    )]
    fn release_locked(
        &self,
        mut waiters: MutexGuard<'_, Waiters>,
        now: Option<Instant>,
        is_available: bool,
    ) -> bool {
        let mut expired = WakeList::default();
        let before = self.state();
        if is_available && (before == QueueState::IDLE || !self.available.try_acquire_locked()) {
            return before.is_drained();
        }
        let (state, granted) = if before.permits_to_forget() > 0 {
            let left = before.permits_to_forget() - 1;
            (before.with_permits_to_forget(left), None)
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

    /// As [`assign_permits`](Self::assign_permits), while no waiter is special.
    fn assign_ordinary(&self, waiters: &mut Waiters, now: Option<Instant>) -> SmallWakeList {
        let mut wake = SmallWakeList::default();
        // Sets the flag before the counter is read.
        self.update_state(waiters, |state| state);
        loop {
            let must_forget = self.state().permits_to_forget() > 0;
            if !must_forget && waiters.waiting() == 0 {
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
                let granted = waiters.grant(now, wake.others());
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

    fn remove(&self, id: WaiterId) -> WaiterState {
        let mut waiters = lock(&self.waiters);
        let (state, waker) = waiters.remove(id);
        if state == WaiterState::Waiting {
            let before = self.state();
            self.set_state(before, before.with_waiting(before.waiting() - 1));
        }
        drop(waiters);
        drop_catching(waker);
        state
    }

    /// Locks the waiters if none of them has a deadline or is special.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is the beginning of every wait and every grant"
    )]
    fn lock_ordinary(&self) -> Option<MutexGuard<'_, Waiters>> {
        if self.has_deadlines.load(Ordering::Relaxed) {
            return None;
        }
        let waiters = lock(&self.waiters);
        waiters.is_ordinary().then_some(waiters)
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
    fn update_state(&self, waiters: &mut Waiters, change: impl FnOnce(QueueState) -> QueueState) {
        let before = self.state();
        self.set_state(before, change(before.with_waiting(waiters.waiting())));
        self.settle(waiters);
    }

    /// Sets or clears the contended flag after levels of keys have changed.
    ///
    /// Called before the lock is released. Until then, the slots of keys that have been resumed are
    /// suspended.
    #[inline]
    fn settle(&self, waiters: &mut Waiters) {
        if waiters.is_unsettled() {
            self.settle_suspended(waiters);
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_suspended(&self, waiters: &mut Waiters) {
        let others = self.state().with_waiting(waiters.eligible());
        if others != QueueState::IDLE {
            self.available.contend();
        } else if self.available.is_contended() {
            self.available.set_contended(false);
        }
        waiters.clear_resumed();
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
