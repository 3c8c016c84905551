//! Notifications of the store, and waiting for them.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::fleet::shared::FleetShared;
use crate::store::{StoreError, StoreEvent, StoreSession};

/// Announced changes that the driver has yet to read.
///
/// Notifications are not authenticated. A poll that finds nothing is therefore followed by a
/// pause, which bounds the polls that false notifications can cause.
#[derive(Default)]
pub(super) struct Notifications {
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Notifications {
    /// Handles a notification: schedules a poll.
    pub(super) fn received(&mut self, now: Instant) {
        let at = self.not_before.map_or(now, |at| at.max(now));
        self.due.get_or_insert(at);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|at| at <= now)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Handles a poll that a notification caused.
    pub(super) fn polled(&mut self, found_changes: bool, now: Instant) {
        self.due = None;
        self.not_before = if found_changes {
            None
        } else {
            Some(now + PAUSE_AFTER_FALSE_NOTIFICATION)
        };
    }
}

/// What ended a wait.
pub(super) enum WakeReason {
    Inbox,
    Notification(Result<StoreEvent, StoreError>),
    Timer,
}

/// Waits for input, a notification or the time `until`.
pub(super) async fn wait(
    shared: &FleetShared,
    session: Option<&mut dyn StoreSession>,
    until: Instant,
) -> WakeReason {
    let mut timer = shared.runtime.sleep_until(until);
    // Even without push: this also reports that the connection was lost.
    let mut changed = pin!(async {
        match session {
            Some(session) => session.changed().await,
            None => std::future::pending().await,
        }
    });
    let shutdown = shared.shutdown();
    let mut registration = shared.watch_inbox();
    std::future::poll_fn(|cx| {
        let has_input = shared.poll_inbox(&mut registration, cx).is_ready();
        if has_input || shared.shutdown() != shutdown {
            return Poll::Ready(WakeReason::Inbox);
        }
        if let Poll::Ready(event) = changed.as_mut().poll(cx) {
            return Poll::Ready(WakeReason::Notification(event));
        }
        timer.as_mut().poll(cx).map(|()| WakeReason::Timer)
    })
    .await
}

/// Returns a notification that has already arrived.
pub(super) async fn try_next(
    session: &mut dyn StoreSession,
) -> Option<Result<StoreEvent, StoreError>> {
    let mut changed = session.changed();
    std::future::poll_fn(|cx| {
        Poll::Ready(match changed.as_mut().poll(cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
    })
    .await
}

/// Lets other tasks run.
pub(super) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

const PAUSE_AFTER_FALSE_NOTIFICATION: Duration = Duration::from_millis(100);
