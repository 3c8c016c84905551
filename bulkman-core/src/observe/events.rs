//! Events of the feature `tracing`, for the logs of operators.

use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::Observer;
use crate::adaptive::LimitChange;
use crate::bulkhead::Inner;
use crate::circuit_breaker::{CircuitState, Transition};
use crate::error::PackedRejection;
use crate::fleet::FleetEvent;
use crate::name::BulkheadName;

/// Reports a rejected call.
///
/// Rejections are frequent, so the event is a debug event with a separate target, and the code that
/// creates it is kept off the path of a rejection that is not reported.
#[inline]
pub(crate) fn rejected(observer: &Observer, inner: &Inner, reason: &'static str) {
    #[cold]
    fn report(observer: &Observer, inner: &Inner, reason: &'static str) {
        let _span = observer.enter();
        tracing::debug!(target: "bulkman::call", bulkhead = inner.name.as_str(), reason, "call rejected");
    }

    if enabled(Level::DEBUG) {
        report(observer, inner, reason);
    }
}

/// Reports a call that was rejected by a circuit without a bulkhead, as [`rejected`] does.
///
/// It is never inlined, to keep it off the path of the calls that are admitted.
#[inline(never)]
pub(crate) fn rejected_by_circuit(circuit: &BulkheadName, rejection: PackedRejection) {
    tracing::debug!(
        target: "bulkman::call",
        circuit = circuit.as_str(),
        reason = rejection.reason.as_str(),
        retry_after_seconds = rejection.retry_after().map(|after| after.as_secs_f64()),
        "call rejected"
    );
}

/// Returns `true` if a subscriber may be interested in this level. It costs one load.
#[inline]
pub(super) fn enabled(level: Level) -> bool {
    LevelFilter::current() >= level
}

/// Reports a transition: a warning if the circuit rejects all calls now.
pub(crate) fn transition(transition: &Transition) {
    macro_rules! report {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                target: "bulkman::circuit",
                circuit = transition.circuit.as_str(),
                from = transition.from.as_str(),
                to = transition.to.as_str(),
                cause = transition.cause.as_str(),
                calls = transition.counts.calls,
                failures = transition.counts.failures,
                consecutive_failures = transition.counts.consecutive_failures,
                isolation_seconds = transition.isolation.map(|isolation| isolation.as_secs_f64()),
                $message
            )
        };
    }
    match transition.to {
        CircuitState::Open | CircuitState::ForcedOpen => report!(warn, "circuit opened"),
        _ => report!(info, "circuit changed state"),
    }
}

/// Reports a change of an adaptive limit: on the level of information if it reaches or leaves the
/// smallest limit.
pub(crate) fn limit(bulkhead: &BulkheadName, change: &LimitChange, minimum: usize) {
    macro_rules! report {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                target: "bulkman::limit",
                bulkhead = bulkhead.as_str(),
                from = change.from,
                to = change.to,
                cause = change.cause.as_str(),
                latency = change.latency.map(tracing::field::debug),
                baseline = change.baseline.map(tracing::field::debug),
                throughput = change.throughput,
                $message
            )
        };
    }
    if change.to == minimum {
        report!(info, "limit reached its minimum");
    } else if change.from == minimum {
        report!(info, "limit left its minimum");
    } else {
        report!(debug, "limit changed");
    }
}

/// Reports an event of the connection to the store.
///
/// It is an error if the problem needs action by an operator; the message contains the fix.
pub(crate) fn fleet(event: &FleetEvent) {
    const TARGET: &str = "bulkman::fleet";
    match event {
        FleetEvent::Synchronized { after: None } => {
            tracing::info!(target: TARGET, "synchronized with the store");
        }
        FleetEvent::Synchronized { after: Some(after) } => {
            let after_seconds = after.as_secs_f64();
            tracing::info!(target: TARGET, after_seconds, "synchronized with the store again");
        }
        FleetEvent::Degraded { error } if error.is_transient() => {
            tracing::warn!(target: TARGET, %error, "store is unavailable, circuits follow local rules");
        }
        FleetEvent::Degraded { error } => {
            tracing::error!(target: TARGET, %error, "store can't be used until an operator fixes the problem");
        }
        FleetEvent::OperationRejected { circuit, error } => {
            let circuit = circuit.as_ref().map(|circuit| circuit.as_str());
            tracing::error!(target: TARGET, circuit, %error, "store rejects an operation");
        }
        FleetEvent::ReadOnly { error } => {
            tracing::warn!(target: TARGET, %error, "store is read-only, decisions stay pending");
        }
        FleetEvent::WritesResumed => {
            tracing::info!(target: TARGET, "store accepts changes again");
        }
        FleetEvent::Pending { circuit } => {
            let circuit = circuit.as_str();
            tracing::info!(target: TARGET, circuit, "decision is pending until the store is available");
        }
        FleetEvent::DecisionResolved { circuit, outcome } => {
            let (circuit, outcome) = (circuit.as_str(), outcome.as_str());
            tracing::debug!(target: TARGET, circuit, outcome, "decision resolved");
        }
        FleetEvent::FellBackToPolling => {
            tracing::warn!(target: TARGET, "notifications are not received, polling the store");
        }
        FleetEvent::PushResumed => {
            tracing::info!(target: TARGET, "notifications are received again");
        }
        FleetEvent::HistoryLost => {
            tracing::warn!(target: TARGET, "store has lost history, its state was adopted");
        }
        FleetEvent::ClockStepped { by, forward } => {
            let by_seconds = by.as_secs_f64();
            tracing::warn!(target: TARGET, by_seconds, forward, "the store's clock stepped");
        }
        // It concerns only the receiver that lagged.
        FleetEvent::Lagged(_) => {}
    }
}
