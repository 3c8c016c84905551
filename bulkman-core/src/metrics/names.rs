//! The series' names, once.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const STARTED: &str = "bulkman_calls_started_total";
pub(super) const CALLS: &str = "bulkman_calls_total";
pub(super) const REJECTIONS: &str = "bulkman_rejections_total";
pub(super) const CANCELLED_WAITING: &str = "bulkman_cancelled_waiting_total";
pub(super) const TIMEOUTS: &str = "bulkman_timeouts_total";
pub(super) const PANICS: &str = "bulkman_panics_total";
pub(super) const TRANSITIONS: &str = "bulkman_circuit_transitions_total";
pub(super) const RUNNING: &str = "bulkman_calls_running";
pub(super) const WAITING: &str = "bulkman_calls_waiting";
pub(super) const PERMITS_IN_USE: &str = "bulkman_permits_in_use";
pub(super) const PERMITS_LIMIT: &str = "bulkman_permits_limit";
pub(super) const QUEUE_LIMIT: &str = "bulkman_queue_limit";
pub(super) const STATE: &str = "bulkman_circuit_state";
pub(super) const QUEUE_DURATION: &str = "bulkman_queue_duration_seconds";
pub(super) const RUN_DURATION: &str = "bulkman_run_duration_seconds";
pub(super) const FLEET_CONNECTED: &str = "bulkman_fleet_connected";
pub(super) const FLEET_POLLING: &str = "bulkman_fleet_polling";
pub(super) const FLEET_PENDING: &str = "bulkman_fleet_pending";
pub(super) const FLEET_STALENESS: &str = "bulkman_fleet_staleness_seconds";
pub(super) const FLEET_DEGRADED: &str = "bulkman_fleet_degraded_seconds";
pub(super) const FLEET_DECISIONS: &str = "bulkman_fleet_decisions_total";
pub(super) const FLEET_REFUSALS: &str = "bulkman_fleet_refusals_total";
pub(super) const FLEET_EVENTS: &str = "bulkman_fleet_events_total";

/// Tells the recorder what the series mean.
pub(super) fn describe() {
    describe_counter!(
        STARTED,
        Unit::Count,
        "Calls that got a permit and an admission by the circuit."
    );
    describe_counter!(CALLS, Unit::Count, "Calls that ran and ended, by outcome.");
    describe_counter!(
        REJECTIONS,
        Unit::Count,
        "Calls that never started, by reason."
    );
    describe_counter!(
        CANCELLED_WAITING,
        Unit::Count,
        "Calls whose callers left the queue."
    );
    describe_counter!(
        TIMEOUTS,
        Unit::Count,
        "Calls that started and ran out of time."
    );
    describe_counter!(PANICS, Unit::Count, "Calls that started and panicked.");
    describe_counter!(TRANSITIONS, Unit::Count, "States that the circuit entered.");
    describe_gauge!(RUNNING, Unit::Count, "Calls running now.");
    describe_gauge!(WAITING, Unit::Count, "Calls waiting for a permit now.");
    describe_gauge!(PERMITS_IN_USE, Unit::Count, "Permits held now.");
    describe_gauge!(
        PERMITS_LIMIT,
        Unit::Count,
        "How many calls may run at once."
    );
    describe_gauge!(
        QUEUE_LIMIT,
        Unit::Count,
        "How many calls may wait for a permit."
    );
    describe_gauge!(
        STATE,
        Unit::Count,
        "1 for the state that the circuit is in, 0 for the others."
    );
    describe_histogram!(
        QUEUE_DURATION,
        Unit::Seconds,
        "How long calls that started had waited."
    );
    describe_histogram!(
        RUN_DURATION,
        Unit::Seconds,
        "How long calls that started ran."
    );
    describe_gauge!(
        FLEET_CONNECTED,
        Unit::Count,
        "1 while the fleet's store answers, else 0."
    );
    describe_gauge!(
        FLEET_POLLING,
        Unit::Count,
        "1 while changes are polled for, 0 while they are announced."
    );
    describe_gauge!(
        FLEET_PENDING,
        Unit::Count,
        "Decisions and verdicts that the store does not know yet."
    );
    describe_gauge!(
        FLEET_STALENESS,
        Unit::Seconds,
        "How long ago the store answered last."
    );
    describe_gauge!(
        FLEET_DEGRADED,
        Unit::Seconds,
        "For how long the store has not been there."
    );
    describe_counter!(
        FLEET_DECISIONS,
        Unit::Count,
        "Decisions of this process, by how they ended."
    );
    describe_counter!(
        FLEET_REFUSALS,
        Unit::Count,
        "Changes that the store refused, by reason."
    );
    describe_counter!(
        FLEET_EVENTS,
        Unit::Count,
        "What happened to the link with the store."
    );
}
