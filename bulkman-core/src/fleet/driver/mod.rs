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

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

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
    /// When the status of this process was last stored.
    reported_at: Option<Instant>,
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
            reported_at: None,
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
        self.members.take_inbox_in_slices().await;
        self.members.apply_updates_in_slices().await;
        let names = self.members.take_all_names();
        let opening = self.requests.open_session(&names);
        let mut session = match while_serving(&self.shared, &mut self.members, opening).await {
            // The names are registered one by one, to find those that the store rejects.
            Err(StoreError::InvalidArgument { .. }) if !names.is_empty() => {
                let opening = self.requests.open_session(&[]);
                let opened = while_serving(&self.shared, &mut self.members, opening).await;
                let mut session = opened?;
                self.register_each(&mut *session, names).await?;
                session
            }
            outcome => outcome?,
        };
        let status = self.requests.status(&self.connection);
        let reading = self.requests.execute(session.resync(None, &status));
        let snapshot = while_serving(&self.shared, &mut self.members, reading).await?;
        self.status_reported(&*session);
        self.load(snapshot, &mut *session).await?;
        match session.read_only_reason() {
            Some(reason) => {
                self.members.on_read_only();
                self.connection.became_read_only(reason);
            }
            None => {
                self.members.on_connected();
                self.connection.set_listening(session.is_listening());
            }
        }
        self.members.apply_updates_in_slices().await;
        self.members.publish_status();
        self.connection.synchronized();
        Ok(session)
    }

    /// Handles that the store can only be read from now on, or accepts changes again.
    async fn update_access(&mut self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        match session.read_only_reason() {
            Some(reason) if !self.connection.is_read_only() => {
                self.members.on_read_only();
                self.connection.became_read_only(reason);
                self.members.report_all_pending();
            }
            None if self.connection.is_read_only() => {
                // A standby can't listen, and may have been promoted without the last changes.
                self.requests.execute(session.listen()).await?;
                self.register(session).await?;
                if session.read_only_reason().is_none() {
                    self.members.on_connected();
                    self.connection.writes_resumed();
                    self.connection.set_listening(session.is_listening());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs a session until a shutdown (`Ok`) or until the session fails.
    async fn run_session(&mut self, session: &mut dyn StoreSession) -> Result<(), StoreError> {
        let mut poll_at = self.connection.next_poll();
        let mut flush_at = self.connection.next_flush();
        let mut notifications = Notifications::default();
        // A request is postponed for at most one poll.
        let mut postponed = false;
        loop {
            self.members.take_inbox_in_slices().await;
            self.update_access(session).await?;
            let read_only = self.connection.is_read_only();
            if self.members.has_unregistered() || (self.history.has_diverged() && !read_only) {
                self.register(session).await?;
            }
            self.members.apply_updates_in_slices().await;
            if read_only {
                poll_at = poll_at.min(self.connection.next_poll());
            } else {
                self.release_orphaned(session).await?;
            }
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
                    Ok(()) => {
                        self.members.on_request_accepted(id);
                        let rejected = |name: &_| self.members.is_still_rejected(name);
                        self.connection.operation_accepted(rejected);
                    }
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
                Some(Shutdown::Flush) if read_only => return Ok(()),
                Some(Shutdown::Flush) => return self.leave(session).await,
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
                let rejected = |name: &_| self.members.is_still_rejected(name);
                self.connection.forget_rejections(rejected);
                self.connection.update_push_health(found);
                poll_at = self.connection.next_poll();
                continue;
            }
            let due_flush = flush_at.filter(|_| !read_only);
            if due_flush.is_some_and(|at| now >= at) {
                let flushed = self.flush_counts(session).await;
                flush_at = self.connection.next_flush();
                match flushed {
                    Ok(()) => {
                        let rejected = |name: &_| self.members.is_still_rejected(name);
                        self.connection.operation_accepted(rejected);
                    }
                    // The next turn finds that the store can only be read.
                    Err(_) if session.is_usable() && session.read_only_reason().is_some() => {}
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
            let deadlines = [due_flush, notifications.deadline(), member_deadline];
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
            self.members.take_inbox_in_slices().await;
            self.members.apply_updates_in_slices().await;
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

/// Waits for `operation`, and meanwhile serves the circuits: a lease expires, or an outage begins.
async fn while_serving<T>(
    shared: &FleetShared,
    members: &mut Members,
    operation: impl Future<Output = T>,
) -> T {
    let mut operation = pin!(operation);
    loop {
        let now = shared.now();
        let until = members.next_deadline(now).unwrap_or(now + NO_DEADLINE);
        let mut waiting = pin!(wait(shared, None, until));
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = operation.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            waiting.as_mut().poll(cx).map(|_| None)
        });
        if let Some(done) = done.await {
            return done;
        }
        members.take_inbox_in_slices().await;
        members.apply_updates_in_slices().await;
        members.publish_status();
    }
}

/// Longer than any operation.
const NO_DEADLINE: Duration = Duration::from_secs(3_600);

/// Lets other tasks of the executor run, once per slice of the circuits of a process.
async fn pause_between_slices(index: usize) {
    if index != 0 && index % SLICE == 0 {
        notifications::yield_now().await;
    }
}

/// Circuits that are handled in one poll of the driver's task: a fraction of a millisecond.
const SLICE: usize = 256;
