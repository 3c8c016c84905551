//! The state shared by the clones of a bulkhead, and the end of a call.

use std::hash::RandomState;
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::config::BulkheadConfig;
use super::health_check::HealthChecks;
use super::key_names::KeyNames;
use super::running::{CallTags, RunningCalls};
use super::stats::Counters;
use crate::adaptive::{DriverConfig, LimitDriver, SampleMask};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::limits::{ConfiguredLimits, TimeLimits};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::{CircuitBreaker, CircuitRejections, Ticket};
use crate::config_error::ConfigError;
use crate::fleet::Fleet;
use crate::name::BulkheadName;
use crate::queue::{Claim, Release, WaitQueue, WaiterId};
use crate::runtime::{Cooperation, Runtime, RuntimeCapabilities};
use crate::sync::Mutex;
use crate::sync::atomic::fence;
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
    pub(super) optional: OnceLock<Box<OptionalParts>>,
    pub(crate) running: RunningCalls,
    /// The largest weight of a call: the configured maximum.
    pub(super) max_weight: AtomicU32,
    /// The number of changes, and the current configuration.
    pub(super) config: Mutex<(u64, BulkheadConfig)>,
}

/// What few bulkheads have.
#[derive(Default)]
pub(super) struct OptionalParts {
    /// The limit, if it adapts or is observed.
    pub(super) driver: OnceLock<LimitDriver>,
    /// The fleet created by `Bulkhead::share_through`. A manager keeps its own.
    pub(super) fleet: OnceLock<Fleet>,
    /// The seed with which keys of calls are hashed.
    pub(super) key_seed: OnceLock<RandomState>,
    /// The names of keys. Boxed, as few of the bulkheads with keys name them.
    pub(super) key_names: OnceLock<Box<Mutex<KeyNames>>>,
    pub(super) health_checks: OnceLock<Box<HealthChecks>>,
}

impl Inner {
    /// Returns the driver of the limit, if it adapts or is observed, or was before.
    #[inline]
    pub(crate) fn driver(&self) -> Option<&LimitDriver> {
        self.optional.get()?.driver.get()
    }

    /// Returns the parts that few bulkheads have, and creates them.
    pub(super) fn optional_parts(&self) -> &OptionalParts {
        self.optional.get_or_init(Box::default)
    }

    /// Steps 5 and 6 of a call: records its outcome and releases its permit.
    #[inline]
    pub(crate) fn finish(&self, admitted: Admitted, outcome: Outcome, ran: Option<Duration>) {
        match (admitted.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) if circuit.affects_state(ticket, outcome, ran) => {
                self.finish_with_circuit(circuit, ticket, outcome, ran);
            }
            // The path of a success that does not affect the circuit. Nothing here can panic.
            _ if outcome == Outcome::Success => {
                self.counters.end(Some(Outcome::Success));
                self.release();
            }
            _ => self.finish_without_circuit(outcome),
        }
    }

    /// Returns `true` if recording an outcome would change the circuit.
    #[inline]
    pub(crate) fn affects_circuit(
        &self,
        admitted: Admitted,
        outcome: Outcome,
        ran: Option<Duration>,
    ) -> bool {
        match (admitted.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) => circuit.affects_state(ticket, outcome, ran),
            _ => false,
        }
    }

    fn finish_with_circuit(
        &self,
        circuit: &CircuitBreaker,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) {
        if outcome != Outcome::Success {
            self.fail_with_circuit(circuit, ticket, outcome, ran);
            return;
        }
        let _ended = ReleaseOnDrop(self, Some(Outcome::Success));
        if ticket.is_probe() {
            circuit.leave_probe(ticket);
        }
        circuit.record(ticket, Outcome::Success, ran);
    }

    #[inline(never)]
    fn fail_with_circuit(
        &self,
        circuit: &CircuitBreaker,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) {
        {
            let _ended = ReleaseOnDrop(self, Some(outcome));
            if ticket.is_probe() {
                circuit.leave_probe(ticket);
            }
            circuit.record(ticket, outcome, ran);
        }
        if self.driver().is_some() {
            self.record_unmarked_failure(outcome);
        }
    }

    #[inline(never)]
    fn finish_without_circuit(&self, outcome: Outcome) {
        self.counters.end(Some(outcome));
        self.release();
        if self.driver().is_some() {
            self.record_unmarked_failure(outcome);
        }
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
        if let Some(mark) = admitted.mark() {
            self.abandon_marked(admitted, mark);
            return;
        }
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
        let permits = config.permits();
        let tracked = config.tracks_running_calls();
        self.running
            .configure(tracked, permits, || self.runtime.now());
        let changed = self.apply_limit(config.driver());
        let marks = config.driver().marks();
        let keys = config.key_sharing();
        self.limits
            .set(TimeLimits::of(config), tracked, marks, keys);
        self.max_weight
            .store(config.max_weight(), Ordering::Relaxed);
        let in_force = || {
            self.driver()
                .map_or(permits, |driver| driver.permits_in_force())
        };
        self.queue
            .resize(in_force, config.queue(), || self.runtime.now());
        self.queue.release_overdue(|| self.runtime.now());
        if let Some(driver) = changed {
            driver.wake_readers();
        }
        Ok(())
    }

    /// Applies the settings of the limit, and returns the driver if the limit changed.
    fn apply_limit(&self, config: DriverConfig<'_>) -> Option<&LimitDriver> {
        let mask = &self.counters.sample_mask;
        let driver = match self.driver() {
            Some(driver) => driver,
            None if config.is_needed() => {
                let suspended = self.rejects_some();
                // Another thread may have installed its driver first, so this one sets no mask.
                let unused = SampleMask::default();
                let new = LimitDriver::new(config, suspended, &unused, self.runtime.now());
                let driver = self.optional_parts().driver.get_or_init(|| new);
                // A transition before the driver could be found had no effect on it.
                if self.rejects_some() != suspended {
                    self.follow_admission(driver, suspended, self.runtime.now());
                }
                driver
            }
            None => return None,
        };
        driver
            .reconfigure(config, mask, self.runtime.now())
            .then_some(driver)
    }

    /// Returns `true` if there is a circuit that does not admit all calls.
    fn rejects_some(&self) -> bool {
        self.circuit.as_ref().is_some_and(|it| !it.admits_all())
    }

    /// Step 6 of a call: releases the permit to the next waiter.
    #[inline]
    pub(crate) fn release(&self) {
        if self.queue.release(|| self.runtime.now()) {
            self.notify_if_drained();
        }
    }

    /// As [`release`](Self::release), for all permits of a call.
    #[inline]
    pub(crate) fn release_claim(&self, claim: Claim) {
        match self.queue.release_claim_at_once(claim) {
            Release::Done => {}
            begun => self.complete_release(claim, begun),
        }
    }

    /// Releases the permits of a call that has to wait after all.
    #[cold]
    #[inline(never)]
    pub(crate) fn undo_acquisition(&self, claim: Claim) {
        self.release_claim(claim);
    }

    #[cold]
    #[inline(never)]
    fn complete_release(&self, claim: Claim, begun: Release) {
        let now = || self.runtime.now();
        if self.queue.complete_release(claim, begun, now) {
            self.notify_if_drained();
        }
    }

    /// Returns the largest weight of a call.
    #[inline]
    pub(crate) fn max_weight(&self) -> u32 {
        self.max_weight.load(Ordering::Relaxed)
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
        // The last call with a permit and the last one without may end at once. One of the two
        // finds that the other has ended.
        fence(Ordering::SeqCst);
        if self.is_drained() {
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
