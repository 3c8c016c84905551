//! Where the waiters of one priority are kept: places numbered in the order of arrival.
//!
//! Neighbours in the queue are neighbours in memory, and nothing links them: who leaves changes its
//! own place. Places come in chunks that never move, so that a queue of a million grows without
//! copying them. A chunk is given up when all who had a place in it are out, wherever in the queue
//! it lies; one whose oldest were granted permits and whose others went away, when the queue moves on.

use std::mem::ManuallyDrop;
use std::task::Waker;
use std::time::Instant;

use super::waiters::Fate;
use crate::sync::unwind::discard;

/// The places of a chunk: as many as a word has bits.
pub(super) const PLACES: u64 = 64;

/// What is there of each waiter. Side by side, for a hand-off touches nothing but the waker, and those
/// of four waiters share a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Chunk {
    /// There while the waiter waits.
    // Not dropped when they are overwritten: to look whether there is something to drop would fetch
    // what another core wrote last.
    wakers: [ManuallyDrop<Option<Waker>>; PLACES as usize],
    /// For those who are [`kept`](Entry::kept).
    fates: [Fate; PLACES as usize],
    /// For those who are [`timed`](Entry::timed); made for the first of them.
    deadlines: Option<Box<[Option<Instant>; PLACES as usize]>>,
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            wakers: [const { ManuallyDrop::new(None) }; PLACES as usize],
            fates: [Fate::Granted; PLACES as usize],
            deadlines: None,
        })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        for waker in &mut self.wakers {
            discard(waker.take());
        }
    }
}

/// A chunk, and what is known of its places. A grant in the order of arrival, to who has no deadline,
/// changes nothing here.
#[derive(Debug)]
struct Entry {
    /// The chunk's: of its first place, divided by [`PLACES`].
    number: u64,
    /// `None` once it was given up.
    chunk: Option<Box<Chunk>>,
    /// Who waits until a deadline, a bit each.
    timed: u64,
    /// Who waits no more and has not been told why, a bit each.
    kept: u64,
    /// How many are out; of the chunk in which [`Chunks::oldest`] stands, those that it has passed need
    /// not be among them.
    out: u32,
}

const ALL: u32 = PLACES as u32;

impl Entry {
    /// Nobody in it waits; while some that were passed are not counted, it may say no.
    #[inline]
    const fn is_over(&self) -> bool {
        self.out + self.kept.count_ones() == ALL
    }

    #[inline]
    fn chunk(&mut self) -> &mut Chunk {
        self.chunk.as_mut().expect("found, and not given up since")
    }

    #[inline(never)]
    fn set_deadline(&mut self, place: usize, deadline: Option<Instant>) {
        self.timed |= 1 << place;
        self.chunk()
            .deadlines
            .get_or_insert_with(|| Box::new([None; PLACES as usize]))[place] = deadline;
    }

    #[inline(never)]
    fn deadline(&mut self, place: usize) -> Option<Instant> {
        self.chunk()
            .deadlines
            .as_ref()
            .and_then(|deadlines| deadlines[place])
    }

    /// Ends the wait of who has this place.
    #[inline(always)]
    fn call(&mut self, number: u64, judge: impl FnOnce(Option<Instant>) -> Fate) -> Option<Turn> {
        let place = place_of(number);
        let waker = self.chunk().wakers[place].take()?;
        // Nobody has a deadline, as a rule.
        let timed = self.timed != 0 && take_bit(&mut self.timed, place);
        let fate = judge(if timed { self.deadline(place) } else { None });
        if fate != Fate::Granted {
            self.chunk().fates[place] = fate;
            self.kept |= 1 << place;
        }
        Some(Turn {
            number,
            waker,
            timed,
            fate,
        })
    }
}

/// Somebody's wait is over.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) waker: Waker,
    pub(super) timed: bool,
    pub(super) fate: Fate,
}

/// Somebody has left its place.
#[derive(Debug)]
pub(super) struct Left {
    /// What it would have been told.
    pub(super) fate: Fate,
    pub(super) waker: Option<Waker>,
    pub(super) timed: bool,
}

/// The chunks of one priority, oldest first. A waiter's number never comes back.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Those that were given up are left out when they become more than the rest.
    entries: Vec<Entry>,
    given_up: usize,
    /// The last that was given up, for the next that is needed.
    spare: Option<Box<Chunk>>,
}

impl Chunks {
    /// So many chunks are passed over in a search before the entries of those that were given up are
    /// swept out: it takes 64 times as many who leave to make it as long again.
    const LONG_SEARCH: usize = 64;

    /// Gives a newcomer its place; numbers come one after the other.
    #[inline]
    pub(super) fn push(&mut self, number: u64, deadline: Option<Instant>, waker: Waker) {
        let place = place_of(number);
        if place == 0 {
            self.grow(number);
        }
        let entry = self
            .entries
            .last_mut()
            .expect("the chunk of the newest is not given up");
        entry.chunk().wakers[place] = ManuallyDrop::new(Some(waker));
        if deadline.is_some() {
            entry.set_deadline(place, deadline);
        }
    }

    #[cold]
    fn grow(&mut self, number: u64) {
        let chunk = Some(self.spare.take().unwrap_or_else(Chunk::new));
        self.entries.push(Entry {
            number: number / PLACES,
            chunk,
            timed: 0,
            kept: 0,
            out: 0,
        });
    }

    /// Ends the wait of the oldest that waits, from `from` on and before `until`; `from` is moved behind
    /// it. `judge` is told its deadline, and says what becomes of it.
    #[inline(always)]
    pub(super) fn oldest(
        &mut self,
        from: &mut u64,
        until: u64,
        judge: impl Fn(Option<Instant>) -> Fate,
    ) -> Option<Turn> {
        while *from < until {
            let Some(index) = self.find(*from) else {
                *from = self.after(*from)?;
                continue;
            };
            // Many who have not been told yet may lie one after the other.
            if place_of(*from) == 0 && self.entries[index].is_over() {
                *from += PLACES;
                continue;
            }
            let turn = self.entries[index].call(*from, &judge);
            *from += 1;
            if place_of(*from) == 0 {
                self.pass(index);
            }
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// Ends the wait of the newest that waits before `end`, which is moved before it.
    pub(super) fn newest(
        &mut self,
        end: &mut u64,
        judge: impl Fn(Option<Instant>) -> Fate,
    ) -> Option<Turn> {
        let newest = self
            .entries
            .partition_point(|entry| entry.number * PLACES < *end);
        for index in (0..newest).rev() {
            let entry = &mut self.entries[index];
            let first = entry.number * PLACES;
            *end = (*end).min(first + PLACES);
            if entry.is_over() {
                continue;
            }
            while *end > first {
                *end -= 1;
                let Some(turn) = entry.call(*end, &judge) else {
                    continue;
                };
                if turn.fate == Fate::Granted {
                    self.count_out(index);
                }
                // The next who comes makes this search begin at the end again.
                if newest - index > Self::LONG_SEARCH && self.given_up > 0 {
                    self.sweep();
                }
                return Some(turn);
            }
        }
        None
    }

    /// Takes whoever is in this place out of it; `None`: nobody is.
    #[inline]
    pub(super) fn leave(&mut self, number: u64) -> Option<Left> {
        let (index, place) = (self.find(number)?, place_of(number));
        let entry = &mut self.entries[index];
        let waker = entry.chunk().wakers[place].take();
        let fate = if waker.is_some() {
            Fate::Waiting
        } else if take_bit(&mut entry.kept, place) {
            entry.chunk().fates[place]
        } else {
            return None;
        };
        let timed = take_bit(&mut entry.timed, place);
        self.count_out(index);
        Some(Left { fate, waker, timed })
    }

    /// The waker of who waits in this place.
    #[inline]
    pub(super) fn waker(&mut self, number: u64) -> Option<&mut Waker> {
        let index = self.find(number)?;
        self.entries[index].chunk().wakers[place_of(number)].as_mut()
    }

    /// Where this number's chunk is, if it is still there.
    #[inline]
    fn find(&self, number: u64) -> Option<usize> {
        let wanted = number / PLACES;
        // Where it is unless entries before it were left out; then it is further in front.
        let most = wanted.wrapping_sub(self.entries.first()?.number) as usize;
        let index = match self.entries.get(most) {
            Some(entry) if entry.number == wanted => most,
            _ => self.search(wanted)?,
        };
        self.entries[index].chunk.is_some().then_some(index)
    }

    #[cold]
    fn search(&self, wanted: u64) -> Option<usize> {
        self.entries
            .binary_search_by_key(&wanted, |entry| entry.number)
            .ok()
    }

    /// The first number of the next chunk after this number's that is still there.
    #[cold]
    fn after(&self, number: u64) -> Option<u64> {
        let index = self
            .entries
            .partition_point(|entry| entry.number <= number / PLACES);
        let next = self.entries[index..]
            .iter()
            .find(|entry| entry.chunk.is_some())?;
        Some(next.number * PLACES)
    }

    /// Behind a whole chunk, only those who were not told yet are left in it.
    #[cold]
    fn pass(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.out = ALL - entry.kept.count_ones();
        if entry.out == ALL {
            self.give_up(index);
        }
    }

    #[inline]
    fn count_out(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.out += 1;
        if entry.out == ALL {
            self.give_up(index);
        }
    }

    #[cold]
    fn give_up(&mut self, index: usize) {
        self.spare = self.entries[index].chunk.take();
        self.given_up += 1;
        if self.given_up > self.entries.len() / 2 {
            self.sweep();
        }
    }

    /// Leaves out the entries of chunks that were given up.
    #[cold]
    fn sweep(&mut self) {
        self.entries.retain(|entry| entry.chunk.is_some());
        self.given_up = 0;
        // A queue that was long once must not hold its memory for ever.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// How many places there is memory for.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn capacity(&self) -> usize {
        let chunks = self
            .entries
            .iter()
            .filter_map(|entry| entry.chunk.as_ref())
            .chain(&self.spare);
        chunks.count() * PLACES as usize
    }

    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn entries(&self) -> usize {
        self.entries.capacity()
    }

    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn given_up(&self) -> usize {
        self.given_up
    }
}

#[inline]
const fn place_of(number: u64) -> usize {
    (number % PLACES) as usize
}

/// Clears a bit, and says whether it was set. A word that has none is left alone.
#[inline]
fn take_bit(word: &mut u64, place: usize) -> bool {
    let bit = *word & 1 << place;
    if bit != 0 {
        *word ^= bit;
    }
    bit != 0
}
