//! The waiting calls: one queue per priority, without a lock and without a clock.
//!
//! A queue is a sequence of slots in the order of arrival (see [`chunks`](super::chunks)). A
//! granted waiter leaves its slot at once. It learns of its permit from [`Grants`], or under the
//! lock from the fact that its slot is empty. A waiter that was rejected or has expired keeps its
//! slot until it polls or is dropped.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Next, Popped, Removed};
use super::grants::Grants;
use super::order::{Priority, QueueOrder};
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::wake_list::WakeList;

/// The number of priorities. The index of a priority is not its rank: most calls have the normal
/// priority, so its data comes first, beside the lock.
const PRIORITIES: usize = 3;
const NORMAL: usize = 0;
const HIGH: usize = 1;
const LOW: usize = 2;
const PRIORITY_ORDER: [usize; PRIORITIES] = [HIGH, NORMAL, LOW];

const fn index_of(priority: Priority) -> usize {
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
    waiting: [u32; PRIORITIES],
    /// The number of waiters with a deadline.
    timed: u32,
    order: QueueOrder,
    /// The number of waiters that ask for several permits.
    heavy: u32,
    bounds: [Bounds; PRIORITIES],
    /// The permits that heavy waiters ask for beyond one each.
    extra_permits: u64,
    /// Allocated when a call waits, since most bulkheads never have a waiter.
    queues: Option<Box<[PriorityQueue; PRIORITIES]>>,
}

/// The range of sequence numbers in which waiters of one priority are searched.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    /// No waiter has a sequence number below this one.
    oldest: u64,
    /// The sequence number of the next waiter.
    next: u64,
}

#[derive(Debug, Default)]
struct PriorityQueue {
    chunks: Chunks,
    /// No waiter has this sequence number or one above it. Kept for LIFO only.
    newest: u64,
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
            heavy: 0,
            bounds: [Bounds::default(); PRIORITIES],
            extra_permits: 0,
            queues: None,
        }
    }

    /// Changes the order for present and future waiters.
    pub(super) fn set_order(&mut self, order: QueueOrder) {
        self.order = order;
        if let Some(queues) = &mut self.queues {
            for (queue, bounds) in queues.iter_mut().zip(&self.bounds) {
                queue.newest = bounds.next;
            }
        }
    }

    /// Appends a waiter to the queue of its priority.
    #[inline]
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        permits: u32,
        waker: Waker,
    ) -> WaiterId {
        let index = index_of(priority);
        let (order, waiting, sequence) = (self.order, self.waiting[index], self.bounds[index].next);
        let PriorityQueue { chunks, newest } = &mut self.queues.get_or_insert_default()[index];
        chunks.push(sequence, deadline, permits, waker);
        if order == QueueOrder::Lifo {
            *newest = sequence + 1;
        }
        self.waiting[index] = waiting + 1;
        self.bounds[index].next = sequence + 1;
        if deadline.is_some() {
            self.timed += 1;
        }
        if permits != 1 {
            self.heavy += 1;
            self.extra_permits += u64::from(permits - 1);
        }
        WaiterId::new(index, sequence)
    }

    /// Returns the next waiter with time left at `now`, and expires those before it.
    ///
    /// Without `now`, no deadline is checked. Appends the wakers of expired waiters to `expired`.
    pub(super) fn peek(&mut self, now: Option<Instant>, expired: &mut WakeList) -> Option<Head> {
        while let Some(index) = PRIORITY_ORDER
            .into_iter()
            .find(|&index| self.waiting[index] > 0)
        {
            let until = self.bounds[index].next;
            let PriorityQueue { chunks, newest } = &mut self.queues.as_mut()?[index];
            let Next {
                sequence,
                deadline,
                permits,
            } = match self.order {
                QueueOrder::Fifo => chunks.peek_oldest(&mut self.bounds[index].oldest, until),
                QueueOrder::Lifo => chunks.peek_newest(newest),
            }?;
            let id = WaiterId::new(index, sequence);
            match (deadline, now) {
                (Some(deadline), Some(now)) if deadline <= now => {
                    let Granted { waker, .. } = self.decide(id, WaiterState::Expired, None)?;
                    expired.push(waker);
                }
                _ => return Some(Head { id, permits }),
            }
        }
        None
    }

    /// Grants `permits` to the waiter that [`peek`](Self::peek) returned.
    pub(super) fn grant_head(&mut self, head: Head, permits: u32) -> Option<Granted> {
        if permits == head.permits {
            return self.decide(head.id, WaiterState::Granted, None);
        }
        let mut granted = self.decide(head.id, WaiterState::GrantedFewer, Some(permits))?;
        // Its task has to find the number of permits under the lock.
        granted.is_published = false;
        Some(granted)
    }

    /// Ends the wait of a waiter.
    fn decide(&mut self, id: WaiterId, state: WaiterState, fewer: Option<u32>) -> Option<Granted> {
        let chunks = &mut self.queues.as_mut()?[id.priority()].chunks;
        let popped = chunks.decide(id.sequence(), state, fewer)?;
        self.count_end(id.priority(), popped.timed, popped.permits);
        Some(Granted {
            id,
            waker: popped.waker,
            is_published: true,
        })
    }

    /// Counts the end of a wait.
    fn count_end(&mut self, priority: usize, timed: bool, permits: u32) {
        self.waiting[priority] -= 1;
        self.timed -= u32::from(timed);
        if permits != 1 {
            self.heavy -= 1;
            self.extra_permits -= u64::from(permits - 1);
        }
    }

    /// Grants a permit to the next waiter with time left at `now`, and expires those before it.
    ///
    /// Not for [heavy](Self::is_heavy) queues. Without `now`, no deadline is checked. Returns the
    /// granted waiter, to be published and woken. Appends the wakers of expired waiters to
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
                permits: _,
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
        let Some(queues) = &mut self.queues else {
            return true;
        };
        let mut remaining = limit;
        for (index, PriorityQueue { chunks, .. }) in queues.iter_mut().enumerate() {
            while self.waiting[index] > 0 {
                if remaining == 0 {
                    return false;
                }
                let oldest = &mut self.bounds[index].oldest;
                let popped = chunks.pop_oldest(oldest, watermark.0[index], |_| {
                    WaiterState::Rejected(reason)
                });
                let Some(popped) = popped else { break };
                remaining -= 1;
                self.waiting[index] -= 1;
                self.timed -= u32::from(popped.timed);
                if popped.permits != 1 {
                    self.heavy -= 1;
                    self.extra_permits -= u64::from(popped.permits - 1);
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
    pub(super) fn poll(&mut self, id: WaiterId, waker: &Waker) -> Option<(WaiterState, u32)> {
        match self.waker(id) {
            Some(registered) => registered
                .will_wake(waker)
                .then_some((WaiterState::Waiting, 0)),
            None => {
                let removed = self.remove(id);
                Some((removed.state, removed.permits))
            }
        }
    }

    /// Returns the state of a waiter, like [`poll`](Self::poll), and replaces its waker.
    ///
    /// Also returns the waker that is not needed, to be dropped outside the lock.
    pub(super) fn register_waker(
        &mut self,
        id: WaiterId,
        waker: Waker,
    ) -> ((WaiterState, u32), Waker) {
        match self.waker(id) {
            Some(registered) => {
                let replaced = std::mem::replace(registered, waker);
                ((WaiterState::Waiting, 0), replaced)
            }
            None => {
                let removed = self.remove(id);
                ((removed.state, removed.permits), waker)
            }
        }
    }

    /// Removes a waiter. It was granted its permits if it is not there any more.
    #[inline]
    pub(super) fn remove(&mut self, id: WaiterId) -> Removed {
        let removed = self
            .queues
            .as_mut()
            .and_then(|queues| queues[id.priority()].chunks.remove(id.sequence()));
        let Some(removed) = removed else {
            return Removed::GRANTED;
        };
        if removed.state == WaiterState::Waiting {
            self.waiting[id.priority()] -= 1;
            if removed.permits != 1 {
                self.heavy -= 1;
                self.extra_permits -= u64::from(removed.permits - 1);
            }
        }
        if removed.timed {
            self.timed -= 1;
        }
        removed
    }

    /// Returns `true` if a waiter asks for several permits. Then permits may be available while
    /// calls wait.
    #[inline]
    pub(super) fn is_heavy(&self) -> bool {
        self.heavy > 0
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

/// The waiter that is granted permits next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    id: WaiterId,
    /// The permits that it asks for.
    pub(super) permits: u32,
}

/// A waiter that was granted a permit.
#[derive(Debug)]
pub(super) struct Granted {
    id: WaiterId,
    waker: Waker,
    /// Whether its task may find the grant without the lock.
    is_published: bool,
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
