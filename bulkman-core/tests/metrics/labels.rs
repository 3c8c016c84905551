//! Labels that separate managers, bulkheads and fleets.

use bulkman::fleet::Fleet;
use bulkman::metrics::MetricsPublisher;
use bulkman::runtime::ClockOnly;
use bulkman::store::MemoryStore;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, ConfigError};

use super::Recorded;

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
