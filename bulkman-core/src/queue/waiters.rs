//! Who waits, in which order: linked lists in a slab, without a lock and without a clock.
//!
//! One list for each priority, oldest first. A waiter that is granted its permit is out at once:
//! its node is free, and that nobody with its number is there any more is how it learns of the
//! permit; or, without the lock, from the list of the last [`Grants`]. One that was refused, or whose time was
//! over, stays until it takes itself out. Nodes live in chunks that never move: a queue of a
//! million grows without copying, and taking any waiter out is O(1).

use std::sync::OnceLock;
use std::task::Waker;
use std::time::Instant;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wake::wake;

/// How urgent a call is among those that wait.
///
/// ```
/// use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly, Priority};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let urgent = bulkhead.call().priority(Priority::High);
/// assert_eq!(urgent.execute_sync(|| Ok::<_, ()>(12)), Ok(12));
/// assert_eq!(Priority::default(), Priority::Normal);
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Priority {
    /// Served when nobody else waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Served before all others.
    High,
}

/// Which of the waiting calls of one priority is served first.
///
/// ```
/// use bulkman_core::{BulkheadConfig, QueueOrder};
///
/// let config = BulkheadConfig::new("search").queue_order(QueueOrder::Lifo);
/// assert_ne!(config, BulkheadConfig::new("search"));       // first in, first out
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum QueueOrder {
    /// The one that has waited longest: the default.
    #[default]
    Fifo,
    /// The newest: under overload the calls that are served are still wanted, and those at the
    /// other end time out.
    Lifo,
}

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
    /// In its list.
    Waiting,
    /// Out, with a permit that it has not seen yet.
    Granted,
    /// Out of its list, refused.
    Refused(Refusal),
    /// Out of its list: its deadline had passed when its turn came.
    Expired,
}

/// A waiter's place in the slab, and its number, which no other waiter ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    arrival: u64,
}

/// Who was granted a permit lately, readable without the lock.
///
/// A ring: each waiter has a place by its number, which may be another's by now, and then the lock
/// has to be taken to see. So it may be small, however long the queue is.
#[derive(Debug)]
pub(super) struct Grants(OnceLock<Box<[AtomicU64]>>);

impl Grants {
    /// More than are granted and have not looked yet, as a rule.
    const PLACES: u64 = 256;

    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Whether this waiter is known to have a permit; then what was done before that happens before
    /// what is done after this.
    #[inline]
    pub(super) fn include(&self, key: Key) -> bool {
        self.place(key.arrival).is_some_and(|place| place.load(Ordering::Acquire) == key.arrival)
    }

    #[inline]
    fn add(&self, arrival: u64) {
        if let Some(place) = self.place(arrival) {
            place.store(arrival, Ordering::Release);
        }
    }

    /// Made when somebody waits, since most bulkheads never see that.
    #[inline]
    fn prepare(&self) {
        self.0.get_or_init(|| (0..Self::PLACES).map(|_| AtomicU64::new(NOBODY)).collect());
    }

    #[inline]
    fn place(&self, arrival: u64) -> Option<&AtomicU64> {
        self.0.get()?.get((arrival % Self::PLACES) as usize)
    }
}

/// As a number: the node is free.
const NOBODY: u64 = u64::MAX;

const NONE: u32 = u32::MAX;
const CHUNK: usize = 64;
const LISTS: usize = 3;

/// The waiting calls of one bulkhead.
// In this order: what every wait and every grant writes comes first, beside the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Waiters {
    waiting: u32,
    /// Head of the free nodes, linked by `newer`.
    free: u32,
    /// Nodes handed out: waiting, refused, or too late.
    used: u32,
    order: QueueOrder,
    arrivals: u64,
    lists: [List; LISTS],
    #[allow(clippy::vec_box, reason = "growing must not copy a million nodes")]
    chunks: Vec<Box<Chunk>>,
}

#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
}

impl List {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE };
}

/// Links lie apart from the rest: whoever leaves the middle of a long queue touches its neighbours'
/// links and nothing else of theirs, and those of eight waiters share a cache line.
#[derive(Debug)]
struct Chunk {
    links: [Links; CHUNK],
    nodes: [Node; CHUNK],
}

/// Of the oldest in a list nobody asks for an older one, nor of the newest for a newer one: those two are
/// left as they happen to be, and whoever is granted a permit is taken out without a touch of the next in line.
#[derive(Debug, Clone, Copy)]
struct Links {
    older: u32,
    newer: u32,
}

#[derive(Debug)]
struct Node {
    /// [`NOBODY`]'s while it is free.
    arrival: u64,
    deadline: Option<Instant>,
    waker: Option<Waker>,
    fate: Fate,
    list: u8,
}

impl Waiters {
    pub(super) fn new(order: QueueOrder) -> Self {
        Self {
            lists: [List::EMPTY; LISTS],
            chunks: Vec::new(),
            free: NONE,
            used: 0,
            waiting: 0,
            arrivals: 0,
            order,
        }
    }

    pub(super) fn set_order(&mut self, order: QueueOrder) {
        self.order = order;
    }

    /// Puts a waiter at the newest end of its priority's list.
    #[inline]
    pub(super) fn push(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: Waker,
        grants: &Grants,
    ) -> Key {
        grants.prepare();
        let index = self.allocate();
        let list = priority as usize;
        let newest = self.lists[list].newest;
        let arrival = self.arrivals;
        self.arrivals += 1;
        let node = self.node_mut(index);
        node.arrival = arrival;
        node.deadline = deadline;
        node.waker = Some(waker);
        node.fate = Fate::Waiting;
        #[allow(clippy::cast_possible_truncation, reason = "one of three lists")]
        {
            node.list = list as u8;
        }
        *self.links_mut(index) = Links { older: newest, newer: NONE };
        self.lists[list].newest = index;
        match newest {
            NONE => self.lists[list].oldest = index,
            newest => self.links_mut(newest).newer = index,
        }
        self.waiting += 1;
        Key { index, arrival }
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
        while let Some(index) = self.next_in_line() {
            let (links, node) = self.place(index);
            let late = matches!((node.deadline, now), (Some(deadline), Some(now)) if deadline <= now);
            let waker = node.waker.take();
            let (gap, list, arrival) = (*links, node.list, node.arrival);
            if !late {
                grants.add(arrival);
                self.close(index, gap, list);
                self.free(index);
                return waker;
            }
            node.fate = Fate::Expired;
            self.close(index, gap, list);
            expired.extend(waker);
        }
        None
    }

    /// Refuses up to `limit` waiters that arrived before `until`, oldest first; says whether that
    /// was all of them.
    pub(super) fn refuse(&mut self, why: Refusal, until: u64, limit: usize, wake: &mut WakeList) -> bool {
        let mut left = limit;
        for list in 0..LISTS {
            loop {
                let index = self.lists[list].oldest;
                if index == NONE || self.node(index).arrival >= until {
                    break;
                }
                if left == 0 {
                    return false;
                }
                left -= 1;
                let (links, node) = self.place(index);
                node.fate = Fate::Refused(why);
                wake.extend(node.waker.take());
                let (gap, list) = (*links, node.list);
                self.close(index, gap, list);
            }
        }
        true
    }

    /// Looks at a waiter. One whose fate is decided is taken out.
    ///
    /// `None` for one that waits with another waker than this: see [`rearm`](Self::rearm).
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Option<Fate> {
        let Some(node) = self.find(key) else { return Some(Fate::Granted) };
        let fate = node.fate;
        if fate != Fate::Waiting {
            self.free(key.index);
            return Some(fate);
        }
        let node = self.node(key.index);
        node.waker.as_ref().is_some_and(|known| known.will_wake(waker)).then_some(fate)
    }

    /// As [`poll`](Self::poll), with a waker to keep.
    ///
    /// Returns the waker that is not needed, to be dropped outside the lock.
    pub(super) fn rearm(&mut self, key: Key, waker: Waker) -> (Fate, Option<Waker>) {
        let Some(node) = self.find(key) else { return (Fate::Granted, Some(waker)) };
        let fate = node.fate;
        if fate != Fate::Waiting {
            self.free(key.index);
            return (fate, Some(waker));
        }
        (fate, self.node_mut(key.index).waker.replace(waker))
    }

    /// Takes a waiter out, whatever its fate, and says which it was.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> (Fate, Option<Waker>) {
        if self.find(key).is_none() {
            return (Fate::Granted, None);
        }
        let (links, node) = self.place(key.index);
        let (fate, waker) = (node.fate, node.waker.take());
        let (gap, list) = (*links, node.list);
        if fate == Fate::Waiting {
            self.close(key.index, gap, list);
        }
        self.free(key.index);
        (fate, waker)
    }

    /// How many are in the lists.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The number that the next waiter gets: a bound for [`refuse`](Self::refuse).
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// How many waiters there is memory for.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    fn next_in_line(&self) -> Option<u32> {
        self.lists.iter().rev().find_map(|list| {
            let index = match self.order {
                QueueOrder::Fifo => list.oldest,
                QueueOrder::Lifo => list.newest,
            };
            (index != NONE).then_some(index)
        })
    }

    /// Joins the neighbours of a waiter that leaves its list. One that leaves from an end has a neighbour
    /// on one side, which need not know.
    #[inline]
    fn close(&mut self, index: u32, gap: Links, list: u8) {
        let Links { older, newer } = gap;
        let ends = &mut self.lists[usize::from(list)];
        match (ends.oldest == index, ends.newest == index) {
            (true, true) => *ends = List::EMPTY,
            (true, false) => ends.oldest = newer,
            (false, true) => ends.newest = older,
            (false, false) => {
                self.links_mut(older).newer = newer;
                self.links_mut(newer).older = older;
            }
        }
        self.waiting -= 1;
    }

    #[inline]
    fn allocate(&mut self) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        self.free = self.links_mut(index).newer;
        self.used += 1;
        index
    }

    #[cold]
    fn grow(&mut self) {
        let first = self.chunks.len() * CHUNK;
        let index = |i: usize| u32::try_from(first + i).expect("queue sizes fit 31 bits");
        self.chunks.push(Box::new(Chunk {
            links: std::array::from_fn(|i| Links {
                older: NONE,
                newer: if i + 1 < CHUNK { index(i + 1) } else { NONE },
            }),
            nodes: std::array::from_fn(|_| Node {
                arrival: NOBODY,
                deadline: None,
                waker: None,
                fate: Fate::Expired,
                list: 0,
            }),
        }));
        self.free = index(0);
    }

    #[inline]
    fn free(&mut self, index: u32) {
        let next = std::mem::replace(&mut self.free, index);
        let (links, node) = self.place(index);
        node.arrival = NOBODY;
        links.newer = next;
        self.used -= 1;
        // A queue that was long once must not hold its memory for ever.
        if self.used == 0 && self.chunks.len() > 16 {
            self.chunks = Vec::new();
            self.free = NONE;
        }
    }

    /// The node of a waiter that was not granted its permit.
    #[inline]
    fn find(&self, key: Key) -> Option<&Node> {
        let chunk = self.chunks.get(key.index as usize / CHUNK)?;
        Some(&chunk.nodes[key.index as usize % CHUNK]).filter(|node| node.arrival == key.arrival)
    }

    #[inline]
    fn place(&mut self, index: u32) -> (&mut Links, &mut Node) {
        let (chunk, place) = (index as usize / CHUNK, index as usize % CHUNK);
        let chunk = &mut *self.chunks[chunk];
        (&mut chunk.links[place], &mut chunk.nodes[place])
    }

    fn node(&self, index: u32) -> &Node {
        &self.chunks[index as usize / CHUNK].nodes[index as usize % CHUNK]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[index as usize / CHUNK].nodes[index as usize % CHUNK]
    }

    fn links_mut(&mut self, index: u32) -> &mut Links {
        &mut self.chunks[index as usize / CHUNK].links[index as usize % CHUNK]
    }
}

/// Wakers collected under a lock, to be woken after it.
#[derive(Debug, Default)]
#[must_use = "call `wake` once the lock is released"]
pub(super) struct WakeList(Vec<Waker>);

impl WakeList {
    /// Wakes all.
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(wake);
    }

    pub(super) fn extend(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }
}
