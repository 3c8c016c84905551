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

/// Tells the recorder what the series mean.
pub(super) fn describe() {
    describe_counter!(STARTED, Unit::Count, "Calls that got a permit and an admission by the circuit.");
    describe_counter!(CALLS, Unit::Count, "Calls that ran and ended, by outcome.");
    describe_counter!(REJECTIONS, Unit::Count, "Calls that never started, by reason.");
    describe_counter!(CANCELLED_WAITING, Unit::Count, "Calls whose callers left the queue.");
    describe_counter!(TIMEOUTS, Unit::Count, "Calls that started and ran out of time.");
    describe_counter!(PANICS, Unit::Count, "Calls that started and panicked.");
    describe_counter!(TRANSITIONS, Unit::Count, "States that the circuit entered.");
    describe_gauge!(RUNNING, Unit::Count, "Calls running now.");
    describe_gauge!(WAITING, Unit::Count, "Calls waiting for a permit now.");
    describe_gauge!(PERMITS_IN_USE, Unit::Count, "Permits held now.");
    describe_gauge!(PERMITS_LIMIT, Unit::Count, "How many calls may run at once.");
    describe_gauge!(QUEUE_LIMIT, Unit::Count, "How many calls may wait for a permit.");
    describe_gauge!(STATE, Unit::Count, "1 for the state that the circuit is in, 0 for the others.");
    describe_histogram!(QUEUE_DURATION, Unit::Seconds, "How long calls that started had waited.");
    describe_histogram!(RUN_DURATION, Unit::Seconds, "How long calls that started ran.");
}
