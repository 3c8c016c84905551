//! Who waits, and what becomes of them: without a lock and without a clock.
//!
//! Each priority has its own row of places, in the order of arrival (`chunks.rs`). A waiter that is
//! granted its permit is out at once: that nobody with its number waits any more is how it learns
//! of the permit; or, without the lock, from [`Grants`]. One that was refused, or whose time was
//! over, keeps its place until it has been told.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Left, Turn};
use super::grants::Grants;
use super::order::{Priority, QueueOrder};
use crate::sync::waker_set::wake;

/// Why waiting calls are refused all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueRejection {
    /// The circuit opened.
    Circuit,
    /// The bulkhead was shut down.
    Shutdown,
}

/// What has become of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Still waiting.
    Waiting,
    /// Out, with a permit that it has not seen yet.
    Granted,
    /// Refused.
    Refused(QueueRejection),
    /// Passed over: its deadline had passed when its turn came.
    Expired,
}

/// A waiter's number among those of its priority, and the priority's row. No other waiter ever has
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// As a [`word`](Self::word): nobody's.
    pub(super) const NOBODY: u64 = u64::MAX;

    #[inline]
    const fn new(row: usize, number: u64) -> Self {
        Self(number << 2 | row as u64)
    }

    pub(super) const fn word(self) -> u64 {
        self.0
    }

    pub(super) const fn number(self) -> u64 {
        self.0 >> 2
    }

    const fn row(self) -> usize {
        (self.0 & 3) as usize
    }
}

/// The rows: most calls are of the first, which lies beside the lock.
const ROWS: usize = 3;
const NORMAL: usize = 0;
const HIGH: usize = 1;
const LOW: usize = 2;
const BY_URGENCY: [usize; ROWS] = [HIGH, NORMAL, LOW];

const fn row_of(priority: Priority) -> usize {
    match priority {
        Priority::High => HIGH,
        Priority::Normal => NORMAL,
        Priority::Low => LOW,
    }
}

/// The waiting calls of one bulkhead.
// In this order: what every wait and every grant writes comes first, beside the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Waiters {
    waiting: [u32; ROWS],
    /// Those of them who have a deadline.
    timed: u32,
    order: QueueOrder,
    ends: [Ends; ROWS],
    /// Made when somebody waits, since most bulkheads never see that.
    rows: Option<Box<[Row; ROWS]>>,
}

/// Of one row.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// Nobody before this number waits.
    oldest: u64,
    /// The number that the next waiter gets.
    next: u64,
}

/// An upper bound for [`Waiters::refuse`]: whoever has come by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals([u64; ROWS]);

#[derive(Debug, Default)]
struct Row {
    chunks: Chunks,
    /// Newest first only: nobody at or after this number waits.
    newest: u64,
}

impl Waiters {
    pub(super) fn new(order: QueueOrder) -> Self {
        Self {
            waiting: [0; ROWS],
            timed: 0,
            order,
            ends: [Ends::default(); ROWS],
            rows: None,
        }
    }

    pub(super) fn set_order(&mut self, order: QueueOrder) {
        self.order = order;
        if let Some(rows) = &mut self.rows {
            for (row, ends) in rows.iter_mut().zip(&self.ends) {
                row.newest = ends.next;
            }
        }
    }

    /// Puts a waiter at the newest end of its priority's row.
    #[inline]
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: Waker,
    ) -> Key {
        let row = row_of(priority);
        let (order, waiting, number) = (self.order, self.waiting[row], self.ends[row].next);
        let Row { chunks, newest } = &mut self.rows.get_or_insert_default()[row];
        chunks.push(number, deadline, waker);
        if order == QueueOrder::Lifo {
            *newest = number + 1;
        }
        self.waiting[row] = waiting + 1;
        self.ends[row].next = number + 1;
        if deadline.is_some() {
            self.timed += 1;
        }
        Key::new(row, number)
    }

    /// Gives a permit to the next in line, passing over those whose deadline has passed.
    ///
    /// Returns who took it, to be told and woken, and appends the wakers of who was passed over; to be
    /// woken outside the lock.
    #[inline(always)]
    pub(super) fn grant(
        &mut self,
        now: Option<Instant>,
        expired: &mut WakeList,
    ) -> Option<Granted> {
        let judge = |deadline: Option<Instant>| match (deadline, now) {
            (Some(deadline), Some(now)) if deadline <= now => Fate::Expired,
            _ => Fate::Granted,
        };
        while let Some(row) = BY_URGENCY.into_iter().find(|&row| self.waiting[row] > 0) {
            let (waiting, Ends { mut oldest, next }) = (self.waiting[row], self.ends[row]);
            let Row { chunks, newest } = &mut self.rows.as_mut()?[row];
            let turn = match self.order {
                QueueOrder::Fifo => chunks.oldest(&mut oldest, next, judge),
                QueueOrder::Lifo => chunks.newest(newest, judge),
            };
            let Turn {
                number,
                waker,
                timed,
                fate,
            } = turn?;
            self.waiting[row] = waiting - 1;
            self.ends[row].oldest = oldest;
            if timed {
                self.timed -= 1;
            }
            if fate == Fate::Granted {
                return Some(Granted {
                    key: Key::new(row, number),
                    waker,
                });
            }
            expired.push(waker);
        }
        None
    }

    /// Refuses up to `limit` waiters of those that had arrived by `until`, of each priority the oldest
    /// first; says whether that was all of them.
    pub(super) fn refuse(
        &mut self,
        why: QueueRejection,
        until: Arrivals,
        limit: usize,
        wake: &mut WakeList,
    ) -> bool {
        let Some(rows) = &mut self.rows else {
            return true;
        };
        let mut left = limit;
        for (row, Row { chunks, .. }) in rows.iter_mut().enumerate() {
            while self.waiting[row] > 0 {
                if left == 0 {
                    return false;
                }
                let turn = chunks.oldest(&mut self.ends[row].oldest, until.0[row], |_| {
                    Fate::Refused(why)
                });
                let Some(turn) = turn else { break };
                left -= 1;
                self.waiting[row] -= 1;
                self.timed -= u32::from(turn.timed);
                wake.push(turn.waker);
            }
        }
        true
    }

    /// Looks at a waiter. One whose fate is decided is taken out.
    ///
    /// `None` for one that waits with another waker than this: see [`rearm`](Self::rearm).
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Option<Fate> {
        match self.waker(key) {
            Some(known) => known.will_wake(waker).then_some(Fate::Waiting),
            None => Some(self.remove(key).0),
        }
    }

    /// As [`poll`](Self::poll), with a waker to keep.
    ///
    /// Returns the waker that is not needed, to be dropped outside the lock.
    pub(super) fn rearm(&mut self, key: Key, waker: Waker) -> (Fate, Waker) {
        match self.waker(key) {
            Some(known) => (Fate::Waiting, std::mem::replace(known, waker)),
            None => (self.remove(key).0, waker),
        }
    }

    /// Takes a waiter out, whatever its fate, and says which it was.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> (Fate, Option<Waker>) {
        let left = self
            .rows
            .as_mut()
            .and_then(|rows| rows[key.row()].chunks.leave(key.number()));
        let Some(Left { fate, waker, timed }) = left else {
            return (Fate::Granted, None);
        };
        if fate == Fate::Waiting {
            self.waiting[key.row()] -= 1;
        }
        if timed {
            self.timed -= 1;
        }
        (fate, waker)
    }

    /// How many wait.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.iter().sum()
    }

    /// Whether the clock has to be read to grant.
    #[inline]
    pub(super) fn any_timed(&self) -> bool {
        self.timed > 0
    }

    /// Who has arrived by now.
    pub(super) fn arrivals(&self) -> Arrivals {
        Arrivals(self.ends.map(|ends| ends.next))
    }

    /// How many waiters there is memory for.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.rows
            .iter()
            .flat_map(|rows| rows.iter())
            .map(|row| row.chunks.capacity())
            .sum()
    }

    /// For how many chunks there are entries.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn entries(&self) -> usize {
        self.rows
            .iter()
            .flat_map(|rows| rows.iter())
            .map(|row| row.chunks.entries())
            .sum()
    }

    /// How many of the entries are of chunks that were given up.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn given_up(&self) -> usize {
        self.rows
            .iter()
            .flat_map(|rows| rows.iter())
            .map(|row| row.chunks.given_up())
            .sum()
    }

    /// The waker of one who waits.
    fn waker(&mut self, key: Key) -> Option<&mut Waker> {
        self.rows.as_mut()?[key.row()].chunks.waker(key.number())
    }
}

/// Who was granted a permit.
#[derive(Debug)]
pub(super) struct Granted {
    key: Key,
    waker: Waker,
}

impl Granted {
    /// Lets it see without the lock that it has its permit, and returns its waker. It need not be done
    /// under the lock: who sees nothing yet finds the same under the lock.
    #[inline]
    pub(super) fn tell(self, grants: &Grants) -> Waker {
        grants.add(self.key);
        self.waker
    }
}

/// Wakers collected under a lock, to be woken after it.
#[derive(Debug, Default)]
#[must_use = "call `wake` once the lock is released"]
pub(super) struct WakeList(Vec<Waker>);

impl WakeList {
    /// Wakes all.
    #[inline]
    pub(super) fn wake(self) {
        // None, as a rule.
        if !self.0.is_empty() {
            self.0.into_iter().for_each(wake);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }

    pub(super) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }
}
