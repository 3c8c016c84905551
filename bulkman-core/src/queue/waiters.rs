//! Who waits, and what becomes of them: without a lock and without a clock.
//!
//! Each priority has its own row of places, in the order of arrival (`chunks.rs`). A waiter that is
//! granted its permit is out at once: that nobody with its number waits any more is how it learns
//! of the permit; or, without the lock, from [`Grants`]. One that was refused, or whose time was
//! over, keeps its place until it has been told.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Index, State};
use super::grants::Grants;
use super::order::{Priority, QueueOrder};
use crate::wake::wake;

/// Why waiting calls are refused all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
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
    Refused(Refusal),
    /// Passed over: its deadline had passed when its turn came.
    Expired,
}

impl From<State> for Fate {
    #[inline]
    fn from(state: State) -> Self {
        match state {
            State::Out => Self::Granted,
            State::Waiting | State::WaitingUntil(_) => Self::Waiting,
            State::CircuitOpened => Self::Refused(Refusal::Circuit),
            State::ShutDown => Self::Refused(Refusal::Shutdown),
            State::Expired => Self::Expired,
        }
    }
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
        Self { waiting: [0; ROWS], timed: 0, order, ends: [Ends::default(); ROWS], rows: None }
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
        grants: &Grants,
    ) -> Key {
        grants.prepare();
        let row = row_of(priority);
        let (order, waiting, number) = (self.order, self.waiting[row], self.ends[row].next);
        let Row { chunks, newest } = &mut self.rows.get_or_insert_default()[row];
        chunks.newest(number).fill(waker, deadline.map_or(State::Waiting, State::WaitingUntil));
        if order == QueueOrder::Lifo {
            *newest = number + 1;
        }
        self.waiting[row] = waiting + 1;
        if deadline.is_some() {
            self.timed += 1;
        }
        self.ends[row].next = number + 1;
        Key::new(row, number)
    }

    /// Gives a permit to the next in line, passing over those whose deadline has passed.
    ///
    /// Returns the waker of who took it, to be woken outside the lock, and appends those of who
    /// was passed over.
    #[inline]
    pub(super) fn grant(
        &mut self,
        now: Option<Instant>,
        grants: &Grants,
        expired: &mut WakeList,
    ) -> Option<Waker> {
        while let Some(row) = BY_URGENCY.into_iter().find(|&row| self.waiting[row] > 0) {
            let (order, waiting, mut oldest) = (self.order, self.waiting[row], self.ends[row].oldest);
            let Row { chunks, newest } = &mut self.rows.as_mut()?[row];
            let (at, number) = match order {
                QueueOrder::Fifo => (chunks.oldest_waiting(&mut oldest), oldest),
                QueueOrder::Lifo => {
                    let at = chunks.newest_waiting(newest);
                    *newest -= 1;
                    (at, *newest)
                }
            };
            let place = chunks.place(at, number);
            let waker = place.waker().take();
            let state = place.state;
            let late = matches!((state, now), (State::WaitingUntil(until), Some(now)) if until <= now);
            place.state = if late { State::Expired } else { State::Out };
            if late {
                chunks.keep(at);
            }
            match order {
                QueueOrder::Fifo => chunks.pass(at, &mut oldest),
                QueueOrder::Lifo if late => {}
                QueueOrder::Lifo => chunks.count_out(at),
            }
            self.waiting[row] = waiting - 1;
            if state.is_timed() {
                self.timed -= 1;
            }
            self.ends[row].oldest = oldest;
            if !late {
                grants.add(Key::new(row, number));
                return waker;
            }
            expired.extend(waker);
        }
        None
    }

    /// Refuses up to `limit` waiters of those that had arrived by `until`, oldest first; says
    /// whether that was all of them.
    pub(super) fn refuse(
        &mut self,
        why: Refusal,
        until: Arrivals,
        limit: usize,
        wake: &mut WakeList,
    ) -> bool {
        let Some(rows) = &mut self.rows else { return true };
        let mut left = limit;
        for (row, Row { chunks, .. }) in rows.iter_mut().enumerate() {
            while self.waiting[row] > 0 {
                let oldest = &mut self.ends[row].oldest;
                let at = chunks.oldest_waiting(oldest);
                if *oldest >= until.0[row] {
                    break;
                }
                if left == 0 {
                    return false;
                }
                left -= 1;
                let place = chunks.place(at, *oldest);
                self.timed -= u32::from(place.state.is_timed());
                self.waiting[row] -= 1;
                place.state = why.into();
                wake.extend(place.waker().take());
                chunks.keep(at);
                chunks.pass(at, oldest);
            }
        }
        true
    }

    /// Looks at a waiter. One whose fate is decided is taken out.
    ///
    /// `None` for one that waits with another waker than this: see [`rearm`](Self::rearm).
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Option<Fate> {
        let Some((chunks, at)) = self.find(key) else { return Some(Fate::Granted) };
        let place = chunks.place(at, key.number());
        match Fate::from(place.state) {
            Fate::Waiting => {
                let known = place.waker().as_ref().is_some_and(|known| known.will_wake(waker));
                known.then_some(Fate::Waiting)
            }
            _ => Some(self.remove(key).0),
        }
    }

    /// As [`poll`](Self::poll), with a waker to keep.
    ///
    /// Returns the waker that is not needed, to be dropped outside the lock.
    pub(super) fn rearm(&mut self, key: Key, waker: Waker) -> (Fate, Option<Waker>) {
        if let Some((chunks, at)) = self.find(key) {
            let place = chunks.place(at, key.number());
            if place.state.waits() {
                return (Fate::Waiting, place.waker().replace(waker));
            }
        }
        (self.remove(key).0, Some(waker))
    }

    /// Takes a waiter out, whatever its fate, and says which it was.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> (Fate, Option<Waker>) {
        let Some((chunks, at)) = self.find(key) else { return (Fate::Granted, None) };
        let place = chunks.place(at, key.number());
        let state = std::mem::replace(&mut place.state, State::Out);
        let fate = Fate::from(state);
        let waker = place.waker().take();
        match fate {
            Fate::Granted => {}
            Fate::Waiting => {
                chunks.count_out(at);
                self.waiting[key.row()] -= 1;
                self.timed -= u32::from(state.is_timed());
            }
            Fate::Refused(_) | Fate::Expired => chunks.told(at),
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
        self.rows.iter().flat_map(|rows| rows.iter()).map(|row| row.chunks.capacity()).sum()
    }

    /// Where a waiter's place is, unless all in its chunk are out.
    #[inline]
    fn find(&mut self, key: Key) -> Option<(&mut Chunks, Index)> {
        let chunks = &mut self.rows.as_mut()?[key.row()].chunks;
        let at = chunks.find(key.number())?;
        Some((chunks, at))
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

    pub(super) fn extend(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }
}
