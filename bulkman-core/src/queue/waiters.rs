//! The waiting calls: one queue per priority, without a lock and without a clock.
//!
//! A queue is a sequence of slots in the order of arrival (see [`chunks`](super::chunks)). A
//! granted waiter leaves its slot at once. It learns of its permit from [`Grants`], or under the
//! lock from the fact that its slot is empty. A waiter that was rejected or has expired keeps its
//! slot until it polls or is dropped. So does one that was granted a permit before its deadline:
//! until it collects the permit, the permit can be taken back.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Popped, Removed};
use super::claim::Claim;
use super::grants::Grants;
use super::order::{Priority, QueueOrder};
use super::overtaking::Overtaking;
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::waiting_keys::{Link, NO_KEY, WaitingKeys};
use super::wake_list::WakeList;

/// The number of priorities. The index of a priority is not its rank: most calls have the normal
/// priority, so its data comes first, beside the lock.
pub(super) const PRIORITIES: usize = 3;
const NORMAL: usize = 0;
const HIGH: usize = 1;
const LOW: usize = 2;
pub(super) const PRIORITY_ORDER: [usize; PRIORITIES] = [HIGH, NORMAL, LOW];

pub(super) const fn index_of(priority: Priority) -> usize {
    match priority {
        Priority::High => HIGH,
        Priority::Normal => NORMAL,
        Priority::Low => LOW,
    }
}

/// The waiting calls of one bulkhead.
// Fields in this order: what every wait and every grant writes comes first, beside the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Waiters {
    /// The number of waiters of each priority.
    pub(super) waiting: [u32; PRIORITIES],
    pub(super) order: QueueOrder,
    /// Zero if all waiters are ordinary, so that one test suffices for most calls:
    ///
    /// ```text
    ///  63                             62 .......... 32     31 ................. 0
    /// | see `Self::mark_unusual` | special waiters | waiters with a deadline |
    /// ```
    unusual: u64,
    pub(super) bounds: [Bounds; PRIORITIES],
    /// Waiters that have not collected their permits when their deadlines passed.
    overdue: Vec<WaiterId>,
    /// Allocated when a call waits, since most bulkheads never have a waiter.
    pub(super) queues: Option<Box<[PriorityQueue; PRIORITIES]>>,
    pub(super) special: SpecialParts,
}

/// What only special waiters need.
#[derive(Debug, Default)]
pub(super) struct SpecialParts {
    /// The settings of the queue make a difference to each waiter.
    pub(super) bounded: bool,
    /// Permits are shared between keys.
    pub(super) shares: bool,
    /// Special waiters that have yet to collect their permits under the lock.
    pub(super) uncollected: u32,
    /// The permits of the special waiter that was removed last, if they were in its slot.
    pub(super) collected: Option<u32>,
    /// The permits that heavy waiters ask for beyond one each.
    pub(super) extra_permits: u64,
    /// Allocated while waiters may overtake others.
    pub(super) overtaking: Option<Box<Overtaking>>,
    /// Allocated when permits are first shared between keys.
    pub(super) keys: Option<Box<WaitingKeys>>,
}

/// The range of sequence numbers in which waiters of one priority are searched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// No waiter has a sequence number below this one.
    pub(super) oldest: u64,
    /// The sequence number of the next waiter.
    pub(super) next: u64,
}

#[derive(Debug, Default)]
pub(super) struct PriorityQueue {
    pub(super) chunks: Chunks,
    /// No waiter without a key has this sequence number or one above it. Kept for LIFO only.
    pub(super) newest: u64,
}

/// Separates the waiters that have arrived from those that will, for [`Waiters::reject`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Watermark([u64; PRIORITIES]);

impl Waiters {
    /// One special waiter in [`unusual`](Self::unusual).
    const SPECIAL: u64 = 1 << 32;
    const UNUSUAL: u64 = 1 << 63;

    pub(super) fn new(order: QueueOrder) -> Self {
        Self {
            waiting: [0; PRIORITIES],
            order,
            unusual: 0,
            bounds: [Bounds::default(); PRIORITIES],
            overdue: Vec::new(),
            queues: None,
            special: SpecialParts::default(),
        }
    }

    /// Changes the order for present and future waiters.
    ///
    /// Returns `true` if it is another one. The levels of keys have to be computed again then.
    pub(super) fn set_order(&mut self, order: QueueOrder) -> bool {
        let changed = self.order != order;
        self.order = order;
        if let Some(queues) = &mut self.queues {
            for (index, queue) in queues.iter_mut().enumerate() {
                let keys = self.special.keys.as_ref().filter(|_| self.special.shares);
                queue.newest = keys.map_or(self.bounds[index].next, |keys| keys.begin[index]);
            }
        }
        changed
    }

    /// Returns `true` if no waiter has a deadline or is special, no settings bound waiters or share
    /// permits, and no permits wait to be collected under the lock or to be taken back.
    #[inline]
    pub(super) const fn is_ordinary(&self) -> bool {
        self.unusual == 0
    }

    /// Returns `true` if a waiter is special, or may be. Then permits may be available while calls
    /// wait.
    #[inline]
    pub(super) const fn has_special(&self) -> bool {
        self.special.bounded || self.special_waiters() > 0
    }

    const fn special_waiters(&self) -> u64 {
        (self.unusual & !Self::UNUSUAL) >> 32
    }

    pub(super) const fn count_special(&mut self, joins: bool) {
        if joins {
            self.unusual += Self::SPECIAL;
        } else {
            self.unusual -= Self::SPECIAL;
        }
    }

    /// Counts the end of a wait.
    pub(super) const fn count_untimed(&mut self, timed: bool) {
        self.unusual -= timed as u64;
    }

    /// Sets the uppermost bit of [`unusual`](Self::unusual) after a change of what it stands for.
    pub(super) fn mark_unusual(&mut self) {
        let parts = &self.special;
        let unusual = parts.bounded || parts.uncollected > 0 || self.has_overdue();
        self.unusual = self.unusual & !Self::UNUSUAL | if unusual { Self::UNUSUAL } else { 0 };
    }

    /// Appends a waiter to the queue of its priority.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it is part of every wait")]
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: Waker,
    ) -> WaiterId {
        self.push_linked(index_of(priority), deadline, waker, None)
    }

    /// As [`push`](Self::push), with the link of a special waiter.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as `push`")]
    pub(super) fn push_linked(
        &mut self,
        index: usize,
        deadline: Option<Instant>,
        waker: Waker,
        link: Option<Link>,
    ) -> WaiterId {
        let (order, waiting, sequence) = (self.order, self.waiting[index], self.bounds[index].next);
        let PriorityQueue { chunks, newest } = &mut self.queues.get_or_insert_default()[index];
        chunks.push(sequence, deadline, waker, link);
        // The order of arrival of a waiter with a key is that within its key.
        if order == QueueOrder::Lifo && link.is_none_or(|link| link.key == NO_KEY) {
            *newest = sequence + 1;
        }
        self.waiting[index] = waiting + 1;
        self.bounds[index].next = sequence + 1;
        if deadline.is_some() {
            self.unusual += 1;
        }
        WaiterId::new(index, sequence)
    }

    /// Grants a permit to the next waiter with time left at `now`, and expires those before it.
    ///
    /// Not while a waiter is [special](Self::has_special). Without `now`, no deadline is checked.
    /// Returns the granted waiter, to be published and woken. Appends the wakers of expired waiters
    /// to `expired`. Both are woken outside the lock.
    // Always inlined: it is part of passing on a permit, which holds the lock meanwhile.
    #[inline(always)]
    pub(super) fn grant(
        &mut self,
        now: Option<Instant>,
        expired: &mut WakeList,
    ) -> Option<Granted> {
        let decide = |deadline: Option<Instant>| match (deadline, now) {
            (Some(deadline), Some(now)) if deadline <= now => WaiterState::Expired,
            _ => WaiterState::Granted,
        };
        while let Some(index) = PRIORITY_ORDER
            .into_iter()
            .find(|&index| self.waiting[index] > 0)
        {
            let (waiting, Bounds { mut oldest, next }) = (self.waiting[index], self.bounds[index]);
            let PriorityQueue { chunks, newest } = &mut self.queues.as_mut()?[index];
            let popped = match self.order {
                QueueOrder::Fifo => chunks.pop_oldest(&mut oldest, next, decide),
                QueueOrder::Lifo => chunks.pop_newest(newest, decide),
            };
            let Popped {
                sequence,
                waker,
                timed,
                state,
            } = popped?;
            self.waiting[index] = waiting - 1;
            self.bounds[index].oldest = oldest;
            if timed {
                self.unusual -= 1;
            }
            if state == WaiterState::Granted {
                return Some(Granted {
                    id: WaiterId::new(index, sequence),
                    waker,
                    timed,
                });
            }
            expired.push(waker);
        }
        None
    }

    /// Rejects up to `limit` of the waiters below the watermark, the oldest of each priority first.
    ///
    /// Returns `true` if none of them is left.
    pub(super) fn reject(
        &mut self,
        reason: QueueRejection,
        watermark: Watermark,
        limit: usize,
        wake: &mut WakeList,
    ) -> bool {
        let mut remaining = limit;
        for (index, &until) in watermark.0.iter().enumerate() {
            while self.waiting[index] > 0 {
                if remaining == 0 {
                    return false;
                }
                let oldest = &mut self.bounds[index].oldest;
                let Some(queues) = &mut self.queues else {
                    return true;
                };
                let chunks = &mut queues[index].chunks;
                let popped = chunks.pop_oldest(oldest, until, |_| WaiterState::Rejected(reason));
                let Some(popped) = popped else { break };
                remaining -= 1;
                self.waiting[index] -= 1;
                self.unusual -= u64::from(popped.timed);
                if self.special_waiters() > 0 {
                    self.end_special(WaiterId::new(index, popped.sequence));
                }
                wake.push(popped.waker);
            }
        }
        true
    }

    /// Returns the state of a waiter, which is removed if it is no longer waiting.
    ///
    /// Returns `None` for one that waits with a waker other than `waker`: see
    /// [`register_waker`](Self::register_waker).
    pub(super) fn poll(&mut self, id: WaiterId, waker: &Waker) -> Option<WaiterState> {
        match self.waker(id) {
            Some(registered) => registered.will_wake(waker).then_some(WaiterState::Waiting),
            None => Some(self.remove(id).0),
        }
    }

    /// Returns the state of a waiter, like [`poll`](Self::poll), and replaces its waker.
    ///
    /// Also returns the waker that is not needed, to be dropped outside the lock.
    pub(super) fn register_waker(&mut self, id: WaiterId, waker: Waker) -> (WaiterState, Waker) {
        match self.waker(id) {
            Some(registered) => (WaiterState::Waiting, std::mem::replace(registered, waker)),
            None => (self.remove(id).0, waker),
        }
    }

    /// Returns `true` if a waiter with a deadline has a permit that it has not collected.
    pub(super) fn is_uncollected(&self, id: WaiterId) -> bool {
        self.queues
            .as_ref()
            .is_some_and(|queues| queues[id.priority()].chunks.is_uncollected(id.sequence()))
    }

    /// Takes back permits that are not collected. The caller owns those that this returns.
    pub(super) fn revoke(&mut self, id: WaiterId) -> Option<Claim> {
        let chunks = &mut self.queues.as_mut()?[id.priority()].chunks;
        if !chunks.revoke(id.sequence()) {
            return None;
        }
        match chunks.take_link(id.sequence()) {
            Some(link) => {
                self.special.uncollected -= 1;
                self.mark_unusual();
                Some(link.claim())
            }
            None => Some(Claim::ONE),
        }
    }

    /// Remembers a waiter whose permit may be taken back when another call needs it.
    pub(super) fn push_overdue(&mut self, id: WaiterId) {
        // A timer may wake its task more than once.
        if !self.overdue.contains(&id) {
            self.overdue.push(id);
            self.mark_unusual();
        }
    }

    /// Takes back the permits of a waiter that is overdue. The caller owns them.
    pub(super) fn revoke_overdue(&mut self) -> Option<Claim> {
        while let Some(id) = self.overdue.pop() {
            let revoked = self.revoke(id);
            self.mark_unusual();
            if revoked.is_some() {
                return revoked;
            }
        }
        None
    }

    /// Returns `true` if a permit may be taken back.
    pub(super) fn has_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Removes a waiter, and returns the state it had and its waker.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call of it takes a tenth of the time of a cancelled wait"
    )]
    pub(super) fn remove(&mut self, id: WaiterId) -> (WaiterState, Option<Waker>) {
        // Waiters with a deadline are removed like all others.
        if self.unusual >> 32 == 0 {
            self.remove_ordinary(id)
        } else {
            self.remove_unusual(id)
        }
    }

    #[cold]
    #[inline(never)]
    fn remove_unusual(&mut self, id: WaiterId) -> (WaiterState, Option<Waker>) {
        self.overdue.retain(|overdue| *overdue != id);
        self.special.collected = None;
        let (state, waker) = self.remove_special(id);
        self.mark_unusual();
        (state, waker)
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as `remove`")]
    pub(super) fn remove_ordinary(&mut self, id: WaiterId) -> (WaiterState, Option<Waker>) {
        let removed = self
            .queues
            .as_mut()
            .and_then(|queues| queues[id.priority()].chunks.remove(id.sequence()));
        let Some(Removed {
            state,
            waker,
            timed,
        }) = removed
        else {
            return (WaiterState::Granted, None);
        };
        if state == WaiterState::Waiting {
            self.waiting[id.priority()] -= 1;
        }
        if timed {
            self.unusual -= 1;
        }
        (state, waker)
    }

    /// Returns the number of waiters.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.iter().sum()
    }

    /// Returns `true` if a grant needs the time.
    #[inline]
    pub(super) fn has_deadlines(&self) -> bool {
        self.unusual as u32 > 0
    }

    /// Returns a watermark above all present waiters.
    pub(super) fn watermark(&self) -> Watermark {
        Watermark(self.bounds.map(|bounds| bounds.next))
    }

    /// Returns the number of slots in memory.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn allocated_slots(&self) -> usize {
        self.sum_of_chunks(Chunks::allocated_slots)
    }

    /// Returns the capacity of the tables of chunks.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn table_capacity(&self) -> usize {
        self.sum_of_chunks(Chunks::table_capacity)
    }

    /// Returns the number of table entries without a chunk.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn freed(&self) -> usize {
        self.sum_of_chunks(Chunks::freed)
    }

    #[cfg(all(test, not(bulkman_loom)))]
    fn sum_of_chunks(&self, figure: fn(&Chunks) -> usize) -> usize {
        let queues = self.queues.iter().flat_map(|queues| queues.iter());
        queues.map(|queue| figure(&queue.chunks)).sum()
    }

    /// Returns the waker of a waiter, if it still waits.
    fn waker(&mut self, id: WaiterId) -> Option<&mut Waker> {
        self.queues.as_mut()?[id.priority()]
            .chunks
            .waker(id.sequence())
    }
}

/// A waiter that was granted a permit.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) id: WaiterId,
    pub(super) waker: Waker,
    /// Whether it had a deadline, or was granted fewer permits than it asked for. It then collects
    /// them under the lock, where they can be taken back, and where their number is.
    pub(super) timed: bool,
}

impl Granted {
    /// Publishes the grant to readers without the lock, and returns the waker.
    ///
    /// The caller need not hold the lock: a waiter that does not see the grant yet takes the lock,
    /// and finds it there.
    #[inline]
    pub(super) fn publish(self, grants: &Grants) -> Waker {
        if !self.timed {
            grants.insert(self.id);
        }
        self.waker
    }
}
