//! Notifications that have arrived and that the driver has not received.

use std::collections::VecDeque;

use bulkman_core::store::{Revision, StoreEvent};

/// A bounded queue of notifications, and the limit for those that are not authentic.
#[derive(Debug)]
pub(crate) struct NotificationInbox {
    events: VecDeque<StoreEvent>,
    /// The start of the period, in microseconds of the store's clock.
    began_us: i64,
    /// The size of the notifications without authentication in this period.
    size: usize,
    /// Their size since the last statement.
    burst: usize,
}

impl NotificationInbox {
    pub(crate) const fn new(now_us: i64) -> Self {
        Self {
            events: VecDeque::new(),
            began_us: now_us,
            size: 0,
            burst: 0,
        }
    }

    /// Adds an event. If the queue is full, one hint replaces all: the driver then polls.
    pub(crate) fn push(&mut self, event: StoreEvent) {
        if self.events.len() < CAPACITY {
            self.events.push_back(event);
            return;
        }
        let revisions = self.events.drain(..).map(|event| event.revision());
        let revision: Option<Revision> = revisions.chain([event.revision()]).max();
        let revision = revision.unwrap_or_default();
        self.events.push_back(StoreEvent::Changed { revision });
    }

    pub(crate) fn pop(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    /// Counts a notification that is not authentic, and returns whether there are too many.
    pub(crate) const fn exceeds_limit(&mut self, payload: usize) -> bool {
        self.size = self.size.saturating_add(payload + OVERHEAD);
        self.burst = self.burst.saturating_add(payload + OVERHEAD);
        self.size > MAX_SIZE
    }

    /// Returns whether notifications without authentication have arrived since the last statement.
    pub(crate) const fn is_burst(&self) -> bool {
        self.burst > 0
    }

    /// Returns whether too many of them have arrived for a statement on the same connection.
    pub(crate) const fn is_long_burst(&self) -> bool {
        self.burst > MAX_BURST
    }

    /// Handles that a flood may still continue.
    pub(crate) const fn expect_burst(&mut self) {
        self.burst = self.burst.saturating_add(1);
    }

    /// Handles that a statement is about to be sent.
    pub(crate) const fn end_burst(&mut self) {
        self.burst = 0;
    }

    /// Starts a new period if this one has elapsed by the store's clock.
    pub(crate) const fn advance(&mut self, now_us: i64) {
        if now_us.abs_diff(self.began_us) >= PERIOD_US {
            self.began_us = now_us;
            self.size = 0;
        }
    }
}

/// More than the changes that arrive during one statement, except when the whole fleet fails.
const CAPACITY: usize = 256;

/// The limit of a period: what costs about 0.1 s of processor time.
const MAX_SIZE: usize = 8 << 20;

const MAX_BURST: usize = 1 << 20;

const PERIOD_US: u64 = 5_000_000;

/// The cost of receiving a notification without a payload, in bytes of payload.
const OVERHEAD: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_inbox_is_replaced_by_one_hint() {
        let mut inbox = NotificationInbox::new(0);
        let hint = |revision| StoreEvent::Changed {
            revision: Revision(revision),
        };
        for revision in 0..=256 {
            inbox.push(hint(revision));
        }
        inbox.push(hint(5));
        assert_eq!(inbox.pop(), Some(hint(256)));
        assert_eq!((inbox.pop(), inbox.pop()), (Some(hint(5)), None));
    }

    #[test]
    fn limit_applies_to_a_period() {
        let mut inbox = NotificationInbox::new(0);
        let until_exceeded =
            |inbox: &mut NotificationInbox| (1..).find(|_| inbox.exceeds_limit(8_000)).unwrap_or(0);
        assert_eq!(until_exceeded(&mut inbox), 1_036);
        inbox.advance(4_999_999);
        assert!(inbox.exceeds_limit(0));
        inbox.advance(5_000_000);
        assert_eq!(until_exceeded(&mut inbox), 1_036);
    }
}
