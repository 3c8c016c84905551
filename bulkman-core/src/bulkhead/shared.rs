//! The state shared by the clones of a bulkhead, and the end of a call.

use std::panic::RefUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::config::BulkheadConfig;
use super::health_check::HealthChecks;
use super::running::{CallTags, RunningCalls};
use super::stats::Counters;
use crate::call::admitted::Admitted;
use crate::call::deadlines::{ConfiguredLimits, Deadlines, TimeLimits};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::{CircuitBreaker, CircuitRejections, Ticket};
use crate::config_error::ConfigError;
use crate::fleet::Fleet;
use crate::name::BulkheadName;
use crate::queue::{WaitQueue, WaiterId};
use crate::runtime::{Cooperation, Runtime, RuntimeCapabilities};
use crate::sync::Mutex;
use crate::sync::waker_set::WakerSet;

/// The state shared by the clones of a bulkhead. The fields that every call uses come first.
pub(crate) struct Inner {
    pub(crate) queue: WaitQueue,
    pub(crate) counters: Counters,
    pub(crate) circuit: Option<CircuitBreaker>,
    pub(crate) limits: ConfiguredLimits,
    pub(crate) capabilities: RuntimeCapabilities,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) cooperation: Option<Cooperation>,
    pub(crate) name: BulkheadName,
    /// Notified when the bulkhead is shut down, drained or dropped. With a health check, also
    /// notified of every transition of the circuit.
    pub(crate) ended: Arc<WakerSet>,
    #[cfg(feature = "metrics")]
    pub(crate) meter: crate::metrics::Meter,
    /// The fleet created by `Bulkhead::share_through`. A manager keeps its own.
    pub(super) fleet: OnceLock<Fleet>,
    pub(super) health_checks: OnceLock<Box<HealthChecks>>,
    pub(crate) running: RunningCalls,
    /// The number of changes, and the current configuration.
    pub(super) config: Mutex<(u64, BulkheadConfig)>,
}

impl Inner {
    /// Steps 5 and 6 of a call: records its outcome and releases its permit.
    #[inline]
    pub(crate) fn finish(&self, admitted: Admitted, outcome: Outcome, ran: Option<Duration>) {
        match (admitted.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) if circuit.affects_state(ticket, outcome, ran) => {
                self.finish_with_circuit(circuit, ticket, outcome, ran);
            }
            // The path of a success that does not affect the circuit. Nothing here can panic.
            _ => {
                self.counters.end(Some(outcome));
                self.release();
            }
        }
    }

    fn finish_with_circuit(
        &self,
        circuit: &CircuitBreaker,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) {
        let _ended = ReleaseOnDrop(self, Some(outcome));
        if ticket.is_probe() {
            circuit.leave_probe(ticket);
        }
        circuit.record(ticket, outcome, ran);
    }

    /// The code that the thread runs from now on is part of the probe of this ticket.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_probe(&self, ticket: Option<Ticket>) {
        if let (Some(circuit), Some(ticket)) = (&self.circuit, ticket) {
            // Until `leave_probe`.
            std::mem::forget(circuit.enter_probe(ticket));
        }
    }

    /// The thread no longer runs code of the probe.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave_probe(&self, ticket: Option<Ticket>) {
        if let (Some(circuit), Some(ticket)) = (&self.circuit, ticket) {
            circuit.leave_probe(ticket);
        }
    }

    /// Like [`finish`](Self::finish), for a call that was cancelled while running.
    pub(crate) fn abandon(&self, admitted: Admitted) {
        let _ended = ReleaseOnDrop(self, None);
        if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
            circuit.cancel(ticket);
        }
    }

    /// Counts a call in flight, and lists it, as configured. Its operation starts now.
    #[inline(never)]
    pub(crate) fn follow(
        &self,
        mut admitted: Admitted,
        tags: CallTags,
        deadlines: &Deadlines,
    ) -> Admitted {
        let Some(started) = deadlines.run_started() else {
            return admitted;
        };
        if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
            admitted.ticket = Some(circuit.begin_in_flight(ticket, started));
        }
        if self.running.is_enabled() {
            admitted = self.running.begin(admitted, tags, started);
        }
        admitted
    }

    /// Counts a call in flight no longer: how long its operation took is known.
    ///
    /// The call stays in the list of running calls.
    #[cfg(feature = "http")]
    pub(crate) fn end_in_flight(&self, admitted: Admitted) -> Admitted {
        match (self.running.original(admitted).ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) if ticket.counts_in_flight() => {
                let ticket = circuit.end_in_flight(ticket);
                self.running.with_ticket(admitted, ticket)
            }
            _ => admitted,
        }
    }

    /// Applies a validated configuration.
    pub(super) fn apply(&self, config: &BulkheadConfig) -> Result<(), ConfigError> {
        if let (Some(circuit), Some(rules)) = (&self.circuit, config.circuit()) {
            circuit.reconfigure(rules)?;
        }
        let (permits, capacity, order) = config.limits();
        let tracked = config.tracks_running_calls();
        self.running
            .configure(tracked, permits, || self.runtime.now());
        self.limits.set(TimeLimits::of(config), tracked);
        self.queue
            .resize(permits, capacity, order, || self.runtime.now());
        self.queue.release_overdue(|| self.runtime.now());
        Ok(())
    }

    /// Step 6 of a call: releases the permit to the next waiter.
    #[inline]
    pub(crate) fn release(&self) {
        if self.queue.release(|| self.runtime.now()) {
            self.notify_if_drained();
        }
    }

    /// The timer of a waiter has fired: a permit that it has not collected goes to the call that
    /// needs it.
    #[cold]
    pub(crate) fn take_back(&self, waiter: WaiterId, deadline: Instant) {
        // A timer may wake its task for other reasons, too.
        let due = deadline <= self.runtime.now();
        if due && self.queue.deadline_passed(waiter, || self.runtime.now()) {
            self.notify_if_drained();
        }
    }

    #[cold]
    pub(crate) fn notify_if_drained(&self) {
        if self.queue.is_drained() {
            self.ended.wake_all();
        }
    }

    pub(crate) fn circuit_rejections(&self) -> CircuitRejections {
        self.circuit
            .as_ref()
            .map_or_else(CircuitRejections::default, CircuitBreaker::rejections)
    }
}

/// Counts a call's end and releases its permit, even if the runtime's clock or a transition hook
/// panics before.
struct ReleaseOnDrop<'a>(&'a Inner, Option<Outcome>);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        let Self(inner, outcome) = self;
        inner.counters.end(*outcome);
        inner.release();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        crate::metrics::publish_last_counts(self);
        self.ended.wake_all();
    }
}

// Only the runtime is not unwind-safe by itself, and it is never called in an inconsistent state.
impl RefUnwindSafe for Inner {}
