//! The condition of the connection to the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fleet::backoff::Backoff;
use crate::fleet::events::FleetEvent;
use crate::fleet::jitter::Jitter;
use crate::fleet::shared::FleetShared;
use crate::name::BulkheadName;
use crate::store::{Push, SharingMode, StoreCapabilities, StoreError, StoreSettings, StoreTime};

/// The condition of the connection: backoff, push health and the store's clock.
pub(super) struct Connection {
    shared: Arc<FleetShared>,
    settings: Arc<StoreSettings>,
    backoff: Backoff,
    jitter: Jitter,
    push: PushHealth,
    clock: Option<ClockSample>,
    degraded_since: Option<Instant>,
    /// Whether this outage's reported error is transient; `None` before it is reported.
    reported_transient: Option<bool>,
    was_connected: bool,
    /// When the session was opened; `None` without one.
    connected_at: Option<Instant>,
    /// Whether [`FleetEvent::Degraded`] was emitted for this outage.
    outage_reported: bool,
    /// The errors of the last minute.
    reported: Vec<(String, Instant)>,
    /// The delays after a rejected operation.
    rejection_backoff: Backoff,
    /// What the store rejects at present, for one circuit or for all.
    rejections: BTreeMap<Option<BulkheadName>, String>,
    /// Since when the store rejects something.
    rejected_since: Option<Instant>,
    read_only: bool,
}

/// Whether notifications of the store can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PushHealth {
    /// The store is polled.
    Off,
    /// The store sends notifications. `missed` consecutive polls found unannounced changes.
    On { missed: u8 },
    /// The store is polled, because notifications did not arrive. `arrived` of them have since
    /// announced a change, without one missing in between.
    GivenUp { arrived: u8 },
    /// The store is polled until then, because it does not listen.
    Suspended { until: Instant },
}

/// A reading of the store's clock.
#[derive(Clone, Copy, Debug)]
struct ClockSample {
    reading: StoreTime,
    taken_at: Instant,
}

impl Connection {
    pub(super) fn new(
        shared: &Arc<FleetShared>,
        settings: &Arc<StoreSettings>,
        capabilities: StoreCapabilities,
    ) -> Self {
        let push = match settings.push {
            Push::Auto if capabilities.push => PushHealth::On { missed: 0 },
            _ => PushHealth::Off,
        };
        shared.update(|status| status.polling = push == PushHealth::Off);
        Self {
            shared: Arc::clone(shared),
            settings: Arc::clone(settings),
            backoff: Backoff::new(Jitter::new(), settings.backoff_min, settings.backoff_max),
            jitter: Jitter::new(),
            push,
            clock: None,
            degraded_since: None,
            reported_transient: None,
            was_connected: false,
            connected_at: None,
            outage_reported: false,
            reported: Vec::new(),
            rejection_backoff: Backoff::new(
                Jitter::new(),
                MIN_REJECTION_DELAY,
                MAX_REJECTION_DELAY,
            ),
            rejections: BTreeMap::new(),
            rejected_since: None,
            read_only: false,
        }
    }

    /// Handles that a session was opened and the store's state was adopted.
    pub(super) fn synchronized(&mut self) {
        let now = self.shared.now();
        self.connected_at = Some(now);
        self.reported_transient = None;
        let since = self.degraded_since.take();
        let after = since
            .map(|since| now.saturating_duration_since(since))
            .filter(|_| self.was_connected);
        self.was_connected = true;
        self.shared.update(|status| {
            status.connected = true;
            status.degraded_since = None;
            if !self.read_only {
                status.error = self.rejections.values().next().cloned();
            }
        });
        // The end of an outage whose error is known needs no report either.
        let was_reported = std::mem::take(&mut self.outage_reported);
        if after.is_none() || was_reported {
            self.shared.emit(FleetEvent::Synchronized { after });
        }
    }

    /// Handles that the store rejected an operation, and the session is usable.
    ///
    /// Returns when to repeat it.
    pub(super) fn operation_rejected(
        &mut self,
        circuit: Option<BulkheadName>,
        error: StoreError,
    ) -> Instant {
        let now = self.shared.now();
        let delay = if circuit.is_some() {
            REPORT_INTERVAL
        } else {
            self.rejection_backoff.next_delay()
        };
        let message = match &circuit {
            Some(circuit) => format!("circuit {:?}: {error}", circuit.as_str()),
            None => error.to_string(),
        };
        let is_new = self.is_new(&message, now);
        self.rejected_since.get_or_insert(now);
        self.rejections.insert(circuit.clone(), message.clone());
        self.shared.update(|status| status.error = Some(message));
        if is_new {
            self.shared
                .emit(FleetEvent::OperationRejected { circuit, error });
        }
        now + delay
    }

    /// Handles that an operation has succeeded. `is_rejected` returns whether a circuit still is.
    pub(super) fn operation_accepted(&mut self, is_rejected: impl Fn(&BulkheadName) -> bool) {
        if self.rejections.remove(&None).is_some() {
            self.rejection_backoff.reset();
            self.report_rejection();
        }
        self.forget_rejections(is_rejected);
    }

    /// Forgets circuits that are no longer rejected: what they had to publish may have expired.
    pub(super) fn forget_rejections(&mut self, is_rejected: impl Fn(&BulkheadName) -> bool) {
        if self.rejections.is_empty() || self.rejections.contains_key(&None) {
            return;
        }
        self.rejections
            .retain(|circuit, _| circuit.as_ref().is_some_and(&is_rejected));
        self.report_rejection();
    }

    /// Publishes what the store still rejects, if anything.
    fn report_rejection(&mut self) {
        if self.rejections.is_empty() {
            self.rejected_since = None;
        }
        // A read-only store rejects everything.
        if !self.read_only {
            let error = self.rejections.values().next().cloned();
            self.shared.update(|status| status.error = error);
        }
    }

    /// Returns how long the store has been unavailable, or has rejected something.
    pub(super) fn degraded_for(&self, now: Instant) -> Option<Duration> {
        let since = self.degraded_since.or(self.rejected_since)?;
        Some(now.saturating_duration_since(since))
    }

    pub(super) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Handles that the store can only be read.
    pub(super) fn became_read_only(&mut self, reason: &str) {
        self.read_only = true;
        let error = StoreError::unavailable(format!(
            "it is read-only: {reason}; decisions stay pending until it accepts changes"
        ));
        let message = error.to_string();
        let is_new = self.is_new(&message, self.shared.now());
        self.shared.update(|status| {
            status.read_only = true;
            status.error = Some(message);
        });
        if is_new {
            self.shared.emit(FleetEvent::ReadOnly { error });
        }
    }

    /// Handles that the store accepts changes again.
    pub(super) fn writes_resumed(&mut self) {
        self.leave_read_only();
        self.report_rejection();
        self.shared.emit(FleetEvent::WritesResumed);
    }

    fn leave_read_only(&mut self) {
        self.read_only = false;
        self.shared.update(|status| status.read_only = false);
    }

    /// Returns whether an error was not reported in the last minute, and remembers it.
    fn is_new(&mut self, message: &str, now: Instant) -> bool {
        self.reported
            .retain(|(_, at)| now.saturating_duration_since(*at) < REPORT_INTERVAL);
        let is_new = self
            .reported
            .iter()
            .all(|(reported, _)| reported != message);
        if is_new {
            if self.reported.len() == MAX_REPORTED {
                self.reported.remove(0);
            }
            self.reported.push((message.to_owned(), now));
        }
        is_new
    }

    /// Handles that the session was lost, or could not be opened.
    pub(super) fn degraded(&mut self, error: StoreError) {
        let now = self.shared.now();
        let since = *self.degraded_since.get_or_insert(now);
        // A session that fails at once does not show that the store works.
        let connected_at = self.connected_at.take();
        if connected_at
            .is_some_and(|at| now.saturating_duration_since(at) >= self.settings.resync_interval)
        {
            self.backoff.reset();
            self.reported.clear();
        }
        let transient = error.is_transient();
        // The next session finds again what the store rejects.
        self.rejections.clear();
        self.rejected_since = None;
        self.leave_read_only();
        self.shared.update(|status| {
            status.connected = false;
            status.degraded_since = Some(since);
            status.error = Some(error.to_string());
        });
        let unreported = !self.outage_reported || self.reported_transient != Some(transient);
        if unreported && self.is_new(&error.to_string(), now) {
            self.reported_transient = Some(transient);
            self.outage_reported = true;
            self.shared.emit(FleetEvent::Degraded { error });
        }
    }

    /// Handles that the driver has stopped.
    pub(super) fn stopped(&self) {
        self.shared.update(|status| {
            status.connected = false;
            status.read_only = false;
            status.stopped = true;
        });
        self.shared.events.close();
    }

    /// Returns when to try to connect again.
    pub(super) fn next_attempt(&mut self) -> Instant {
        self.shared.now() + self.backoff.next_delay()
    }

    /// Returns when to poll the store for changes again.
    pub(super) fn next_poll(&mut self) -> Instant {
        let interval = match self.push {
            PushHealth::On { .. } if !self.read_only => self.settings.resync_interval,
            _ => self.settings.poll_interval,
        };
        self.shared.now() + self.jitter.jittered(interval)
    }

    /// Returns when to add counts to the store again; `None` if counts are not shared.
    pub(super) fn next_flush(&mut self) -> Option<Instant> {
        let SharingMode::Counts(_) = self.settings.share else {
            return None;
        };
        Some(self.shared.now() + self.jitter.jittered(self.settings.flush_interval))
    }

    /// Handles a periodic poll. `found_changes`: it found changes that were not announced.
    pub(super) fn update_push_health(&mut self, found_changes: bool) {
        // A standby announces nothing.
        if !found_changes || self.read_only {
            return;
        }
        match &mut self.push {
            PushHealth::On { missed } => {
                *missed += 1;
                if *missed >= MAX_MISSED {
                    self.stop_push(PushHealth::GivenUp { arrived: 0 });
                }
            }
            PushHealth::GivenUp { arrived } => *arrived = 0,
            PushHealth::Off | PushHealth::Suspended { .. } => {}
        }
    }

    /// Handles that a notification was correct.
    pub(super) const fn notification_confirmed(&mut self) {
        if let PushHealth::On { missed } = &mut self.push {
            *missed = 0;
        }
    }

    /// Handles that a notification announced a change before a poll found it.
    pub(super) fn notification_applied(&mut self) {
        self.notification_confirmed();
        if let PushHealth::GivenUp { arrived } = &mut self.push {
            *arrived += 1;
            if *arrived >= MIN_ARRIVED {
                self.resume_push();
            }
        }
    }

    /// Handles whether a session reports changes, when it is opened or has tried to listen again.
    pub(super) fn set_listening(&mut self, listening: bool) {
        match self.push {
            PushHealth::Suspended { .. } if listening => self.resume_push(),
            PushHealth::On { .. } | PushHealth::GivenUp { .. } if !listening => {
                let until = self.shared.now() + PUSH_PAUSE;
                self.stop_push(PushHealth::Suspended { until });
            }
            _ => {}
        }
    }

    /// Returns whether a session that does not listen is to try it again.
    pub(super) fn is_push_due(&self, now: Instant) -> bool {
        matches!(self.push, PushHealth::Suspended { until } if until <= now)
    }

    fn stop_push(&mut self, push: PushHealth) {
        let polled = !matches!(self.push, PushHealth::On { .. });
        self.push = push;
        if !polled {
            self.shared.update(|status| status.polling = true);
            self.shared.emit(FleetEvent::FellBackToPolling);
        }
    }

    fn resume_push(&mut self) {
        self.push = PushHealth::On { missed: 0 };
        self.shared.update(|status| status.polling = false);
        self.shared.emit(FleetEvent::PushResumed);
    }

    /// Records a reading of the store's clock, and reports a step since the previous one.
    pub(super) fn record_clock(&mut self, reading: StoreTime, now: Instant) {
        if let Some(sample) = self.clock {
            let expected = sample.at(now);
            let step = Duration::from_micros(reading.0.abs_diff(expected.0));
            if step > CLOCK_TOLERANCE + self.settings.operation_timeout {
                self.shared.emit(FleetEvent::ClockStepped {
                    by: step,
                    forward: reading > expected,
                });
            }
        }
        self.clock = Some(ClockSample {
            reading,
            taken_at: now,
        });
    }

    /// Drops the last reading of the clock: the store may run on another machine now.
    pub(super) const fn forget_clock(&mut self) {
        self.clock = None;
    }

    /// Returns how long ago `at` was by the store's clock; zero if the clock is unknown.
    pub(super) fn store_age(&self, at: StoreTime, now: Instant) -> Duration {
        self.clock.map_or(Duration::ZERO, |sample| {
            let store_now = sample.at(now);
            Duration::from_micros(store_now.0.saturating_sub(at.0).max(0).unsigned_abs())
        })
    }

    /// Returns the store's time at which an operation sent at `now` has timed out.
    pub(super) fn not_after(&self, now: Instant) -> Option<StoreTime> {
        let sample = self.clock?;
        Some(sample.at(now + self.settings.operation_timeout))
    }
}

impl ClockSample {
    fn at(self, now: Instant) -> StoreTime {
        let elapsed = now.saturating_duration_since(self.taken_at);
        self.reading.saturating_add(elapsed)
    }
}

/// Consecutive polls with unannounced changes after which notifications are not relied on.
const MAX_MISSED: u8 = 2;

/// The time for which the same error is not reported again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Errors that are remembered.
const MAX_REPORTED: usize = 16;

const MIN_REJECTION_DELAY: Duration = Duration::from_secs(1);
const MAX_REJECTION_DELAY: Duration = Duration::from_secs(4);

/// Notifications without a missing one after which they are relied on again.
const MIN_ARRIVED: u8 = 3;

/// How long a store that is flooded by notifications is polled.
const PUSH_PAUSE: Duration = Duration::from_secs(60);

/// A smaller difference between the clocks is not a step.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
