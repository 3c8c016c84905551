//! Announcements of changes.

use std::time::{Duration, Instant};

/// Announcements, which anybody may make: one that turns out to be empty is answered by a pause,
/// so that they cost the store at most so many looks.
#[derive(Default)]
pub(super) struct Hints {
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Hints {
    pub(super) fn heard(&mut self, now: Instant) {
        let at = self.not_before.map_or(now, |at| at.max(now));
        self.due.get_or_insert(at);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|at| at <= now)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn looked(&mut self, found: bool, now: Instant) {
        self.due = None;
        self.not_before = if found {
            None
        } else {
            Some(now + PAUSE_AFTER_EMPTY_HINT)
        };
    }
}

const PAUSE_AFTER_EMPTY_HINT: Duration = Duration::from_millis(100);
