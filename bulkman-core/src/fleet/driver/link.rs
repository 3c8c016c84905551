//! The link's condition, and waiting.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::hints::Hints;
use super::{Driver, PushState, Woken};
use crate::circuit_breaker::Gate;
use crate::fleet::event::FleetEvent;
use crate::fleet::hub::Hub;
use crate::store::{
    FleetCountPolicy, SharingMode, StoreError, StoreEvent, StoreSession, StoreTime,
};
use crate::sync::waker_set::WakerKey;

impl Driver {
    pub(super) fn recover(&mut self) {
        let now = self.now();
        self.pace.succeeded();
        self.told_transient = None;
        self.linked = true;
        for slot in self.members.values_mut() {
            slot.member.set_connected(true);
        }
        let since = self.degraded_since.take();
        let after = since
            .map(|since| now.saturating_duration_since(since))
            .filter(|_| self.ever_synchronised);
        self.ever_synchronised = true;
        self.give_orders();
        self.publish_status();
        self.hub.tell(|status| {
            status.connected = true;
            status.degraded_since = None;
            status.error = None;
        });
        self.hub.emit(FleetEvent::Synchronized { after });
    }

    pub(super) fn degrade(&mut self, error: StoreError) {
        let now = self.now();
        let since = *self.degraded_since.get_or_insert(now);
        self.linked = false;
        for slot in self.members.values_mut() {
            slot.member.set_connected(false);
        }
        self.give_orders();
        self.publish_status();
        let transient = error.is_transient();
        self.hub.tell(|status| {
            status.connected = false;
            status.degraded_since = Some(since);
            status.error = Some(error.clone());
        });
        if self.told_transient.replace(transient) != Some(transient) {
            self.hub.emit(FleetEvent::Degraded { error });
        }
        let ids: Vec<_> = self.members.keys().copied().collect();
        for id in ids {
            self.tell_pending(id);
        }
    }

    /// Waits before the next try, and goes on looking after the circuits; `false` to end.
    pub(super) async fn back_off(&mut self) -> bool {
        let until = self.now() + self.pace.back_off();
        loop {
            if self.hub.ending().is_some() {
                return false;
            }
            self.take_inbox();
            self.give_orders();
            self.publish_status();
            if self.now() >= until {
                return true;
            }
            let _timer_or_inbox = self.wait(None, until).await;
        }
    }

    pub(super) fn end(&mut self) {
        for slot in self.members.values_mut() {
            slot.circuit.unlink();
            // By itself again, as if it had never been shared.
            let _gone = slot.circuit.set_gate(Gate::Own);
        }
        self.publish_status();
        self.hub.tell(|status| {
            status.connected = false;
            status.ended = true;
        });
        self.hub.events.close();
    }

    /// A look at the usual time found something, or nothing.
    pub(super) fn judge_push(&mut self, found: bool) {
        let PushState::On { missed } = &mut self.push else {
            return;
        };
        if !found {
            return;
        }
        *missed += 1;
        if *missed >= MISSED_UNTIL_POLLING {
            self.push = PushState::Off;
            self.hub.tell(|status| status.polling = true);
            self.hub.emit(FleetEvent::FellBackToPolling);
        }
    }

    /// Takes in what has been announced, without waiting for more, and not for ever: anybody may
    /// announce.
    pub(super) async fn listen_in_passing(
        &mut self,
        session: &mut dyn StoreSession,
        hints: &mut Hints,
    ) -> Result<(), StoreError> {
        for _ in 0..HINTS_AT_ONCE {
            let Some(event) = announced(session).await else {
                break;
            };
            self.take_event(&event?, hints);
        }
        Ok(())
    }

    /// The next change is taken in as it is told; of all else there is to be a look.
    pub(super) fn take_event(&mut self, event: &StoreEvent, hints: &mut Hints) {
        let news = self
            .ledger
            .revision()
            .is_none_or(|known| event.revision() > known);
        match event {
            StoreEvent::Applied(after) if news && self.ledger.advance(after) => {
                self.take_change(after);
                self.heard();
            }
            _ if news => hints.heard(self.now()),
            _ => self.heard(),
        }
    }

    pub(super) async fn look_at_hint(
        &mut self,
        session: &mut dyn StoreSession,
        hints: &mut Hints,
    ) -> Result<(), StoreError> {
        let found = self.look(session).await?;
        hints.looked(found, self.now());
        if found {
            self.heard();
        }
        Ok(())
    }

    /// An announcement was right.
    pub(super) fn heard(&mut self) {
        if let PushState::On { missed } = &mut self.push {
            *missed = 0;
        }
    }

    pub(super) fn next_look(&mut self) -> Instant {
        let interval = match self.push {
            PushState::On { .. } => self.settings.resync_interval,
            PushState::Off => self.settings.poll_interval,
        };
        self.now() + self.pace.within(interval)
    }

    pub(super) fn next_flush(&mut self) -> Option<Instant> {
        let SharingMode::Counts(FleetCountPolicy { .. }) = self.settings.share else {
            return None;
        };
        Some(self.now() + self.pace.within(self.settings.flush_interval))
    }

    /// The store's clock should have gone on as far as ours.
    pub(super) fn check_clock(&self, reading: StoreTime, now: Instant) {
        let Some((before, taken)) = self.clock else {
            return;
        };
        let expected = before.saturating_add(now.saturating_duration_since(taken));
        let step = Duration::from_micros(reading.0.abs_diff(expected.0));
        if step > CLOCK_TOLERANCE + self.settings.operation_timeout {
            self.hub.emit(FleetEvent::ClockStepped {
                by: step,
                forward: reading > expected,
            });
        }
    }

    pub(super) fn publish_status(&self) {
        let known = self
            .members
            .values()
            .filter(|slot| slot.member.is_known())
            .count();
        let pending = self
            .members
            .values()
            .filter(|slot| slot.member.is_pending())
            .count();
        let states = self.members.values();
        let circuits = states.map(|slot| {
            (
                slot.name.clone(),
                slot.member.fleet_state(),
                slot.member.epoch(),
            )
        });
        self.hub.tell(|status| {
            status.known = known;
            status.pending = pending;
            // In its own memory, and in no order: this is done at every turn.
            status.circuits.clear();
            status.circuits.extend(circuits);
        });
    }

    /// Waits for the inbox, the store, or the time.
    pub(super) async fn wait(
        &self,
        session: Option<&mut dyn StoreSession>,
        until: Instant,
    ) -> Woken {
        struct Place<'a>(&'a Hub, Option<WakerKey>);

        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.leave_inbox(&mut self.1);
            }
        }

        let mut timer = self.hub.runtime.sleep_until(until);
        // Also when polling: a link that breaks says so here.
        let mut heard = pin!(async {
            match session {
                Some(session) => session.changed().await,
                None => std::future::pending().await,
            }
        });
        let ending = self.hub.ending();
        let mut place = Place(&self.hub, None);
        std::future::poll_fn(|cx| {
            let Place(hub, key) = &mut place;
            if hub.poll_inbox(key, cx).is_ready() || hub.ending() != ending {
                return Poll::Ready(Woken::Inbox);
            }
            if let Poll::Ready(event) = heard.as_mut().poll(cx) {
                return Poll::Ready(Woken::Heard(event));
            }
            timer.as_mut().poll(cx).map(|()| Woken::Timer)
        })
        .await
    }

    pub(super) fn now(&self) -> Instant {
        self.hub.runtime.now()
    }
}

/// What is there already.
async fn announced(session: &mut dyn StoreSession) -> Option<Result<StoreEvent, StoreError>> {
    let mut heard = session.changed();
    std::future::poll_fn(|cx| {
        Poll::Ready(match heard.as_mut().poll(cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
    })
    .await
}

/// Looks in a row that found what was not announced.
const MISSED_UNTIL_POLLING: u8 = 2;
const HINTS_AT_ONCE: usize = 100;
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
