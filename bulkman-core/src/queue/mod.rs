//! Permits and the queue for them: strict order, direct hand-off, bounded, resizable.
//!
//! The permits are those of an [`async_lock::Semaphore`]; the queue is our own. That semaphore's
//! waiters can be overtaken and may sleep beside an idle permit, and nothing bounds them. Here
//!
//! * a permit is drawn from the semaphore when it is first needed and then stays *in hand*: a call
//!   that ends leaves it for the next one. Giving it back to the semaphore would take the lock of
//!   its list of listeners, of whom there is none, at the end of every call;
//! * a call that need not wait takes no lock: one compare-and-swap takes a permit in hand, one
//!   addition leaves it;
//! * as soon as anybody waits, newcomers go to the end of the queue, and a released permit goes
//!   straight to the head;
//! * a permit is never idle while somebody waits (see *The word* below);
//! * a waiter that goes away hands on what it was just given.
//!
//! # The word
//!
//! How many permits are idle in hand, and whether the lock has something to do with them (somebody
//! waits, permits are owed, or the bulkhead is shut down), is one word, [`Hand`]. A release adds
//! its permit to it and learns by the same operation whether it was *busy*; a waiter makes it busy
//! and learns by the same operation which permits are there. One of the two comes first, and so
//! either the waiter finds the permit or the release finds the waiter. While the word is busy,
//! only who has the lock takes permits out. `loom_tests.rs` checks it.
//!
//! # Shrinking and closing
//!
//! Permits that must go but are still held are a *debt*, paid by the next releases. Shutting down
//! shrinks to nothing: the queue is drained when the debt is paid.

mod chunks;
mod grants;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
mod order;
#[cfg(all(test, not(bulkman_loom)))]
mod tests;
mod waiters;
mod words;

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::unwind::{contain, discard};
use crate::sync::waker_set::wake;
use crate::sync::{Mutex, MutexGuard, Semaphore, lock};

pub(crate) use self::words::Limits;
use self::words::{Hand, Pressure};
use grants::Grants;
pub use order::{Priority, QueueOrder};
use waiters::{Fate, Waiters, WakeList};
pub(crate) use waiters::{Key, QueueRejection};

/// The most permits that a queue can have: a semaphore gives them up one at a time, so shrinking
/// and shutting down take time in proportion to it.
pub(crate) const MAX_PERMITS: usize = 1_000_000;

/// The most waiters that a queue can have.
pub(crate) const MAX_PLACES: usize = (1 << 31) - 1;

/// How many waiters are refused while the lock is held once.
const REFUSE_BATCH: usize = 64;

/// Permits and those who wait for them. See the [module](self).
///
/// Whoever was told `Taken` or `Granted` owns a permit and must give it to
/// [`release`](Self::release) once.
// In this order, and from the beginning of a cache line, so that what those who wait or end write
// comes with the lock.
#[repr(C, align(64))]
pub(crate) struct WaitQueue {
    /// Permits in hand, and whether the lock has something to do with them: see [`Hand`].
    hand: Hand,
    /// What the lock has to do: see [`Pressure`]. The hand is busy unless it is zero. Written
    /// under the lock only.
    pressure: AtomicU64,
    waiters: Mutex<Waiters>,
    /// A hint, written under the lock only: somebody who waits has a deadline, so that the clock has
    /// to be read to grant, and that before the lock is taken.
    timed: AtomicBool,
    /// Permits in the upper half, places in the queue in the lower. Written under the lock only.
    limits: AtomicU64,
    /// Written under the lock only.
    high_water: AtomicU32,
    grants: Grants,
    /// Permits that were never needed yet.
    semaphore: Semaphore,
}

/// The answer to [`WaitQueue::try_take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// The caller owns a permit.
    Taken,
    /// No permit, but a place in the queue (or somebody is ahead).
    Wait,
    /// No permit, and no place in the queue.
    Full,
    /// Shut down.
    Closed,
}

/// The answer to [`WaitQueue::enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// The caller owns a permit; it never waited.
    Taken,
    /// The caller waits.
    Waiting(Key),
    /// The queue filled up meanwhile.
    Full,
    /// The circuit opened, or the bulkhead was shut down, meanwhile.
    Refused(QueueRejection),
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The caller owns a permit.
    Granted,
    /// Everybody was refused.
    Refused(QueueRejection),
    /// The waiter's deadline has passed.
    Expired,
}

impl WaitQueue {
    /// At most [`MAX_PERMITS`] and [`MAX_PLACES`].
    pub(crate) fn new(permits: usize, places: usize, order: QueueOrder) -> Self {
        Self {
            hand: Hand::new(),
            semaphore: Semaphore::new(permits),
            pressure: AtomicU64::new(0),
            timed: AtomicBool::new(false),
            limits: AtomicU64::new(Limits { permits, places }.pack()),
            high_water: AtomicU32::new(0),
            waiters: Mutex::new(Waiters::new(order)),
            grants: Grants::new(),
        }
    }

    /// Takes a permit if one is free and nobody is ahead.
    #[inline]
    pub(crate) fn try_take(&self) -> Take {
        if self.hand.take() {
            Take::Taken
        } else {
            self.draw_or_say_why()
        }
    }

    /// Gives a permit back: to the next in line if somebody waits, else for whoever comes next.
    ///
    /// `now` is asked only if a waiter has, or lately had, a deadline. Says whether the queue is drained by
    /// it.
    #[inline]
    pub(crate) fn release(&self, now: impl FnOnce() -> Instant) -> bool {
        if self.hand.is_busy() {
            return self.hand_off(now, false);
        }
        self.hand.put(1) && self.hand_off(now, true)
    }

    /// Begins to wait, unless a permit turns up at the last moment.
    ///
    /// `refuses` is asked under the lock, after which an opening of the circuit can't miss this
    /// waiter; it must be no more than a load.
    pub(crate) fn enqueue(
        &self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: &Waker,
        refuses: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Enqueued {
        let waker = waker.clone();
        self.grants.prepare();
        let (mut waiters, now) = self.lock_timed(now, deadline.is_some());
        let pressure = self.pressure();
        if let Some(enqueued) = self.answer_at_once(pressure, refuses) {
            drop(waiters);
            // Its panic, if it has one, must not take a permit along.
            discard(waker);
            return enqueued;
        }
        let key = waiters.push(priority, deadline, waker);
        let waiting = pressure.waiting() + 1;
        if waiting > self.high_water.load(Ordering::Relaxed) {
            self.high_water.store(waiting, Ordering::Relaxed);
        }
        self.set_pressure(pressure, pressure.with_waiting(waiting));
        if deadline.is_some() {
            self.set_timed(true);
        }
        // Behind others there is nothing to find: the hand has been busy since the first of them.
        if waiting > 1 {
            return Enqueued::Waiting(key);
        }
        let wake = self.distribute(&mut waiters, now);
        drop(waiters);
        // Possibly this waiter itself: its next poll finds the permit.
        wake.wake();
        Enqueued::Waiting(key)
    }

    /// What a newcomer need not wait for; under the lock.
    #[inline]
    fn answer_at_once(
        &self,
        pressure: Pressure,
        refuses: impl FnOnce() -> bool,
    ) -> Option<Enqueued> {
        if pressure.is_closed() {
            Some(Enqueued::Refused(QueueRejection::Shutdown))
        } else if refuses() {
            Some(Enqueued::Refused(QueueRejection::Circuit))
        } else if pressure.waiting() == 0
            && pressure.debt() == 0
            && (self.hand.take() || self.draw())
        {
            Some(Enqueued::Taken)
        } else if pressure.waiting() as usize >= self.limits().places {
            Some(Enqueued::Full)
        } else {
            None
        }
    }

    /// Asks what has become of a waiter. Once this is ready the key is gone.
    pub(crate) fn poll(&self, key: Key, waker: &Waker) -> Poll<Waited> {
        // The permit was handed over, and the lock is not needed to see it.
        if self.grants.include(key) {
            return Poll::Ready(Waited::Granted);
        }
        let seen = lock(&self.waiters).poll(key, waker);
        let fate = seen.unwrap_or_else(|| {
            // Cloning and dropping wakers is the executor's code: not under the lock.
            let waker = waker.clone();
            let (fate, unused) = lock(&self.waiters).rearm(key, waker);
            discard(unused);
            fate
        });
        match fate {
            Fate::Waiting => Poll::Pending,
            Fate::Granted => Poll::Ready(Waited::Granted),
            Fate::Refused(why) => Poll::Ready(Waited::Refused(why)),
            Fate::Expired => Poll::Ready(Waited::Expired),
        }
    }

    /// Ends a wait whose deadline has passed. A permit granted just before still counts.
    pub(crate) fn expire(&self, key: Key) -> Waited {
        match self.remove(key) {
            Fate::Waiting | Fate::Expired => Waited::Expired,
            Fate::Granted => Waited::Granted,
            Fate::Refused(why) => Waited::Refused(why),
        }
    }

    /// Ends a wait that nobody is interested in any more. A permit granted just before is handed
    /// on.
    pub(crate) fn cancel(&self, key: Key, now: impl FnOnce() -> Instant) -> bool {
        self.remove(key) == Fate::Granted && self.release(now)
    }

    /// Refuses everybody who waits now; those who come later wait.
    pub(crate) fn refuse_all(&self, why: QueueRejection) {
        // Taken even if nobody seems to wait: a newcomer that has not seen the reason yet is
        // either in the queue by now, or will see it under the lock.
        let until = lock(&self.waiters).arrivals();
        loop {
            let mut wake = WakeList::default();
            let mut waiters = lock(&self.waiters);
            let all = waiters.refuse(why, until, REFUSE_BATCH, &mut wake);
            self.update(&waiters, |pressure| pressure);
            drop(waiters);
            wake.wake();
            if all {
                return;
            }
        }
    }

    /// Refuses newcomers and waiters for good. Permits that are held stay valid.
    ///
    /// Says whether this call did it.
    pub(crate) fn close(&self) -> bool {
        let mut waiters = lock(&self.waiters);
        if self.pressure().is_closed() {
            return false;
        }
        let permits = self.limits().permits;
        self.update(&waiters, |pressure| {
            pressure.closed().with_debt(pressure.debt() + permits)
        });
        let wake = self.distribute(&mut waiters, None);
        drop(waiters);
        wake.wake();
        self.refuse_all(QueueRejection::Shutdown);
        true
    }

    /// Changes the limits. Holders and waiters stay, even beyond the new limits.
    pub(crate) fn resize(
        &self,
        permits: usize,
        places: usize,
        order: QueueOrder,
        now: impl FnOnce() -> Instant,
    ) {
        let (mut waiters, now) = self.lock_timed(now, false);
        waiters.set_order(order);
        let before = self.limits().permits;
        self.limits
            .store(Limits { permits, places }.pack(), Ordering::Relaxed);
        if self.pressure().is_closed() {
            return;
        }
        // Idle permits go first, while the hand is not busy: a newcomer is not refused beside those
        // that stay.
        let surplus = before.saturating_sub(permits);
        let withdrawn = self.withdraw(surplus);
        let owed = self.pressure().debt() + surplus - withdrawn;
        let gained = permits.saturating_sub(before);
        self.update(&waiters, |pressure| {
            pressure.with_debt(owed.saturating_sub(gained))
        });
        self.semaphore.add_permits(gained.saturating_sub(owed));
        let wake = self.distribute(&mut waiters, now);
        drop(waiters);
        wake.wake();
    }

    /// Whether [`close`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.pressure().is_closed()
    }

    /// Whether it is closed and the last permit is back.
    pub(crate) fn is_drained(&self) -> bool {
        self.pressure().is_drained()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.pressure().waiting() as usize
    }

    /// The most that have waited at once since the mark was last reset.
    pub(crate) fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed) as usize
    }

    /// Sets the high-water mark to the present depth.
    pub(crate) fn reset_high_water(&self) {
        let waiters = lock(&self.waiters);
        self.high_water.store(waiters.waiting(), Ordering::Relaxed);
    }

    /// How many permits are held.
    pub(crate) fn in_use(&self) -> usize {
        let pressure = self.pressure();
        let permits = if pressure.is_closed() {
            0
        } else {
            self.limits().permits
        };
        (permits + pressure.debt())
            .saturating_sub(self.hand.idle() + self.semaphore.available_permits())
    }

    /// The limits in force.
    #[inline]
    pub(crate) fn limits(&self) -> Limits {
        Limits::unpack(self.limits.load(Ordering::Relaxed))
    }

    /// No permit is in hand, or it is busy.
    #[inline(never)]
    fn draw_or_say_why(&self) -> Take {
        let pressure = self.pressure();
        if pressure.is_closed() {
            Take::Closed
        } else if !self.hand.is_busy() && self.draw() {
            Take::Taken
        } else if pressure.waiting() as usize >= self.limits().places {
            Take::Full
        } else {
            Take::Wait
        }
    }

    /// Takes a permit that was never needed yet.
    fn draw(&self) -> bool {
        self.semaphore
            .try_acquire()
            .map(|permit| permit.forget())
            .is_some()
    }

    /// Takes up to so many idle permits out for good, and says how many there were.
    fn withdraw(&self, most: usize) -> usize {
        let mut withdrawn = self.hand.take_up_to(most);
        while withdrawn < most && self.draw() {
            withdrawn += 1;
        }
        withdrawn
    }

    /// Gives a permit to the next in line; or pays a debt with it, or leaves it in hand. Says whether
    /// the queue is drained by it.
    ///
    /// `put`: it is in hand already, from where another may have taken it by now.
    #[cold]
    #[inline(never)]
    fn hand_off(&self, now: impl FnOnce() -> Instant, put: bool) -> bool {
        let mut expired = WakeList::default();
        let (mut waiters, now) = self.lock_timed(now, false);
        let before = self.pressure();
        if put && (before == Pressure::NONE || !self.hand.take_locked()) {
            return before.is_drained();
        }
        let (pressure, granted) = if before.debt() > 0 {
            (before.with_debt(before.debt() - 1), None)
        } else {
            let granted = waiters.grant(now, &mut expired);
            let gone = u32::from(granted.is_some()) + expired.len();
            if granted.is_none() {
                self.hand.put(1);
            }
            (before.with_waiting(before.waiting() - gone), granted)
        };
        self.set_pressure(before, pressure);
        drop(waiters);
        if let Some(granted) = granted {
            wake(granted.tell(&self.grants));
        }
        expired.wake();
        pressure.is_drained()
    }

    /// Pays the debt and serves the waiters with the idle permits, as far as they go.
    fn distribute(&self, waiters: &mut Waiters, now: Option<Instant>) -> WakeList {
        let mut wake = WakeList::default();
        // Busy before it is looked at.
        self.update(waiters, |pressure| pressure);
        loop {
            let owing = self.pressure().debt() > 0;
            if !owing && waiters.waiting() == 0 {
                break;
            }
            if !self.hand.take_locked() && !self.draw() {
                break;
            }
            if owing {
                self.update(waiters, |pressure| pressure.with_debt(pressure.debt() - 1));
            } else {
                let granted = waiters.grant(now, &mut wake);
                self.update(waiters, |pressure| pressure);
                let Some(granted) = granted else {
                    self.hand.put(1);
                    break;
                };
                wake.push(granted.tell(&self.grants));
            }
        }
        wake
    }

    fn remove(&self, key: Key) -> Fate {
        let mut waiters = lock(&self.waiters);
        let (fate, waker) = waiters.remove(key);
        if fate == Fate::Waiting {
            let before = self.pressure();
            self.set_pressure(before, before.with_waiting(before.waiting() - 1));
        }
        drop(waiters);
        discard(waker);
        fate
    }

    /// Locks the waiters, with the time if one of them has a deadline.
    ///
    /// The clock is the user's code: read before the lock, and one that panics must not cost a
    /// permit. Without the time nobody's deadline is looked at.
    fn lock_timed(
        &self,
        now: impl FnOnce() -> Instant,
        deadline: bool,
    ) -> (MutexGuard<'_, Waiters>, Option<Instant>) {
        if !deadline && !self.timed.load(Ordering::Relaxed) {
            let waiters = lock(&self.waiters);
            // Somebody with a deadline may have come meanwhile.
            if !waiters.any_timed() {
                return (waiters, None);
            }
        }
        let now = contain(now);
        let waiters = lock(&self.waiters);
        if !deadline && !waiters.any_timed() {
            self.set_timed(false);
        }
        (waiters, now)
    }

    /// Leaves the cache line alone if nothing changes.
    fn set_timed(&self, timed: bool) {
        if self.timed.load(Ordering::Relaxed) != timed {
            self.timed.store(timed, Ordering::Relaxed);
        }
    }

    #[inline]
    fn pressure(&self) -> Pressure {
        Pressure::from_word(self.pressure.load(Ordering::Acquire))
    }

    /// Rewrites the word: the number of waiters as it is, the rest as `change` says.
    fn update(&self, waiters: &Waiters, change: impl FnOnce(Pressure) -> Pressure) {
        let before = self.pressure();
        self.set_pressure(before, change(before.with_waiting(waiters.waiting())));
    }

    /// Rewrites the word, which was `before`. What follows finds the hand busy, or not, accordingly.
    #[inline]
    fn set_pressure(&self, before: Pressure, pressure: Pressure) {
        self.pressure.store(pressure.word(), Ordering::Release);
        let busy = pressure != Pressure::NONE;
        if busy != (before != Pressure::NONE) {
            self.hand.set_busy(busy);
        }
    }
}

// What is said of it takes no lock, and of those who wait only their number is said.
impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { permits, places } = self.limits();
        f.debug_struct("WaitQueue")
            .field("permits", &permits)
            .field("in_use", &self.in_use())
            .field("places", &places)
            .field("waiting", &self.waiting())
            .field("closed", &self.is_closed())
            .finish()
    }
}
