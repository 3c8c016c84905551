//! Publication by a task, and of fleets.

use std::time::Duration;

use bulkman::fleet::Fleet;
use bulkman::metrics::MetricsPublisher;
use bulkman::runtime::ClockOnly;
use bulkman::store::{Fault, FaultStore, MemoryStore};
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, ConfigError};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{Recorded, SECOND};

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
