//! The storage of the waiters of one priority: numbered slots in the order of arrival.
//!
//! Each waiter has a sequence number, and the slot of that number. Slots are allocated in chunks of
//! 64. A table, sorted by number, has an entry for each chunk (the picture shows 8 slots of each):
//!
//! ```text
//!            oldest                                       next
//!               v                                           v
//!   slots   - - W W R W W W        freed        W - W W W W _ _
//!           0 .......... 63   64 ........ 127   128 ....... 191
//!   table   [   entry 0   ]   [   entry 1   ]   [   entry 2   ]
//! ```
//!
//! * `W`: a waiter that waits; its waker is in the slot.
//! * `R`: *decided*: rejected or expired, granted permits before a deadline, or granted fewer than
//!   it asked for; the slot keeps the state until the waiter removes itself.
//! * `-`: *removed*: the waiter was granted a permit, or left.
//! * `_`: not used yet.
//!
//! This storage has three properties that matter here:
//!
//! * **Neighbors in the queue are neighbors in memory, and no links connect them.** Removing a
//!   waiter writes only its own slot, so waiters can leave in any order at the same cost.
//! * **Chunks never move.** A queue of a million waiters grows without copying them.
//! * **A chunk is freed once all of its waiters are removed,** wherever in the queue it is. Grants
//!   in the order of arrival are not counted one by one. They are counted when the scan for the
//!   oldest waiter leaves the chunk, so a grant of a waiter without a deadline writes only its
//!   waker.
//!
//! A scan moves a bound (`oldest`, or `newest` for LIFO) past the slots that it found empty, so it
//! does not visit them again.

use std::mem::ManuallyDrop;
use std::task::Waker;
use std::time::Instant;

use super::order::QueueOrder;
use super::waiter::WaiterState;
use super::waiting_keys::{Link, NO_KEY};
use crate::sync::unwind::drop_catching;

/// The number of slots in a chunk: one for each bit of a word.
pub(super) const CHUNK_LEN: u64 = 64;

const ALL: u32 = CHUNK_LEN as u32;

/// The chunks of one priority, oldest first. Sequence numbers are never reused.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Sorted by number. Entries of freed chunks are dropped once they are the majority.
    table: Vec<Entry>,
    /// The number of entries without a chunk.
    freed: usize,
    /// The chunk that was freed last, for reuse.
    spare: Option<Box<Chunk>>,
}

/// A waiter that [`Chunks::pop_oldest`] or [`Chunks::pop_newest`] has decided.
#[derive(Debug)]
pub(super) struct Popped {
    pub(super) sequence: u64,
    pub(super) waker: Waker,
    /// Whether it had a deadline.
    pub(super) timed: bool,
    pub(super) state: WaiterState,
}

/// A waiter that was taken out of its slot by [`Chunks::remove`].
#[derive(Debug)]
pub(super) struct Removed {
    /// Its state until then.
    pub(super) state: WaiterState,
    pub(super) waker: Option<Waker>,
    /// Whether it had a deadline.
    pub(super) timed: bool,
}

/// The next waiter, as [`Chunks::peek_oldest`] and [`Chunks::peek_newest`] find it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) sequence: u64,
    pub(super) deadline: Option<Instant>,
    /// The permits that it asks for.
    pub(super) permits: u32,
}

/// The slots of 64 waiters.
// One array per field: passing on a permit reads nothing but the waker, and the wakers of four
// waiters share a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Chunk {
    /// `Some` while the waiter waits.
    // Not dropped when overwritten: to check whether there is a waker to drop would fetch a cache
    // line that another core wrote last.
    wakers: [ManuallyDrop<Option<Waker>>; CHUNK_LEN as usize],
    /// Valid for slots that are [`decided`](Entry::decided).
    states: [WaiterState; CHUNK_LEN as usize],
    /// Valid for slots that are [`timed`](Entry::timed). Allocated for the first of them.
    deadlines: Option<Box<[Option<Instant>; CHUNK_LEN as usize]>>,
    /// Valid for slots that are [`linked`](Entry::linked). Allocated for the first of them.
    links: Option<Box<[Link; CHUNK_LEN as usize]>>,
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            wakers: [const { ManuallyDrop::new(None) }; CHUNK_LEN as usize],
            states: [WaiterState::Granted; CHUNK_LEN as usize],
            deadlines: None,
            links: None,
        })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        for waker in &mut self.wakers {
            drop_catching(waker.take());
        }
    }
}

/// An entry of the table: a chunk, and a summary of its slots.
///
/// A grant in the order of arrival, to a waiter without a deadline, changes nothing here.
#[derive(Debug)]
struct Entry {
    /// The number of the chunk: the sequence number of its first slot, divided by [`CHUNK_LEN`].
    number: u64,
    /// `None` once the chunk is freed.
    chunk: Option<Box<Chunk>>,
    /// A bit for each slot with a waiter that waits until a deadline.
    timed: u64,
    /// A bit for each slot with a waiter that was rejected, has expired or has yet to collect its
    /// permits, and is not removed yet.
    decided: u64,
    /// A bit for each slot with a waiter that is special, and waits or has yet to collect its
    /// permits.
    linked: u64,
    /// The number of removed waiters. In the chunk where [`Chunks::pop_oldest`] stands, it may
    /// leave out the granted ones.
    removed: u32,
}

impl Entry {
    /// Returns `true` if no waiter in the chunk waits. May return `false` while granted waiters are
    /// not counted yet.
    #[inline]
    const fn has_no_waiters(&self) -> bool {
        self.removed + self.decided.count_ones() == ALL
    }

    #[inline]
    fn chunk(&mut self) -> &mut Chunk {
        self.chunk.as_mut().expect("the chunk is not freed")
    }

    #[inline(never)]
    fn set_deadline(&mut self, slot: usize, deadline: Option<Instant>) {
        self.timed |= 1 << slot;
        self.chunk()
            .deadlines
            .get_or_insert_with(|| Box::new([None; CHUNK_LEN as usize]))[slot] = deadline;
    }

    #[inline(never)]
    fn deadline(&mut self, slot: usize) -> Option<Instant> {
        self.chunk()
            .deadlines
            .as_ref()
            .and_then(|deadlines| deadlines[slot])
    }

    fn set_link(&mut self, slot: usize, link: Link) {
        self.linked |= 1 << slot;
        self.chunk()
            .links
            .get_or_insert_with(|| Box::new([Link::without_key(1); CHUNK_LEN as usize]))[slot] =
            link;
    }

    /// Returns the link of a slot, if it has one.
    fn link(&self, slot: usize) -> Option<Link> {
        if self.linked & 1 << slot == 0 {
            return None;
        }
        let links = self.chunk.as_ref()?.links.as_ref()?;
        Some(links[slot])
    }

    /// Returns the waiter in a slot, if one waits there.
    fn peek(&mut self, sequence: u64) -> Option<Next> {
        let slot = slot_of(sequence);
        self.chunk().wakers[slot].as_ref()?;
        let timed = self.timed & 1 << slot != 0;
        Some(Next {
            sequence,
            deadline: if timed { self.deadline(slot) } else { None },
            permits: self.link(slot).map_or(1, |link| link.permits),
        })
    }

    /// Returns the first waiter in these slots, if one waits there.
    fn peek_any(&mut self, mut sequences: impl Iterator<Item = u64>) -> Option<Next> {
        if self.chunk.is_none() || self.has_no_waiters() {
            return None;
        }
        sequences.find_map(|sequence| self.peek(sequence))
    }

    /// Ends the wait of the waiter in a slot, if one waits there.
    // Always inlined, like `pop_oldest`.
    #[inline(always)]
    fn pop(
        &mut self,
        sequence: u64,
        decide: impl FnOnce(Option<Instant>) -> WaiterState,
    ) -> Option<Popped> {
        let slot = slot_of(sequence);
        let waker = self.chunk().wakers[slot].take()?;
        // Usually no waiter of the chunk has a deadline.
        let timed = self.timed != 0 && take_bit(&mut self.timed, slot);
        let state = decide(if timed { self.deadline(slot) } else { None });
        // A permit with a deadline can be taken back until it is collected.
        if state != WaiterState::Granted || timed {
            self.chunk().states[slot] = state;
            self.decided |= 1 << slot;
        }
        Some(Popped {
            sequence,
            waker,
            timed,
            state,
        })
    }
}

impl Chunks {
    /// A scan from the newest end that passes this many chunks drops the entries of freed chunks.
    ///
    /// At least 64 times as many waiters have to leave before a scan is that long again.
    const LONG_SCAN: usize = 64;

    /// Stores a waiter. The caller passes consecutive sequence numbers.
    #[inline]
    pub(super) fn push(
        &mut self,
        sequence: u64,
        deadline: Option<Instant>,
        waker: Waker,
        link: Option<Link>,
    ) {
        let slot = slot_of(sequence);
        if slot == 0 {
            self.push_chunk(sequence);
        }
        let entry = self
            .table
            .last_mut()
            .expect("the newest chunk is not freed while it has unused slots");
        entry.chunk().wakers[slot] = ManuallyDrop::new(Some(waker));
        if deadline.is_some() {
            entry.set_deadline(slot, deadline);
        }
        if let Some(link) = link {
            entry.set_link(slot, link);
        }
    }

    #[cold]
    fn push_chunk(&mut self, sequence: u64) {
        let chunk = Some(self.spare.take().unwrap_or_else(Chunk::new));
        self.table.push(Entry {
            number: sequence / CHUNK_LEN,
            chunk,
            timed: 0,
            decided: 0,
            linked: 0,
            removed: 0,
        });
    }

    /// Ends the wait of the oldest waiter from `from` on and before `until`.
    ///
    /// `decide` returns its new state, given its deadline. Moves `from` behind the waiter, past the
    /// slots that no waiter waits in.
    // Always inlined: it is part of passing on a permit, which holds the lock meanwhile.
    #[inline(always)]
    pub(super) fn pop_oldest(
        &mut self,
        from: &mut u64,
        until: u64,
        decide: impl Fn(Option<Instant>) -> WaiterState,
    ) -> Option<Popped> {
        while *from < until {
            let Some(index) = self.find(*from) else {
                *from = self.next_chunk(*from)?;
                continue;
            };
            // Many decided waiters may follow each other: skip them by whole chunks.
            if slot_of(*from) == 0 && self.table[index].has_no_waiters() {
                *from += CHUNK_LEN;
                continue;
            }
            let popped = self.table[index].pop(*from, &decide);
            *from += 1;
            if slot_of(*from) == 0 {
                self.count_removed(index);
            }
            if popped.is_some() {
                return popped;
            }
        }
        None
    }

    /// Ends the wait of the newest waiter before `end`, and moves `end` before it.
    ///
    /// `decide` returns its new state, given its deadline.
    pub(super) fn pop_newest(
        &mut self,
        end: &mut u64,
        decide: impl Fn(Option<Instant>) -> WaiterState,
    ) -> Option<Popped> {
        let newest = self
            .table
            .partition_point(|entry| entry.number * CHUNK_LEN < *end);
        for index in (0..newest).rev() {
            let entry = &mut self.table[index];
            let first = entry.number * CHUNK_LEN;
            *end = (*end).min(first + CHUNK_LEN);
            if entry.has_no_waiters() {
                continue;
            }
            while *end > first {
                *end -= 1;
                let Some(popped) = entry.pop(*end, &decide) else {
                    continue;
                };
                if popped.state == WaiterState::Granted && !popped.timed {
                    self.add_removed(index);
                }
                // After the next arrival, the scan starts at the end again.
                if newest - index > Self::LONG_SCAN && self.freed > 0 {
                    self.compact();
                }
                return Some(popped);
            }
        }
        None
    }

    /// Returns the link of a slot, if it has one.
    pub(super) fn link(&self, sequence: u64) -> Option<Link> {
        self.table[self.find(sequence)?].link(slot_of(sequence))
    }

    /// Removes the link of a slot, and returns it.
    pub(super) fn take_link(&mut self, sequence: u64) -> Option<Link> {
        let (index, slot) = (self.find(sequence)?, slot_of(sequence));
        let entry = &mut self.table[index];
        let link = entry.link(slot);
        take_bit(&mut entry.linked, slot);
        link
    }

    /// Returns the link of a waiter, to be changed.
    pub(super) fn link_mut(&mut self, sequence: u64) -> Option<&mut Link> {
        let index = self.find(sequence)?;
        let links = self.table[index].chunk().links.as_mut()?;
        Some(&mut links[slot_of(sequence)])
    }

    /// Returns `true` if the waiter in this slot has a key.
    pub(super) fn is_in_key(&self, sequence: u64) -> bool {
        self.link(sequence).is_some_and(|link| link.key != NO_KEY)
    }

    /// Searches all slots for the oldest waiter that has no key.
    #[cold]
    pub(super) fn oldest_in_no_key(&mut self) -> Option<Next> {
        let chunks = self.table.iter_mut().filter(|it| it.chunk.is_some());
        chunks.into_iter().find_map(|entry| {
            (0..ALL as usize).find_map(|slot| {
                let in_key = entry.link(slot).is_some_and(|it| it.key != NO_KEY);
                let sequence = entry.number * CHUNK_LEN + slot as u64;
                entry.peek(sequence).filter(|_| !in_key)
            })
        })
    }

    /// Returns the waiter in this slot, if one waits there.
    pub(super) fn peek(&mut self, sequence: u64) -> Option<Next> {
        let index = self.find(sequence)?;
        self.table[index].peek(sequence)
    }

    /// Returns the oldest waiter from `from` on and before `until`, and moves `from` to it.
    pub(super) fn peek_oldest(&mut self, from: &mut u64, until: u64) -> Option<Next> {
        while *from < until {
            let Some(index) = self.find(*from) else {
                *from = self.next_chunk(*from)?;
                continue;
            };
            if slot_of(*from) == 0 && self.table[index].has_no_waiters() {
                *from += CHUNK_LEN;
                continue;
            }
            if let Some(next) = self.table[index].peek(*from) {
                return Some(next);
            }
            *from += 1;
            if slot_of(*from) == 0 {
                self.count_removed(index);
            }
        }
        None
    }

    /// Returns the newest waiter before `end`, and moves `end` behind it.
    pub(super) fn peek_newest(&mut self, end: &mut u64) -> Option<Next> {
        let newest = self
            .table
            .partition_point(|entry| entry.number * CHUNK_LEN < *end);
        for index in (0..newest).rev() {
            let entry = &mut self.table[index];
            let first = entry.number * CHUNK_LEN;
            *end = (*end).min(first + CHUNK_LEN);
            if entry.has_no_waiters() {
                continue;
            }
            while *end > first {
                if let Some(next) = entry.peek(*end - 1) {
                    if newest - index > Self::LONG_SCAN && self.freed > 0 {
                        self.compact();
                    }
                    return Some(next);
                }
                *end -= 1;
            }
        }
        None
    }

    /// Returns the next waiter in a direction, from the slot behind `sequence` on.
    pub(super) fn peek_behind(&mut self, sequence: u64, order: QueueOrder) -> Option<Next> {
        match order {
            QueueOrder::Fifo => {
                let from = sequence + 1;
                let first = (self.table).partition_point(|it| it.number < from / CHUNK_LEN);
                (first..self.table.len()).find_map(|index| {
                    let entry = &mut self.table[index];
                    let begin = (entry.number * CHUNK_LEN).max(from);
                    entry.peek_any(begin..(entry.number + 1) * CHUNK_LEN)
                })
            }
            QueueOrder::Lifo => {
                let until = sequence;
                let end = (self.table).partition_point(|it| it.number * CHUNK_LEN < until);
                (0..end).rev().find_map(|index| {
                    let entry = &mut self.table[index];
                    let begin = entry.number * CHUNK_LEN;
                    entry.peek_any((begin..until.min(begin + CHUNK_LEN)).rev())
                })
            }
        }
    }

    /// Ends the wait of the waiter in this slot, wherever in the queue it is.
    ///
    /// With `kept`, it has to collect its permits, which are in that link.
    pub(super) fn decide(
        &mut self,
        sequence: u64,
        state: WaiterState,
        kept: Option<Link>,
    ) -> Option<Popped> {
        let (index, slot) = (self.find(sequence)?, slot_of(sequence));
        let entry = &mut self.table[index];
        let popped = entry.pop(sequence, |_| state)?;
        if let Some(link) = kept {
            entry.chunk().states[slot] = state;
            entry.decided |= 1 << slot;
            entry.set_link(slot, link);
        } else {
            take_bit(&mut entry.linked, slot);
            if entry.decided & 1 << slot == 0 {
                self.add_removed(index);
            }
        }
        Some(popped)
    }

    /// Ends the wait of the waiter in this slot, which is granted a permit. Returns its waker and
    /// its link.
    ///
    /// Returns `None`, and does nothing, unless a waiter without a deadline waits there that is
    /// linked and asks for one permit.
    #[inline]
    pub(super) fn grant_linked(&mut self, sequence: u64) -> Option<(Waker, Link)> {
        let (index, slot) = (self.find(sequence)?, slot_of(sequence));
        let entry = &mut self.table[index];
        let link = entry.link(slot).filter(|link| link.permits == 1)?;
        if entry.timed & 1 << slot != 0 {
            return None;
        }
        let waker = entry.chunk().wakers[slot].take()?;
        entry.linked &= !(1 << slot);
        self.add_removed(index);
        Some((waker, link))
    }

    /// Removes the waiter in this slot. Returns `None` if it was granted a permit, or has left.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call of it takes a tenth of the time of a cancelled wait"
    )]
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Removed> {
        let (index, slot) = (self.find(sequence)?, slot_of(sequence));
        let entry = &mut self.table[index];
        let waker = entry.chunk().wakers[slot].take();
        let state = if waker.is_some() {
            WaiterState::Waiting
        } else if take_bit(&mut entry.decided, slot) {
            entry.chunk().states[slot]
        } else {
            return None;
        };
        let timed = take_bit(&mut entry.timed, slot);
        self.add_removed(index);
        Some(Removed {
            state,
            waker,
            timed,
        })
    }

    /// Returns `true` if the waiter in this slot has permits that it has not collected.
    ///
    /// Always `false` for a waiter without a deadline that was granted all that it asked for.
    pub(super) fn is_uncollected(&self, sequence: u64) -> bool {
        let slot = slot_of(sequence);
        self.find(sequence).is_some_and(|index| {
            let entry = &self.table[index];
            entry.decided & 1 << slot != 0
                && entry
                    .chunk
                    .as_ref()
                    .is_some_and(|chunk| chunk.states[slot] == WaiterState::Granted)
        })
    }

    /// Takes back a permit that is not collected: the waiter has expired.
    pub(super) fn revoke(&mut self, sequence: u64) -> bool {
        let revoked = self.is_uncollected(sequence);
        if revoked {
            if let Some(index) = self.find(sequence) {
                self.table[index].chunk().states[slot_of(sequence)] = WaiterState::Expired;
            }
        }
        revoked
    }

    /// Returns the waker of the waiter in this slot, if it still waits.
    #[inline]
    pub(super) fn waker(&mut self, sequence: u64) -> Option<&mut Waker> {
        let index = self.find(sequence)?;
        self.table[index].chunk().wakers[slot_of(sequence)].as_mut()
    }

    /// Returns the index of the entry for this slot, if its chunk is not freed.
    #[inline]
    fn find(&self, sequence: u64) -> Option<usize> {
        let number = sequence / CHUNK_LEN;
        // The index, unless entries before it were dropped; then the entry is further to the front.
        let guess = number.wrapping_sub(self.table.first()?.number) as usize;
        let index = match self.table.get(guess) {
            Some(entry) if entry.number == number => guess,
            _ => self.search(number)?,
        };
        self.table[index].chunk.is_some().then_some(index)
    }

    #[inline(never)]
    fn search(&self, number: u64) -> Option<usize> {
        // Usually one old waiter keeps its chunk, and none are missing behind the next one.
        let behind = self.table.last()?.number.checked_sub(number)?;
        let guess = (self.table.len() - 1).checked_sub(behind as usize);
        guess
            .filter(|&guess| self.table[guess].number == number)
            .or_else(|| {
                self.table
                    .binary_search_by_key(&number, |entry| entry.number)
                    .ok()
            })
    }

    /// Returns the first sequence number of the next chunk after this slot's that is not freed.
    #[cold]
    fn next_chunk(&self, sequence: u64) -> Option<u64> {
        let index = self
            .table
            .partition_point(|entry| entry.number <= sequence / CHUNK_LEN);
        let next = self.table[index..]
            .iter()
            .find(|entry| entry.chunk.is_some())?;
        Some(next.number * CHUNK_LEN)
    }

    /// Counts the removed waiters of a chunk that the scan for the oldest has left.
    ///
    /// No waiter waits in it now: all that are not decided are removed.
    #[cold]
    fn count_removed(&mut self, index: usize) {
        let entry = &mut self.table[index];
        entry.removed = ALL - entry.decided.count_ones();
        if entry.removed == ALL {
            self.free(index);
        }
    }

    /// Counts one more removed waiter.
    #[inline]
    fn add_removed(&mut self, index: usize) {
        let entry = &mut self.table[index];
        entry.removed += 1;
        if entry.removed == ALL {
            self.free(index);
        }
    }

    #[cold]
    fn free(&mut self, index: usize) {
        self.spare = self.table[index].chunk.take();
        self.freed += 1;
        if self.freed > self.table.len() / 2 {
            self.compact();
        }
    }

    /// Drops the entries of freed chunks.
    #[cold]
    fn compact(&mut self) {
        self.table.retain(|entry| entry.chunk.is_some());
        self.freed = 0;
        // The table of a queue that was long once does not keep its memory.
        if self.table.capacity() > 64 && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(self.table.len() * 2);
        }
    }

    /// Returns the number of slots in memory.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn allocated_slots(&self) -> usize {
        let chunks = self
            .table
            .iter()
            .filter_map(|entry| entry.chunk.as_ref())
            .chain(&self.spare);
        chunks.count() * CHUNK_LEN as usize
    }

    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn table_capacity(&self) -> usize {
        self.table.capacity()
    }

    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn freed(&self) -> usize {
        self.freed
    }
}

#[inline]
const fn slot_of(sequence: u64) -> usize {
    (sequence % CHUNK_LEN) as usize
}

/// Clears a bit, and returns whether it was set. A word without the bit is not written.
#[inline]
fn take_bit(word: &mut u64, slot: usize) -> bool {
    let bit = *word & 1 << slot;
    if bit != 0 {
        *word ^= bit;
    }
    bit != 0
}
