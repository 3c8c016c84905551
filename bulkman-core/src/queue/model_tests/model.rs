//! A plain model of the queue: a list of waiters, searched from its beginning.

use std::collections::HashMap;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Waiting,
    /// Its permits.
    Granted(u32),
    Rejected,
    Expired,
}

#[derive(Clone)]
pub(super) struct Waiter {
    request: Arrival,
    pub(super) deadline: Option<u64>,
    pub(super) state: State,
    /// The key that it waits in; zero for none.
    waits_in: u64,
    /// The key to which its permits are added; zero for none.
    pub(super) added_to: u64,
    /// How many waiters have overtaken it.
    overtaken: u32,
}

/// A key with waiters of one priority.
#[derive(Clone, Copy)]
struct Waiting {
    share: u32,
    /// `None` while the key is at its maximum.
    level: Option<u64>,
    /// When the key entered the level.
    turn: u64,
}

/// All waiters that ever were, in the order of arrival, and what running calls hold.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) permits: usize,
    pub(super) settings: QueueSettings,
    pub(super) in_use: usize,
    pub(super) now: u64,
    pub(super) waiters: Vec<Waiter>,
    pub(super) held: HashMap<u64, u32>,
    keys: HashMap<(u8, u64), Waiting>,
    turn: u64,
    /// Waiters whose permits may be taken back.
    pub(super) overdue: Vec<usize>,
}

impl Model {
    pub(super) fn new(permits: usize, settings: QueueSettings) -> Self {
        Self {
            permits,
            settings,
            in_use: 0,
            now: 0,
            waiters: Vec::new(),
            held: HashMap::new(),
            keys: HashMap::new(),
            turn: 0,
            overdue: Vec::new(),
        }
    }

    /// All waiters are in no key from now on.
    pub(super) fn leave_keys(&mut self) {
        self.keys.clear();
        self.waiters.iter_mut().for_each(|it| it.waits_in = 0);
    }

    /// No call waits, and no permits are to be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting().next().is_none() && self.in_use <= self.permits
    }

    pub(super) fn revoke(&mut self, index: usize) {
        let waiter = &mut self.waiters[index];
        if let State::Granted(permits) = waiter.state {
            waiter.state = State::Expired;
            let key = waiter.added_to;
            self.release(permits, key);
        }
    }

    /// Takes back the permits of overdue waiters while they do not suffice for a call.
    pub(super) fn try_acquire_or_revoke(&mut self, permits: u32, key: u64) -> Option<u32> {
        loop {
            let granted = self.try_acquire(permits, key);
            if granted.is_some() || !self.is_idle() {
                return granted;
            }
            let overdue = self.overdue.pop()?;
            self.revoke(overdue);
        }
    }

    pub(super) fn waiting(&self) -> impl DoubleEndedIterator<Item = (usize, &Waiter)> {
        let waiters = self.waiters.iter().enumerate();
        waiters.filter(|(_, waiter)| waiter.state == State::Waiting)
    }

    fn queued_permits(&self) -> u32 {
        self.waiting()
            .map(|(_, waiter)| waiter.request.permits)
            .sum()
    }

    pub(super) fn available(&self) -> usize {
        self.permits.saturating_sub(self.in_use)
    }

    /// Returns the permits that are reserved for keys below the minimum.
    fn minimum(&self) -> u32 {
        let limit = self.permits as u32;
        let rules = self.settings.keys;
        rules.map_or(0, |rules| rules.min.min(limit.saturating_sub(1)))
    }

    pub(super) fn held(&self, key: u64) -> u32 {
        self.held.get(&key).copied().unwrap_or(0)
    }

    /// Returns how many permits a call is granted now that is next: zero if it has to wait.
    fn grant(&self, permits: u32, key: u64) -> u32 {
        let granted = permits.min(self.permits as u32);
        let below = self.held(key) + granted <= self.minimum();
        let reserved = if key == 0 || below { 0 } else { self.minimum() };
        if (granted + reserved).min(self.permits as u32) as usize <= self.available() {
            granted
        } else {
            0
        }
    }

    fn is_at_maximum(&self, permits: u32, key: u64) -> bool {
        let (held, granted) = (self.held(key), permits.min(self.permits as u32));
        let max = self.settings.keys.map_or(KeyRules::NO_MAX, |it| it.max);
        held > 0 && held + granted > max
    }

    fn take(&mut self, permits: u32, key: u64) {
        self.in_use += permits as usize;
        if key != 0 {
            *self.held.entry(key).or_insert(0) += permits;
            self.update_key(key);
        }
    }

    pub(super) fn release(&mut self, permits: u32, key: u64) {
        self.in_use -= permits as usize;
        if key != 0 {
            *self.held.get_mut(&key).unwrap() -= permits;
            self.update_key(key);
        }
        self.assign();
    }

    fn waiters_of(&self, priority: u8, key: u64) -> Vec<usize> {
        self.waiting()
            .filter(|(_, waiter)| (waiter.request.priority, waiter.waits_in) == (priority, key))
            .map(|(index, _)| index)
            .collect()
    }

    /// Returns the next waiter of a key, in the order of the queue.
    fn next_of(&self, priority: u8, key: u64) -> Option<usize> {
        let waiters = self.waiters_of(priority, key);
        match self.settings.order {
            QueueOrder::Fifo => waiters.first().copied(),
            QueueOrder::Lifo => waiters.last().copied(),
        }
    }

    /// Computes the levels of a key again.
    fn update_key(&mut self, key: u64) {
        (0..3).for_each(|priority| self.update_level(priority, key));
    }

    fn update_level(&mut self, priority: u8, key: u64) {
        let Some(next) = self.next_of(priority, key) else {
            self.keys.remove(&(priority, key));
            return;
        };
        let permits = self.waiters[next].request.permits;
        let held = self.held(key);
        let below = held < self.minimum();
        let (at_maximum, turn) = (self.is_at_maximum(permits, key), self.turn + 1);
        let Some(waiting) = self.keys.get_mut(&(priority, key)) else {
            return;
        };
        let level = match (at_maximum, below) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => Some(1 + (u64::from(held) << 20) / u64::from(waiting.share)),
        };
        if level != waiting.level || waiting.turn == 0 {
            (waiting.level, waiting.turn, self.turn) = (level, turn, turn);
        }
    }

    /// Computes all levels again. Keys that enter a level together keep their order.
    pub(super) fn update_levels(&mut self) {
        let mut keys: Vec<_> = self.keys.iter().map(|(key, it)| (it.turn, *key)).collect();
        keys.sort_unstable();
        for (_, (priority, key)) in keys {
            self.update_level(priority, key);
        }
    }

    fn next(&self) -> Option<usize> {
        for priority in (0..3).rev() {
            if let Some(in_no_key) = self.next_of(priority, 0) {
                return Some(in_no_key);
            }
            let levels = self.keys.iter().filter(|((of, _), _)| *of == priority);
            let lowest = levels
                .filter_map(|((_, key), waiting)| Some((waiting.level?, waiting.turn, *key)))
                .min();
            if let Some((.., key)) = lowest {
                return self.next_of(priority, key);
            }
        }
        None
    }

    pub(super) fn end_wait(&mut self, index: usize, state: State) {
        self.waiters[index].state = state;
        if self.waiters[index].waits_in != 0 {
            self.update_key(self.waiters[index].waits_in);
        }
    }

    /// Waiters whose deadline has passed are noticed only while a permit is available.
    pub(super) fn assign(&mut self) {
        while self.available() > 0 {
            let Some(next) = self.next() else { return };
            let waiter = &self.waiters[next];
            let key = waiter.waits_in;
            if waiter.deadline.is_some_and(|it| it <= self.now) {
                self.end_wait(next, State::Expired);
                continue;
            }
            let granted = self.grant(waiter.request.permits, key);
            if granted > 0 {
                self.start(next, granted);
                continue;
            }
            let Some((overtaker, granted)) = self.overtaker(next) else {
                return;
            };
            self.waiters[next].overtaken += 1;
            self.start(overtaker, granted);
        }
    }

    fn start(&mut self, index: usize, granted: u32) {
        let waiter = &mut self.waiters[index];
        waiter.state = State::Granted(granted);
        let (key, added_to) = (waiter.waits_in, waiter.added_to);
        self.take(granted, added_to);
        // Also if its last waiter is gone.
        self.update_key(key);
    }

    /// Returns the waiter that overtakes the next one, and the permits that it is granted.
    fn overtaker(&mut self, next: usize) -> Option<(usize, u32)> {
        if self.waiters[next].overtaken >= self.settings.overtaking {
            return None;
        }
        loop {
            let behind = self.behind(next);
            let expired = |index: &usize| {
                let deadline = self.waiters[*index].deadline;
                deadline.is_some_and(|it| it <= self.now)
            };
            let granted = |index: usize| {
                let waiter = &self.waiters[index];
                self.grant(waiter.request.permits, waiter.waits_in)
            };
            let found = behind.into_iter().take(8);
            let found = found.map(|it| (it, expired(&it), granted(it)));
            let (index, expired, granted) = { found }.find(|it| it.1 || it.2 > 0)?;
            if !expired {
                return Some((index, granted));
            }
            self.end_wait(index, State::Expired);
        }
    }

    /// Returns the waiters that follow the next one, of its priority.
    fn behind(&self, next: usize) -> Vec<usize> {
        let Waiter {
            request, waits_in, ..
        } = &self.waiters[next];
        let (priority, key) = (request.priority, *waits_in);
        let mut own = self.waiters_of(priority, key);
        if self.settings.order == QueueOrder::Lifo {
            own.reverse();
        }
        own.retain(|index| *index != next);
        if key == 0 {
            return own;
        }
        let mut others: Vec<_> = (self.keys.iter())
            .filter(|((of, other), _)| *of == priority && *other != key)
            .filter_map(|((_, key), waiting)| Some((waiting.level?, waiting.turn, *key)))
            .collect();
        others.sort_unstable();
        let others = others
            .into_iter()
            .filter_map(|(.., key)| self.next_of(priority, key));
        others.chain(own).collect()
    }

    pub(super) fn push(&mut self, request: &Arrival, deadline: Option<u64>, key: u64) {
        self.join(request, deadline, key);
        self.assign();
    }

    fn join(&mut self, request: &Arrival, deadline: Option<u64>, key: u64) {
        self.waiters.push(Waiter {
            request: request.clone(),
            deadline,
            state: State::Waiting,
            waits_in: key,
            added_to: key,
            overtaken: 0,
        });
        if key != 0 {
            let new = Waiting {
                share: 1,
                level: None,
                turn: 0,
            };
            let waiting = self.keys.entry((request.priority, key)).or_insert(new);
            waiting.share = request.share;
            self.update_key(key);
        }
    }

    /// Returns the permits that a call acquires before all that wait.
    pub(super) fn acquire_as_next(&mut self, request: &Arrival, key: u64) -> Option<u32> {
        let waits = self.waiting().next().is_some();
        if !waits || self.available() == 0 {
            return None;
        }
        self.assign();
        if let Some(granted) = self.try_acquire(request.permits, key) {
            return Some(granted);
        }
        // If it joined the others, it would be next, and be granted its permits.
        let mut joined = self.clone();
        joined.join(request, None, key);
        if joined.next() != Some(joined.waiters.len() - 1) {
            return None;
        }
        let granted = joined.grant(request.permits, key);
        if granted == 0 {
            return None;
        }
        self.take(granted, key);
        self.assign();
        Some(granted)
    }

    /// Returns the key that counts.
    pub(super) fn key(&self, key: u64) -> u64 {
        match self.settings.keys {
            Some(_) => key.max(Claim::SHARED_KEY),
            None => 0,
        }
    }

    fn try_acquire(&mut self, permits: u32, key: u64) -> Option<u32> {
        let blocked = if key == 0 {
            self.waiting().next().is_some()
        } else {
            self.next().is_some() || self.waiting_of(key) > 0 || self.is_at_maximum(permits, key)
        };
        let granted = if blocked { 0 } else { self.grant(permits, key) };
        if granted == 0 {
            return None;
        }
        self.take(granted, key);
        Some(granted)
    }

    fn waiting_of(&self, key: u64) -> usize {
        (0..3).map(|it| self.waiters_of(it, key).len()).sum()
    }

    pub(super) fn is_key_full(&self, key: u64) -> bool {
        let rules = self.settings.keys;
        let max = rules.map_or(KeyRules::NO_MAX, |rules| rules.max_queue);
        key != 0 && self.waiting_of(key) >= max as usize
    }

    fn is_too_heavy(&self, permits: u32) -> bool {
        let max = self.settings.max_weight;
        max.is_some_and(|max| self.queued_permits() + permits > max)
    }

    pub(super) fn is_full(&self, permits: u32) -> bool {
        self.waiting().count() >= self.settings.capacity || self.is_too_heavy(permits)
    }

    /// Returns the waiters of which one leaves a full queue for a call.
    pub(super) fn evictable(&self, request: &Arrival, key: u64) -> Vec<usize> {
        let evicts = self.settings.keys.is_some_and(|rules| rules.evicts);
        let over = self.waiting().count() != self.settings.capacity;
        if key == 0 || self.is_too_heavy(request.permits) || over || !evicts {
            return Vec::new();
        }
        let of = |key: u64| self.waiters_of(request.priority, key);
        let longest = KEYS.map(|key| of(key).len()).max().unwrap_or(0);
        if longest < of(key).len() + 2 {
            return Vec::new();
        }
        let keys = KEYS.filter(|&key| of(key).len() == longest);
        keys.filter_map(|key| of(key).last().copied()).collect()
    }
}
