//! Calls that ask for several permits or have a key: they acquire and release a claim.

use std::sync::Arc;
use std::time::Instant;

use super::claim::Claim;
use super::limits::{KeyRules, QueueSettings};
use super::results::TryAcquire;
use super::running_keys::RunningKeys;
use super::state::QueueState;
use super::waiters::Waiters;
use super::wake_list::SmallWakeList;
use super::{Ordering, WaitQueue, lock};

/// How far the permits of a call have been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    Done,
    /// The permits are in the counter, and calls wait.
    Contended,
    NotBegun,
}

/// Returns how many permits have to be available for a call whose key then holds `held`.
#[inline]
fn needed(permits: u32, held: u32, rules: KeyRules, limit: u32) -> u32 {
    let min = rules.min_in_force(limit);
    if held <= min {
        permits
    } else {
        // The limit may have become smaller than the call a moment ago.
        (permits + min).min(limit).max(permits)
    }
}

impl WaitQueue {
    /// Acquires the permits of a claim if they are in the counter and nothing is in the way.
    /// Returns the claim with the key that counts.
    ///
    /// Takes no lock. `None`: nothing is acquired, and
    /// [`try_acquire_claim`](Self::try_acquire_claim) decides.
    ///
    /// `BOUNDED`: also under rules that bound the permits of a key. `undo` releases a claim that
    /// was acquired although calls of its key wait.
    // Everything else is out of line and ends the function, so that it stores no register.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is most of the admission of a call"
    )]
    pub(crate) fn try_acquire_claim_at_once<const BOUNDED: bool>(
        &self,
        claim: Claim,
        now: impl FnOnce() -> Instant,
        undo: impl FnOnce(Claim),
    ) -> Option<Claim> {
        let rules = self.key_rules.load(Ordering::Relaxed);
        let permits = claim.permits();
        if rules == KeyRules::NONE {
            return self
                .available
                .try_acquire_many(permits, permits)
                .then_some(claim.with_key(0));
        }
        if !BOUNDED && rules != KeyRules::UNBOUNDED {
            return None;
        }
        let claim = claim.or_shared_key();
        let key = claim.key();
        let running = self.running_keys.get()?;
        let bucket = running.bucket_of(key)?;
        if !self.available.has(permits) {
            return None;
        }
        let held = bucket.insert_at_once(key, permits)?;
        let needed = if !BOUNDED || rules == KeyRules::UNBOUNDED {
            Some(permits)
        } else if bucket.has_one_slot() && running.has_none_spilled() {
            self.needed_under(rules, permits, held)
        } else {
            None
        };
        if !needed.is_some_and(|needed| self.available.try_acquire_many(permits, needed)) {
            self.undo_insertion(claim, now);
            return None;
        }
        if BOUNDED && running.is_suspended_in(bucket, key) {
            undo(claim);
            return None;
        }
        Some(claim)
    }

    /// Acquires the permits of a claim as calls do: at once, or else as they may.
    #[cfg(test)]
    pub(super) fn try_acquire_as_calls(
        &self,
        claim: &mut Claim,
        now: impl Fn() -> Instant,
    ) -> TryAcquire {
        let undo = |claim| _ = self.release_claim(claim, &now);
        let acquired = self
            .try_acquire_claim_at_once::<false>(*claim, &now, undo)
            .or_else(|| self.try_acquire_claim_at_once::<true>(*claim, &now, undo));
        match acquired {
            Some(acquired) => {
                *claim = acquired;
                TryAcquire::Acquired
            }
            None => self.try_acquire_claim(claim, &now, undo),
        }
    }

    /// Returns how many permits have to be available for a call whose key then holds `held`. `None`
    /// if that exceeds its maximum.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is part of the admission of a call"
    )]
    fn needed_under(&self, rules: u64, permits: u32, held: u32) -> Option<u32> {
        let rules = KeyRules::from_bits(rules)?;
        if held > rules.max && held != permits {
            return None;
        }
        let limit = self.limits().permits as u32;
        Some(needed(permits, held, rules, limit))
    }

    /// Acquires the permits of a claim if they are available and no call waits: all or none.
    ///
    /// If the limit is smaller than the claim, acquires all permits of the limit, and changes the
    /// claim. `undo` is as in [`try_acquire_claim_at_once`](Self::try_acquire_claim_at_once).
    #[inline(never)]
    pub(crate) fn try_acquire_claim(
        &self,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
        undo: impl FnOnce(Claim),
    ) -> TryAcquire {
        let rules = self.set_key(claim);
        if claim.is_plain() {
            return self.try_acquire();
        }
        if self.state().is_closed() {
            return TryAcquire::Closed;
        }
        let contended = self.available.is_contended();
        if !contended && self.acquire_uncontended(*claim, rules, now, undo) {
            return TryAcquire::Acquired;
        }
        // The limit, and permits in the reserve, need the lock. So do calls that wait for their key
        // only, which is at its maximum: a call of another key need not.
        if !contended || (claim.key() != 0 && rules != KeyRules::UNBOUNDED) {
            let mut waiters = lock(&self.waiters);
            let had_overdue = self.has_overdue();
            let acquired = self.acquire_idle(&mut waiters, self.state(), claim);
            let mut wake = SmallWakeList::default();
            if had_overdue && !acquired {
                // Permits that were returned, and do not suffice, may suffice for a waiter.
                wake = self.assign_permits(&mut waiters, None);
            } else {
                self.settle(&mut waiters);
            }
            drop(waiters);
            wake.wake();
            if acquired {
                return TryAcquire::Acquired;
            }
        }
        let (state, capacity) = (self.state(), self.limits().queue_capacity);
        // In a full queue, a waiter of another key may leave for a call.
        let may_evict = claim.key() != 0 && capacity > 0;
        if state.is_closed() {
            TryAcquire::Closed
        } else if state.waiting() as usize >= capacity && !may_evict && !self.may_be_next(*claim) {
            TryAcquire::Full
        } else {
            TryAcquire::MustWait
        }
    }

    /// Acquires permits from a counter that is not contended, without the lock.
    ///
    /// A counter that is not contended has no more permits than the limit in force.
    #[inline(never)]
    fn acquire_uncontended(
        &self,
        claim: Claim,
        rules: u64,
        now: impl FnOnce() -> Instant,
        undo: impl FnOnce(Claim),
    ) -> bool {
        let (permits, limit) = (claim.permits(), self.limits().permits as u32);
        if claim.key() == 0 {
            return self.available.try_acquire_many(permits, permits);
        }
        let running = self
            .running_keys
            .get()
            .filter(|_| self.available.has(permits));
        let (Some(rules), Some(running)) = (KeyRules::from_bits(rules), running) else {
            return false;
        };
        let suspended = match running.add(claim.key(), permits, rules.max) {
            Ok(held) => {
                let needed = needed(permits, held, rules, limit);
                if self.available.try_acquire_many(permits, needed) {
                    let overtakes = running.is_suspended(claim.key());
                    if overtakes {
                        undo(claim);
                    }
                    return !overtakes;
                }
                running.remove(claim.key(), permits)
            }
            Err(suspended) => suspended,
        };
        self.reassign(claim.key(), suspended, now);
        false
    }

    /// Removes permits that were added to a key for a call that has not acquired them.
    #[cold]
    #[inline(never)]
    fn undo_insertion(&self, claim: Claim, now: impl FnOnce() -> Instant) {
        let suspended = self.forget_key(claim);
        self.reassign(claim.key(), suspended, now);
    }

    /// Assigns the permits in the counter if calls wait, or may be suspended. A waiter of this key
    /// may have found permits that were added to the key for a moment, and been suspended.
    fn reassign(&self, key: u64, suspended: bool, now: impl FnOnce() -> Instant) {
        if self.available.release(0) || suspended {
            self.assign_released(key, now);
        }
    }

    /// Releases the permits of a call. See [`release`](Self::release).
    pub(crate) fn release_claim(&self, claim: Claim, now: impl FnOnce() -> Instant) -> bool {
        match self.release_claim_at_once(claim) {
            Release::Done => false,
            begun => self.complete_release(claim, begun, now),
        }
    }

    /// Begins to release the permits of a call, and completes it if nothing is in the way.
    // Without the rest of it, it stores no register.
    #[inline]
    pub(crate) fn release_claim_at_once(&self, claim: Claim) -> Release {
        // One permit of a contended counter is passed on under the lock.
        if claim.permits() == 1 && self.available.is_contended() {
            return Release::NotBegun;
        }
        if claim.key() != 0 {
            let running = self.running_keys.get();
            let removed = running.is_some_and(|it| it.remove_at_once(claim.key(), claim.permits()));
            if !removed {
                return Release::NotBegun;
            }
        }
        // While the counter is contended, only the holder of the lock acquires permits.
        if self.available.release(claim.permits()) {
            Release::Contended
        } else {
            Release::Done
        }
    }

    /// Completes what [`release_claim_at_once`](Self::release_claim_at_once) has begun. Returns
    /// `true` if this drained the queue.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete_release(
        &self,
        claim: Claim,
        begun: Release,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if claim.is_plain() {
            return self.release_to_next(now, begun == Release::Contended);
        }
        if begun == Release::NotBegun {
            if claim.permits() == 1 && self.available.is_contended() {
                return self.pass_on(claim.key(), now);
            }
            let suspended = self.forget_key(claim);
            if !self.available.release(claim.permits()) && !suspended {
                return false;
            }
        }
        self.assign_released(claim.key(), now)
    }

    /// Subtracts the permits of a call from its key. Returns `true` if calls of the key may be
    /// suspended.
    pub(super) fn forget_key(&self, claim: Claim) -> bool {
        let running = self.running_keys.get().filter(|_| claim.key() != 0);
        running.is_some_and(|running| running.remove(claim.key(), claim.permits()))
    }

    /// Acquires the permits of a new call, if no call waits but suspended ones. The caller holds
    /// the lock.
    ///
    /// A key may be resumed meanwhile, so the caller [settles](Self::settle), or assigns permits.
    pub(super) fn acquire_idle(
        &self,
        waiters: &mut Waiters,
        state: QueueState,
        claim: &mut Claim,
    ) -> bool {
        if state.is_closed() || state.permits_to_forget() > 0 {
            return false;
        }
        // Tries again after each return of the permits of an overdue waiter. Calls wait only once
        // no waiter is overdue.
        loop {
            let waits = waiters.waiting() > 0;
            if waits && (claim.key() == 0 || waiters.blocks_new_calls(claim.key())) {
                return false;
            }
            let acquired = if claim.key() == 0 {
                self.acquire_many(claim)
            } else {
                self.acquire_for_key(waiters, claim)
            };
            if acquired || !self.return_overdue(waiters) {
                return acquired;
            }
        }
    }

    /// Acquires the permits of a new call, if they are available. The caller holds the lock.
    pub(super) fn acquire_many(&self, claim: &mut Claim) -> bool {
        let permits = self.permits_to_grant(claim.permits());
        let acquired = permits > 0 && self.acquire_locked(permits, permits);
        if acquired {
            *claim = claim.with_permits(permits);
        }
        acquired
    }

    /// As [`acquire_many`](Self::acquire_many), for a call with a key.
    pub(super) fn acquire_for_key(&self, waiters: &mut Waiters, claim: &mut Claim) -> bool {
        let rules = KeyRules::from_bits(self.key_rules.load(Ordering::Relaxed));
        let (Some(rules), Some(running)) = (rules, self.running_keys.get()) else {
            return false;
        };
        let permits = self.permits_to_grant(claim.permits());
        if permits == 0 {
            return false;
        }
        let suspended = match running.add_locked(claim.key(), permits, rules.max) {
            Ok(held) => {
                let needed = needed(permits, held, rules, self.limits().permits as u32);
                if self.acquire_locked(permits, needed) {
                    *claim = claim.with_permits(permits);
                    return true;
                }
                running.remove(claim.key(), permits)
            }
            Err(suspended) => suspended,
        };
        // Only the holder of the lock and calls that are about to take it read what was added.
        if suspended {
            waiters.set_level_of(claim.key());
        }
        false
    }

    /// Gives a claim the key that counts: that of all calls without a key, or none if permits are
    /// not shared. Returns the bits of the rules in force.
    pub(crate) fn set_key(&self, claim: &mut Claim) -> u64 {
        let rules = self.key_rules.load(Ordering::Relaxed);
        *claim = if rules == KeyRules::NONE {
            claim.with_key(0)
        } else {
            claim.or_shared_key()
        };
        rules
    }

    /// Returns how many permits a call is granted that asks for `permits`: all of a smaller limit.
    pub(super) fn permits_to_grant(&self, permits: u32) -> u32 {
        permits.min(self.limits().permits as u32)
    }

    /// Shares permits between keys from now on, or ceases to. The caller holds the lock.
    ///
    /// `reordered`: the order of waiters has changed.
    pub(super) fn set_key_rules(
        &self,
        waiters: &mut Waiters,
        settings: QueueSettings,
        limit: usize,
        reordered: bool,
    ) {
        let rules = settings.keys;
        let running = rules.map(|_| {
            self.running_keys
                .get_or_init(|| Arc::new(RunningKeys::new(settings.max_permits)))
        });
        waiters.set_rules(rules, limit as u32, running, reordered);
        waiters.set_bounded(rules.is_some() || settings.max_weight.is_some());
        self.key_rules
            .store(KeyRules::to_bits(rules), Ordering::Relaxed);
    }

    /// Returns `true` if permits are shared between keys.
    #[inline]
    pub(crate) fn shares_permits(&self) -> bool {
        self.key_rules.load(Ordering::Relaxed) != KeyRules::NONE
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;
    use crate::queue::model_tests::UNBOUNDED;

    /// Hazard K29. The limit may shrink after the permits were found in the counter.
    #[test]
    fn call_needs_at_least_the_permits_that_it_acquires() {
        for min in 0..4 {
            let rules = KeyRules { min, ..UNBOUNDED };
            for (permits, limit) in
                (1..6).flat_map(|permits| [0, 1, 2, 4, 9].map(|it| (permits, it)))
            {
                for held in permits..permits + 3 {
                    let needed = needed(permits, held, rules, limit);
                    assert!(needed >= permits, "{permits} permits, {limit}, {rules:?}");
                    let reserved = if held > rules.min_in_force(limit) {
                        min
                    } else {
                        0
                    };
                    assert!(needed <= permits + reserved);
                }
            }
        }
        let rules = KeyRules {
            min: 2,
            ..UNBOUNDED
        };
        assert_eq!([2, 3].map(|held| needed(2, held, rules, 9)), [2, 4]);
        assert_eq!(
            needed(4, 4, rules, 5),
            5,
            "all permits of the limit suffice"
        );
    }
}
