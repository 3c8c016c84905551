//! The metrics of a fleet.

use ::metrics::{counter, gauge};

use super::labels::{ExtraLabels, Labels, NAMESPACE};
use super::names;
use crate::fleet::Fleet;

/// Publishes the metrics of a fleet.
#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are floats; exact up to 2^53"
)]
pub(super) fn publish(fleet: &Fleet, extra: &ExtraLabels) {
    let labels = Labels::new(NAMESPACE, fleet.namespace(), extra);
    let reading = fleet.take_reading();
    for (name, value) in [
        (
            names::FLEET_CONNECTED,
            f64::from(u8::from(reading.connected)),
        ),
        (names::FLEET_POLLING, f64::from(u8::from(reading.polling))),
        (names::FLEET_PENDING, reading.pending as f64),
        (names::FLEET_STALENESS, reading.staleness.as_secs_f64()),
        (names::FLEET_DEGRADED, reading.degraded.as_secs_f64()),
    ] {
        gauge!(name, labels.all()).set(value);
    }
    for (outcome, by) in reading.counters.decisions() {
        counter!(names::FLEET_DECISIONS, labels.with("outcome", outcome)).increment(by);
    }
    for (reason, by) in reading.counters.rejections() {
        counter!(names::FLEET_REJECTIONS, labels.with("reason", reason)).increment(by);
    }
    for (event, by) in reading.counters.events() {
        counter!(names::FLEET_EVENTS, labels.with("event", event)).increment(by);
    }
}
