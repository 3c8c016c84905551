//! The metrics of a bulkhead.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::{Histogram, counter, gauge, histogram};

use super::labels::{BULKHEAD, ExtraLabels, Labels};
use super::names;
use crate::adaptive::LimitChangeCause;
use crate::bulkhead::stats::{Event, Reading};
use crate::bulkhead::{Bulkhead, Inner};
use crate::circuit_breaker::{CircuitBreaker, CircuitState};
use crate::name::BulkheadName;
use crate::sync::{Mutex, lock};

/// The part of a bulkhead that belongs to its metrics.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Set once durations are recorded. Each publication replaces the handles, since an exporter
    /// that has dropped an idle series ignores its old handles.
    histograms: OnceLock<Mutex<Histograms>>,
    /// States entered, in the order of [`STATES`].
    transitions: [AtomicU64; STATES.len()],
    /// The counts that were recorded already, and the labels of the last publication; `None`:
    /// nothing yet.
    published: Mutex<Option<(Published, Labels)>>,
}

#[derive(Clone)]
pub(crate) struct Histograms {
    queue: Histogram,
    run: Histogram,
}

#[derive(Clone, Copy, Debug, Default)]
struct Published {
    calls: Reading,
    transitions: [u64; STATES.len()],
}

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::Disabled,
    CircuitState::MetricsOnly,
];

impl Meter {
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.histograms.get().is_some()
    }

    /// Records the durations of one call.
    pub(crate) fn record(&self, queued: Duration, ran: Duration) {
        if let Some(histograms) = self.histograms.get() {
            // The recorder is user code, which never runs under a lock.
            let Histograms { queue, run } = lock(histograms).clone();
            queue.record(queued);
            run.record(ran);
        }
    }

    pub(crate) fn count_transition(&self, to: CircuitState) {
        if let Some(index) = STATES.iter().position(|state| *state == to) {
            self.transitions[index].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Histograms {
    fn new(labels: &Labels) -> Self {
        Self {
            queue: histogram!(names::QUEUE_DURATION, labels.all()),
            run: histogram!(names::RUN_DURATION, labels.all()),
        }
    }
}

/// Publishes all metrics of a bulkhead.
pub(super) fn publish(bulkhead: &Bulkhead, record_durations: bool, extra: &ExtraLabels) {
    let labels = labels(bulkhead.name(), extra);
    if record_durations {
        let new = Histograms::new(&labels);
        let histograms = &bulkhead.inner().meter.histograms;
        match histograms.get() {
            Some(current) => drop(std::mem::replace(&mut *lock(current), new)),
            None => drop(histograms.set(Mutex::new(new))),
        }
    }
    publish_counters(bulkhead.inner(), &labels);
    publish_gauges(bulkhead, &labels);
}

/// Publishes the counters of a removed bulkhead. The gauges of its limit become zero.
pub(super) fn publish_removed(bulkhead: &Bulkhead, extra: &ExtraLabels) {
    let labels = labels(bulkhead.name(), extra);
    zero_limit_gauges(bulkhead, &labels);
    publish_counters(bulkhead.inner(), &labels);
}

/// Publishes the last counts of a bulkhead that is dropped, if it was published before.
pub(crate) fn publish_last_counts(inner: &Inner) {
    let last = lock(&inner.meter.published)
        .as_ref()
        .map(|(_, labels)| labels.clone());
    if let Some(labels) = last {
        publish_counters(inner, &labels);
    }
}

/// Sets the gauges of a removed bulkhead to zero.
pub(super) fn zero_gauges(name: &BulkheadName, extra: &ExtraLabels) {
    let labels = labels(name, extra);
    for name in [
        names::RUNNING,
        names::WAITING,
        names::PERMITS_IN_USE,
        names::PERMITS_LIMIT,
        names::QUEUE_LIMIT,
        names::HANGING,
        names::OLDEST,
    ] {
        gauge!(name, labels.all()).set(0.0);
    }
    for state in STATES {
        gauge!(names::STATE, labels.with("state", state.as_str())).set(0.0);
    }
}

/// Sets the gauges of the limit of a removed bulkhead to zero, if it has published them.
fn zero_limit_gauges(bulkhead: &Bulkhead, labels: &Labels) {
    if bulkhead.inner().driver().is_some() {
        for name in [
            names::LIMIT_ESTIMATE,
            names::LIMIT_BASELINE,
            names::LIMIT_LATENCY,
        ] {
            gauge!(name, labels.all()).set(0.0);
        }
    }
}

fn publish_counters(inner: &Inner, labels: &Labels) {
    let (calls, transitions, limit) = {
        let mut published = lock(&inner.meter.published);
        let now = Published {
            // Read under the lock: of two publishers, the later one has the later reading.
            calls: inner.counters.lifetime(inner.circuit_rejections()),
            transitions: inner
                .meter
                .transitions
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
        };
        let before = published.replace((now, labels.clone()));
        let before = before.map(|(before, _)| before).unwrap_or_default();
        let entered = |index: usize| now.transitions[index] - before.transitions[index];
        (
            now.calls.since(&before.calls),
            std::array::from_fn::<_, { STATES.len() }, _>(entered),
            inner.driver().map(|driver| driver.unpublished_counts()),
        )
    };

    let count = |name, by| counter!(name, labels.all()).increment(by);
    count(names::STARTED, calls.started);
    count(
        names::CANCELLED_IN_QUEUE,
        calls.event(Event::CancelledWaiting),
    );
    count(names::TIMEOUTS, calls.event(Event::TimedOutRunning));
    count(names::PANICS, calls.event(Event::Panicked));
    count(names::OVERLOADS, calls.event(Event::Overloaded));
    if let Some(limit) = limit {
        count(names::WOULD_WAIT, limit.would_wait);
        count(names::WOULD_REJECT, limit.would_reject);
        for (cause, by) in LimitChangeCause::ALL.into_iter().zip(limit.changes) {
            counter!(names::LIMIT_CHANGES, labels.with("cause", cause.as_str())).increment(by);
        }
    }
    for (outcome, by) in [
        ("success", calls.successful),
        ("failure", calls.failed),
        ("ignored", calls.ignored),
        ("cancelled", calls.cancelled),
    ] {
        counter!(names::CALLS, labels.with("outcome", outcome)).increment(by);
    }
    for (reason, by) in [
        ("circuit_open", calls.circuit.open),
        ("probe_limit_reached", calls.circuit.probe_limit_reached),
        ("forced_open", calls.circuit.forced_open),
        ("no_probe_lease", calls.circuit.no_probe_lease),
        ("full", calls.event(Event::Full)),
        ("timed_out_in_queue", calls.event(Event::TimedOutWaiting)),
        ("shutdown", calls.event(Event::Shutdown)),
        ("key_queue_full", calls.event(Event::KeyQueueFull)),
        ("evicted", calls.event(Event::Evicted)),
        ("weight_too_large", calls.event(Event::WeightTooLarge)),
    ] {
        counter!(names::REJECTIONS, labels.with("reason", reason)).increment(by);
    }
    if inner.circuit.is_some() {
        for (to, by) in STATES.into_iter().zip(transitions) {
            counter!(names::TRANSITIONS, labels.with("to", to.as_str())).increment(by);
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are floats; exact up to 2^53"
)]
fn publish_gauges(bulkhead: &Bulkhead, labels: &Labels) {
    let stats = bulkhead.stats();
    for (name, value) in [
        (names::RUNNING, stats.active as f64),
        (names::WAITING, stats.waiting as f64),
        (names::PERMITS_IN_USE, stats.permits_in_use as f64),
        (names::PERMITS_LIMIT, stats.max_concurrent_calls as f64),
        (names::QUEUE_LIMIT, stats.max_queue_size as f64),
    ] {
        gauge!(name, labels.all()).set(value);
    }
    if bulkhead.inner().queue.shares_permits() {
        gauge!(names::WAITING_AT_KEY_MAXIMUM, labels.all())
            .set(stats.waiting_at_key_maximum as f64);
    }
    if let Some(limit) = bulkhead.inner().limit_status() {
        for (name, value) in [
            (names::LIMIT_ESTIMATE, Some(limit.estimate)),
            (
                names::LIMIT_BASELINE,
                limit.baseline.map(|it| it.as_secs_f64()),
            ),
            (
                names::LIMIT_LATENCY,
                limit.latency.map(|it| it.as_secs_f64()),
            ),
        ] {
            if let Some(value) = value {
                gauge!(name, labels.all()).set(value);
            }
        }
    }
    let circuit = bulkhead.circuit_breaker();
    if let Some(hanging) = circuit.and_then(CircuitBreaker::hanging_calls) {
        gauge!(names::HANGING, labels.all()).set(f64::from(hanging));
    }
    let inner = bulkhead.inner();
    if inner.running.was_enabled() {
        let oldest = inner.running.oldest(|| inner.runtime.now());
        let age = oldest.first().map_or(Duration::ZERO, |call| call.age);
        gauge!(names::OLDEST, labels.all()).set(age.as_secs_f64());
    }
    if let Some(current) = stats.circuit {
        for state in STATES {
            let value = f64::from(u8::from(state == current));
            gauge!(names::STATE, labels.with("state", state.as_str())).set(value);
        }
    }
}

fn labels(name: &BulkheadName, extra: &ExtraLabels) -> Labels {
    Labels::new(BULKHEAD, name.as_str(), extra)
}

impl std::fmt::Debug for Histograms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histograms").finish_non_exhaustive()
    }
}
