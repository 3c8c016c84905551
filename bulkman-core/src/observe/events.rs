//! Events: what operators read in their logs.

use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::Observer;
use crate::bulkhead::Inner;
use crate::circuit_breaker::{CircuitState, Transition};
use crate::error::Denied;
use crate::fleet::FleetEvent;
use crate::name::BulkheadName;

/// A call was refused. Many of these come at once, so it takes a level of its own to see them, and
/// what it takes to tell is kept off the path of those that nobody wants to see.
#[inline]
pub(crate) fn refused(observer: &Observer, inner: &Inner, reason: &'static str) {
    #[cold]
    fn tell(observer: &Observer, inner: &Inner, reason: &'static str) {
        let _span = observer.enter();
        tracing::debug!(target: "bulkman::call", bulkhead = inner.name.as_str(), reason, "call refused");
    }

    if tells(Level::DEBUG) {
        tell(observer, inner, reason);
    }
}

/// A circuit that is used without a bulkhead refused a call. As many as of [`refused`], and told
/// the same way. Never inlined: that would spoil the path of the calls that are admitted.
#[inline(never)]
pub(crate) fn refused_by_circuit(circuit: &BulkheadName, denied: Denied) {
    tracing::debug!(
        target: "bulkman::call",
        circuit = circuit.as_str(),
        reason = denied.reason.as_str(),
        retry_after = denied.retry_after().map(tracing::field::debug),
        "call refused"
    );
}

/// Whether any subscriber may want events and spans of this level: a load.
#[inline]
pub(super) fn tells(level: Level) -> bool {
    LevelFilter::current() >= level
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

/// Something happened to the link with the fleet's store: an error if it stays so until somebody
/// mends it, with the words that say how.
pub(crate) fn fleet(event: &FleetEvent) {
    const TARGET: &str = "bulkman::fleet";
    match event {
        FleetEvent::Synchronized { after: None } => {
            tracing::info!(target: TARGET, "synchronised with the store");
        }
        FleetEvent::Synchronized { after: Some(after) } => {
            tracing::info!(target: TARGET, ?after, "synchronised with the store again");
        }
        FleetEvent::Degraded { error } if error.is_transient() => {
            tracing::warn!(target: TARGET, %error, "store can't be used, calls go by local rules");
        }
        FleetEvent::Degraded { error } => {
            tracing::error!(target: TARGET, %error, "store can't be used until somebody mends it");
        }
        FleetEvent::Pending { circuit } => {
            let circuit = circuit.as_str();
            tracing::info!(target: TARGET, circuit, "decision waits for the store");
        }
        FleetEvent::DecisionResolved { circuit, outcome } => {
            let (circuit, outcome) = (circuit.as_str(), outcome.as_str());
            tracing::debug!(target: TARGET, circuit, outcome, "decision resolved");
        }
        FleetEvent::FellBackToPolling => {
            tracing::warn!(target: TARGET, "announcements do not arrive, the store is polled");
        }
        FleetEvent::HistoryLost => {
            tracing::warn!(target: TARGET, "store has lost history, its word was taken");
        }
        FleetEvent::ClockStepped { by, forward } => {
            tracing::warn!(target: TARGET, ?by, forward, "the store's clock stepped");
        }
        // What a listener has missed is that listener's affair.
        FleetEvent::Lagged(_) => {}
    }
}
