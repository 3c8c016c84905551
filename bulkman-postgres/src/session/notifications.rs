//! The notifications that a session receives, within bounds.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bulkman_core::store::{StoreError, StoreEvent};
use sqlx::postgres::PgNotification;

use super::{PostgresSession, State};
use crate::link::Link;
use crate::timeout::sleep;

impl PostgresSession {
    /// Receives the notifications that have arrived.
    ///
    /// If some were not authentic, it waits until none arrives for a while: a statement would
    /// receive the rest of a flood in one poll, and sqlx would buffer it. A busy server may pause
    /// in the middle of one.
    pub(super) async fn receive_arrived(&mut self) -> Result<(), StoreError> {
        let quiet = self.quiet_time();
        let mut limit = None;
        for number in 1..=MAX_RECEIVED {
            let is_burst = self.inbox.is_burst();
            let Link::Listener(listener) = &mut self.link else {
                break;
            };
            let mut pause = is_burst.then(|| sleep(quiet));
            if is_burst {
                // A statement is late, but not lost, if the notifications don't end.
                limit.get_or_insert_with(|| sleep(quiet * 2));
            }
            let arrived = {
                let mut received = pin!(listener.try_recv());
                poll_fn(|cx| {
                    if let Poll::Ready(received) = received.as_mut().poll(cx) {
                        return Poll::Ready(Some(received));
                    }
                    let (Some(pause), Some(limit)) = (&mut pause, &mut limit) else {
                        return Poll::Ready(None);
                    };
                    if limit.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(None);
                    }
                    pause.as_mut().poll(cx).map(|()| None)
                })
                .await
            };
            let Some(notification) = arrived else {
                break;
            };
            if let Some(event) = self.accept(notification)? {
                self.inbox.push(event);
            }
            if self.inbox.is_long_burst() {
                return Err(self.flooded());
            }
            if number % MAX_PER_POLL == 0 {
                yield_now().await;
            }
        }
        self.inbox.end_burst();
        Ok(())
    }

    /// Returns the time without a notification that ends a burst, a fraction of the time that the
    /// driver waits for a statement.
    fn quiet_time(&self) -> Duration {
        let quiet = MAX_QUIET.min(self.connector.settings.operation_timeout / 8);
        if self.verifier.authenticates() {
            quiet
        } else {
            // Those of the fleet can't be distinguished, and must not be late.
            quiet / 5
        }
    }

    /// Parses a notification; `None` if it is malformed.
    pub(super) fn accept(
        &mut self,
        notification: sqlx::Result<Option<PgNotification>>,
    ) -> Result<Option<StoreEvent>, StoreError> {
        let Some(notification) = notification.map_err(|error| self.failed(error))? else {
            return Err(StoreError::unavailable("the connection was closed"));
        };
        let payload = notification.payload();
        let event = self.verifier.parse(payload);
        let authentic = matches!(event, Some(StoreEvent::Applied(_)));
        if !authentic && self.inbox.exceeds_limit(payload.len()) {
            return Err(self.flooded());
        }
        Ok(event)
    }

    /// Stops to listen: the next session polls.
    pub(super) fn flooded(&mut self) -> StoreError {
        // The backend may be sending notifications, which are not read any more.
        self.state = State::Busy;
        self.connector.set_flooded(true);
        StoreError::unavailable(format!(
            "channel {} is flooded by notifications that this library did not send; \
             REVOKE CONNECT ON DATABASE from roles that don't need it",
            self.verifier.channel()
        ))
    }
}

/// Lets other tasks run.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Notifications that are parsed in one poll.
pub(super) const MAX_PER_POLL: usize = 64;

/// Longer than a server process waits for a processor.
const MAX_QUIET: Duration = Duration::from_millis(250);

/// Notifications that are received before a statement. Authentic ones are not limited otherwise.
const MAX_RECEIVED: usize = 20_000;
