//! The series of bulkheads and fleets, in a Prometheus recorder.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkman::adaptive::AdaptiveLimit;
use bulkman::bulkhead::Fairness;
use bulkman::fleet::Fleet;
use bulkman::metrics::MetricsPublisher;
use bulkman::runtime::ClockOnly;
use bulkman::store::MemoryStore;
use bulkman::store::{Fault, FaultStore};
use bulkman::testing::ManualRuntime;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadManager, CircuitBreakerConfig, ConfigError, Outcome, Runtime,
};
use futures_lite::future::poll_once;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;
use metrics_util::registry::{GenerationalAtomicStorage, Recency, Registry};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_outcome_and_every_rejection_is_counted() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let config = BulkheadConfig::new("api")
        .max_concurrent_calls(1)
        .max_queue_size(1)
        .failure_threshold(2);
    let bulkhead = manager.create_bulkhead(config).unwrap();
    let seen = Recorded::new();
    let metrics = MetricsPublisher::new(&manager);
    runtime.block_on(async {
        bulkhead.execute(ready(Ok::<_, ()>(()))).await.unwrap();
        let ignored = bulkhead
            .call()
            .classify(|_: &Result<(), ()>| Outcome::Ignored);
        let _ = ignored.execute(ready(Ok(()))).await;
        {
            let _permit = bulkhead.try_acquire().unwrap();
            let _ = bulkhead
                .call()
                .max_wait(SECOND)
                .execute(ready(Ok::<_, ()>(())))
                .await;
            let mut waits = Box::pin(bulkhead.acquire());
            assert!(poll_once(&mut waits).await.is_none());
            let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
            seen.publish(&metrics);
            assert_eq!(seen.value("bulkman_calls_running", &[]), 1.0);
            assert_eq!(seen.value("bulkman_calls_waiting", &[]), 1.0);
            assert_eq!(seen.value("bulkman_permits_in_use", &[]), 1.0);
        }
        let _ = bulkhead
            .call()
            .timeout(SECOND)
            .execute(pending::<Result<(), ()>>())
            .await;
        let _ = bulkhead
            .execute_blocking(|| -> Result<(), ()> { panic!("expected by the test") })
            .await;
        // The circuit is open.
        let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
        runtime.advance(30 * SECOND);
        let probes: Vec<_> = (0..3)
            .map(|_| bulkhead.circuit_breaker().unwrap().try_acquire().unwrap())
            .collect();
        let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
        drop(probes);
        bulkhead.circuit_breaker().unwrap().force_open();
        let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
        bulkhead.circuit_breaker().unwrap().close();
        let _ = bulkhead
            .call()
            .weight(7)
            .execute(ready(Ok::<_, ()>(())))
            .await;
        bulkhead.shutdown();
        let _ = bulkhead.execute(ready(Ok::<_, ()>(()))).await;
    });
    seen.publish(&metrics);

    assert_eq!(seen.value("bulkman_calls_started_total", &[]), 5.0);
    for (outcome, count) in [
        ("success", 1.0),
        ("failure", 2.0),
        ("ignored", 1.0),
        ("cancelled", 1.0),
    ] {
        assert_eq!(
            seen.value("bulkman_calls_total", &[("outcome", outcome)]),
            count,
            "{outcome}"
        );
    }
    for reason in [
        "circuit_open",
        "probe_limit_reached",
        "forced_open",
        "full",
        "timed_out_in_queue",
        "shutdown",
        "weight_too_large",
    ] {
        assert_eq!(
            seen.value("bulkman_rejections_total", &[("reason", reason)]),
            1.0,
            "{reason}"
        );
    }
    assert_eq!(
        seen.value("bulkman_rejections_total", &[("reason", "no_probe_lease")]),
        0.0
    );
    assert_eq!(seen.value("bulkman_cancelled_in_queue_total", &[]), 1.0);
    assert_eq!(seen.value("bulkman_timeouts_total", &[]), 1.0);
    assert_eq!(seen.value("bulkman_panics_total", &[]), 1.0);
    for (to, count) in [
        ("open", 1.0),
        ("half_open", 1.0),
        ("forced_open", 1.0),
        ("closed", 1.0),
    ] {
        assert_eq!(
            seen.value("bulkman_circuit_transitions_total", &[("to", to)]),
            count,
            "{to}"
        );
    }
    assert_eq!(
        seen.value("bulkman_circuit_state", &[("state", "closed")]),
        1.0
    );
    assert_eq!(
        seen.value("bulkman_circuit_state", &[("state", "open")]),
        0.0
    );
    // Nothing runs after the shutdown.
    assert_eq!(seen.value("bulkman_calls_running", &[]), 0.0);
}

#[test]
fn limit_is_published_with_its_changes_by_cause() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let config = BulkheadConfig::new("api")
        .max_concurrent_calls(50)
        .circuit_breaker_enabled(false)
        .adaptive_limit(AdaptiveLimit::new());
    let bulkhead = manager.create_bulkhead(config).unwrap();
    let seen = Recorded::new();
    let metrics = MetricsPublisher::new(&manager);
    for _ in 0..30 {
        let running: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire().ok()).collect();
        runtime.advance(SECOND / 50);
        running.into_iter().for_each(|permit| permit.succeed());
    }
    bulkhead.try_acquire().unwrap().record(Outcome::Overloaded);
    seen.publish(&metrics);
    let limit = bulkhead.snapshot().limit.unwrap();
    assert!(limit.limit > 4);
    assert_eq!(seen.value("bulkman_permits_limit", &[]), limit.limit as f64);
    assert_eq!(seen.value("bulkman_limit_estimate", &[]), limit.estimate);
    let baseline = limit.baseline.unwrap().as_secs_f64();
    assert_eq!(seen.value("bulkman_limit_baseline_seconds", &[]), baseline);
    let latency = limit.latency.unwrap().as_secs_f64();
    assert_eq!(seen.value("bulkman_limit_latency_seconds", &[]), latency);
    let growth = limit.recent.len() as f64;
    let cause = [("cause", "growth")];
    assert_eq!(seen.value("bulkman_limit_changes_total", &cause), growth);
    assert_eq!(seen.value("bulkman_overloads_total", &[]), 1.0);
    // Nothing is counted twice, and a removed bulkhead has no limit.
    seen.publish(&metrics);
    assert_eq!(seen.value("bulkman_limit_changes_total", &cause), growth);
    assert!(manager.remove_bulkhead("api").is_some());
    seen.publish(&metrics);
    assert_eq!(seen.value("bulkman_limit_estimate", &[]), 0.0);
    assert_eq!(seen.value("bulkman_permits_limit", &[]), 0.0);
}

#[test]
fn durations_are_recorded_once_turned_on() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("api"), runtime.clone()).unwrap();
    let seen = Recorded::new();
    let work = || async {
        runtime.sleep_until(runtime.now() + 2 * SECOND).await;
        Ok::<_, ()>(())
    };
    let untimed = MetricsPublisher::for_bulkhead(&bulkhead);
    seen.publish(&untimed);
    runtime.block_on(bulkhead.execute(work())).unwrap();
    assert!(!seen.text().contains("duration_seconds"));

    let timed = MetricsPublisher::for_bulkhead(&bulkhead).record_durations(true);
    seen.publish(&timed);
    for _ in 0..3 {
        runtime.block_on(bulkhead.execute(work())).unwrap();
    }
    seen.publish(&timed);
    assert_eq!(seen.value("bulkman_run_duration_seconds_count", &[]), 3.0);
    assert_eq!(seen.value("bulkman_run_duration_seconds_sum", &[]), 6.0);
    assert_eq!(seen.value("bulkman_queue_duration_seconds_sum", &[]), 0.0);
    // With two publishers, each call is still counted once.
    assert_eq!(
        seen.value("bulkman_calls_total", &[("outcome", "success")]),
        4.0
    );
}

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

#[test]
fn calls_that_hang_are_a_gauge_if_they_are_counted() {
    let runtime = ManualRuntime::new();
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(8 * SECOND)
        .hanging_call_threshold(9);
    let counted = BulkheadConfig::new("counted").circuit_breaker(rules);
    let manager = BulkheadManager::new(runtime.clone());
    let metrics = MetricsPublisher::new(&manager);
    let seen = Recorded::new();
    let counted = manager.create_bulkhead(counted).unwrap();
    manager
        .create_bulkhead(BulkheadConfig::new("plain"))
        .unwrap();
    let running = counted.try_acquire().unwrap();
    runtime.advance(9 * SECOND);
    seen.publish(&metrics);
    assert_eq!(seen.of("counted", "bulkman_calls_hanging", &[]), Some(1.0));
    assert_eq!(seen.of("plain", "bulkman_calls_hanging", &[]), None);
    running.succeed();
    seen.publish(&metrics);
    assert_eq!(seen.of("counted", "bulkman_calls_hanging", &[]), Some(0.0));
    // While the circuit is open, none is counted: the gauge does not keep an old value.
    let _running = counted.try_acquire().unwrap();
    runtime.advance(9 * SECOND);
    seen.publish(&metrics);
    assert_eq!(seen.of("counted", "bulkman_calls_hanging", &[]), Some(1.0));
    counted.circuit_breaker().unwrap().force_open();
    seen.publish(&metrics);
    assert_eq!(seen.of("counted", "bulkman_calls_hanging", &[]), Some(0.0));
}

/// Fault W3.
#[test]
fn the_oldest_call_is_a_gauge_and_its_label_is_no_label_of_metrics() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let metrics = MetricsPublisher::new(&manager).record_durations(true);
    let seen = Recorded::new();
    let tracked = BulkheadConfig::new("tracked").track_running_calls(true);
    let tracked = manager.create_bulkhead(tracked).unwrap();
    manager
        .create_bulkhead(BulkheadConfig::new("plain"))
        .unwrap();
    seen.publish(&metrics);
    let age = |seen: &Recorded, name| seen.of(name, "bulkman_oldest_call_seconds", &[]);
    assert_eq!(age(&seen, "tracked"), Some(0.0));
    let label = tracked.label("GET /users");
    let call = tracked.call().label(label);
    let mut call = Box::pin(call.execute(pending::<Result<(), ()>>()));
    assert!(futures_lite::future::block_on(poll_once(&mut call)).is_none());
    runtime.advance(9 * SECOND);
    seen.publish(&metrics);
    assert_eq!(age(&seen, "tracked"), Some(9.0));
    assert_eq!(age(&seen, "plain"), None);
    // The list is switched off: calls that are in it are shown to their end.
    let config = tracked.config().track_running_calls(false);
    tracked.reconfigure(config).unwrap();
    seen.publish(&metrics);
    assert_eq!(age(&seen, "tracked"), Some(9.0));
    drop(call);
    seen.publish(&metrics);
    assert_eq!(age(&seen, "tracked"), Some(0.0));
    assert!(!seen.text().contains("GET /users"));
}

/// Hazard K11.
#[test]
fn keys_are_counted_and_are_no_label_of_metrics() {
    const NAMES: [&str; 2] = ["Acme Inc.", "Globex"];
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let metrics = MetricsPublisher::new(&manager).record_durations(true);
    let seen = Recorded::new();
    let fairness = Fairness::new().max_per_key(1).max_queue_per_key(2);
    let shared = BulkheadConfig::new("shared")
        .max_concurrent_calls(2)
        .max_queue_size(2)
        .fairness(fairness);
    let shared = manager.create_bulkhead(shared).unwrap();
    manager
        .create_bulkhead(BulkheadConfig::new("plain"))
        .unwrap();
    let tenants = ["tenant-17", "tenant-18"];
    for (tenant, name) in tenants.into_iter().zip(NAMES) {
        shared.name_key(tenant, name);
    }
    let _running = shared.call().key(tenants[0]).try_acquire().unwrap();
    let wait = |tenant| {
        let mut call = Box::pin(shared.call().key(tenant).acquire());
        let polled = futures_lite::future::block_on(poll_once(&mut call));
        (call, polled)
    };
    let mut waiting: Vec<_> = (0..2).map(|_| wait(tenants[0])).collect();
    assert!(waiting.iter().all(|(_, polled)| polled.is_none()));
    assert!(wait(tenants[0]).1.unwrap().is_err());
    let _second = shared.call().key(tenants[1]).try_acquire().unwrap();
    // The newest waiter of the longest key leaves for this one.
    let (_other, polled) = wait(tenants[1]);
    assert!(polled.is_none());
    let evicted = poll_once(&mut waiting[1].0);
    assert!(futures_lite::future::block_on(evicted).unwrap().is_err());
    seen.publish(&metrics);
    let maximum = |name| seen.of(name, "bulkman_waiting_at_key_maximum", &[]);
    assert_eq!((maximum("shared"), maximum("plain")), (Some(2.0), None));
    for reason in ["key_queue_full", "evicted"] {
        let labels = [("reason", reason)];
        assert_eq!(
            seen.of("shared", "bulkman_rejections_total", &labels),
            Some(1.0),
            "{reason}"
        );
    }
    let text = seen.text();
    let shown = shared.snapshot().keys;
    for (tenant, name) in tenants.into_iter().zip(NAMES) {
        assert!(shown.iter().any(|key| key.name.as_deref() == Some(name)));
        assert!(!text.contains(tenant) && !text.contains(name));
        assert!(!text.contains(&shared.call_key(tenant).to_string()));
    }
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

/// Fault F08.
#[test]
fn two_managers_publish_separate_series() {
    let seen = Recorded::new();
    let publisher = |manager: &BulkheadManager, component: &str| {
        let publisher = MetricsPublisher::new(manager).record_durations(true);
        publisher.label("component", component).unwrap()
    };
    let of = |component: &str, name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels
            .iter()
            .copied()
            .chain([("component", component)])
            .collect();
        seen.of("db", name, &labels)
    };
    let managers = [5, 7].map(|limit| {
        let manager = BulkheadManager::new(ClockOnly);
        let config = BulkheadConfig::new("db").max_concurrent_calls(limit);
        manager.create_bulkhead(config).unwrap();
        manager
    });
    let [one, other] = managers
        .each_ref()
        .map(|manager| manager.get_bulkhead("db").unwrap());
    let [library, application] = [("library", 0), ("application", 1)]
        .map(|(component, manager)| publisher(&managers[manager], component));
    let publish = || [&library, &application].map(|publisher| seen.publish(publisher));
    publish();
    one.circuit_breaker().unwrap().open();
    for _ in 0..3 {
        other.execute_sync(|| Ok::<_, ()>(())).unwrap();
    }
    publish();
    for (component, limit, open, calls) in
        [("library", 5.0, 1.0, 0.0), ("application", 7.0, 0.0, 3.0)]
    {
        assert_eq!(of(component, "bulkman_permits_limit", &[]), Some(limit));
        assert_eq!(
            of(component, "bulkman_circuit_state", &[("state", "open")]),
            Some(open)
        );
        assert_eq!(
            of(
                component,
                "bulkman_circuit_transitions_total",
                &[("to", "open")]
            ),
            Some(open)
        );
        assert_eq!(
            of(component, "bulkman_calls_started_total", &[]),
            Some(calls)
        );
        assert_eq!(
            of(component, "bulkman_calls_total", &[("outcome", "success")]),
            Some(calls)
        );
        assert_eq!(
            of(component, "bulkman_run_duration_seconds_count", &[]).unwrap_or(0.0),
            calls
        );
    }
    assert_eq!(
        seen.of("db", "bulkman_permits_limit", &[]),
        None,
        "no series without the label"
    );

    // The bulkhead of one manager is removed: the other one keeps its gauges.
    managers[0].remove_bulkhead("db");
    publish();
    assert_eq!(of("library", "bulkman_permits_limit", &[]), Some(0.0));
    assert_eq!(of("application", "bulkman_permits_limit", &[]), Some(7.0));
    assert_eq!(
        of(
            "application",
            "bulkman_circuit_state",
            &[("state", "closed")]
        ),
        Some(1.0)
    );
    // Its last counts have its labels, too.
    one.circuit_breaker().unwrap().close();
    one.execute_sync(|| Ok::<_, ()>(())).unwrap();
    seen.within(|| drop(one));
    assert_eq!(of("library", "bulkman_calls_started_total", &[]), Some(1.0));
    assert_eq!(
        of("application", "bulkman_calls_started_total", &[]),
        Some(3.0)
    );
}

/// Fault F08.
#[test]
fn labels_separate_bulkheads_and_fleets_of_their_own() {
    let seen = Recorded::new();
    let runtime = ManualRuntime::new();
    for (part, calls) in [("a", 1_u8), ("b", 2)] {
        let bulkhead = Bulkhead::new(BulkheadConfig::new("db"), runtime.clone()).unwrap();
        bulkhead
            .share_through(MemoryStore::new(runtime.clone()))
            .unwrap();
        let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone()).unwrap();
        let labeled = |publisher: MetricsPublisher, kind: &str| {
            publisher
                .label("part", part)
                .unwrap()
                .label("kind", kind)
                .unwrap()
        };
        for _ in 0..calls {
            bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
        }
        runtime.run_until_stalled();
        seen.publish(&labeled(
            MetricsPublisher::for_bulkhead(&bulkhead),
            "bulkhead",
        ));
        seen.publish(&labeled(MetricsPublisher::for_fleet(&fleet), "fleet"));
        let labels = [("part", part), ("kind", "bulkhead")];
        assert_eq!(
            seen.of("db", "bulkman_calls_started_total", &labels),
            Some(f64::from(calls))
        );
        for kind in ["bulkhead", "fleet"] {
            let labels = [("part", part), ("kind", kind)];
            let connected = seen.with(("namespace", "default"), "bulkman_fleet_connected", &labels);
            assert_eq!(connected, Some(1.0), "{part} {kind}");
        }
    }
}

/// Fault F08.
#[test]
fn label_must_be_valid_and_new() {
    let label = |name: &str| {
        let publisher = MetricsPublisher::new(&BulkheadManager::new(ClockOnly));
        publisher
            .label("component", "library")
            .unwrap()
            .label(name, "any")
    };
    for valid in ["part", "_part", "PART_2"] {
        assert!(label(valid).is_ok(), "{valid}");
    }
    for invalid in ["", "2nd", "a-b", "a b", "größe"] {
        let error = label(invalid).unwrap_err();
        assert!(
            matches!(error, ConfigError::OutOfRange { field: "label", .. }),
            "{error}"
        );
    }
    // `le` and `quantile` are the exporter's.
    for taken in [
        "component",
        "bulkhead",
        "namespace",
        "outcome",
        "reason",
        "state",
        "to",
        "cause",
        "event",
        "le",
        "quantile",
    ] {
        let error = label(taken).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`label` conflicts with the existing label `{taken}`")
        );
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

/// Returns the names in the comments of an exposition, each of which must be unique.
fn lines_of(text: &str, comment: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(comment));
    let names: Vec<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let unique: BTreeSet<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    unique
}

#[test]
fn fleet_publishes_staleness_and_outcomes_of_decisions() {
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone())
        .in_namespace("shop")
        .unwrap();
    let (here, there) = (FaultStore::new(memory.clone(), runtime.clone()), memory);
    let manager = BulkheadManager::new(runtime.clone());
    manager.share_through(here.clone()).unwrap();
    let others = BulkheadManager::new(runtime.clone());
    others.share_through(there).unwrap();
    let config = BulkheadConfig::new("api");
    let circuit = manager.create_bulkhead(config.clone()).unwrap();
    let peer = others.create_bulkhead(config).unwrap();
    let metrics = MetricsPublisher::new(&manager);
    let seen = Recorded::new();
    let value = |name: &str, labels: &[(&str, &str)]| {
        seen.publish(&metrics);
        seen.with(("namespace", "shop"), name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", seen.text()))
    };
    let trip = |bulkhead: &Bulkhead| bulkhead.circuit_breaker().unwrap().open();

    here.set(Fault::Hang);
    runtime.advance(7 * SECOND);
    assert_eq!(value("bulkman_fleet_connected", &[]), 0.0);
    assert_eq!(
        value("bulkman_fleet_staleness_seconds", &[]),
        7.0,
        "it never answered"
    );
    here.clear();
    runtime.advance(6 * SECOND);
    assert_eq!(value("bulkman_fleet_connected", &[]), 1.0);
    assert_eq!(value("bulkman_fleet_polling", &[]), 0.0);
    assert_eq!(value("bulkman_fleet_degraded_seconds", &[]), 0.0);
    assert!(value("bulkman_fleet_staleness_seconds", &[]) < 5.1);

    here.set(Fault::Down);
    runtime.advance(10 * SECOND);
    let degraded = value("bulkman_fleet_degraded_seconds", &[]);
    assert!((5.0..=10.0).contains(&degraded), "{degraded}");
    assert_eq!(value("bulkman_fleet_pending", &[]), 0.0);
    trip(&circuit);
    runtime.run_until_stalled();
    assert_eq!(value("bulkman_fleet_pending", &[]), 1.0);
    assert_eq!(
        value("bulkman_fleet_events_total", &[("event", "pending")]),
        1.0
    );
    // The peer decides later, and this process can't receive that yet.
    runtime.advance(SECOND);
    trip(&peer);
    runtime.advance(SECOND);
    here.clear();
    runtime.advance(5 * SECOND);
    assert_eq!(value("bulkman_fleet_pending", &[]), 0.0);
    assert_eq!(
        value(
            "bulkman_fleet_decisions_total",
            &[("outcome", "superseded")]
        ),
        1.0
    );
    assert_eq!(
        value("bulkman_fleet_decisions_total", &[("outcome", "published")]),
        0.0
    );
    assert_eq!(
        value("bulkman_fleet_events_total", &[("event", "degraded")]),
        2.0
    );
    assert_eq!(
        value("bulkman_fleet_events_total", &[("event", "synchronized")]),
        2.0
    );

    // Both decide at the same time: the store applies one change and rejects the other.
    circuit.circuit_breaker().unwrap().close();
    runtime.run_until_stalled();
    here.drop_notifications(true);
    trip(&peer);
    runtime.run_until_stalled();
    trip(&circuit);
    runtime.run_until_stalled();
    assert_eq!(
        value("bulkman_fleet_rejections_total", &[("reason", "stale")]),
        1.0
    );
    let snapshot = manager.fleet().unwrap().snapshot();
    assert_eq!((snapshot.rejected, snapshot.superseded), (1, 2));
    assert_eq!(snapshot.pending, 0);
}

#[test]
fn separate_fleet_is_published_without_bulkheads() {
    let runtime = ManualRuntime::new();
    let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone()).unwrap();
    let metrics = MetricsPublisher::for_fleet(&fleet);
    let seen = Recorded::new();
    runtime.run_until_stalled();
    seen.publish(&metrics);
    assert_eq!(
        seen.with(("namespace", "default"), "bulkman_fleet_connected", &[]),
        Some(1.0)
    );
    assert!(!seen.text().contains("bulkhead="));
    metrics.publish_every(SECOND).unwrap();
    drop(fleet);
    runtime.advance(5 * SECOND);
}

#[test]
fn task_publishes_until_the_manager_is_dropped() {
    // A global recorder, since the task may run on any thread.
    let handle = PrometheusBuilder::new().install_recorder().unwrap();
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let bulkhead = manager
        .create_bulkhead(BulkheadConfig::new("by-task"))
        .unwrap();
    MetricsPublisher::new(&manager)
        .publish_every(5 * SECOND)
        .unwrap();
    let successes = || {
        let series = "bulkman_calls_total{bulkhead=\"by-task\",outcome=\"success\"} ";
        let text = handle.render();
        text.lines()
            .find_map(|line| line.strip_prefix(series))
            .map(|value| value.parse::<u64>().unwrap())
    };
    runtime.run_until_stalled();
    assert_eq!(successes(), Some(0));
    bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
    runtime.advance(5 * SECOND - Duration::from_nanos(1));
    assert_eq!(successes(), Some(0));
    runtime.advance(Duration::from_nanos(1));
    assert_eq!(successes(), Some(1));

    drop(manager);
    runtime.advance(5 * SECOND);
    bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
    runtime.advance(60 * SECOND);
    assert_eq!(successes(), Some(1), "the task has ended");
    drop(bulkhead);
    assert_eq!(successes(), Some(2), "the last counts are recorded");
}

#[test]
fn task_requires_tasks_timers_and_an_interval() {
    let publisher = || MetricsPublisher::new(&BulkheadManager::new(ClockOnly));
    let error = publisher().publish_every(SECOND).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::Unsupported {
                setting: "publish_every",
                ..
            }
        ),
        "{error}"
    );
    let manager = BulkheadManager::new(ManualRuntime::new());
    let error = MetricsPublisher::new(&manager)
        .publish_every(Duration::ZERO)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::OutOfRange {
                field: "publish_every",
                ..
            }
        ),
        "{error}"
    );
}

/// A recorder for one test.
struct Recorded(PrometheusRecorder);

impl Recorded {
    fn new() -> Self {
        Self(PrometheusBuilder::new().build_recorder())
    }

    fn publish(&self, publisher: &MetricsPublisher) {
        self.within(|| publisher.publish());
    }

    fn within<R>(&self, code: impl FnOnce() -> R) -> R {
        metrics::with_local_recorder(&self.0, code)
    }

    fn text(&self) -> String {
        self.0.handle().render()
    }

    /// Returns the value of the series of the bulkhead `api` with the given other labels.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of("api", name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", self.text()))
    }

    fn of(&self, bulkhead: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.with(("bulkhead", bulkhead), name, labels)
    }

    fn with(&self, owner: (&str, &str), name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<_, _> = labels.iter().copied().chain([owner]).collect();
        let text = self.text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, labels) = series.strip_suffix('}')?.split_once('{')?;
                let labels = labels.split(',').filter_map(|label| label.split_once('='));
                let labels: BTreeMap<_, _> = labels
                    .map(|(key, value)| (key, value.trim_matches('"')))
                    .collect();
                (found == name && labels == wanted).then(|| value.parse().unwrap())
            })
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

fn belongs_to(key: &Key, bulkhead: &str) -> bool {
    key.labels()
        .any(|label| (label.key(), label.value()) == ("bulkhead", bulkhead))
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
