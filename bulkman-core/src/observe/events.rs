//! Events: what operators read in their logs.

use crate::bulkhead::Inner;
use crate::circuit_breaker::{CircuitState, Transition};

/// A call was refused. Many of these come at once, so it takes a level of its own to see them.
pub(crate) fn refused(inner: &Inner, reason: &'static str) {
    tracing::debug!(target: "bulkman::call", bulkhead = inner.name.as_str(), reason, "call refused");
}

/// A circuit went from one state to another: a warning if it refuses all calls now.
pub(crate) fn transition(transition: &Transition) {
    macro_rules! tell {
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
                isolation = transition.isolation.map(tracing::field::debug),
                $message
            )
        };
    }
    match transition.to {
        CircuitState::Open | CircuitState::ForcedOpen => tell!(warn, "circuit opened"),
        _ => tell!(info, "circuit changed its state"),
    }
}
