//! The waiting calls: one queue per priority, without a lock and without a clock.
//!
//! A queue is a sequence of slots in the order of arrival (see [`chunks`](super::chunks)). A
//! granted waiter leaves its slot at once. It learns of its permit from [`Grants`], or under the
//! lock from the fact that its slot is empty. A waiter that was rejected or has expired keeps its
//! slot until it polls or is dropped.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Popped, Removed};
use super::claim::Claim;
use super::grants::Grants;
use super::order::{Priority, QueueOrder};
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::waiting_keys::WaitingKeys;
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

/// A flag beside a number of waiters, which is smaller.
const BOUNDED: u32 = 1 << 31;

/// The waiting calls of one bulkhead.
// Fields in this order: what every wait and every grant writes comes first, beside the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Waiters {
    /// The number of waiters of each priority.
    pub(super) waiting: [u32; PRIORITIES],
    /// The number of waiters with a deadline.
    pub(super) timed: u32,
    pub(super) order: QueueOrder,
    /// The number of waiters that ask for several permits or have a key. With [`BOUNDED`] if the
    /// settings make a difference to other waiters, too.
    pub(super) special: u32,
    pub(super) bounds: [Bounds; PRIORITIES],
    /// The permits that heavy waiters ask for beyond one each.
    pub(super) extra_permits: u64,
    /// Whether permits are shared between keys.
    pub(super) shares: bool,
    /// Allocated when permits are first shared between keys.
    pub(super) keys: Option<Box<WaitingKeys>>,
    /// Allocated when a call waits, since most bulkheads never have a waiter.
    pub(super) queues: Option<Box<[PriorityQueue; PRIORITIES]>>,
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
    pub(super) fn new(order: QueueOrder) -> Self {
        Self {
            waiting: [0; PRIORITIES],
            timed: 0,
            order,
            special: 0,
            bounds: [Bounds::default(); PRIORITIES],
            extra_permits: 0,
            shares: false,
            keys: None,
            queues: None,
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
                let keyed = self.keys.as_ref().filter(|_| self.shares);
                queue.newest = keyed.map_or(self.bounds[index].next, |keys| keys.begin[index]);
            }
        }
        changed
    }

    /// Appends a waiter to the queue of its priority.
    #[inline]
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        claim: Claim,
        share: u32,
        waker: Waker,
    ) -> WaiterId {
        let index = index_of(priority);
        let (order, waiting, sequence) = (self.order, self.waiting[index], self.bounds[index].next);
        let PriorityQueue { chunks, newest } = &mut self.queues.get_or_insert_default()[index];
        chunks.push(sequence, deadline, waker);
        if order == QueueOrder::Lifo && claim.key() == 0 {
            *newest = sequence + 1;
        }
        self.waiting[index] = waiting + 1;
        self.bounds[index].next = sequence + 1;
        if deadline.is_some() {
            self.timed += 1;
        }
        if !claim.is_plain() {
            self.push_special(WaiterId::new(index, sequence), claim, share);
        }
        WaiterId::new(index, sequence)
    }

    /// Grants a permit to the next waiter with time left at `now`, and expires those before it.
    ///
    /// Not if a waiter is [special](Self::has_special). Without `now`, no deadline is checked.
    /// Returns the granted waiter, to be published and woken. Appends the wakers of expired waiters
    /// to
    /// `expired`. Both are woken outside the lock.
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
                self.timed -= 1;
            }
            if state == WaiterState::Granted {
                return Some(Granted {
                    id: WaiterId::new(index, sequence),
                    waker,
                    is_published: true,
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
                self.timed -= u32::from(popped.timed);
                if self.special > 0 {
                    let link = queues[index].chunks.link(popped.sequence);
                    self.end_special(index, link);
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

    /// Removes a waiter, and returns the state it had and its waker.
    #[inline]
    pub(super) fn remove(&mut self, id: WaiterId) -> (WaiterState, Option<Waker>) {
        let removed = self
            .queues
            .as_mut()
            .and_then(|queues| queues[id.priority()].chunks.remove(id.sequence()));
        let Some(Removed {
            state,
            waker,
            timed,
            linked,
        }) = removed
        else {
            return (WaiterState::Granted, None);
        };
        if state == WaiterState::Waiting {
            self.waiting[id.priority()] -= 1;
        }
        if timed {
            self.timed -= 1;
        }
        if linked {
            self.remove_special(id.priority(), state);
        }
        (state, waker)
    }

    /// Sets whether the settings of the queue make a difference to each waiter.
    pub(super) fn set_bounded(&mut self, bounded: bool) {
        self.special = self.special & !BOUNDED | if bounded { BOUNDED } else { 0 };
    }

    /// Returns `true` if a waiter asks for several permits or has a key, or may have. Then permits
    /// may be available while calls wait.
    #[inline]
    pub(super) fn has_special(&self) -> bool {
        self.special > 0
    }

    /// Returns the permits that all waiters ask for together.
    pub(super) fn queued_permits(&self) -> u64 {
        u64::from(self.waiting()) + self.extra_permits
    }

    /// Returns the number of waiters.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.iter().sum()
    }

    /// Returns `true` if a grant needs the time.
    #[inline]
    pub(super) fn has_deadlines(&self) -> bool {
        self.timed > 0
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
    /// Whether its task may find the grant without the lock.
    pub(super) is_published: bool,
}

impl Granted {
    /// Publishes the grant to readers without the lock, and returns the waker.
    ///
    /// The caller need not hold the lock: a waiter that does not see the grant yet takes the lock,
    /// and finds it there.
    #[inline]
    pub(super) fn publish(self, grants: &Grants) -> Waker {
        if self.is_published {
            grants.insert(self.id);
        }
        self.waker
    }
}
