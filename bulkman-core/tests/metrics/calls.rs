//! The series of calls: outcomes, rejections, durations, limits.

use std::future::{pending, ready};

use bulkman::adaptive::AdaptiveLimit;
use bulkman::bulkhead::Fairness;
use bulkman::metrics::MetricsPublisher;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, CircuitBreakerConfig, Outcome, Runtime};
use futures_lite::future::poll_once;

use super::{Recorded, SECOND};

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
