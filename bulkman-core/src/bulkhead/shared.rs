//! What the clones of a bulkhead share, and how a call ends.

use std::panic::RefUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::bulkhead::config::BulkheadConfig;
use crate::bulkhead::stats::Counters;
use crate::call::admitted::Admitted;
use crate::call::deadlines::{ConfiguredLimits, TimeLimits};
use crate::call::outcome::Outcome;
use crate::circuit_breaker::{CircuitBreaker, CircuitRejections, Ticket};
use crate::config_error::ConfigError;
use crate::fleet::Fleet;
use crate::name::BulkheadName;
use crate::queue::WaitQueue;
use crate::runtime::{Cooperation, Runtime, RuntimeCapabilities};
use crate::sync::Mutex;
use crate::sync::waker_set::WakerSet;

/// What the clones of a bulkhead share. The fields that every call touches come first.
pub(crate) struct Inner {
    pub(crate) queue: WaitQueue,
    pub(crate) counters: Counters,
    pub(crate) circuit: Option<CircuitBreaker>,
    pub(crate) limits: ConfiguredLimits,
    pub(crate) capabilities: RuntimeCapabilities,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) cooperation: Option<Cooperation>,
    pub(crate) name: BulkheadName,
    /// Notified when the circuit's state changes, if somebody asked for it, and when the bulkhead
    /// ends: shut down, drained, dropped.
    pub(crate) ended: Arc<WakerSet>,
    #[cfg(feature = "metrics")]
    pub(crate) meter: crate::metrics::Meter,
    /// A fleet of its own; one that belongs to a manager is kept there.
    pub(super) fleet: OnceLock<Fleet>,
    /// The settings, and how often they were changed.
    pub(super) config: Mutex<(u64, BulkheadConfig)>,
}

impl Inner {
    /// Steps 5 and 6: tells the circuit and the statistics how the call ended, and gives its
    /// permit to the next in line.
    #[inline]
    pub(crate) fn finish(&self, admitted: Admitted, outcome: Outcome, ran: Option<Duration>) {
        match (admitted.ticket, &self.circuit) {
            (Some(ticket), Some(circuit)) if circuit.affects_state(ticket, outcome, ran) => {
                self.finish_heard(circuit, ticket, outcome, ran);
            }
            // The way of a success that is no news to the circuit: nothing here can panic.
            _ => {
                self.counters.end(Some(outcome));
                self.release();
            }
        }
    }

    fn finish_heard(
        &self,
        circuit: &CircuitBreaker,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) {
        let _ended = Ends(self, Some(outcome));
        circuit.record(ticket, outcome, ran);
    }

    /// As [`finish`](Self::finish), for a call that was dropped while it ran.
    pub(crate) fn abandon(&self, admitted: Admitted) {
        let _ended = Ends(self, None);
        if let (Some(ticket), Some(circuit)) = (admitted.ticket, &self.circuit) {
            circuit.cancel(ticket);
        }
    }

    /// Puts checked settings into force.
    pub(super) fn apply(&self, config: &BulkheadConfig) -> Result<(), ConfigError> {
        if let (Some(circuit), Some(rules)) = (&self.circuit, config.circuit()) {
            circuit.reconfigure(rules)?;
        }
        self.limits.set(TimeLimits::of(config));
        let (permits, places, order) = config.limits();
        self.queue
            .resize(permits, places, order, || self.runtime.now());
        Ok(())
    }

    /// Step 6: the permit goes to the next in line.
    #[inline]
    pub(crate) fn release(&self) {
        if self.queue.release(|| self.runtime.now()) {
            self.notify_if_drained();
        }
    }

    #[cold]
    pub(crate) fn notify_if_drained(&self) {
        if self.queue.is_drained() {
            self.ended.wake_all();
        }
    }

    pub(crate) fn refused_by_circuit(&self) -> CircuitRejections {
        self.circuit
            .as_ref()
            .map_or_else(CircuitRejections::default, CircuitBreaker::rejections)
    }
}

/// Counts a call's end and frees its permit, also when the runtime's clock, or a listener that is
/// told of a transition, panics before.
struct Ends<'a>(&'a Inner, Option<Outcome>);

impl Drop for Ends<'_> {
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

// The runtime alone is not unwind-safe by itself; it is never called with anything half done.
impl RefUnwindSafe for Inner {}
