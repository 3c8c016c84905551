//! The keys of waiting calls, and which of them is next.

use std::collections::HashMap;
use std::sync::Arc;

use super::claim::Claim;
use super::key_hash::BuildKeyHasher;
use super::levels::{Levels, NO_LEVEL, Neighbors};
use super::limits::KeyRules;
use super::order::QueueOrder;
use super::running_keys::RunningKeys;
use super::waiters::PRIORITIES;

/// The index of no key.
pub(super) const NO_KEY: u32 = u32::MAX;
/// The sequence number of no waiter.
pub(super) const NO_WAITER: u64 = u64::MAX;

/// The keys that have waiters, separately for each priority. Keys without waiters are not in here.
///
/// The next key of a priority is the one with the lowest *level*: first those below the minimum,
/// then in the order of the permits that they hold, divided by their share. Of keys at the same
/// level, the one is next that has been there longest. A key at its maximum is *suspended*: it has
/// no level until it holds less.
// Fields in this order: what every wait and every grant writes shares a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct WaitingKeys {
    /// The last number given to a key that entered a level.
    last_turn: u64,
    /// The waiters of suspended keys.
    pub(super) suspended: u32,
    /// The limit in force.
    limit: u32,
    priorities: [Keys; PRIORITIES],
    /// Keys that may have suspended slots although they are not suspended.
    pub(super) resumed: Vec<u64>,
    running: Arc<RunningKeys>,
    entries: Vec<KeyEntry>,
    /// For each entry, its place in its level.
    neighbors: Vec<Neighbors>,
    /// Indices of unused entries.
    unused: Vec<u32>,
    index: HashMap<u64, u32, BuildKeyHasher>,
    pub(super) rules: KeyRules,
    /// For each priority, the first sequence number since permits are shared.
    pub(super) begin: [u64; PRIORITIES],
}

/// The keys of one priority.
#[derive(Debug, Default)]
#[repr(C)]
struct Keys {
    /// The number of waiters in keys.
    waiting: u32,
    /// The levels of the keys. Suspended keys are in none.
    levels: Levels,
    /// For each number of waiters, up to the largest, the first of the keys with as many. They are
    /// linked to each other. Empty until a waiter may have to leave a full queue.
    by_length: Vec<u32>,
}

/// A key with waiters of one priority.
// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct KeyEntry {
    key: u64,
    first: u64,
    last: u64,
    /// `NO_LEVEL` while it is suspended.
    level: u64,
    /// When it entered the level.
    turn: u64,
    waiting: u32,
    /// The neighbors among the keys with as many waiters; `NO_KEY` for none.
    previous: u32,
    next: u32,
    share: u16,
    priority: u8,
}

impl KeyEntry {
    /// Returns `true` if it is at its maximum. A new key is not, until its level is computed.
    const fn is_suspended(&self) -> bool {
        self.level == NO_LEVEL && self.turn != 0
    }

    const fn priority(&self) -> usize {
        self.priority as usize
    }
}

/// The place of a waiter among those of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The neighbors, by their sequence numbers. `previous` is not valid for the first waiter of a
    /// key: those before it do not write its link when they leave. Without a key, `previous` is the
    /// key to which the permits are added when they are granted; zero for none.
    pub(super) previous: u64,
    pub(super) next: u64,
    /// The index of the key.
    pub(super) key: u32,
    /// The permits that the waiter asks for, or owns.
    pub(super) permits: u32,
}

/// The key that a waiter has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftKey {
    /// The key to which the permits of the waiter are added; zero for none.
    pub(super) key: u64,
    /// The index of the key, if it has other waiters of the priority.
    pub(super) remaining: Option<u32>,
}

impl Link {
    /// Returns the permits that a waiter owns, and the key to which they were added.
    pub(super) const fn claim(&self) -> Claim {
        Claim::new(self.permits).with_key(self.previous)
    }

    /// The link of a waiter in no key.
    pub(super) const fn without_key(permits: u32) -> Self {
        Self {
            previous: 0,
            next: NO_WAITER,
            key: NO_KEY,
            permits,
        }
    }
}

impl WaitingKeys {
    pub(super) fn new(rules: KeyRules, limit: u32, running: Arc<RunningKeys>) -> Self {
        Self {
            rules,
            begin: [0; PRIORITIES],
            limit,
            running,
            entries: Vec::new(),
            neighbors: Vec::new(),
            unused: Vec::new(),
            index: HashMap::default(),
            priorities: std::array::from_fn(|_| Keys::default()),
            last_turn: 0,
            suspended: 0,
            resumed: Vec::new(),
        }
    }

    pub(super) fn running(&self) -> &RunningKeys {
        &self.running
    }

    /// Changes the rules or the limit. Returns `true` if levels may have changed.
    pub(super) fn set_rules(&mut self, rules: KeyRules, limit: u32) -> bool {
        let changed = (rules, limit) != (self.rules, self.limit)
            && (rules.has_bounds() || self.rules.has_bounds());
        (self.rules, self.limit) = (rules, limit);
        changed
    }

    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        let mut resumed = std::mem::take(&mut self.resumed);
        let waiting = self.entries.iter().filter(|entry| entry.waiting > 0);
        resumed.extend(waiting.filter(|it| it.is_suspended()).map(|it| it.key));
        *self = Self::new(self.rules, self.limit, Arc::clone(&self.running));
        self.resumed = resumed;
    }

    /// Clears the suspended bit of the keys that are no longer suspended.
    pub(super) fn clear_resumed(&mut self) {
        while let Some(key) = self.resumed.pop() {
            let is_suspended = (0..PRIORITIES)
                .filter_map(|priority| self.find(key, priority))
                .any(|index| self.entries[index as usize].is_suspended());
            if !is_suspended {
                self.running.resume(key);
            }
        }
    }

    /// Returns how many permits have to remain available if a key is granted `permits`: those that
    /// are reserved, unless it holds no more than the minimum then.
    pub(super) fn reserved(&self, index: u32, permits: u32) -> u32 {
        let min = self.rules.min_in_force(self.limit);
        if min == 0 {
            return 0;
        }
        let held = self.running.held(self.key(index));
        let after = held.saturating_add(permits.min(self.limit));
        if after <= min { 0 } else { min }
    }

    /// Returns `true` if the level of a key depends on what its next waiter asks for.
    pub(super) const fn depends_on_next(&self) -> bool {
        self.rules.has_bounds()
    }

    /// Returns `true` if keys are suspended, or were: see [`resumed`](Self::resumed).
    #[inline]
    pub(super) fn is_unsettled(&self) -> bool {
        self.suspended > 0 || !self.resumed.is_empty()
    }

    /// Returns the number of waiters in keys, of one priority.
    pub(super) fn waiting(&self, priority: usize) -> u32 {
        self.priorities[priority].waiting
    }

    /// Returns `true` if a waiter of any priority is in a key that is not suspended.
    pub(super) fn has_eligible(&self) -> bool {
        self.priorities.iter().any(|keys| !keys.levels.is_empty())
    }

    /// Returns the waiters of a key, of all priorities.
    pub(super) fn waiting_of(&self, key: u64) -> u32 {
        (0..PRIORITIES)
            .filter_map(|priority| self.find(key, priority))
            .map(|index| self.entries[index as usize].waiting)
            .sum()
    }

    pub(super) fn find(&self, key: u64, priority: usize) -> Option<u32> {
        if self.priorities[priority].waiting == 0 {
            return None;
        }
        self.index.get(&index_key(key, priority)).copied()
    }

    pub(super) fn key(&self, index: u32) -> u64 {
        self.entries[index as usize].key
    }

    pub(super) fn first(&self, index: u32) -> u64 {
        self.entries[index as usize].first
    }

    /// Returns the waiter of a key that is next.
    pub(super) fn next_waiter(&self, index: u32, order: QueueOrder) -> u64 {
        match order {
            QueueOrder::Fifo => self.first(index),
            QueueOrder::Lifo => self.last(index),
        }
    }

    pub(super) fn last(&self, index: u32) -> u64 {
        self.entries[index as usize].last
    }

    /// Returns the next key of a priority.
    pub(super) fn next(&self, priority: usize) -> Option<u32> {
        self.priorities[priority].levels.first()
    }

    /// Returns `true` if a new call of a key would be next among those of its priority.
    pub(super) fn come_after(
        &self,
        key: u64,
        priority: usize,
        share: u32,
        permits: u32,
        order: QueueOrder,
    ) -> bool {
        let own = self.find(key, priority);
        if own.is_some() && order == QueueOrder::Fifo {
            return false;
        }
        let held = self.running.held(key);
        let Some(level) = self.rules.level(held, permits, share, self.limit) else {
            return false;
        };
        let level_of = |index: u32| self.entries[index as usize].level;
        let keeps_its_turn = own.is_some_and(|own| level_of(own) == level);
        if keeps_its_turn && own == self.next(priority) {
            return true;
        }
        let mut others = self.in_order(priority).filter(|&index| Some(index) != own);
        others.next().is_none_or(|next| level_of(next) > level)
    }

    /// Returns the keys of a priority that are not suspended, the next one first.
    pub(super) fn in_order(&self, priority: usize) -> impl Iterator<Item = u32> + '_ {
        self.priorities[priority].levels.in_order(&self.neighbors)
    }

    /// Returns the key with the most waiters, if it has at least two more than `key`.
    pub(super) fn much_longer(&mut self, key: u64, priority: usize) -> Option<u32> {
        let keys = &self.priorities[priority];
        if keys.waiting < 2 {
            return None;
        }
        if keys.by_length.is_empty() {
            // Kept from now on, until no key has waiters. Then all keys are new ones.
            for index in self.indices(priority) {
                self.link(index);
            }
        }
        let &index = self.priorities[priority].by_length.last()?;
        let waiting_of = |index: u32| self.entries[index as usize].waiting;
        let own = self.find(key, priority).map_or(0, waiting_of);
        (waiting_of(index) >= own + 2).then_some(index)
    }

    /// Adds a waiter to a key. Returns its link, whose `previous` has to be linked to it, and
    /// whether the level of the key has to be computed.
    ///
    /// A new key has no level before [`set_level`](Self::set_level) is called.
    pub(super) fn join(
        &mut self,
        key: u64,
        priority: usize,
        share: u32,
        sequence: u64,
        permits: u32,
    ) -> (Link, bool) {
        let index = match self.find(key, priority) {
            Some(index) => index,
            None => self.insert(key, priority),
        };
        let entry = &mut self.entries[index as usize];
        let previous = entry.last;
        if previous == NO_WAITER {
            entry.first = sequence;
        }
        entry.last = sequence;
        let share = u16::try_from(share.max(1)).unwrap_or(u16::MAX);
        let before = std::mem::replace(&mut entry.share, share);
        let changed = previous == NO_WAITER || before != entry.share;
        self.resize(index, 1);
        let link = Link {
            previous,
            next: NO_WAITER,
            key: index,
            permits,
        };
        (link, changed || self.depends_on_next())
    }

    /// Removes a waiter from its key. Unless it is the first, the caller links its neighbors to
    /// each other.
    ///
    /// The caller computes the level of the key, if it [depends](Self::depends_on_next) on that.
    pub(super) fn leave(&mut self, link: &Link, is_first: bool) -> LeftKey {
        let entry = &mut self.entries[link.key as usize];
        let key = entry.key;
        if is_first {
            entry.first = link.next;
        }
        if link.next == NO_WAITER && !is_first {
            entry.last = link.previous;
        }
        let remains = entry.waiting > 1;
        self.resize(link.key, -1);
        if !remains {
            self.delete(link.key);
        }
        LeftKey {
            key,
            remaining: remains.then_some(link.key),
        }
    }

    /// Computes the levels of a key again, of all priorities but one.
    ///
    /// `permits_of` returns the permits that a waiter of a priority asks for.
    pub(super) fn set_levels_except(
        &mut self,
        key: u64,
        except: usize,
        order: QueueOrder,
        permits_of: impl Fn(usize, u64) -> u32,
    ) {
        for priority in (0..PRIORITIES).filter(|&priority| priority != except) {
            if let Some(index) = self.find(key, priority) {
                self.set_level(index, order, |next| permits_of(priority, next));
            }
        }
    }

    /// Returns the key of a priority that is next after a call of `key` has released its permits,
    /// if levels do not [depend](Self::depends_on_next) on the next waiters of keys.
    ///
    /// `still_held`: permits that it has released, and that are not removed from it yet.
    /// Computes the level of `key` again, unless it is next itself: then its level changes again
    /// once its waiter is granted a permit, and the caller [sets](Self::enter_level_again) it then.
    #[inline]
    pub(super) fn next_after_release(
        &mut self,
        key: u64,
        priority: usize,
        still_held: u32,
    ) -> Option<u32> {
        if let Some(index) = self.find(key, priority) {
            let held = self.running.held(key).saturating_sub(still_held);
            let share = u32::from(self.entries[index as usize].share);
            let level = self.rules.level(held, 1, share, self.limit)?;
            if level < self.priorities[priority].levels.lowest() {
                return Some(index);
            }
            self.change_level(index, level);
        }
        self.next(priority)
    }

    /// As [`set_level`](Self::set_level), for a key that was at another level meanwhile: it is
    /// behind all others of its level.
    #[inline]
    pub(super) fn enter_level_again(&mut self, index: u32) {
        if let Some(level) = self.current_level(index, 1) {
            self.begin_turn(index, level);
        }
    }

    /// Moves a key behind all others of its level.
    #[inline]
    pub(super) fn move_behind(&mut self, index: u32) {
        self.begin_turn(index, self.entries[index as usize].level);
    }

    /// Moves a key to a level, behind all others there, also if that is its own.
    #[inline]
    fn begin_turn(&mut self, index: u32, level: u64) {
        self.last_turn += 1;
        self.entries[index as usize].turn = self.last_turn;
        self.move_to_level(index, level);
    }

    /// Computes the level of a key again.
    ///
    /// `permits_of` returns the permits that a waiter asks for. It is called if the level
    /// [depends on them](Self::depends_on_next).
    pub(super) fn set_level(
        &mut self,
        index: u32,
        order: QueueOrder,
        permits_of: impl FnOnce(u64) -> u32,
    ) {
        let permits = if self.depends_on_next() {
            permits_of(self.next_waiter(index, order))
        } else {
            1
        };
        let level = self.current_level(index, permits).unwrap_or(NO_LEVEL);
        self.change_level(index, level);
    }

    /// Changes the level of a key, if it is another one. `NO_LEVEL` suspends the key.
    #[inline]
    fn change_level(&mut self, index: u32, level: u64) {
        let entry = &mut self.entries[index as usize];
        if level == entry.level && entry.turn != 0 {
            return;
        }
        let waiting = entry.waiting;
        if entry.is_suspended() {
            self.suspended -= waiting;
            self.resumed.push(entry.key);
        }
        self.last_turn += 1;
        entry.turn = self.last_turn;
        if level == NO_LEVEL {
            self.suspended += waiting;
        }
        self.move_to_level(index, level);
    }

    /// Returns the level that a key should have; `None` for one that is to be suspended. Its slots
    /// are suspended then.
    #[inline]
    fn current_level(&mut self, index: u32, permits: u32) -> Option<u64> {
        let entry = &self.entries[index as usize];
        let (key, share) = (entry.key, u32::from(entry.share));
        let held = self.running.held(key);
        let level = self.rules.level(held, permits, share, self.limit);
        if level.is_some() {
            return level;
        }
        self.suspend(key, permits, share)
    }

    /// Suspends the slots of a key at its maximum, and returns its level: `None`, unless it holds
    /// less by now.
    #[cold]
    fn suspend(&mut self, key: u64, permits: u32, share: u32) -> Option<u64> {
        let level_of = |held| self.rules.level(held, permits, share, self.limit);
        // Also if they are: what it holds may be in other slots by now.
        let level = level_of(self.running.suspend(key));
        if level.is_some() {
            self.resumed.push(key);
        }
        level
    }

    /// Moves a key to a level, behind all others there; to none with `NO_LEVEL`.
    fn move_to_level(&mut self, index: u32, level: u64) {
        let entry = &mut self.entries[index as usize];
        let before = std::mem::replace(&mut entry.level, level);
        let levels = &mut self.priorities[entry.priority()].levels;
        levels.change(index, before, level, &mut self.neighbors);
    }

    /// Returns the indices of all keys of a priority, those first that entered their level first.
    pub(super) fn indices(&self, priority: usize) -> Vec<u32> {
        let mut indices: Vec<_> = (0..self.entries.len() as u32)
            .filter(|&index| {
                let entry = &self.entries[index as usize];
                entry.waiting > 0 && entry.priority() == priority
            })
            .collect();
        indices.sort_unstable_by_key(|&index| self.entries[index as usize].turn);
        indices
    }

    /// Returns each key, its waiters and whether it is suspended. A key may be listed once for each
    /// priority.
    pub(super) fn all(&self) -> Vec<(u64, u32, bool)> {
        self.entries
            .iter()
            .filter(|entry| entry.waiting > 0)
            .map(|entry| (entry.key, entry.waiting, entry.level == NO_LEVEL))
            .collect()
    }

    fn insert(&mut self, key: u64, priority: usize) -> u32 {
        let entry = KeyEntry {
            key,
            first: NO_WAITER,
            last: NO_WAITER,
            level: NO_LEVEL,
            turn: 0,
            waiting: 0,
            previous: NO_KEY,
            next: NO_KEY,
            share: 1,
            priority: priority as u8,
        };
        let index = match self.unused.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.neighbors.push(Neighbors::NONE);
                self.entries.len() as u32 - 1
            }
        };
        self.index.insert(index_key(key, priority), index);
        index
    }

    /// Removes a key that has no waiters.
    fn delete(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        if entry.is_suspended() {
            self.resumed.push(entry.key);
        }
        self.move_to_level(index, NO_LEVEL);
        let entry = &self.entries[index as usize];
        self.index.remove(&index_key(entry.key, entry.priority()));
        self.unused.push(index);
        // A queue that once had many keys does not keep their memory.
        if self.index.is_empty() && self.entries.capacity() > 64 {
            self.entries = Vec::new();
            self.neighbors = Vec::new();
            self.unused = Vec::new();
            self.index.shrink_to_fit();
            for keys in &mut self.priorities {
                keys.levels = Levels::default();
            }
        }
    }

    /// Changes the number of waiters of a key by one.
    #[inline]
    fn resize(&mut self, index: u32, by: i32) {
        let entry = &mut self.entries[index as usize];
        let keys = &mut self.priorities[entry.priority()];
        keys.waiting = keys.waiting.wrapping_add_signed(by);
        if entry.is_suspended() {
            self.suspended = self.suspended.wrapping_add_signed(by);
        }
        if keys.by_length.is_empty() {
            entry.waiting = entry.waiting.wrapping_add_signed(by);
        } else {
            self.move_by_length(index, by);
        }
    }

    /// Changes the number of waiters of a key by one, while keys are linked by that.
    #[inline(never)]
    fn move_by_length(&mut self, index: u32, by: i32) {
        self.unlink(index);
        let entry = &mut self.entries[index as usize];
        let priority = entry.priority();
        entry.waiting = entry.waiting.wrapping_add_signed(by);
        self.link(index);
        // The last number is that of the key with the most waiters. Numbers change by one, so at
        // most one is dropped while keys are left.
        let by_length = &mut self.priorities[priority].by_length;
        while by_length.last() == Some(&NO_KEY) {
            by_length.pop();
        }
        if by_length.is_empty() && by_length.capacity() > 64 {
            *by_length = Vec::new();
        }
    }

    /// Links a key to those with as many waiters.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let length = entry.waiting as usize;
        if length == 0 {
            return;
        }
        let by_length = &mut self.priorities[entry.priority()].by_length;
        if by_length.len() <= length {
            by_length.resize(length + 1, NO_KEY);
        }
        let next = std::mem::replace(&mut by_length[length], index);
        (entry.previous, entry.next) = (NO_KEY, next);
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.previous = index;
        }
    }

    /// Removes a key from those with as many waiters.
    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (length, previous, next) = (entry.waiting as usize, entry.previous, entry.next);
        if length == 0 {
            return;
        }
        let by_length = &mut self.priorities[entry.priority()].by_length;
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.entries.get_mut(previous as usize) {
            previous.next = next;
            return;
        }
        by_length[length] = next;
    }
}

/// A key has 44 bits.
const fn index_key(key: u64, priority: usize) -> u64 {
    key << 2 | priority as u64
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    /// No two keys are at the same level meanwhile.
    #[test]
    fn keys_without_waiters_leave_no_memory() {
        let rules = KeyRules {
            min: 0,
            max: KeyRules::NO_MAX,
            max_queue: KeyRules::NO_MAX,
            evicts: true,
        };
        let running = Arc::new(RunningKeys::new(4));
        let mut keys = WaitingKeys::new(rules, 4, Arc::clone(&running));
        for round in 0..3 {
            let joined: Vec<_> = (0..1000)
                .map(|number| {
                    let key = 2 + number;
                    running.insert(key, 1 + number as u32);
                    let (link, _) = keys.join(key, 0, 1, number, 1);
                    keys.set_level(link.key, QueueOrder::Fifo, |_| 1);
                    running.remove(key, 1 + number as u32);
                    link
                })
                .collect();
            let order: Vec<_> = keys.in_order(0).map(|index| keys.key(index)).collect();
            assert_eq!(order, (2..1002).collect::<Vec<_>>());
            for link in joined {
                assert_eq!(keys.leave(&link, true).remaining, None);
            }
            assert!(!keys.has_eligible());
            let capacities = [
                keys.entries.capacity(),
                keys.neighbors.capacity(),
                keys.unused.capacity(),
                keys.priorities[0].levels.capacity(),
            ];
            assert_eq!(capacities, [0; 4], "round {round}");
        }
    }
}
