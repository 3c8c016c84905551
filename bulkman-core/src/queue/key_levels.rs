//! The rules under which waiters share permits between keys, and the levels of these keys.

use std::sync::Arc;

use super::chunks::Chunks;
use super::limits::KeyRules;
use super::running_keys::RunningKeys;
use super::waiters::{PRIORITIES, Waiters};
use super::waiting_keys::{Link, WaitingKeys};

impl Waiters {
    /// Shares permits between keys from now on, or ceases to.
    ///
    /// Waiters that are in no key then are served first, in the order of arrival. Those that have a
    /// key when sharing ends wait in no key.
    pub(super) fn set_rules(
        &mut self,
        rules: Option<KeyRules>,
        limit: u32,
        running: Option<&Arc<RunningKeys>>,
        reordered: bool,
    ) {
        let (Some(rules), Some(running)) = (rules, running) else {
            if self.special.shares {
                self.leave_keys();
            }
            self.special.shares = false;
            return;
        };
        let keys = self
            .special
            .keys
            .get_or_insert_with(|| Box::new(WaitingKeys::new(rules, limit, Arc::clone(running))));
        if !self.special.shares {
            self.special.shares = true;
            keys.begin = self.bounds.map(|bounds| bounds.next);
        }
        // Once for all changes: a key that keeps its level keeps its turn.
        if keys.set_rules(rules, limit) || reordered {
            self.set_levels();
        }
    }

    /// Follows a change of the limit in force.
    pub(super) fn set_limit(&mut self, limit: u32) {
        if let Some(keys) = &mut self.special.keys {
            if keys.set_rules(keys.rules, limit) {
                self.set_levels();
            }
        }
    }

    /// Removes all waiters from their keys. Their permits are added to the keys all the same.
    fn leave_keys(&mut self) {
        let (Some(keys), Some(queues)) = (&mut self.special.keys, &mut self.queues) else {
            return;
        };
        for (priority, queue) in queues.iter_mut().enumerate() {
            for index in keys.indices(priority) {
                let mut next = keys.first(index);
                while let Some(link) = queue.chunks.link_mut(next) {
                    next = link.next;
                    *link = Link {
                        previous: keys.key(index),
                        ..Link::without_key(link.permits)
                    };
                }
            }
            queue.newest = self.bounds[priority].next;
        }
        keys.clear();
    }

    /// Computes the levels of a key again, after a change of what it holds.
    pub(super) fn set_level_of(&mut self, key: u64) {
        self.set_level_except(key, PRIORITIES);
    }

    /// As [`set_level_of`](Self::set_level_of), except for one priority.
    pub(super) fn set_level_except(&mut self, key: u64, except: usize) {
        let (Some(keys), Some(queues)) = (&mut self.special.keys, &mut self.queues) else {
            return;
        };
        keys.set_levels_except(key, except, self.order, |priority, next| {
            permits_of(&queues[priority].chunks, next)
        });
    }

    /// Computes the levels of all keys again.
    pub(super) fn set_levels(&mut self) {
        for priority in 0..PRIORITIES {
            let keys = self.special.keys.as_ref();
            for index in keys.map_or_else(Vec::new, |keys| keys.indices(priority)) {
                self.set_level(priority, index);
            }
        }
    }

    pub(super) fn set_level(&mut self, priority: usize, index: u32) {
        let (Some(keys), Some(queues)) = (&mut self.special.keys, &mut self.queues) else {
            return;
        };
        keys.set_level(index, self.order, |next| {
            permits_of(&queues[priority].chunks, next)
        });
    }

    /// Returns `true` if a new call of a key has to wait behind another: one that is next, or one
    /// of its key.
    pub(super) fn blocks_new_calls(&self, key: u64) -> bool {
        let keyed = |keys: &WaitingKeys| keys.has_eligible() || keys.waiting_of(key) > 0;
        let in_no_key = || (0..PRIORITIES).any(|index| self.waiting_in_no_key(index) > 0);
        self.special.keys.as_deref().is_some_and(keyed) || in_no_key()
    }

    /// Returns the number of waiters of a priority that are in no key.
    pub(super) fn waiting_in_no_key(&self, priority: usize) -> u32 {
        let keys = self.special.keys.as_ref();
        self.waiting[priority] - keys.map_or(0, |keys| keys.waiting(priority))
    }

    /// Returns `true` if no more calls of a key may wait.
    pub(super) fn is_key_full(&self, key: u64) -> bool {
        let full = |keys: &WaitingKeys| {
            let most = keys.rules.max_queue;
            most != KeyRules::NO_MAX && keys.waiting_of(key) >= most
        };
        self.special.keys.as_deref().is_some_and(full)
    }

    /// Returns `true` if a waiter leaves a full queue for one of a key with fewer.
    pub(super) fn evicts(&self) -> bool {
        self.special
            .keys
            .as_ref()
            .is_some_and(|keys| keys.rules.evicts)
    }

    /// Returns each key with waiters, their number, and whether it is at its maximum. A key may be
    /// listed once for each priority.
    pub(super) fn keys(&self) -> Vec<(u64, u32, bool)> {
        self.special
            .keys
            .as_ref()
            .map_or_else(Vec::new, |keys| keys.all())
    }

    /// Returns the number of suspended waiters.
    pub(super) fn suspended(&self) -> u32 {
        self.special.keys.as_ref().map_or(0, |keys| keys.suspended)
    }

    /// Returns the number of waiters that are not suspended.
    pub(super) fn eligible(&self) -> u32 {
        self.waiting() - self.suspended()
    }

    /// Returns `true` if keys are suspended, or were: the contended flag may have to change.
    #[inline]
    pub(super) fn is_unsettled(&self) -> bool {
        let keys = self.special.keys.as_ref();
        keys.is_some_and(|keys| keys.is_unsettled())
    }

    /// Resumes the keys that are no longer suspended. The counter of permits is contended if they
    /// have waiters.
    pub(super) fn clear_resumed(&mut self) {
        if let Some(keys) = &mut self.special.keys {
            keys.clear_resumed();
        }
    }
}

/// Returns the permits that a waiter asks for.
fn permits_of(chunks: &Chunks, sequence: u64) -> u32 {
    chunks.link(sequence).map_or(1, |link| link.permits)
}
