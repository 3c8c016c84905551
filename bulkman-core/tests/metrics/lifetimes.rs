//! Series of bulkheads that are replaced or removed, and of recorders that drop them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkman::metrics::MetricsPublisher;
use bulkman::runtime::ClockOnly;
use bulkman::store::MemoryStore;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::MetricKindMask;
use metrics_util::registry::{GenerationalAtomicStorage, Recency, Registry};

use super::{Recorded, SECOND, lines_of};

#[test]
fn counters_survive_a_reset_and_a_replaced_bulkhead() {
    let manager = BulkheadManager::new(ClockOnly);
    let metrics = MetricsPublisher::new(&manager);
    let seen = Recorded::new();
    let succeed = |bulkhead: &Bulkhead| bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
    let successes = || seen.value("bulkman_calls_total", &[("outcome", "success")]);

    let first = manager.create_bulkhead(BulkheadConfig::new("api")).unwrap();
    succeed(&first);
    seen.publish(&metrics);
    first.reset_stats();
    succeed(&first);
    seen.publish(&metrics);
    assert_eq!(successes(), 2.0);

    manager.remove_bulkhead("api");
    succeed(&first);
    succeed(&manager.create_bulkhead(BulkheadConfig::new("api")).unwrap());
    seen.publish(&metrics);
    assert_eq!(
        successes(),
        4.0,
        "two of the first, one more after its removal, one of the second"
    );
    // Later calls are recorded when the last clone is dropped.
    succeed(&first);
    seen.within(|| drop(first));
    assert_eq!(successes(), 5.0);
}

/// Hazard H82.
#[test]
fn removed_bulkhead_is_no_longer_written() {
    let manager = BulkheadManager::new(ClockOnly);
    let metrics = MetricsPublisher::new(&manager);
    let seen = Recorded::new();
    for name in ["stays", "goes"] {
        manager.create_bulkhead(BulkheadConfig::new(name)).unwrap();
    }
    seen.publish(&metrics);
    assert_eq!(seen.of("goes", "bulkman_permits_limit", &[]), Some(10.0));

    manager.remove_bulkhead("goes");
    seen.publish(&metrics);
    for gauge in [
        "bulkman_permits_limit",
        "bulkman_queue_limit",
        "bulkman_calls_running",
        "bulkman_calls_hanging",
        "bulkman_oldest_call_seconds",
    ] {
        assert_eq!(seen.of("goes", gauge, &[]), Some(0.0), "{gauge}");
    }
    assert_eq!(
        seen.of("goes", "bulkman_circuit_state", &[("state", "closed")]),
        Some(0.0)
    );
    assert_eq!(seen.of("stays", "bulkman_permits_limit", &[]), Some(10.0));
}

/// Hazard H83.
#[test]
fn idle_series_of_removed_bulkheads_are_dropped() {
    let manager = BulkheadManager::new(ClockOnly);
    let metrics = MetricsPublisher::new(&manager);
    let seen = Idling::new(3 * SECOND);
    for name in ["stays", "goes"] {
        manager.create_bulkhead(BulkheadConfig::new(name)).unwrap();
    }
    manager
        .get_bulkhead("stays")
        .unwrap()
        .execute_sync(|| Ok::<_, ()>(()))
        .unwrap();
    seen.publish(&metrics);
    assert_eq!(seen.of("goes", "bulkman_permits_limit"), Some(10.0));
    manager.remove_bulkhead("goes");
    for second in 1..10 {
        seen.clock.increment(SECOND);
        seen.publish(&metrics);
        // The first publication without it writes it for the last time.
        let present = seen.of("goes", "bulkman_permits_limit").is_some();
        assert_eq!(present, second <= 4, "after {second} s");
        assert_eq!(seen.of("stays", "bulkman_permits_limit"), Some(10.0));
        // It has no further calls, and would restart at zero if it had been dropped.
        assert_eq!(seen.of("stays", "bulkman_calls_started_total"), Some(1.0));
    }
    let left: Vec<_> = seen
        .series()
        .into_iter()
        .filter(|(key, _)| belongs_to(key, "goes"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn dropped_histograms_return_with_the_next_publication() {
    let bulkhead = Bulkhead::new(BulkheadConfig::new("api"), ClockOnly).unwrap();
    let metrics = MetricsPublisher::for_bulkhead(&bulkhead).record_durations(true);
    let seen = Idling::new(3 * SECOND);
    let count = || seen.of("api", "bulkman_run_duration_seconds");
    for _ in 0..2 {
        seen.publish(&metrics);
        bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
        assert_eq!(count(), Some(1.0));
        seen.clock.increment(4 * SECOND);
        assert_eq!(count(), None);
    }
}

/// Fault SUR08.
#[test]
fn a_later_recorder_receives_all_descriptions() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    manager.share_through(MemoryStore::new(runtime)).unwrap();
    manager.create_bulkhead(BulkheadConfig::new("api")).unwrap();
    let metrics = MetricsPublisher::new(&manager);
    metrics.publish(); // before a recorder is installed
    for recorder in ["first", "second"] {
        let seen = Recorded::new();
        for _ in 0..2 {
            seen.publish(&metrics);
        }
        let text = seen.text();
        let series = lines_of(&text, "# TYPE ");
        let help = lines_of(&text, "# HELP ");
        assert!(series.len() > 10, "{recorder}: {series:?}");
        assert_eq!(series, help, "{recorder}");
    }
}

/// A recorder that drops idle series as `PrometheusRecorder` does, with a virtual clock.
struct Idling {
    registry: Registry<Key, GenerationalAtomicStorage>,
    recency: Recency<Key>,
    clock: Arc<quanta::Mock>,
}

impl Idling {
    fn new(idle: Duration) -> Self {
        let (clock, mock) = quanta::Clock::mock();
        let recency = Recency::new(clock, MetricKindMask::ALL, Some(idle));
        Self {
            registry: Registry::new(GenerationalAtomicStorage::atomic()),
            recency,
            clock: mock,
        }
    }

    fn publish(&self, publisher: &MetricsPublisher) {
        metrics::with_local_recorder(self, || publisher.publish());
    }

    /// Returns the series that a scrape finds. The value of a histogram is its number of samples.
    fn series(&self) -> Vec<(Key, f64)> {
        let Self {
            registry, recency, ..
        } = self;
        let mut found = Vec::new();
        for (key, counter) in registry.get_counter_handles() {
            if recency.should_store_counter(&key, counter.get_generation(), registry) {
                let count = counter.get_inner().load(Ordering::Relaxed);
                found.push((key, f64::from(u32::try_from(count).unwrap())));
            }
        }
        for (key, gauge) in registry.get_gauge_handles() {
            if recency.should_store_gauge(&key, gauge.get_generation(), registry) {
                found.push((
                    key,
                    f64::from_bits(gauge.get_inner().load(Ordering::Relaxed)),
                ));
            }
        }
        for (key, histogram) in registry.get_histogram_handles() {
            if recency.should_store_histogram(&key, histogram.get_generation(), registry) {
                let count = histogram.get_inner().data().len();
                found.push((key, f64::from(u32::try_from(count).unwrap())));
            }
        }
        found
    }

    fn of(&self, bulkhead: &str, name: &str) -> Option<f64> {
        let mut series = self.series().into_iter();
        series.find_map(|(key, value)| {
            (key.name() == name && belongs_to(&key, bulkhead)).then_some(value)
        })
    }
}

impl Recorder for Idling {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registry
            .get_or_create_counter(key, |counter| counter.clone().into())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registry
            .get_or_create_gauge(key, |gauge| gauge.clone().into())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.registry
            .get_or_create_histogram(key, |histogram| histogram.clone().into())
    }
}

fn belongs_to(key: &Key, bulkhead: &str) -> bool {
    key.labels()
        .any(|label| (label.key(), label.value()) == ("bulkhead", bulkhead))
}
