//! Waiters that ask for several permits, or whose permits are shared between keys.
//!
//! They are stored like all others, and have a link besides. Which of them is next is found before
//! it is known whether enough permits are available.

use std::task::Waker;
use std::time::Instant;

use super::chunks::{Chunks, Next};
use super::claim::Claim;
use super::limits::KeyRules;
use super::order::{Priority, QueueOrder};
use super::waiter::{QueueRejection, WaiterId, WaiterState};
use super::waiters::{Granted, PRIORITY_ORDER, PriorityQueue, Waiters, index_of};
use super::waiting_keys::{LeftKey, Link, NO_KEY, NO_WAITER, WaitingKeys};
use super::wake_list::WakeList;

/// The waiter that is granted permits next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) id: WaiterId,
    /// The permits that it asks for.
    pub(super) permits: u32,
    /// The permits that have to be available besides: those reserved for other keys.
    pub(super) reserved: u32,
    /// Whether it has a deadline.
    timed: bool,
}

impl Head {
    pub(super) const fn new(priority: usize, next: Next, reserved: u32) -> Self {
        Self {
            id: WaiterId::new(priority, next.sequence),
            permits: next.permits,
            reserved,
            timed: next.deadline.is_some(),
        }
    }
}

impl Waiters {
    /// Appends a waiter to the queue of its priority, and to its key.
    ///
    /// Returns `true` if the [level](Self::set_level_of) of its key has to be computed.
    pub(super) fn push_claim(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        claim: Claim,
        share: u32,
        waker: Waker,
    ) -> (WaiterId, bool) {
        if claim.is_plain() {
            return (self.push(priority, deadline, waker), false);
        }
        self.count_special(true);
        if claim.permits() > 1 {
            self.special.extra_permits += u64::from(claim.permits() - 1);
        }
        let index = index_of(priority);
        let (link, changes_level) = match &mut self.special.keys {
            Some(keys) if claim.key() != 0 => {
                let sequence = self.bounds[index].next;
                let (link, changes_level) =
                    keys.join(claim.key(), index, share, sequence, claim.permits());
                let queues = self.queues.as_mut().filter(|_| link.previous != NO_WAITER);
                if let Some(previous) =
                    queues.and_then(|queues| queues[index].chunks.link_mut(link.previous))
                {
                    previous.next = sequence;
                }
                (link, changes_level)
            }
            _ => (Link::without_key(claim.permits()), false),
        };
        let id = self.push_linked(index, deadline, waker, Some(link));
        (id, changes_level)
    }

    /// As [`poll`](Self::poll). Changes the claim of a waiter that was granted fewer permits.
    pub(super) fn poll_claim(
        &mut self,
        id: WaiterId,
        claim: &mut Claim,
        waker: &Waker,
    ) -> Option<WaiterState> {
        self.special.collected = None;
        let state = self.poll(id, waker);
        self.collect_permits(claim);
        state
    }

    /// As [`register_waker`](Self::register_waker). See [`poll_claim`](Self::poll_claim).
    pub(super) fn register_waker_of(
        &mut self,
        id: WaiterId,
        claim: &mut Claim,
        waker: Waker,
    ) -> (WaiterState, Waker) {
        self.special.collected = None;
        let registered = self.register_waker(id, waker);
        self.collect_permits(claim);
        registered
    }

    /// As [`remove`](Self::remove). See [`poll_claim`](Self::poll_claim).
    pub(super) fn remove_claim(
        &mut self,
        id: WaiterId,
        claim: &mut Claim,
    ) -> (WaiterState, Option<Waker>) {
        self.special.collected = None;
        let removed = self.remove(id);
        self.collect_permits(claim);
        removed
    }

    fn collect_permits(&mut self, claim: &mut Claim) {
        if let Some(permits) = self.special.collected.take() {
            *claim = claim.with_permits(permits);
        }
    }

    /// Returns the next waiter with time left at `now`, and expires those before it.
    ///
    /// Without `now`, no deadline is checked. Appends the wakers of expired waiters to `expired`.
    pub(super) fn peek(&mut self, now: Option<Instant>, expired: &mut WakeList) -> Option<Head> {
        for index in PRIORITY_ORDER {
            while self.waiting[index] > 0 {
                let Some((next, reserved)) = self.peek_priority(index) else {
                    break;
                };
                let head = Head::new(index, next, reserved);
                match (next.deadline, now) {
                    (Some(deadline), Some(now)) if deadline <= now => {
                        let ended = self.decide(head.id, WaiterState::Expired)?;
                        expired.push(ended.waker);
                    }
                    _ => return Some(head),
                }
            }
        }
        None
    }

    /// Returns the next waiter of a priority, and how many permits have to remain available.
    fn peek_priority(&mut self, index: usize) -> Option<(Next, u32)> {
        let keyed = self
            .special
            .keys
            .as_ref()
            .map_or(0, |keys| keys.waiting(index));
        let queue = &mut self.queues.as_mut()?[index];
        let PriorityQueue { chunks, newest } = queue;
        // Waiters without a key arrived before permits were shared, so before all others.
        if self.waiting[index] > keyed {
            let bounds = &mut self.bounds[index];
            let next = match self.order {
                QueueOrder::Fifo => chunks.peek_oldest(&mut bounds.oldest, bounds.next),
                QueueOrder::Lifo => chunks.peek_newest(newest),
            };
            // Except for one that looked for a permit before that, and joined after it.
            let next = next
                .filter(|next| keyed == 0 || !chunks.is_in_key(next.sequence))
                .or_else(|| chunks.oldest_in_no_key());
            return next.map(|next| (next, 0));
        }
        let keys = self.special.keys.as_ref()?;
        let key = keys.next(index)?;
        let next = chunks.peek(keys.next_waiter(key, self.order))?;
        Some((next, keys.reserved(key, next.permits)))
    }

    /// Grants `permits` to a waiter that [`peek`](Self::peek) or [`overtaker`](Self::overtaker)
    /// returned.
    ///
    /// Returns `None`, and computes the level of its key again, if that would exceed its maximum: a
    /// new call of the key has just added its permits.
    pub(super) fn grant_head(&mut self, head: Head, permits: u32) -> Option<Granted> {
        let bounded = self.key_with_maximum(head.id);
        if let Some(key) = bounded {
            if !self.add_to_key(key, permits) {
                self.set_level_of(key);
                return None;
            }
        }
        let fewer = permits != head.permits;
        let left = self.end_special(head.id);
        let key = left.map_or(0, |left| left.key);
        // What the waiter owns is in its slot, if it has to collect it under the lock.
        let kept = left.filter(|_| fewer || head.timed).map(|_| Link {
            previous: key,
            ..Link::without_key(permits)
        });
        let mut granted = self.end_wait(head.id, WaiterState::Granted, kept)?;
        granted.timed |= fewer;
        if key != 0 {
            let keys = self.special.keys.as_ref();
            if let Some(keys) = keys.filter(|_| bounded.is_none()) {
                keys.running().insert_locked(key, permits);
            }
            match left.and_then(|left| left.remaining) {
                Some(remaining) => {
                    let own = head.id.priority();
                    self.set_level(own, remaining);
                    self.set_level_except(key, own);
                }
                // It may have waited in no key, while others of its key wait in theirs.
                None => self.set_level_of(key),
            }
        }
        Some(granted)
    }

    /// Passes the permit of a call of `key` on to the next waiter, in the case of most calls with a
    /// key. So this is [`peek`](Self::peek) and [`grant_head`](Self::grant_head) in one. The key
    /// still holds the permit, and keeps it if the waiter is its own.
    ///
    /// Returns `None`, and leaves the levels of `key` to be computed once it has released the
    /// permit, if a waiter has a deadline, the next one is in no key or asks for several permits,
    /// the permits of keys are bounded, or waiters may overtake others.
    pub(super) fn pass_on(&mut self, key: u64) -> Option<Granted> {
        if self.has_deadlines() || self.special.overtaking.is_some() {
            return None;
        }
        let keys = self.special.keys.as_deref_mut()?;
        if keys.depends_on_next() || keys.is_unsettled() {
            return None;
        }
        let waits = |index: &&usize| self.waiting[**index] > 0;
        let &index = PRIORITY_ORDER.iter().find(waits)?;
        if self.waiting[index] > keys.waiting(index) {
            return None;
        }
        let has_others = self.waiting.iter().sum::<u32>() > self.waiting[index];
        if has_others {
            // The turns of the key in other priorities change, too.
            keys.running().remove(key, 1);
            keys.set_levels_except(key, index, self.order, |_, _| 1);
        }
        let still_held = u32::from(!has_others);
        let chunks = &mut self.queues.as_mut()?[index].chunks;
        let next = keys.next_after_release(key, index, still_held);
        let left = next.and_then(|next| {
            let sequence = keys.next_waiter(next, self.order);
            let (waker, link) = chunks.grant_linked(sequence)?;
            Some((leave_key(keys, chunks, sequence, &link), sequence, waker))
        });
        let receiver = left.as_ref().map_or(key, |(left, ..)| left.key);
        if has_others {
            keys.running().insert_locked(receiver, 1);
        } else if receiver != key {
            keys.running().remove(key, 1);
            keys.running().insert_locked(receiver, 1);
        }
        let (left, sequence, waker) = left?;
        if let Some(remaining) = left.remaining {
            if receiver == key && !has_others {
                keys.move_behind(remaining);
            } else {
                keys.enter_level_again(remaining);
            }
        }
        if has_others {
            keys.set_levels_except(receiver, index, self.order, |_, _| 1);
        }
        self.waiting[index] -= 1;
        self.count_special(false);
        Some(Granted {
            id: WaiterId::new(index, sequence),
            waker,
            timed: false,
        })
    }

    /// Returns the key of a waiter, if it has a maximum.
    fn key_with_maximum(&self, id: WaiterId) -> Option<u64> {
        let keys = self.special.keys.as_ref()?;
        if keys.rules.max == KeyRules::NO_MAX {
            return None;
        }
        let chunks = &self.queues.as_ref()?[id.priority()].chunks;
        let link = chunks.link(id.sequence())?;
        (link.key != NO_KEY).then(|| keys.key(link.key))
    }

    /// Adds permits to a key, unless it would exceed its maximum.
    ///
    /// Its level does not suffice: a new call may have read what the key holds before these permits
    /// are added. Then this reads what that call has added.
    fn add_to_key(&self, key: u64, permits: u32) -> bool {
        let keys = self.special.keys.as_ref();
        keys.is_some_and(|it| it.running().add_locked(key, permits, it.rules.max).is_ok())
    }

    /// Rejects the newest waiter of the key with the most waiters, if it has at least two more than
    /// `key`, which a new call has.
    pub(super) fn evict(&mut self, key: u64, priority: Priority) -> Option<Granted> {
        let priority = index_of(priority);
        let keys = self.special.keys.as_mut()?;
        let longest = keys.much_longer(key, priority)?;
        let id = WaiterId::new(priority, keys.last(longest));
        self.decide(id, WaiterState::Rejected(QueueRejection::Evicted))
    }

    /// Ends the wait of a waiter whose deadline has passed, if it still waits.
    pub(super) fn expire(&mut self, id: WaiterId) -> Option<Granted> {
        if self.is_waiting(id) {
            self.decide(id, WaiterState::Expired)
        } else {
            None
        }
    }

    /// Ends the wait of a waiter.
    pub(super) fn decide(&mut self, id: WaiterId, state: WaiterState) -> Option<Granted> {
        self.end_special(id);
        self.end_wait(id, state, None)
    }

    /// Ends the wait of a waiter that is in no key. With `kept`, its permits are in that link until
    /// it collects them.
    fn end_wait(
        &mut self,
        id: WaiterId,
        state: WaiterState,
        kept: Option<Link>,
    ) -> Option<Granted> {
        let index = id.priority();
        let chunks = &mut self.queues.as_mut()?[index].chunks;
        let popped = chunks.decide(id.sequence(), state, kept)?;
        self.waiting[index] -= 1;
        self.count_untimed(popped.timed);
        if kept.is_some() {
            self.special.uncollected += 1;
            self.mark_unusual();
        }
        Some(Granted {
            id,
            waker: popped.waker,
            timed: popped.timed,
        })
    }

    /// Removes a waiter, and returns the state it had and its waker.
    ///
    /// Sets [`collected`](super::waiters::SpecialParts::collected) if the permits that it owns are
    /// in its slot.
    pub(super) fn remove_special(&mut self, id: WaiterId) -> (WaiterState, Option<Waker>) {
        let waits = self.is_waiting(id);
        if waits {
            self.end_special(id);
        }
        let queues = self.queues.as_mut();
        let link = queues.and_then(|queues| queues[id.priority()].chunks.take_link(id.sequence()));
        if let Some(link) = link {
            self.special.uncollected -= 1;
            self.special.collected = Some(link.permits);
        }
        self.remove_ordinary(id)
    }

    fn is_waiting(&mut self, id: WaiterId) -> bool {
        let queues = self.queues.as_mut();
        queues.is_some_and(|queues| queues[id.priority()].chunks.peek(id.sequence()).is_some())
    }

    /// Counts the end of a special waiter's wait, and removes it from its key. Its link is taken.
    ///
    /// Returns `None` for an ordinary waiter.
    pub(super) fn end_special(&mut self, id: WaiterId) -> Option<LeftKey> {
        let priority = id.priority();
        let link = self.queues.as_mut()?[priority]
            .chunks
            .take_link(id.sequence())?;
        self.count_special(false);
        if let Some(overtaking) = &mut self.special.overtaking {
            overtaking.forget(id);
        }
        self.special.extra_permits -= u64::from(link.permits - 1);
        if link.key == NO_KEY {
            return Some(LeftKey {
                key: link.previous,
                remaining: None,
            });
        }
        let (queues, keys) = (self.queues.as_mut()?, self.special.keys.as_mut()?);
        let depends_on_next = keys.depends_on_next();
        let left = leave_key(keys, &mut queues[priority].chunks, id.sequence(), &link);
        if let Some(remaining) = left.remaining.filter(|_| depends_on_next) {
            self.set_level(priority, remaining);
        }
        Some(left)
    }

    /// Sets whether the settings of the queue make a difference to each waiter.
    pub(super) fn set_bounded(&mut self, bounded: bool) {
        self.special.bounded = bounded;
        self.mark_unusual();
    }

    /// Returns the permits that all waiters ask for together.
    pub(super) fn queued_permits(&self) -> u64 {
        u64::from(self.waiting()) + self.special.extra_permits
    }
}

/// Removes a waiter, of which the link has been taken, from its key.
#[inline]
fn leave_key(keys: &mut WaitingKeys, chunks: &mut Chunks, sequence: u64, link: &Link) -> LeftKey {
    let is_first = keys.first(link.key) == sequence;
    if !is_first {
        if let Some(previous) = chunks.link_mut(link.previous) {
            previous.next = link.next;
        }
        if let Some(next) = chunks.link_mut(link.next) {
            next.previous = link.previous;
        }
    }
    keys.leave(link, is_first)
}
