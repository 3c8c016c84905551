//! Metrics of bulkheads and fleets, for the facade [`metrics`](https://docs.rs/metrics).
//!
//! The application chooses the exporter that receives them. Calls record nothing: a
//! [`MetricsPublisher`] reads the counters of the bulkheads when it is asked to, before a scrape or
//! in a background task. The two histograms are the exception, since a duration can't be read
//! later. They cost three clock readings for each call, and are off unless
//! [`record_durations`](MetricsPublisher::record_durations) turns them on.
//!
//! | name | type | labels beside `bulkhead` | meaning |
//! | --- | --- | --- | --- |
//! | `bulkman_calls_started_total` | counter | | calls that acquired a permit and were admitted by the circuit |
//! | `bulkman_calls_total` | counter | `outcome`: `success`, `failure`, `ignored`, `cancelled` | calls that started and ended |
//! | `bulkman_rejections_total` | counter | `reason`: `circuit_open`, `probe_limit_reached`, `forced_open`, `no_probe_lease`, `full`, `timed_out_in_queue`, `shutdown`, `key_queue_full`, `evicted`, `weight_too_large` | calls that never started |
//! | `bulkman_cancelled_in_queue_total` | counter | | calls that were cancelled while waiting |
//! | `bulkman_timeouts_total` | counter | | calls that timed out while running |
//! | `bulkman_panics_total` | counter | | calls that panicked |
//! | `bulkman_overloads_total` | counter | | calls with the outcome `Overloaded` |
//! | `bulkman_circuit_transitions_total` | counter | `to`: a state | states entered |
//! | `bulkman_calls_running` | gauge | | running calls |
//! | `bulkman_calls_waiting` | gauge | | calls waiting for a permit |
//! | `bulkman_waiting_at_key_maximum` | gauge | | calls waiting because their key holds as many permits as it may; with fair shares |
//! | `bulkman_permits_in_use` | gauge | | permits that are held |
//! | `bulkman_permits_limit` | gauge | | the limit in force: `max_concurrent_calls`, or the adaptive limit |
//! | `bulkman_queue_limit` | gauge | | `max_queue_size` |
//! | `bulkman_circuit_state` | gauge | `state`: `closed`, `open`, `half_open`, `forced_open`, `disabled`, `metrics_only` | 1 for the current state of the circuit, 0 for the others |
//! | `bulkman_calls_hanging` | gauge | | running calls that are slow already; only with `hanging_call_threshold` or `count_calls_in_flight` |
//! | `bulkman_oldest_call_seconds` | gauge | | age of the oldest running call; only with `track_running_calls` |
//! | `bulkman_queue_duration_seconds` | histogram | | waiting times of calls that started |
//! | `bulkman_run_duration_seconds` | histogram | | running times of calls that started |
//!
//! A bulkhead whose limit [adapts](crate::adaptive) or is observed has further series:
//!
//! | name | type | labels beside `bulkhead` | meaning |
//! | --- | --- | --- | --- |
//! | `bulkman_limit_estimate` | gauge | | the adaptive limit with its fraction, enforced or not |
//! | `bulkman_limit_baseline_seconds` | gauge | | the latency of the dependency without a queue |
//! | `bulkman_limit_latency_seconds` | gauge | | the mean latency of the last sampling window |
//! | `bulkman_limit_changes_total` | counter | `cause`: a cause | changes by whole permits, see [`LimitChangeCause`](crate::adaptive::LimitChangeCause) |
//! | `bulkman_would_wait_total` | counter | | observe mode: calls that would have waited |
//! | `bulkman_would_reject_total` | counter | | observe mode: calls that would have been rejected |
//!
//! Every series has the label `bulkhead`, the name of the bulkhead. It has as many values as there
//! are bulkheads. Name bulkheads after dependencies, never after users or requests.
//!
//! The name is the whole identity of a bulkhead, also in logs and snapshots. If two managers of one
//! process have bulkheads of the same name, or two fleets have the same namespace, give each
//! publisher another [`label`](MetricsPublisher::label).
//!
//! A manager or a bulkhead with a store also publishes metrics of its
//! [`Fleet`](crate::fleet::Fleet): the connection to the store, and the outcomes of local
//! decisions. These series have the label `namespace`, the namespace of the store:
//!
//! | name | type | labels beside `namespace` | meaning |
//! | --- | --- | --- | --- |
//! | `bulkman_fleet_connected` | gauge | | 1 while the store answers, else 0 |
//! | `bulkman_fleet_polling` | gauge | | 1 while changes are polled, 0 while the store pushes them |
//! | `bulkman_fleet_pending` | gauge | | decisions and probe results that are not published yet |
//! | `bulkman_fleet_staleness_seconds` | gauge | | time since the last response of the store, or since the fleet was created |
//! | `bulkman_fleet_degraded_seconds` | gauge | | time since the store became unavailable; 0 while it is available |
//! | `bulkman_fleet_decisions_total` | counter | `outcome`: `published`, `voted`, `superseded`, `replaced`, `expired` | decisions of this process, by how they ended |
//! | `bulkman_fleet_rejections_total` | counter | `reason`: `stale`, `already_in_state`, `not_due`, `expired`, `forced_by_operator` | changes that the store rejected; `stale` are conflicts with other processes |
//! | `bulkman_fleet_events_total` | counter | `event`: `synchronized`, `degraded`, `operation_rejected`, `read_only`, `writes_resumed`, `pending`, `fell_back_to_polling`, `push_resumed`, `history_lost`, `clock_stepped` | events of the connection to the store, see [`FleetEvent`](crate::fleet::FleetEvent) |
//!
//! The view of a healthy idle fleet is at most 5 s old with push, or 1 s when polling. Alert on
//! `bulkman_fleet_staleness_seconds > 30`, which also covers a store that has never answered.
//!
//! # Counters never decrease
//!
//! Counters start when the bulkhead is created, and
//! [`reset_stats`](crate::Bulkhead::reset_stats) does not affect them. If a bulkhead is removed and
//! another one created under its name, its series continue. Each increment is recorded once, by
//! whichever publisher comes first. Install the recorder before anything is published: earlier
//! increments are lost.
//!
//! # Removed bulkheads
//!
//! The facade can't remove a series. When a bulkhead has left its manager, the publisher records
//! its last counts, sets its gauges to zero and stops writing its series. Calls through remaining
//! clones are recorded when the last clone is dropped. An exporter that removes idle series then
//! drops them. For `metrics-exporter-prometheus` that is
//! `idle_timeout(MetricKindMask::COUNTER | MetricKindMask::GAUGE, Some(duration))`, with a duration
//! of several publishing intervals: the counters and gauges of an existing bulkhead are written by
//! each publication, even if nothing has changed.
//!
//! Leave histograms out of that mask. Only a call writes to a histogram, so the histograms of an
//! existing bulkhead without calls would be dropped too, and durations would be lost until the next
//! publication. The histograms of a removed bulkhead therefore remain until the process ends.

mod fleet;
mod labels;
mod meter;
mod names;
mod publisher;

pub(crate) use self::meter::{Meter, publish_last_counts};
pub use self::publisher::MetricsPublisher;
