//! Where the waiters of one priority are kept: places numbered in the order of arrival.
//!
//! Neighbours in the queue are neighbours in memory, and nothing links them: who leaves changes its
//! own place. Places come in chunks that never move, so a queue of a million grows without
//! copying; a chunk is given up as soon as all who had a place in it are out, wherever in the queue
//! it lies.

use std::mem::ManuallyDrop;
use std::task::Waker;
use std::time::Instant;

use super::waiters::Refusal;
use crate::unwind::discard;

/// The places of a chunk.
pub(super) const PLACES: u64 = 64;

/// One waiter's place.
#[derive(Debug)]
pub(super) struct Place {
    // Not dropped when it is overwritten: to look whether there is a waker to drop would fetch what
    // another core wrote last.
    waker: ManuallyDrop<Option<Waker>>,
    pub(super) state: State,
}

impl Place {
    const OUT: Self = Self { waker: ManuallyDrop::new(None), state: State::Out };

    /// Takes the place of one who is out.
    #[inline]
    pub(super) fn fill(&mut self, waker: Waker, state: State) {
        self.waker = ManuallyDrop::new(Some(waker));
        self.state = state;
    }

    /// There while the waiter waits.
    #[inline]
    pub(super) fn waker(&mut self) -> &mut Option<Waker> {
        &mut self.waker
    }
}

/// What is known of the waiter in a place.
// Flat, so that all fit into the unused nanoseconds of the `Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Granted, or gone, or not come yet.
    Out,
    /// Waits without a deadline.
    Waiting,
    /// Waits until then.
    WaitingUntil(Instant),
    /// Refused since the circuit opened.
    CircuitOpened,
    /// Refused since the bulkhead was shut down.
    ShutDown,
    /// Passed over: its deadline had passed.
    Expired,
}

impl State {
    pub(super) const fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::WaitingUntil(_))
    }

    pub(super) const fn is_timed(self) -> bool {
        matches!(self, Self::WaitingUntil(_))
    }
}

impl From<Refusal> for State {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Circuit => Self::CircuitOpened,
            Refusal::Shutdown => Self::ShutDown,
        }
    }
}

/// Two places fill a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Chunk([Place; PLACES as usize]);

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self([const { Place::OUT }; PLACES as usize]))
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        for place in &mut self.0 {
            discard(place.waker().take());
        }
    }
}

/// A chunk, and how many of its places are done with. Kept apart from the places: a grant in the
/// order of arrival leaves these alone.
#[derive(Debug)]
struct Entry {
    /// The number of its first place, in chunks.
    number: u64,
    /// `None` once all are out.
    chunk: Option<Box<Chunk>>,
    /// How many are out; of the chunk in which [`Chunks::pass`] stands, those that it has passed
    /// need not be among them.
    out: u8,
    /// How many wait no more and have not been told why.
    kept: u8,
}

impl Entry {
    #[inline]
    fn place(&mut self, number: u64) -> &mut Place {
        let chunk = self.chunk.as_mut().expect("not given up");
        &mut chunk.0[(number % PLACES) as usize]
    }
}

const ALL: u8 = PLACES as u8;

/// The chunks of one priority, oldest first. A waiter's number never comes back.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Those that were given up are left out when they become more than the rest.
    entries: Vec<Entry>,
    given_up: usize,
    /// The last that was given up, for the next that is needed.
    spare: Option<Box<Chunk>>,
}

/// Where in [`Chunks`] a chunk is, until the next change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index(usize);

impl Chunks {
    /// The place of a newcomer; numbers are asked for one after the other.
    #[inline]
    pub(super) fn newest(&mut self, number: u64) -> &mut Place {
        if number % PLACES == 0 {
            self.grow(number);
        }
        self.entries.last_mut().expect("the chunk of the newest is not given up").place(number)
    }

    #[cold]
    fn grow(&mut self, number: u64) {
        let chunk = self.spare.take().unwrap_or_else(Chunk::new);
        self.entries.push(Entry { number: number / PLACES, chunk: Some(chunk), out: 0, kept: 0 });
    }

    /// Where this number's place is, if its chunk is still there.
    #[inline]
    pub(super) fn find(&self, number: u64) -> Option<Index> {
        let wanted = number / PLACES;
        // Unless one before it was left out.
        let most = wanted.wrapping_sub(self.entries.first()?.number) as usize;
        let index = match self.entries.get(most) {
            Some(entry) if entry.number == wanted => most,
            _ => self.search(wanted)?,
        };
        self.entries[index].chunk.is_some().then_some(Index(index))
    }

    #[cold]
    fn search(&self, wanted: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&wanted, |entry| entry.number).ok()
    }

    #[inline]
    pub(super) fn place(&mut self, at: Index, number: u64) -> &mut Place {
        self.entries[at.0].place(number)
    }

    /// The oldest who waits, at or after `from`, which is moved to it. There must be one.
    #[inline]
    pub(super) fn oldest_waiting(&mut self, from: &mut u64) -> Index {
        loop {
            match self.find(*from) {
                Some(at) if self.place(at, *from).state.waits() => return at,
                Some(at) => self.pass(at, from),
                None => *from = self.after(*from / PLACES) * PLACES,
            }
        }
    }

    /// The newest who waits, before `end`, which is moved behind it. There must be one.
    pub(super) fn newest_waiting(&mut self, end: &mut u64) -> Index {
        let mut index = self.entries.partition_point(|entry| entry.number * PLACES < *end);
        loop {
            index -= 1;
            let Entry { number, ref chunk, out, kept } = self.entries[index];
            *end = (*end).min((number + 1) * PLACES);
            if chunk.is_none() || out + kept == ALL {
                continue;
            }
            while *end > number * PLACES {
                if self.place(Index(index), *end - 1).state.waits() {
                    return Index(index);
                }
                *end -= 1;
            }
        }
    }

    /// Moves on from a place where nobody waits. Behind a whole chunk only those who were not told
    /// yet are left.
    #[inline]
    pub(super) fn pass(&mut self, at: Index, from: &mut u64) {
        *from += 1;
        if *from % PLACES == 0 {
            self.settle(at);
        }
    }

    #[cold]
    fn settle(&mut self, at: Index) {
        let entry = &mut self.entries[at.0];
        entry.out = ALL - entry.kept;
        self.give_up_if_out(at);
    }

    /// One has left its place.
    #[inline]
    pub(super) fn count_out(&mut self, at: Index) {
        self.entries[at.0].out += 1;
        self.give_up_if_out(at);
    }

    /// One waits no more, and has to be told why.
    #[inline]
    pub(super) fn keep(&mut self, at: Index) {
        self.entries[at.0].kept += 1;
    }

    /// One of those was told.
    #[inline]
    pub(super) fn told(&mut self, at: Index) {
        self.entries[at.0].kept -= 1;
        self.count_out(at);
    }

    #[inline]
    fn give_up_if_out(&mut self, at: Index) {
        if self.entries[at.0].out == ALL {
            self.give_up(at);
        }
    }

    #[cold]
    fn give_up(&mut self, at: Index) {
        self.spare = self.entries[at.0].chunk.take();
        self.given_up += 1;
        if self.given_up > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.chunk.is_some());
            self.given_up = 0;
        }
        // A queue that was long once must not hold its memory for ever.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// The first chunk after this one, or after where it was.
    fn after(&self, number: u64) -> u64 {
        let index = self.entries.partition_point(|entry| entry.number <= number);
        self.entries[index].number
    }

    /// How many places there is memory for.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn capacity(&self) -> usize {
        let chunks = self.entries.iter().filter_map(|entry| entry.chunk.as_ref()).chain(&self.spare);
        chunks.count() * PLACES as usize
    }
}
