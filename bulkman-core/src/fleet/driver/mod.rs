//! The driver of a fleet: the task that keeps its circuits in sync with the store.
//!
//! [`Driver`] is the loop. It executes one store operation at a time, each within its timeout, and
//! combines these parts:
//!
//! * [`Connection`]: the condition of the connection (backoff, push health, clock check).
//! * [`Requests`]: creates requests to the store and executes them within their timeout.
//! * [`Members`]: this process's circuits.
//! * [`Notifications`]: the changes that the store has announced but the driver has not read.
//!
//! `responses.rs` executes what the members request and passes the responses back to them.

mod connection;
mod members;
mod notifications;
mod requests;
mod responses;
mod task;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use self::connection::Connection;
use self::members::Members;
use self::notifications::{Notifications, WakeReason, wait};
use self::requests::Requests;
pub(super) use self::task::{DriverTask, ParkedDriver};
use super::history::NamespaceHistory;
use super::shared::{FleetShared, Shutdown};
use crate::store::{CircuitStore, StoreError, StoreSession, StoreSettings};
use crate::sync::unwind::catch;

/// The task that keeps the circuits of a fleet in sync with the store.
pub(super) struct Driver {
    shared: Arc<FleetShared>,
    settings: Arc<StoreSettings>,
    connection: Connection,
    requests: Requests,
    members: Members,
    history: NamespaceHistory,
    /// The number of requests in the last operation that published several.
    last_batch: usize,
}

/// Why a session ended.
enum DisconnectReason {
    Shutdown,
    Failed(StoreError),
}

impl Driver {
    pub(super) fn new(
        shared: Arc<FleetShared>,
        store: Arc<dyn CircuitStore>,
        settings: Arc<StoreSettings>,
    ) -> Self {
        let capabilities = store.capabilities();
        Self {
            connection: Connection::new(&shared, &settings, capabilities),
            members: Members::new(&shared, &settings, capabilities),
            requests: Requests::new(&shared, store, &settings),
            history: NamespaceHistory::default(),
            last_batch: 1,
            shared,
            settings,
        }
    }

    async fn run(&mut self) {
        loop {
            match self.run_connection_catching().await {
                DisconnectReason::Shutdown => return,
                DisconnectReason::Failed(error) => self.degrade(error),
            }
            if !self.back_off().await {
                return;
            }
        }
    }

    /// Ends the driver: the circuits return to their local rules.
    pub(super) fn end(&mut self) {
        // A decision in the inbox is reported as unpublished.
        self.members.take_inbox();
        self.members.detach_all();
        self.members.publish_status();
        self.connection.stopped();
    }

    /// A panic of the store ends its session, not the driver.
    async fn run_connection_catching(&mut self) -> DisconnectReason {
        let mut running = pin!(self.run_connection());
        poll_fn(|cx| {
            catch(|| running.as_mut().poll(cx)).unwrap_or_else(|| {
                let error = StoreError::unavailable("the store panicked");
                Poll::Ready(DisconnectReason::Failed(error))
            })
        })
        .await
    }

    /// As [`Members::take_inbox`], with pauses for other tasks.
    async fn take_inbox(&mut self) {
        let changed = self.members.take_changed();
        for (index, id) in changed.into_iter().enumerate() {
            pause_between_slices(index).await;
            self.members.observe(id);
        }
    }

    /// As [`Members::apply_updates`], with pauses for other tasks.
    async fn apply_updates(&mut self) {
        let due = self.members.due_updates();
        for (index, update) in due.into_iter().enumerate() {
            pause_between_slices(index).await;
            self.members.apply_updates_of(update);
        }
    }

    /// Connects and runs one session until it ends.
    async fn run_connection(&mut self) -> DisconnectReason {
        let error = match self.connect().await {
            Ok(mut session) => match self.run_session(&mut *session).await {
                Ok(()) => return DisconnectReason::Shutdown,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if self.shared.shutdown() == Some(Shutdown::Immediate) {
            DisconnectReason::Shutdown
        } else {
            DisconnectReason::Failed(error)
        }
    }

    async fn connect(&mut self) -> Result<Box<dyn StoreSession>, StoreError> {
        self.take_inbox().await;
        self.apply_updates().await;
        let names = self.members.take_all_names();
        let mut session = match self.requests.open_session(&names).await {
            // The names are registered one by one, to find those that the store rejects.
            Err(StoreError::InvalidArgument { .. }) if !names.is_empty() => {
                let mut session = self.requests.open_session(&[]).await?;
                self.register_each(&mut *session, names).await?;
                session
            }
            outcome => outcome?,
        };
        let snapshot = self.requests.execute(session.snapshot(None)).await?;
        self.load(snapshot, &mut *session).await?;
        self.members.on_connected();
        self.apply_updates().await;
        self.members.publish_status();
        self.connection.synchronized();
        self.connection.set_listening(session.is_listening());
        Ok(session)
    }

    /// Runs a session until a shutdown (`Ok`) or until the session fails.
    async fn run_session(&mut self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        let mut poll_at = self.connection.next_poll();
        let mut flush_at = self.connection.next_flush();
        let mut notifications = Notifications::default();
        // A request is postponed for at most one poll.
        let mut postponed = false;
        loop {
            self.take_inbox().await;
            if self.members.has_unregistered() || self.history.has_diverged() {
                self.register(session).await?;
            }
            self.apply_updates().await;
            self.release_orphaned(session).await?;
            let now = self.shared.now();
            if let Some((id, request)) = self.members.next_request(now) {
                // When many circuits of many processes open together, one poll finds most of the
                // changes that would make the store reject this request.
                self.drain_notifications(session, &mut notifications)
                    .await?;
                if !postponed && notifications.is_due(now) {
                    self.poll_notified(session, &mut notifications).await?;
                    postponed = true;
                    continue;
                }
                match self.perform(session, id, request).await {
                    Ok(()) => self.connection.operation_accepted(),
                    Err(error) => self.handle_rejected_request(session, id, error)?,
                }
                self.members.publish_status();
                postponed = false;
                continue;
            }
            self.members.publish_status();
            match self.shared.shutdown() {
                Some(Shutdown::Immediate) => return Ok(()),
                // A decision from before the shutdown may have arrived meanwhile.
                Some(Shutdown::Flush) if self.shared.has_input() => continue,
                Some(Shutdown::Flush) => return self.release_leases(session).await,
                None => {}
            }
            if notifications.is_due(now) {
                self.poll_notified(session, &mut notifications).await?;
                continue;
            }
            if now >= poll_at {
                if self.connection.is_push_due(now) {
                    self.requests.execute(session.listen()).await?;
                    self.connection.set_listening(session.is_listening());
                }
                let found = self.poll_changes(session).await?;
                self.connection.update_push_health(found);
                poll_at = self.connection.next_poll();
                continue;
            }
            if flush_at.is_some_and(|at| now >= at) {
                let flushed = self.flush_counts(session).await;
                flush_at = self.connection.next_flush();
                match flushed {
                    Ok(()) => self.connection.operation_accepted(),
                    Err(error) if error.is_transient() || !session.is_usable() => {
                        return Err(error);
                    }
                    Err(error) => {
                        let retry_at = self.connection.operation_rejected(None, error);
                        flush_at = flush_at.max(Some(retry_at));
                    }
                }
                continue;
            }
            let member_deadline = self.members.next_deadline(now);
            let deadlines = [flush_at, notifications.deadline(), member_deadline];
            let wake_at = deadlines.into_iter().flatten().fold(poll_at, Ord::min);
            match wait(&self.shared, Some(session), wake_at).await {
                WakeReason::Inbox | WakeReason::Timer => {}
                WakeReason::Notification(event) => {
                    self.handle_event(&event?, &mut notifications);
                    self.drain_notifications(session, &mut notifications)
                        .await?;
                    // More may have arrived, without end: other tasks get their turn.
                    notifications::yield_now().await;
                }
            }
        }
    }

    fn degrade(&mut self, error: StoreError) {
        self.members.on_disconnected();
        self.report_degraded(error);
    }

    fn report_degraded(&mut self, error: StoreError) {
        self.members.apply_updates();
        self.members.publish_status();
        self.connection.degraded(error);
        self.members.report_all_pending();
    }

    /// Waits before the next attempt to connect, and meanwhile serves the circuits.
    ///
    /// Returns `false` if a shutdown was requested.
    async fn back_off(&mut self) -> bool {
        let until = self.connection.next_attempt();
        loop {
            if self.shared.shutdown().is_some() {
                return false;
            }
            self.take_inbox().await;
            self.apply_updates().await;
            self.members.publish_status();
            let now = self.shared.now();
            if now >= until {
                return true;
            }
            let deadline = self.members.next_deadline(now);
            wait(
                &self.shared,
                None,
                deadline.map_or(until, |at| at.min(until)),
            )
            .await;
        }
    }
}

/// Lets other tasks of the executor run, once per slice of the circuits of a process.
async fn pause_between_slices(index: usize) {
    if index != 0 && index % SLICE == 0 {
        notifications::yield_now().await;
    }
}

/// Circuits that are handled in one poll of the driver's task: a fraction of a millisecond.
const SLICE: usize = 256;
