//! The list of running calls: when each began, its label and its priority.
//!
//! A call takes a slot of a table when it starts, with one compare-and-swap, and clears it when it
//! ends. A snapshot reads the slots without a lock. Each thread begins its search at the slot that
//! it took last, so threads rarely meet. The table has two slots for each permit, so a search is
//! short.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::labels::{Label, Labels};
use crate::call::admitted::Admitted;
use crate::circuit_breaker::Ticket;
use crate::queue::Priority;
use crate::snapshot::RunningCall;
use crate::sync::{Mutex, lock};

/// What the admission of a call needs to know about it, and what the list shows beside its age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTags {
    pub(crate) priority: Priority,
    pub(crate) label: Label,
    /// An adaptive limit may learn from the call.
    pub(crate) is_sampled: bool,
}

impl CallTags {
    pub(crate) const DEFAULT: Self = Self {
        priority: Priority::Normal,
        label: Label::NONE,
        is_sampled: true,
    };
}

/// The list of running calls, and the names of labels. Nothing is allocated until it is used.
#[derive(Debug, Default)]
pub(crate) struct RunningCalls(OnceLock<Box<Table>>);

#[derive(Debug)]
struct Table {
    enabled: AtomicBool,
    /// The number of slots in use: a power of two.
    size: AtomicU32,
    /// The first one has 64 slots, and each other one doubles the number.
    segments: [OnceLock<Box<[Slot]>>; SEGMENTS],
    /// Calls that found no slot.
    untracked: AtomicU64,
    /// The origin of times.
    base: Instant,
    labels: Mutex<Labels>,
}

#[derive(Debug, Default)]
struct Slot {
    /// A [`Entry`], or zero if the slot is free.
    entry: AtomicU64,
    /// The id of the call's ticket, whose place the number of the slot takes; zero for none.
    ticket_id: AtomicU64,
}

impl RunningCalls {
    /// Switches the list on or off, with two slots for each permit.
    pub(crate) fn configure(&self, enabled: bool, permits: usize, now: impl FnOnce() -> Instant) {
        if enabled {
            let table = self.table(now);
            table.grow(permits);
            table.enabled.store(true, Ordering::Relaxed);
        } else if let Some(table) = self.0.get() {
            table.enabled.store(false, Ordering::Relaxed);
        }
    }

    /// Returns `true` if calls that begin are listed.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.0
            .get()
            .is_some_and(|table| table.enabled.load(Ordering::Relaxed))
    }

    /// Returns `true` if calls are or were listed, so that a gauge does not keep an old value.
    #[cfg(feature = "metrics")]
    pub(crate) fn was_enabled(&self) -> bool {
        let table = self.0.get();
        table.is_some_and(|table| table.size.load(Ordering::Relaxed) > 0)
    }

    /// Lists a call that started to run. It must be passed to [`end`](Self::end).
    pub(crate) fn begin(&self, call: Admitted, tags: CallTags, started: Instant) -> Admitted {
        let Some(table) = self.0.get() else {
            return call;
        };
        let id = call.ticket.and_then(Ticket::id);
        let id = id.map_or(0, NonZeroU64::get);
        match table.claim(table.entry(tags, started), id) {
            Some(slot) => Admitted {
                ticket: Some(Ticket::listed(call.ticket, slot)),
            },
            None => call,
        }
    }

    /// Removes a call from the list. Returns it as it was before it was listed.
    #[inline]
    pub(crate) fn end(&self, call: Admitted) -> Admitted {
        if call.is_listed() {
            self.remove(call)
        } else {
            call
        }
    }

    #[inline(never)]
    fn remove(&self, call: Admitted) -> Admitted {
        let original = self.original(call);
        if let (Some(table), Some(index)) = (self.0.get(), call.ticket.and_then(Ticket::slot)) {
            table.release(index);
        }
        original
    }

    /// Returns a call as it was before it was listed.
    pub(crate) fn original(&self, call: Admitted) -> Admitted {
        let slot = call.ticket.and_then(Ticket::slot);
        let (Some(ticket), Some(index), Some(table)) = (call.ticket, slot, self.0.get()) else {
            return call;
        };
        let id = table
            .slot(index)
            .map_or(0, |slot| slot.ticket_id.load(Ordering::Relaxed));
        Admitted {
            ticket: ticket.unlisted(NonZeroU64::new(id)),
        }
    }

    /// Replaces the ticket of a call that is listed or not. It keeps its slot.
    ///
    /// Only the id of the ticket may differ.
    #[cfg(feature = "http")]
    pub(crate) fn with_ticket(&self, call: Admitted, ticket: Ticket) -> Admitted {
        let (Some(index), Some(table)) = (call.ticket.and_then(Ticket::slot), self.0.get()) else {
            return Admitted {
                ticket: Some(ticket),
            };
        };
        if let Some(slot) = table.slot(index) {
            let id = ticket.id().map_or(0, NonZeroU64::get);
            slot.ticket_id.store(id, Ordering::Relaxed);
        }
        call
    }

    /// Returns the oldest running calls, oldest first.
    pub(crate) fn oldest(&self, now: impl FnOnce() -> Instant) -> Vec<RunningCall> {
        let Some(table) = self.0.get() else {
            return Vec::new();
        };
        let entries = table.oldest_entries();
        if entries.is_empty() {
            return Vec::new();
        }
        let age = now().saturating_duration_since(table.base);
        let labels = lock(&table.labels);
        entries
            .into_iter()
            .map(|entry| RunningCall {
                age: age.saturating_sub(entry.started()),
                label: labels.name(entry.label()),
                priority: entry.priority(),
            })
            .collect()
    }

    /// Returns the number of calls that were not listed because the table was full.
    pub(crate) fn untracked(&self) -> u64 {
        self.0
            .get()
            .map_or(0, |table| table.untracked.load(Ordering::Relaxed))
    }

    /// Returns the label of a name.
    pub(crate) fn label(&self, name: &str, now: impl FnOnce() -> Instant) -> Label {
        lock(&self.table(now).labels).label(name)
    }

    fn table(&self, now: impl FnOnce() -> Instant) -> &Table {
        self.0.get_or_init(|| Box::new(Table::new(now())))
    }
}

impl Table {
    fn new(base: Instant) -> Self {
        Self {
            enabled: AtomicBool::new(false),
            size: AtomicU32::new(0),
            segments: Default::default(),
            untracked: AtomicU64::new(0),
            base,
            labels: Mutex::new(Labels::default()),
        }
    }

    /// Adds slots. Those that a smaller limit needs no more are kept: calls may be in them.
    fn grow(&self, permits: usize) {
        let size = permits
            .saturating_mul(2)
            .clamp(FIRST_SEGMENT, MAX_SLOTS)
            .next_power_of_two();
        for (number, segment) in self.segments.iter().enumerate() {
            let begin = if number == 0 {
                0
            } else {
                FIRST_SEGMENT << (number - 1)
            };
            if begin < size {
                let slots = begin.max(FIRST_SEGMENT);
                segment.get_or_init(|| (0..slots).map(|_| Slot::default()).collect());
            }
        }
        // Release: a call that reads the size finds its segments.
        self.size.fetch_max(size as u32, Ordering::Release);
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        let index = index as usize;
        let (number, begin) = if index < FIRST_SEGMENT {
            (0, 0)
        } else {
            let number = (index / FIRST_SEGMENT).ilog2() as usize + 1;
            (number, FIRST_SEGMENT << (number - 1))
        };
        self.segments.get(number)?.get()?.get(index - begin)
    }

    fn claim(&self, entry: Entry, ticket_id: u64) -> Option<u32> {
        let mask = self.size.load(Ordering::Acquire).checked_sub(1)?;
        let first = thread_position();
        for offset in 0..=mask {
            let index = first.wrapping_add(offset) & mask;
            let slot = self.slot(index)?;
            // Acquire pairs with the release in `release`: the last call of this slot has read the
            // id of its ticket before this one stores its own.
            if slot.entry.load(Ordering::Relaxed) == 0
                && slot
                    .entry
                    .compare_exchange(0, entry.0, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                // Only this call reads it again.
                slot.ticket_id.store(ticket_id, Ordering::Relaxed);
                if offset > 0 {
                    set_thread_position(index);
                }
                return Some(index);
            }
        }
        self.untracked.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn release(&self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.entry.store(0, Ordering::Release);
        }
    }

    fn entry(&self, tags: CallTags, started: Instant) -> Entry {
        Entry::new(started.saturating_duration_since(self.base), tags)
    }

    fn oldest_entries(&self) -> Vec<Entry> {
        let mut oldest: Vec<Entry> = Vec::with_capacity(LISTED);
        let slots = self.segments.iter().filter_map(OnceLock::get).flatten();
        for slot in slots {
            let entry = Entry(slot.entry.load(Ordering::Relaxed));
            let is_older = |last: &Entry| oldest.len() < LISTED || entry.0 < last.0;
            if entry.0 == 0 || !oldest.last().is_none_or(is_older) {
                continue;
            }
            if oldest.len() == LISTED {
                oldest.pop();
            }
            // The time of the start is the upper part, so entries compare as their times do.
            let index = oldest.partition_point(|it| it.0 <= entry.0);
            oldest.insert(index, entry);
        }
        oldest
    }
}

/// The start in units of 100 µs (44 bits), the label (12 bits) and the priority (2 bits).
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

impl Entry {
    fn new(started: Duration, tags: CallTags) -> Self {
        let units = started.as_micros() / u128::from(UNIT_MICROS);
        let units = u64::try_from(units).unwrap_or(u64::MAX).min(MAX_START);
        let priority = match tags.priority {
            Priority::Low => 0,
            Priority::Normal => 1,
            Priority::High => 2,
        };
        Self(TAKEN | units << 14 | u64::from(tags.label.0) << 2 | priority)
    }

    fn started(self) -> Duration {
        Duration::from_micros((self.0 >> 14 & MAX_START) * UNIT_MICROS)
    }

    fn label(self) -> Label {
        Label((self.0 >> 2 & 0xFFF) as u16)
    }

    fn priority(self) -> Priority {
        match self.0 & 3 {
            0 => Priority::Low,
            1 => Priority::Normal,
            _ => Priority::High,
        }
    }
}

thread_local! {
    static POSITION: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Returns the slot at which this thread begins its search.
fn thread_position() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    POSITION
        .try_with(|position| {
            position.get().unwrap_or_else(|| {
                // Threads begin on different cache lines.
                let first = NEXT.fetch_add(SLOTS_PER_LINE, Ordering::Relaxed);
                position.set(Some(first));
                first
            })
        })
        .unwrap_or(0)
}

fn set_thread_position(index: u32) {
    let _ = POSITION.try_with(|position| position.set(Some(index)));
}

const FIRST_SEGMENT: usize = 64;
const SEGMENTS: usize = 11;
/// 64 slots, doubled by each of the other segments.
const MAX_SLOTS: usize = FIRST_SEGMENT << (SEGMENTS - 1);
const SLOTS_PER_LINE: u32 = 4;
/// The number of calls in a snapshot.
const LISTED: usize = 16;
const UNIT_MICROS: u64 = 100;
const MAX_START: u64 = (1 << 44) - 1;
/// Set in every entry, so that none is zero.
const TAKEN: u64 = 1 << 63;

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;
    use crate::runtime::{ClockOnly, Runtime};

    fn table(permits: usize) -> Table {
        let table = Table::new(ClockOnly.now());
        table.grow(permits);
        table
    }

    fn entry(millis: u64) -> Entry {
        Entry::new(Duration::from_millis(millis), CallTags::DEFAULT)
    }

    #[test]
    fn every_part_of_an_entry_reads_back() {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            for label in [Label::NONE, Label(1), Label(1_024), Label::OTHER] {
                for micros in [0, 100, MAX_START * UNIT_MICROS] {
                    let started = Duration::from_micros(micros);
                    let entry = Entry::new(
                        started,
                        CallTags {
                            priority,
                            label,
                            ..CallTags::DEFAULT
                        },
                    );
                    assert_ne!(entry.0, 0);
                    assert_eq!(entry.started(), started);
                    assert_eq!((entry.label(), entry.priority()), (label, priority));
                }
            }
        }
        let late = Entry::new(Duration::MAX, CallTags::DEFAULT);
        assert_eq!(
            late.started().as_micros(),
            u128::from(MAX_START * UNIT_MICROS)
        );
    }

    #[test]
    fn a_table_has_two_slots_for_each_permit_up_to_a_maximum() {
        for (permits, slots) in [
            (1, 64),
            (32, 64),
            (33, 128),
            (100, 256),
            (32_768, 65_536),
            (1_000_000, 65_536),
        ] {
            let table = table(permits);
            for taken in 0..slots {
                assert!(table.claim(entry(1), 0).is_some(), "{permits}: {taken}");
            }
            assert_eq!(table.claim(entry(1), 0), None);
            assert_eq!(table.untracked.load(Ordering::Relaxed), 1);
            let mut seen = 0;
            for index in 0..slots {
                table.release(index);
                seen += 1;
            }
            assert_eq!(seen, slots);
            assert!(table.oldest_entries().is_empty());
        }
    }

    #[test]
    fn the_16_oldest_are_returned_in_order() {
        let table = table(1_000);
        // In an order that is neither ascending nor descending.
        for number in 0..1_000_u64 {
            table.claim(entry(number * 617 % 1_000), 0).unwrap();
        }
        let millis: Vec<_> = table
            .oldest_entries()
            .into_iter()
            .map(|it| it.started().as_millis())
            .collect();
        assert_eq!(millis, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn growing_keeps_the_calls_that_are_listed() {
        let table = table(10);
        let first = table.claim(entry(5), 7).unwrap();
        table.grow(1_000);
        table.grow(10);
        assert_eq!(
            table.slot(first).unwrap().ticket_id.load(Ordering::Relaxed),
            7
        );
        for _ in 1..2_048 {
            table.claim(entry(9), 0).unwrap();
        }
        assert_eq!(
            table.oldest_entries()[0].started(),
            Duration::from_millis(5)
        );
    }
}
