//! Waiters that overtake one for which too few permits are available.

use std::collections::HashMap;
use std::time::Instant;

use super::chunks::Next;
use super::order::QueueOrder;
use super::special_waiters::Head;
use super::waiter::{WaiterId, WaiterState};
use super::waiters::Waiters;
use super::waiting_keys::{NO_KEY, NO_WAITER};
use super::wake_list::WakeList;

/// How often waiters have been overtaken.
#[derive(Debug)]
pub(super) struct Overtaking {
    /// How often a waiter may be overtaken.
    most: u32,
    /// How often each waiter has been overtaken, if it has been.
    counts: HashMap<WaiterId, u32>,
}

/// The number of waiters behind the next one that are examined for each grant.
const EXAMINED: usize = 8;

impl Overtaking {
    /// Forgets a waiter that no longer waits.
    pub(super) fn forget(&mut self, id: WaiterId) {
        if !self.counts.is_empty() {
            self.counts.remove(&id);
        }
    }

    fn may_be_overtaken(&self, id: WaiterId) -> bool {
        self.counts.get(&id).copied().unwrap_or(0) < self.most
    }
}

impl Waiters {
    /// Lets up to `most` waiters overtake one for which too few permits are available.
    pub(super) fn set_overtaking(&mut self, most: u32) {
        match &mut self.special.overtaking {
            Some(overtaking) if most > 0 || !overtaking.counts.is_empty() => overtaking.most = most,
            overtaking => {
                *overtaking = (most > 0).then(|| {
                    let counts = HashMap::new();
                    Box::new(Overtaking { most, counts })
                });
            }
        }
    }

    /// Returns the number of waiters that have been overtaken.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn overtaken(&self) -> usize {
        let overtaking = self.special.overtaking.as_ref();
        overtaking.map_or(0, |overtaking| overtaking.counts.len())
    }

    /// Counts that a waiter has been overtaken.
    pub(super) fn count_overtaking(&mut self, id: WaiterId) {
        if let Some(overtaking) = &mut self.special.overtaking {
            *overtaking.counts.entry(id).or_insert(0) += 1;
        }
    }

    /// Returns the first waiter behind `head` for which `acquire` returns `true`.
    ///
    /// Examines at most [`EXAMINED`] of its priority, in the order in which they are served. Those
    /// whose deadlines have passed expire, and do not count.
    pub(super) fn overtaker(
        &mut self,
        head: Head,
        now: Option<Instant>,
        expired: &mut WakeList,
        acquire: impl Fn(&Head) -> bool,
    ) -> Option<Head> {
        if !self.special.overtaking.as_ref()?.may_be_overtaken(head.id) {
            return None;
        }
        loop {
            let mut candidates = Vec::with_capacity(EXAMINED);
            self.add_behind(head, &mut candidates);
            let found = candidates.into_iter().find_map(|(next, reserved)| {
                let waiter = Head::new(head.id.priority(), next, reserved);
                match (next.deadline, now) {
                    (Some(deadline), Some(now)) if deadline <= now => Some(Err(waiter.id)),
                    _ => acquire(&waiter).then_some(Ok(waiter)),
                }
            });
            match found? {
                Ok(waiter) => return Some(waiter),
                Err(id) => {
                    let ended = self.decide(id, WaiterState::Expired)?;
                    expired.push(ended.waker);
                }
            }
        }
    }

    /// Appends the waiters behind `head`, and how many permits have to remain available for each.
    fn add_behind(&mut self, head: Head, candidates: &mut Vec<(Next, u32)>) {
        let (priority, order) = (head.id.priority(), self.order);
        let Some(queues) = &mut self.queues else {
            return;
        };
        let chunks = &mut queues[priority].chunks;
        let own = chunks
            .link(head.id.sequence())
            .filter(|it| it.key != NO_KEY);
        let (Some(mut link), Some(keys)) = (own, &self.special.keys) else {
            let mut sequence = head.id.sequence();
            while candidates.len() < EXAMINED {
                let next = chunks.peek_behind(sequence, order);
                let Some(next) = next.filter(|it| !chunks.is_in_key(it.sequence)) else {
                    return;
                };
                sequence = next.sequence;
                candidates.push((next, 0));
            }
            return;
        };
        // Once the head is granted its permits, its key is behind the others.
        let own = link.key;
        let others = keys.in_order(priority).filter(|&key| key != own);
        candidates.extend(others.take(EXAMINED).filter_map(|key| {
            let next = chunks.peek(keys.next_waiter(key, order))?;
            Some((next, keys.reserved(key, next.permits)))
        }));
        let mut sequence = head.id.sequence();
        while candidates.len() < EXAMINED {
            sequence = match order {
                QueueOrder::Fifo => link.next,
                QueueOrder::Lifo if sequence == keys.first(own) => NO_WAITER,
                QueueOrder::Lifo => link.previous,
            };
            let next = chunks.peek(sequence).zip(chunks.link(sequence));
            let Some((next, behind)) = next.filter(|_| sequence != NO_WAITER) else {
                return;
            };
            // One that fits asks for fewer permits than `head`, so its key is not at its maximum.
            candidates.push((next, keys.reserved(own, next.permits)));
            link = behind;
        }
    }
}
