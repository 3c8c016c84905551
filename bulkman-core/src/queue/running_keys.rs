//! How many permits the running calls of each key hold.

use std::collections::HashMap;

use super::key_hash::BuildKeyHasher;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

/// The permits that each key holds, in a table of fixed size without a lock.
///
/// A key selects a bucket, which is one cache line. A slot packs the key and the permits that it
/// holds; one without permits is free. So nothing is kept of keys that hold nothing. Keys that find
/// their bucket full are counted in a map behind a lock, which is read only while it has entries.
///
/// There are more buckets than permits, up to 4,096. So most keys find the first slot of their
/// bucket free or their own, and a call then reads no other slot. A key may have several slots.
/// That does no harm, since its permits are interchangeable: what it holds is the sum, and a
/// release subtracts from any of its slots.
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
    spill: Mutex<HashMap<u64, u32, BuildKeyHasher>>,
}

#[cfg(not(bulkman_loom))]
const SLOTS: usize = 8;
/// So that models are small.
#[cfg(bulkman_loom)]
const SLOTS: usize = 2;

const HELD_BITS: u32 = 20;
const HELD: u64 = (1 << HELD_BITS) - 1;

#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU64; SLOTS]);

impl RunningKeys {
    const LEAST_BUCKETS: usize = if cfg!(bulkman_loom) { 1 } else { 64 };
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
    /// Returns `None`, and adds nothing, if it would hold more than `max`. A key that holds nothing
    /// may exceed `max`: it was lowered below the weight of a call that waits.
    ///
    /// After `None`, the caller has to check whether calls wait: one of the same key may have found
    /// these permits while they were added.
    #[inline]
    pub(super) fn add(&self, key: u64, permits: u32, max: u32) -> Option<u32> {
        self.insert(key, permits);
        let held = self.held(key);
        if held > max && held != permits {
            self.remove(key, permits);
            return None;
        }
        Some(held)
    }

    /// Adds permits to a key, however many it holds.
    #[inline]
    pub(super) fn insert(&self, key: u64, permits: u32) {
        if !self.insert_at_once(key, permits) {
            self.insert_behind(key, permits);
        }
    }

    /// Adds permits in the first slot of the bucket. Returns `false`, and does nothing, if that is
    /// taken, or is changed by another call meanwhile.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "callers that end with it store no register"
    )]
    pub(super) fn insert_at_once(&self, key: u64, permits: u32) -> bool {
        let inserted = self.first(key).is_some_and(|first| {
            let word = first.load(Ordering::SeqCst);
            try_insert(first, word, key, permits)
        });
        after_insertion();
        inserted
    }

    /// As [`insert`](Self::insert), for a key that finds the first slot of its bucket taken, or
    /// changed by another call.
    #[cold]
    #[inline(never)]
    fn insert_behind(&self, key: u64, permits: u32) {
        for slot in &self.bucket(key).0 {
            let mut word = slot.load(Ordering::SeqCst);
            while has_room(word, key, permits) {
                if try_insert(slot, word, key, permits) {
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
        *spill.entry(key).or_insert(0) += permits;
        self.spilled.store(spill.len() as u32, Ordering::SeqCst);
    }

    /// Removes permits that were added to a key.
    ///
    /// Then the caller has to check whether calls wait, by an operation that modifies the word of
    /// the contended flag.
    #[inline]
    pub(super) fn remove(&self, key: u64, permits: u32) {
        if !self.remove_at_once(key, permits) {
            self.remove_behind(key, permits);
        }
    }

    /// Removes permits from the first slot of the bucket. Returns `false`, and does nothing, if the
    /// key has fewer there, or the slot is changed by another call meanwhile.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "callers that end with it store no register"
    )]
    pub(super) fn remove_at_once(&self, key: u64, permits: u32) -> bool {
        self.first(key).is_some_and(|first| {
            let word = first.load(Ordering::SeqCst);
            // What is left there: too much if the slot is another key's, or they are too few.
            let left = (word ^ key << HELD_BITS).wrapping_sub(u64::from(permits));
            left <= HELD - u64::from(permits) && replace(first, word, key << HELD_BITS | left)
        })
    }

    /// As [`remove`](Self::remove), if the first slot has fewer permits of the key, or was changed
    /// by another call.
    #[cold]
    #[inline(never)]
    fn remove_behind(&self, key: u64, permits: u32) {
        let mut left = permits;
        loop {
            for slot in &self.bucket(key).0 {
                let mut word = slot.load(Ordering::SeqCst);
                while word >> HELD_BITS == key && word & HELD != 0 {
                    let removed = left.min((word & HELD) as u32);
                    if replace(slot, word, word - u64::from(removed)) {
                        left -= removed;
                        break;
                    }
                    word = slot.load(Ordering::SeqCst);
                }
                if left == 0 {
                    return;
                }
            }
            if self.spilled.load(Ordering::SeqCst) > 0 {
                left -= self.remove_spilled(key, left);
                if left == 0 {
                    return;
                }
            }
        }
    }

    #[cold]
    fn remove_spilled(&self, key: u64, most: u32) -> u32 {
        let mut spill = lock(&self.spill);
        let Some(held) = spill.get_mut(&key) else {
            return 0;
        };
        let removed = most.min(*held);
        *held -= removed;
        if *held == 0 {
            spill.remove(&key);
            if spill.is_empty() {
                spill.shrink_to_fit();
            }
        }
        self.spilled.store(spill.len() as u32, Ordering::SeqCst);
        removed
    }

    /// Returns the permits that a key holds.
    #[inline]
    pub(super) fn held(&self, key: u64) -> u32 {
        self.held_at_once(key)
            .unwrap_or_else(|| self.held_with_spilled(key))
    }

    /// Returns the permits that a key holds, unless permits of any key are in the map.
    #[inline]
    pub(super) fn held_at_once(&self, key: u64) -> Option<u32> {
        let held = self.held_in_bucket(key);
        (self.spilled.load(Ordering::SeqCst) == 0).then_some(held)
    }

    #[inline]
    fn held_in_bucket(&self, key: u64) -> u32 {
        let mut held = 0;
        for slot in &self.bucket(key).0 {
            // What a slot of the key holds; more than that in others.
            let permits = slot.load(Ordering::SeqCst) ^ key << HELD_BITS;
            if permits <= HELD {
                held += permits as u32;
            }
        }
        held
    }

    #[cold]
    #[inline(never)]
    fn held_with_spilled(&self, key: u64) -> u32 {
        let held = self.held_in_bucket(key);
        held + lock(&self.spill).get(&key).copied().unwrap_or(0)
    }

    /// Returns all keys that hold permits, and how many. A key may be listed twice.
    pub(super) fn all(&self) -> Vec<(u64, u32)> {
        let words = self.buckets.iter().flat_map(|bucket| &bucket.0);
        let mut keys: Vec<_> = words
            .map(|slot| slot.load(Ordering::Relaxed))
            .map(|word| (word >> HELD_BITS, (word & HELD) as u32))
            .filter(|&(_, held)| held > 0)
            .collect();
        if self.spilled.load(Ordering::SeqCst) > 0 {
            keys.extend(lock(&self.spill).iter().map(|(&key, &held)| (key, held)));
        }
        keys
    }

    /// Returns the first slot of the bucket of a key. There always is one.
    #[inline]
    fn first(&self, key: u64) -> Option<&AtomicU64> {
        let bucket = self.buckets.get(self.bucket_index(key))?;
        Some(&bucket.0[0])
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

/// Orders an addition before what follows it, also in models, which do not order sequentially
/// consistent operations on different words.
#[inline]
fn after_insertion() {
    #[cfg(bulkman_loom)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}

/// Adds permits to a slot that had this word. Returns `false`, and does nothing, if that is of
/// another key, has no room, or is out of date.
#[inline]
fn try_insert(slot: &AtomicU64, word: u64, key: u64, permits: u32) -> bool {
    has_room(word, key, permits) && replace(slot, word, of_key(word, key) + u64::from(permits))
}

/// Returns `true` if the slot is free, or is that of the key and has room for the sum.
#[inline]
fn has_room(word: u64, key: u64, permits: u32) -> bool {
    of_key(word, key) ^ key << HELD_BITS <= HELD - u64::from(permits)
}

/// Returns the word of a slot, with this key if it is free.
#[inline]
fn of_key(word: u64, key: u64) -> u64 {
    if word & HELD == 0 {
        key << HELD_BITS
    } else {
        word
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

    #[test]
    fn keys_hold_what_was_added_and_not_removed() {
        let keys = RunningKeys::new(10);
        assert_eq!(keys.add(7, 3, 5), Some(3));
        assert_eq!(keys.add(7, 2, 5), Some(5));
        assert_eq!(keys.add(7, 1, 5), None);
        assert_eq!(keys.add(8, 6, 5), Some(6), "it holds nothing else");
        keys.remove(7, 4);
        assert_eq!((keys.held(7), keys.held(8), keys.held(9)), (1, 6, 0));
        keys.remove(7, 1);
        keys.remove(8, 6);
        assert_eq!(keys.all(), []);
    }

    /// Hazard K24.
    #[test]
    fn keys_beyond_a_full_bucket_are_counted_exactly() {
        let keys = RunningKeys::with_buckets(1);
        for key in 1..=20 {
            assert_eq!(keys.add(key, 2, 3), Some(2));
        }
        assert_eq!(keys.add(20, 2, 3), None);
        assert_eq!(keys.add(20, 1, 3), Some(3));
        // Slots are free now, and key 20 is in the map and in a slot.
        for key in 1..=8 {
            keys.remove(key, 2);
        }
        assert_eq!(keys.add(20, 1, NO_MAXIMUM), Some(4));
        assert_eq!(
            keys.all().iter().map(|&(_, held)| held).sum::<u32>(),
            12 * 2 + 2
        );
        keys.remove(20, 3);
        assert_eq!(keys.held(20), 1);
        keys.remove(20, 1);
        for key in 9..20 {
            assert_eq!(keys.held(key), 2);
            keys.remove(key, 2);
        }
        assert_eq!(keys.all(), []);
        assert_eq!(lock(&keys.spill).capacity(), 0);
    }

    /// Hazard K24.
    #[test]
    fn concurrent_calls_leave_nothing_behind() {
        let keys = RunningKeys::with_buckets(1);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let keys = &keys;
                threads.spawn(move || {
                    for call in 0..20_000_u64 {
                        let key = 1 + (call * 7 + thread) % 12;
                        let permits = 1 + (call % 3) as u32;
                        if keys.add(key, permits, 5).is_some() {
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
