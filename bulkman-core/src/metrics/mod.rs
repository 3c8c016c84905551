//! Metrics, through the facade of the crate [`metrics`](https://docs.rs/metrics).
//!
//! Which exporter receives them is the application's choice. Nothing is recorded on a call's path:
//! a [`MetricsPublisher`] reads the counters that a bulkhead keeps anyway, whenever it is told to
//! (before a scrape, or every few seconds by a task of its own). The two histograms are the
//! exception, since a time that nobody took can't be read later: they cost each call three
//! clock readings, and are off until [`timings`](MetricsPublisher::record_durations) turns them on.
//!
//! | name | type | labels beside `bulkhead` | what |
//! | --- | --- | --- | --- |
//! | `bulkman_calls_started_total` | counter | | calls that got a permit and an admission |
//! | `bulkman_calls_total` | counter | `outcome`: `success`, `failure`, `ignored`, `cancelled` | calls that ran and ended |
//! | `bulkman_rejections_total` | counter | `reason`: `circuit_open`, `probe_limit_reached`, `forced_open`, `no_probe_lease`, `full`, `timed_out_in_queue`, `shutdown` | calls that never started |
//! | `bulkman_cancelled_waiting_total` | counter | | calls whose callers left the queue |
//! | `bulkman_timeouts_total` | counter | | calls that started and ran out of time |
//! | `bulkman_panics_total` | counter | | calls that started and panicked |
//! | `bulkman_circuit_transitions_total` | counter | `to`: a state | states entered |
//! | `bulkman_calls_running` | gauge | | calls running now |
//! | `bulkman_calls_waiting` | gauge | | calls waiting for a permit now |
//! | `bulkman_permits_in_use` | gauge | | permits held now |
//! | `bulkman_permits_limit` | gauge | | `max_concurrent_calls` |
//! | `bulkman_queue_limit` | gauge | | `max_queue_size` |
//! | `bulkman_circuit_state` | gauge | `state`: `closed`, `open`, `half_open`, `forced_open`, `disabled`, `metrics_only` | 1 for the state that the circuit is in, 0 for the others |
//! | `bulkman_queue_duration_seconds` | histogram | | how long calls that started had waited |
//! | `bulkman_run_duration_seconds` | histogram | | how long calls that started ran |
//!
//! Every series carries the label `bulkhead`, its name: as many values as there are bulkheads, so
//! name bulkheads after dependencies, never after users or requests.
//!
//! Where a manager (or a bulkhead) has a store, its [`Fleet`](crate::fleet::Fleet) tells how fresh its
//! view is and what became of its decisions. These series carry the label `namespace`, the
//! store's, and no other but those listed:
//!
//! | name | type | labels beside `namespace` | what |
//! | --- | --- | --- | --- |
//! | `bulkman_fleet_connected` | gauge | | 1 while the store answers, else 0 |
//! | `bulkman_fleet_polling` | gauge | | 1 while changes are polled for, 0 while they are announced |
//! | `bulkman_fleet_pending` | gauge | | decisions and verdicts that the store does not know yet |
//! | `bulkman_fleet_staleness_seconds` | gauge | | how long ago the store answered last; before it ever did, since the fleet was made |
//! | `bulkman_fleet_degraded_seconds` | gauge | | for how long the store has not been there; 0 while it is |
//! | `bulkman_fleet_decisions_total` | counter | `outcome`: `published`, `voted`, `superseded`, `replaced`, `expired` | decisions of this process, by how they ended |
//! | `bulkman_fleet_refusals_total` | counter | `reason`: `stale`, `already_in_state`, `not_due`, `expired`, `forced_by_operator` | changes that the store refused; `stale` are conflicts with other processes |
//! | `bulkman_fleet_events_total` | counter | `event`: `synchronized`, `degraded`, `pending`, `fell_back_to_polling`, `history_lost`, `clock_stepped` | what happened to the link with the store, see [`FleetEvent`](crate::fleet::FleetEvent) |
//!
//! A healthy idle fleet is at most one look stale (5 s with announcements, 1 s when polling), so
//! alert on `bulkman_fleet_staleness_seconds > 30`, which also covers a store that never answered.
//!
//! # Counters never go back
//!
//! They count from the making of the bulkhead, whatever [`reset_stats`](crate::Bulkhead::reset_stats)
//! did, and a bulkhead that is removed and made again under its name goes on where the old one
//! stopped. What was counted is handed to the recorder once, by whichever publisher comes first;
//! so install the recorder before anything is published.
//!
//! # Removed bulkheads
//!
//! The facade has no way to take a series back. When a bulkhead has left its manager, the
//! publisher hands over what it has counted, sets its gauges to zero and touches its series no
//! more (what later calls of those who still hold it add up to comes when the last of them lets
//! go); an exporter that retires idle series then drops them. For `metrics-exporter-prometheus`
//! that is `idle_timeout(MetricKindMask::COUNTER | MetricKindMask::GAUGE, Some(duration))` with a
//! duration of several publishing intervals: the counters and gauges of a living bulkhead are
//! written each time, also when nothing has changed.
//!
//! Leave histograms out of that mask. Nothing can be written to a histogram but a call's time, so
//! those of a living bulkhead that has no calls would be dropped too, and with them the times
//! until the next publication. The two histograms of a removed bulkhead therefore stay as they
//! are until the process ends.

mod fleet;
mod meter;
mod names;
mod publisher;

pub(crate) use self::meter::{Meter, publish_last_counts};
pub use self::publisher::MetricsPublisher;
