//! How many permits the running calls of each key hold.

use std::collections::HashMap;

use super::key_hash::BuildKeyHasher;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

/// The permits that each key holds, in a table of fixed size without a lock.
///
/// A key selects a bucket, which is one cache line. A slot packs the key, the permits that it
/// holds, and whether the key is suspended:
///
/// ```text
///  63 ........................ 21       20       19 ....... 0
/// | the key, without its last bit | suspended | permits held |
/// ```
///
/// The last bit of a key is that of the number of its bucket. A slot with neither permits nor the
/// suspended bit is free. So nothing is kept of keys that hold nothing. Keys that find their bucket
/// full are counted in a map behind a lock, which is read only while it has entries.
///
/// There are more buckets than permits, up to 4,096. So most keys find the first slot of their
/// bucket free or their own, and a call then reads no other slot. A key may have several slots.
/// That does no harm, since its permits are interchangeable: what it holds is the sum, and a
/// release subtracts from any of its slots.
///
/// # Suspended keys
///
/// The waiters of a suspended key depend only on what that key holds, so calls of other keys take
/// no lock for them. The slots of that key have the suspended bit, and the counter is not contended
/// for them:
///
/// * What the key holds is read slot by slot, by an operation that also sets the bit. All permits
///   that this counts are in suspended slots then.
/// * A removal from a suspended slot returns `true`, and the caller computes the level of the key
///   again. The key can hold less than was counted only after such a removal, whichever slot each
///   call subtracts from.
/// * New calls add nothing to a suspended slot, and one that finds a suspended slot of its key
///   elsewhere counts as above the maximum. So none overtakes the waiters of its key. A suspended
///   slot is not free, even without permits.
/// * A new call may add its permits before its key is suspended, and acquire them after that. So it
///   reads the slots again. If the key is suspended by then, the call releases the permits.
///
/// The holder of the queue's lock sets and clears the bit. It suspends a key before it clears the
/// contended flag, and resumes it after it has set the flag. So a removal finds one of the two
/// while calls of its key wait.
///
/// # Orderings
///
/// An addition is followed by reading the sum. Of two concurrent additions for a key, at least one
/// then reads both. So all operations are sequentially consistent.
///
/// A sum is read slot by slot, and the map last. Permits may be added to a slot that was read, and
/// others be removed from one that was not. So that the sum never lacks permits that are held all
/// the time, a removal follows the same order: it passes a slot that it found without permits of
/// the key. Then all that were added there have been removed there, by calls that thus left as many
/// permits elsewhere.
#[derive(Debug)]
pub(super) struct RunningKeys {
    buckets: Box<[Bucket]>,
    /// The number of entries in `spill`.
    spilled: AtomicU32,
    spill: Mutex<HashMap<u64, Entry, BuildKeyHasher>>,
}

/// The permits of a key in the map or in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    held: u32,
    suspended: bool,
}

#[cfg(not(bulkman_loom))]
const SLOTS: usize = 8;
/// So that models are small.
#[cfg(bulkman_loom)]
const SLOTS: usize = 2;

const HELD_BITS: u32 = 20;
const HELD: u64 = (1 << HELD_BITS) - 1;
/// The last bit of the key, which is known from the bucket.
const SUSPENDED: u64 = 1 << HELD_BITS;

#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Bucket([AtomicU64; SLOTS]);

impl RunningKeys {
    const LEAST_BUCKETS: usize = if cfg!(bulkman_loom) { 2 } else { 64 };
    const MOST_BUCKETS: usize = 4096;

    /// Creates a table for this number of permits.
    pub(super) fn new(permits: usize) -> Self {
        let buckets = (permits + 1)
            .next_power_of_two()
            .clamp(Self::LEAST_BUCKETS, Self::MOST_BUCKETS);
        Self::with_buckets(buckets)
    }

    fn with_buckets(buckets: usize) -> Self {
        Self {
            buckets: (0..buckets)
                .map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect(),
            spilled: AtomicU32::new(0),
            spill: Mutex::new(HashMap::default()),
        }
    }

    /// Adds permits to a key, and returns what it holds then.
    ///
    /// Returns an error, and adds nothing, if it would hold more than `max`, or is suspended. A key
    /// that holds nothing may exceed `max`: it was lowered below the weight of a call that waits.
    ///
    /// After an error, the caller has to check whether calls wait: one of the same key may have
    /// found these permits while they were added. The error is as the result of
    /// [`remove`](Self::remove).
    #[inline]
    pub(super) fn add(&self, key: u64, permits: u32, max: u32) -> Result<u32, bool> {
        // Otherwise each call of a suspended key would take one more slot.
        if self.is_suspended(key) {
            return Err(false);
        }
        self.insert(key, permits);
        let held = self.held_or_suspended(key);
        if held > max && held != permits {
            return Err(self.remove(key, permits));
        }
        Ok(held)
    }

    /// As [`add`](Self::add), also to a suspended key. The caller holds the lock of the queue.
    pub(super) fn add_locked(&self, key: u64, permits: u32, max: u32) -> Result<u32, bool> {
        self.insert_locked(key, permits);
        let held = self.held(key);
        if held > max && held != permits {
            return Err(self.remove(key, permits));
        }
        Ok(held)
    }

    /// Adds permits to a key, however many it holds, but not to a suspended slot.
    #[inline]
    pub(super) fn insert(&self, key: u64, permits: u32) {
        if self.bucket(key).insert_at_once(key, permits).is_none() {
            self.insert_anywhere(key, permits, false);
        }
    }

    /// Adds permits to a key, however many it holds, also to a suspended slot. The caller holds
    /// the lock of the queue.
    #[inline]
    pub(super) fn insert_locked(&self, key: u64, permits: u32) {
        if self.bucket(key).insert_at_once(key, permits).is_none() {
            self.insert_anywhere(key, permits, true);
        }
    }

    /// `suspended`: also to a suspended slot of the key.
    #[cold]
    #[inline(never)]
    fn insert_anywhere(&self, key: u64, permits: u32, suspended: bool) {
        for slot in &self.bucket(key).0 {
            let mut word = slot.load(Ordering::SeqCst);
            loop {
                let ignores_bit = suspended && is_of_key(word, key);
                let ignored = if ignores_bit { SUSPENDED } else { 0 };
                if !has_room(word & !ignored, key, permits) {
                    break;
                }
                if replace(slot, word, of_key(word, key) + u64::from(permits)) {
                    after_insertion();
                    return;
                }
                word = slot.load(Ordering::SeqCst);
            }
        }
        self.insert_spilled(key, permits);
        after_insertion();
    }

    #[cold]
    fn insert_spilled(&self, key: u64, permits: u32) {
        let mut spill = lock(&self.spill);
        spill.entry(key).or_default().held += permits;
        self.spilled.store(spill.len() as u32, Ordering::SeqCst);
    }

    /// Removes permits that were added to a key. Returns `true` if its level has to be computed
    /// again, since calls of it may wait that are suspended.
    ///
    /// After `false`, the caller has to check whether calls wait, by an operation that modifies the
    /// word of the contended flag.
    #[inline]
    pub(super) fn remove(&self, key: u64, permits: u32) -> bool {
        !self.remove_at_once(key, permits) && self.remove_behind(key, permits)
    }

    /// Removes permits from the first slot of the bucket. Returns `false`, and does nothing, if the
    /// key has fewer there, or the slot is suspended or changed by another call meanwhile.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "callers that end with it store no register"
    )]
    pub(super) fn remove_at_once(&self, key: u64, permits: u32) -> bool {
        self.bucket_of(key).is_some_and(|Bucket([first, ..])| {
            let word = first.load(Ordering::SeqCst);
            // What is left there: too much if the slot is another key's, or they are too few.
            let left = (word ^ tag(key)).wrapping_sub(u64::from(permits));
            left <= HELD - u64::from(permits) && replace(first, word, tag(key) | left)
        })
    }

    /// As [`remove`](Self::remove), if the first slot has fewer permits of the key, or is
    /// suspended, or was changed by another call.
    #[cold]
    #[inline(never)]
    fn remove_behind(&self, key: u64, permits: u32) -> bool {
        let (mut left, mut suspended) = (permits, false);
        loop {
            for slot in &self.bucket(key).0 {
                let mut word = slot.load(Ordering::SeqCst);
                while is_of_key(word, key) && word & HELD != 0 {
                    let removed = left.min((word & HELD) as u32);
                    if replace(slot, word, word - u64::from(removed)) {
                        left -= removed;
                        suspended |= word & SUSPENDED != 0;
                        break;
                    }
                    word = slot.load(Ordering::SeqCst);
                }
                if left == 0 {
                    return suspended;
                }
            }
            if self.spilled.load(Ordering::SeqCst) > 0 {
                let before = self.remove_spilled(key, left);
                left -= left.min(before.held);
                suspended |= before.suspended;
                if left == 0 {
                    return suspended;
                }
            }
        }
    }

    /// Removes up to this many permits of a key from the map, and returns its entry from before.
    #[cold]
    fn remove_spilled(&self, key: u64, most: u32) -> Entry {
        self.change_spilled(key, |entry| entry.held -= most.min(entry.held))
    }

    /// Changes the entry of a key in the map, if it has one, and returns the one from before.
    #[cold]
    fn change_spilled(&self, key: u64, change: impl FnOnce(&mut Entry)) -> Entry {
        let mut spill = lock(&self.spill);
        let Some(entry) = spill.get_mut(&key) else {
            return Entry::default();
        };
        let before = *entry;
        change(entry);
        if entry.held == 0 && !entry.suspended {
            spill.remove(&key);
            if spill.is_empty() {
                spill.shrink_to_fit();
            }
        }
        self.spilled.store(spill.len() as u32, Ordering::SeqCst);
        before
    }

    /// Returns the permits that a key holds.
    #[inline]
    pub(super) fn held(&self, key: u64) -> u32 {
        match self.bucket(key).held_at_once(key) {
            Some(held) if self.has_none_spilled() => held,
            _ => self.sum(key, HELD),
        }
    }

    /// Returns the permits that a key holds, or a number above every maximum if it is suspended.
    fn held_or_suspended(&self, key: u64) -> u32 {
        self.sum(key, HELD | SUSPENDED)
    }

    /// Returns `true` if no permits of any key are in the map.
    #[inline]
    pub(super) fn has_none_spilled(&self) -> bool {
        self.spilled.load(Ordering::SeqCst) == 0
    }

    /// Returns `true` if a key is suspended.
    pub(super) fn is_suspended(&self, key: u64) -> bool {
        self.held_or_suspended(key) > HELD as u32
    }

    /// As [`is_suspended`](Self::is_suspended), for a key of this bucket.
    // Not only the slot to which a call has added its permits: another call of the key may have
    // subtracted them there, and left as many elsewhere.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is part of the admission of a call"
    )]
    pub(super) fn is_suspended_in(&self, bucket: &Bucket, key: u64) -> bool {
        !(bucket.has_none_suspended() && self.has_none_spilled()) && self.is_suspended_cold(key)
    }

    #[cold]
    #[inline(never)]
    fn is_suspended_cold(&self, key: u64) -> bool {
        self.is_suspended(key)
    }

    /// `counted`: the bits of a slot that count, of the permits and the suspended bit.
    fn sum(&self, key: u64, counted: u64) -> u32 {
        let mut held = 0;
        for slot in &self.bucket(key).0 {
            // What a slot of the key has in these bits; more than that in others.
            let word = slot.load(Ordering::SeqCst) ^ tag(key);
            if word <= HELD | SUSPENDED {
                held += (word & counted) as u32;
            }
        }
        if self.has_none_spilled() {
            return held;
        }
        let spilled = lock(&self.spill).get(&key).copied().unwrap_or_default();
        let bit = if spilled.suspended { SUSPENDED } else { 0 };
        held + spilled.held + (bit & counted) as u32
    }

    /// Suspends a key, and returns the permits that it holds. The caller holds the lock of the
    /// queue.
    ///
    /// A key that holds nothing has no slot, and is not suspended.
    pub(super) fn suspend(&self, key: u64) -> u32 {
        self.suspend_slots(key);
        // A call may have added permits to a slot that was read, and not have found the bits of
        // those after it. It finds that of its slot later.
        self.suspend_slots(key)
    }

    fn suspend_slots(&self, key: u64) -> u32 {
        let mut held = 0;
        for slot in &self.bucket(key).0 {
            let word = change_slot(slot, key, |word| {
                if word & HELD == 0 {
                    word
                } else {
                    word | SUSPENDED
                }
            });
            held += (word & HELD) as u32;
        }
        if self.spilled.load(Ordering::SeqCst) > 0 {
            held += self
                .change_spilled(key, |entry| entry.suspended = true)
                .held;
        }
        held
    }

    /// Resumes a key. The caller holds the lock of the queue.
    pub(super) fn resume(&self, key: u64) {
        for slot in &self.bucket(key).0 {
            change_slot(slot, key, |word| word & !SUSPENDED);
        }
        if self.spilled.load(Ordering::SeqCst) > 0 {
            self.change_spilled(key, |entry| entry.suspended = false);
        }
    }

    /// Returns all keys that hold permits, and how many. A key may be listed twice.
    pub(super) fn all(&self) -> Vec<(u64, u32)> {
        let mut keys = Vec::new();
        self.for_each(|key, entry| {
            if entry.held > 0 {
                keys.push((key, entry.held));
            }
        });
        keys
    }

    /// Returns all keys that are suspended.
    #[cfg(test)]
    pub(super) fn suspended(&self) -> std::collections::BTreeSet<u64> {
        let mut keys = std::collections::BTreeSet::new();
        self.for_each(|key, entry| {
            if entry.suspended {
                keys.insert(key);
            }
        });
        keys
    }

    /// Visits each slot that is not free, and each entry of the map.
    fn for_each(&self, mut visit: impl FnMut(u64, Entry)) {
        for (bucket, last_bit) in self.buckets.iter().zip([0, 1].into_iter().cycle()) {
            for slot in &bucket.0 {
                let word = slot.load(Ordering::Relaxed);
                let key = (word & !SUSPENDED) >> HELD_BITS | last_bit;
                let held = (word & HELD) as u32;
                let suspended = word & SUSPENDED != 0;
                if held > 0 || suspended {
                    visit(key, Entry { held, suspended });
                }
            }
        }
        if !self.has_none_spilled() {
            let spill = lock(&self.spill);
            spill.iter().for_each(|(&key, &entry)| visit(key, entry));
        }
    }

    /// Returns the bucket of a key. There always is one.
    #[inline]
    pub(super) fn bucket_of(&self, key: u64) -> Option<&Bucket> {
        self.buckets.get(self.bucket_index(key))
    }

    #[inline]
    fn bucket(&self, key: u64) -> &Bucket {
        &self.buckets[self.bucket_index(key)]
    }

    #[inline]
    fn bucket_index(&self, key: u64) -> usize {
        // The number of buckets is a power of two.
        key as usize & (self.buckets.len().wrapping_sub(1))
    }
}

impl Bucket {
    /// Adds permits in the first slot, and returns what the key holds there then. Returns `None`,
    /// and does nothing, if the slot is taken or suspended, or is changed by another call
    /// meanwhile.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "callers that end with it store no register"
    )]
    pub(super) fn insert_at_once(&self, key: u64, permits: u32) -> Option<u32> {
        let Self([first, ..]) = self;
        let word = first.load(Ordering::SeqCst);
        // It wraps around only if there is no room.
        let sum = of_key(word, key).wrapping_add(u64::from(permits));
        let inserted = has_room(word, key, permits) && replace(first, word, sum);
        after_insertion();
        inserted.then_some((sum & HELD) as u32)
    }

    /// Returns `true` if all slots but the first are free.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is part of the admission of a call"
    )]
    pub(super) fn has_one_slot(&self) -> bool {
        let Self([_, others @ ..]) = self;
        let used = others
            .iter()
            .fold(0, |bits, slot| bits | slot.load(Ordering::SeqCst));
        used & (HELD | SUSPENDED) == 0
    }

    /// Returns `true` if no slot is suspended.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is part of the admission of a call"
    )]
    fn has_none_suspended(&self) -> bool {
        let bits = self.0.iter();
        bits.fold(0, |bits, slot| bits | slot.load(Ordering::SeqCst)) & SUSPENDED == 0
    }

    /// Returns what a key holds here, if all slots but the first are free.
    #[inline]
    fn held_at_once(&self, key: u64) -> Option<u32> {
        let Self([first, ..]) = self;
        let word = first.load(Ordering::SeqCst) ^ tag(key);
        let held = if word <= HELD | SUSPENDED {
            word & HELD
        } else {
            0
        };
        self.has_one_slot().then_some(held as u32)
    }
}

/// Orders an addition before what follows it, also in models, which do not order sequentially
/// consistent operations on different words.
#[inline]
fn after_insertion() {
    #[cfg(bulkman_loom)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}

/// Returns `true` if the slot is free, or is that of the key, not suspended, and has room for the
/// sum.
#[inline]
fn has_room(word: u64, key: u64, permits: u32) -> bool {
    of_key(word, key) ^ tag(key) <= HELD - u64::from(permits)
}

/// Returns the word of a slot, with this key if it is free.
#[inline]
fn of_key(word: u64, key: u64) -> u64 {
    if word & (HELD | SUSPENDED) == 0 {
        tag(key)
    } else {
        word
    }
}

/// Returns the word of a slot of a key without permits.
#[inline]
const fn tag(key: u64) -> u64 {
    key << HELD_BITS & !SUSPENDED
}

fn is_of_key(word: u64, key: u64) -> bool {
    word & !(HELD | SUSPENDED) == tag(key)
}

/// Changes the word of a slot if it is that of a key, and returns the one from before. Otherwise
/// returns zero.
fn change_slot(slot: &AtomicU64, key: u64, change: impl Fn(u64) -> u64) -> u64 {
    loop {
        let word = slot.load(Ordering::SeqCst);
        if !is_of_key(word, key) {
            return 0;
        }
        let changed = change(word);
        if changed == word || replace(slot, word, changed) {
            return word;
        }
    }
}

#[inline]
fn replace(slot: &AtomicU64, from: u64, to: u64) -> bool {
    slot.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    const NO_MAXIMUM: u32 = u32::MAX;

    /// A key of the first of two buckets.
    const fn key(number: u64) -> u64 {
        2 * number
    }

    #[test]
    fn keys_hold_what_was_added_and_not_removed() {
        let keys = RunningKeys::new(10);
        assert_eq!(keys.add(7, 3, 5), Ok(3));
        assert_eq!(keys.add(7, 2, 5), Ok(5));
        assert_eq!(keys.add(7, 1, 5), Err(false));
        assert_eq!(keys.add(8, 6, 5), Ok(6), "it holds nothing else");
        keys.remove(7, 4);
        assert_eq!((keys.held(7), keys.held(8), keys.held(9)), (1, 6, 0));
        assert_eq!(keys.all(), [(7, 1), (8, 6)]);
        keys.remove(7, 1);
        keys.remove(8, 6);
        assert_eq!(keys.all(), []);
    }

    /// Hazard K24.
    #[test]
    fn keys_beyond_a_full_bucket_are_counted_exactly() {
        let keys = RunningKeys::with_buckets(2);
        for number in 1..=20 {
            assert_eq!(keys.add(key(number), 2, 3), Ok(2));
        }
        let last = key(20);
        assert_eq!(keys.add(last, 2, 3), Err(false));
        assert_eq!(keys.add(last, 1, 3), Ok(3));
        // Slots are free now, and the last key is in the map and in a slot.
        for number in 1..=8 {
            keys.remove(key(number), 2);
        }
        assert_eq!(keys.add(last, 1, NO_MAXIMUM), Ok(4));
        assert_eq!(
            keys.all().iter().map(|&(_, held)| held).sum::<u32>(),
            12 * 2 + 2
        );
        keys.remove(last, 3);
        assert_eq!(keys.held(last), 1);
        keys.remove(last, 1);
        for number in 9..20 {
            assert_eq!(keys.held(key(number)), 2);
            keys.remove(key(number), 2);
        }
        assert_eq!(keys.all(), []);
        assert_eq!(lock(&keys.spill).capacity(), 0);
    }

    /// Hazard K22.
    #[test]
    fn suspended_keys_report_removals_and_take_no_new_calls() {
        let keys = RunningKeys::with_buckets(2);
        // In slots, and the last two in the map.
        for number in 1..=10 {
            keys.insert(key(number), 2);
        }
        for number in [1, 8, 9] {
            let suspended = key(number);
            assert_eq!(keys.suspend(suspended), 2);
            assert_eq!(keys.suspended(), [suspended].into());
            assert_eq!(keys.held(suspended), 2);
            assert_eq!(keys.add(suspended, 1, 9), Err(false));
            assert!(keys.remove(suspended, 1));
            assert!(keys.remove(suspended, 1));
            assert_eq!(keys.held(suspended), 0);
            assert_eq!(
                keys.add(suspended, 1, 9),
                Err(false),
                "its waiters are first"
            );
            assert_eq!(keys.add_locked(suspended, 2, 9), Ok(2));
            assert_eq!(keys.suspend(suspended), 2);
            keys.resume(suspended);
            assert_eq!(keys.suspended(), [].into());
            assert_eq!(keys.add(suspended, 1, 9), Ok(3));
            assert!(!keys.remove(suspended, 1));
        }
        for number in 1..=10 {
            keys.remove(key(number), 2);
        }
        assert_eq!(keys.all(), []);
        assert_eq!(keys.spilled.load(Ordering::SeqCst), 0);
    }

    /// A suspended slot without permits is neither free nor another key's.
    #[test]
    fn other_keys_leave_suspended_slots_alone() {
        let keys = RunningKeys::with_buckets(2);
        keys.insert(key(1), 1);
        assert_eq!(keys.suspend(key(1)), 1);
        assert!(keys.remove(key(1), 1));
        keys.insert(key(2), 1);
        keys.insert_locked(key(3), 1);
        assert_eq!(keys.held(key(1)), 0);
        assert_eq!(keys.all(), [(key(2), 1), (key(3), 1)]);
        assert!(!keys.remove(key(2), 1));
        assert!(!keys.remove(key(3), 1));
        keys.resume(key(1));
        assert_eq!((keys.all(), keys.suspended()), (Vec::new(), [].into()));
    }

    /// Otherwise calls that have to wait fill the bucket, and then the map, which all calls read.
    #[test]
    fn new_calls_of_a_suspended_key_take_no_slots() {
        let keys = RunningKeys::with_buckets(2);
        keys.insert(key(1), 1);
        keys.suspend(key(1));
        for _ in 0..20 {
            assert_eq!(keys.add(key(1), 1, 9), Err(false));
        }
        keys.insert(key(2), 1);
        assert!(keys.has_none_spilled());
        assert_eq!(keys.all(), [(key(1), 1), (key(2), 1)]);
    }

    /// Each call adds its permits before it finds that they are too many.
    #[test]
    fn spilled_permits_may_exceed_what_a_slot_can_count() {
        let keys = RunningKeys::with_buckets(2);
        for number in 1..=8 {
            keys.insert(key(number), 1);
        }
        for _ in 0..3 {
            keys.insert(key(9), 400_000);
        }
        assert_eq!(keys.held(key(9)), 1_200_000);
        assert_eq!(keys.suspended(), [].into());
        for _ in 0..3 {
            assert!(!keys.remove(key(9), 400_000));
        }
        assert_eq!(keys.held(key(9)), 0);
    }

    /// Hazard K28. The permits of a call need not be in the slot to which it has added them.
    #[test]
    fn call_finds_its_key_suspended_in_any_slot() {
        let keys = RunningKeys::with_buckets(2);
        keys.insert(key(2), 1);
        keys.insert(key(1), 1);
        keys.remove(key(2), 1);
        let bucket = keys.bucket_of(key(1)).unwrap();
        assert_eq!(bucket.insert_at_once(key(1), 1), Some(1));
        // Another call of the key ends, and a call of another key takes the slot.
        assert!(!keys.remove(key(1), 1));
        assert_eq!(bucket.insert_at_once(key(2), 1), Some(1));
        assert!(!keys.is_suspended_in(bucket, key(1)));
        keys.suspend(key(1));
        assert!(keys.is_suspended_in(bucket, key(1)));
        assert!(!keys.is_suspended_in(bucket, key(2)));
    }

    /// Permits of a suspended key that were in two slots.
    #[test]
    fn every_slot_of_a_key_is_suspended() {
        let keys = RunningKeys::with_buckets(2);
        keys.insert(key(1), 1);
        keys.insert(key(2), 1);
        keys.remove(key(1), 1);
        keys.insert(key(2), 1);
        assert_eq!(keys.all(), [(key(2), 1); 2]);
        assert_eq!(keys.suspend(key(2)), 2);
        assert!(keys.remove(key(2), 1));
        assert!(keys.remove(key(2), 1));
        keys.resume(key(2));
        assert_eq!((keys.all(), keys.suspended()), (Vec::new(), [].into()));
    }

    /// Hazard K24.
    #[test]
    fn concurrent_calls_leave_nothing_behind() {
        let keys = RunningKeys::with_buckets(2);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let keys = &keys;
                threads.spawn(move || {
                    for call in 0..20_000_u64 {
                        let key = key(1 + (call * 7 + thread) % 12);
                        let permits = 1 + (call % 3) as u32;
                        if keys.add(key, permits, 5).is_ok() {
                            assert!(keys.held(key) >= permits);
                            keys.remove(key, permits);
                        }
                    }
                });
            }
        });
        assert_eq!(keys.all(), []);
        assert_eq!(keys.spilled.load(Ordering::SeqCst), 0);
    }
}
