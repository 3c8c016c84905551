//! The names and descriptions of the series.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const STARTED: &str = "bulkman_calls_started_total";
pub(super) const CALLS: &str = "bulkman_calls_total";
pub(super) const REJECTIONS: &str = "bulkman_rejections_total";
pub(super) const CANCELLED_IN_QUEUE: &str = "bulkman_cancelled_in_queue_total";
pub(super) const TIMEOUTS: &str = "bulkman_timeouts_total";
pub(super) const PANICS: &str = "bulkman_panics_total";
pub(super) const TRANSITIONS: &str = "bulkman_circuit_transitions_total";
pub(super) const RUNNING: &str = "bulkman_calls_running";
pub(super) const WAITING: &str = "bulkman_calls_waiting";
pub(super) const WAITING_AT_KEY_MAXIMUM: &str = "bulkman_waiting_at_key_maximum";
pub(super) const PERMITS_IN_USE: &str = "bulkman_permits_in_use";
pub(super) const PERMITS_LIMIT: &str = "bulkman_permits_limit";
pub(super) const LIMIT_ESTIMATE: &str = "bulkman_limit_estimate";
pub(super) const LIMIT_BASELINE: &str = "bulkman_limit_baseline_seconds";
pub(super) const LIMIT_LATENCY: &str = "bulkman_limit_latency_seconds";
pub(super) const LIMIT_CHANGES: &str = "bulkman_limit_changes_total";
pub(super) const OVERLOADS: &str = "bulkman_overloads_total";
pub(super) const WOULD_WAIT: &str = "bulkman_would_wait_total";
pub(super) const WOULD_REJECT: &str = "bulkman_would_reject_total";
pub(super) const QUEUE_LIMIT: &str = "bulkman_queue_limit";
pub(super) const STATE: &str = "bulkman_circuit_state";
pub(super) const HANGING: &str = "bulkman_calls_hanging";
pub(super) const OLDEST: &str = "bulkman_oldest_call_seconds";
pub(super) const QUEUE_DURATION: &str = "bulkman_queue_duration_seconds";
pub(super) const RUN_DURATION: &str = "bulkman_run_duration_seconds";
pub(super) const FLEET_CONNECTED: &str = "bulkman_fleet_connected";
pub(super) const FLEET_POLLING: &str = "bulkman_fleet_polling";
pub(super) const FLEET_PENDING: &str = "bulkman_fleet_pending";
pub(super) const FLEET_STALENESS: &str = "bulkman_fleet_staleness_seconds";
pub(super) const FLEET_DEGRADED: &str = "bulkman_fleet_degraded_seconds";
pub(super) const FLEET_DECISIONS: &str = "bulkman_fleet_decisions_total";
pub(super) const FLEET_REJECTIONS: &str = "bulkman_fleet_rejections_total";
pub(super) const FLEET_EVENTS: &str = "bulkman_fleet_events_total";

/// Registers the descriptions with the recorder.
pub(super) fn describe() {
    describe_counter!(
        STARTED,
        Unit::Count,
        "Calls that acquired a permit and were admitted by the circuit."
    );
    describe_counter!(
        CALLS,
        Unit::Count,
        "Calls that started and ended, by outcome."
    );
    describe_counter!(
        REJECTIONS,
        Unit::Count,
        "Calls that never started, by reason."
    );
    describe_counter!(
        CANCELLED_IN_QUEUE,
        Unit::Count,
        "Calls that were cancelled while waiting for a permit."
    );
    describe_counter!(TIMEOUTS, Unit::Count, "Calls that timed out while running.");
    describe_counter!(PANICS, Unit::Count, "Calls that panicked.");
    describe_counter!(TRANSITIONS, Unit::Count, "States that the circuit entered.");
    describe_gauge!(RUNNING, Unit::Count, "Running calls.");
    describe_gauge!(WAITING, Unit::Count, "Calls waiting for a permit.");
    describe_gauge!(
        WAITING_AT_KEY_MAXIMUM,
        Unit::Count,
        "Calls waiting because their key holds as many permits as it may."
    );
    describe_gauge!(PERMITS_IN_USE, Unit::Count, "Permits that are held.");
    describe_gauge!(
        PERMITS_LIMIT,
        Unit::Count,
        "The limit of concurrent calls in force."
    );
    describe_gauge!(
        LIMIT_ESTIMATE,
        Unit::Count,
        "The adaptive limit with its fraction, enforced or not."
    );
    describe_gauge!(
        LIMIT_BASELINE,
        Unit::Seconds,
        "The latency of the dependency without a queue."
    );
    describe_gauge!(
        LIMIT_LATENCY,
        Unit::Seconds,
        "The mean latency of the last sampling window."
    );
    describe_counter!(
        LIMIT_CHANGES,
        Unit::Count,
        "Changes of the adaptive limit by whole permits, by cause."
    );
    describe_counter!(
        OVERLOADS,
        Unit::Count,
        "Calls for which the dependency requested less load."
    );
    describe_counter!(
        WOULD_WAIT,
        Unit::Count,
        "Calls that an observed limit would have queued."
    );
    describe_counter!(
        WOULD_REJECT,
        Unit::Count,
        "Calls that an observed limit would have rejected."
    );
    describe_gauge!(
        QUEUE_LIMIT,
        Unit::Count,
        "The maximum number of waiting calls."
    );
    describe_gauge!(
        STATE,
        Unit::Count,
        "1 for the current state of the circuit, 0 for the others."
    );
    describe_gauge!(
        HANGING,
        Unit::Count,
        "Running calls that are slow already, if a rule of the circuit counts them."
    );
    describe_gauge!(
        OLDEST,
        Unit::Seconds,
        "Age of the oldest running call, if running calls are tracked."
    );
    describe_histogram!(
        QUEUE_DURATION,
        Unit::Seconds,
        "Waiting times of calls that started."
    );
    describe_histogram!(
        RUN_DURATION,
        Unit::Seconds,
        "Running times of calls that started."
    );
    describe_gauge!(
        FLEET_CONNECTED,
        Unit::Count,
        "1 while the fleet's store answers, else 0."
    );
    describe_gauge!(
        FLEET_POLLING,
        Unit::Count,
        "1 while changes are polled, 0 while the store pushes them."
    );
    describe_gauge!(
        FLEET_PENDING,
        Unit::Count,
        "Decisions and probe results that are not published yet."
    );
    describe_gauge!(
        FLEET_STALENESS,
        Unit::Seconds,
        "Time since the last response of the store."
    );
    describe_gauge!(
        FLEET_DEGRADED,
        Unit::Seconds,
        "Time since the store became unavailable; 0 while it is available."
    );
    describe_counter!(
        FLEET_DECISIONS,
        Unit::Count,
        "Decisions of this process, by outcome."
    );
    describe_counter!(
        FLEET_REJECTIONS,
        Unit::Count,
        "Changes that the store rejected, by reason."
    );
    describe_counter!(
        FLEET_EVENTS,
        Unit::Count,
        "Events of the connection to the store."
    );
}
