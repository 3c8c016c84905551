//! Snapshots of managers and bulkheads, as values, tables and JSON.

use std::time::Duration;

use bulkman::bulkhead::{BulkheadName, BulkheadState, Fairness};
use bulkman::circuit_breaker::{CircuitEvent, CircuitState, Transition, TransitionCause};
use bulkman::store::{CircuitStore, FleetAction, FleetCommand, MemoryStore, OperationId};
use bulkman::store::{Fault, FaultStore};
use bulkman::testing::ManualRuntime;
use bulkman::{BulkheadConfig, BulkheadManager, CircuitBreaker, CircuitBreakerConfig, Priority};

const SECOND: Duration = Duration::from_secs(1);

/// Creates a manager with a healthy bulkhead, an isolated one, and one that has a running call and
/// no circuit breaker.
fn manager_with_history() -> (ManualRuntime, BulkheadManager) {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let rate = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(4);
    let search = manager
        .create_bulkhead(BulkheadConfig::new("search").circuit_breaker(rate))
        .unwrap();
    let payments = BulkheadConfig::new("payments")
        .failure_threshold(2)
        .max_concurrent_calls(20);
    let payments = manager.create_bulkhead(payments).unwrap();
    let disk = BulkheadConfig::new("disk")
        .circuit_breaker_enabled(false)
        .max_concurrent_calls(1);
    let disk = manager.create_bulkhead(disk).unwrap();
    for result in [Ok(()), Ok(()), Ok(()), Err(())] {
        let _ = search.execute_sync(|| result);
    }
    runtime.advance(3600 * SECOND + 125 * SECOND);
    for _ in 0..5 {
        let _ = payments.execute_sync(|| Err::<(), _>(()));
    }
    runtime.advance(12 * SECOND);
    // The permit is never released.
    std::mem::forget(disk.try_acquire().unwrap());
    (runtime, manager)
}

#[test]
fn snapshot_has_state_limits_counts_rates_and_history() {
    let (runtime, manager) = manager_with_history();
    let snapshot = manager.snapshot();
    let [disk, payments, search] = &snapshot.bulkheads[..] else {
        panic!("{snapshot:?}")
    };

    assert_eq!(
        (payments.name.as_str(), payments.state),
        ("payments", BulkheadState::Isolated)
    );
    assert_eq!(
        (payments.stats.failed, payments.stats.rejected.circuit.open),
        (2, 3)
    );
    assert_eq!(
        (
            payments.stats.max_concurrent_calls,
            payments.stats.max_queue_size
        ),
        (20, 100)
    );
    let circuit = payments.circuit.as_ref().unwrap();
    assert_eq!(
        (circuit.state, circuit.age),
        (CircuitState::Open, 12 * SECOND)
    );
    assert_eq!(
        (
            circuit.retry_after,
            circuit.rejected_calls,
            circuit.open_count
        ),
        (Some(18 * SECOND), 3, 1)
    );
    let [opened] = &circuit.recent[..] else {
        panic!("{circuit:?}")
    };
    assert_eq!(
        (opened.from, opened.to),
        (CircuitState::Closed, CircuitState::Open)
    );
    assert_eq!(
        (opened.cause, opened.age),
        (TransitionCause::ConsecutiveFailures, 12 * SECOND)
    );
    assert_eq!(
        (opened.isolation, opened.counts.consecutive_failures),
        (Some(30 * SECOND), 2)
    );

    let circuit = search.circuit.as_ref().unwrap();
    assert_eq!(
        (circuit.counts.failure_rate, circuit.age),
        (Some(0.25), 3737 * SECOND)
    );
    assert_eq!((disk.circuit.is_none(), disk.stats.active), (true, 1));

    // A snapshot applies due transitions.
    runtime.advance(18 * SECOND);
    let payments = manager.get_bulkhead("payments").unwrap().snapshot();
    assert_eq!(payments.state, BulkheadState::Degraded);
    let circuit = payments.circuit.unwrap();
    assert_eq!(
        (circuit.state, circuit.probes_remaining),
        (CircuitState::HalfOpen, Some(3))
    );
    assert_eq!(
        circuit.recent.last().unwrap().cause,
        TransitionCause::IsolationElapsed
    );
    assert_eq!(
        payments.stats.circuit,
        Some(CircuitState::HalfOpen),
        "all parts agree"
    );
}

#[test]
fn transitions_have_an_age_in_snapshots_only() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new();
    let breaker = CircuitBreaker::new("payments", config, runtime.clone()).unwrap();
    let mut events = breaker.events();
    breaker.open();
    runtime.advance(12 * SECOND);
    let Some(CircuitEvent::Transition(event)) = events.try_next() else {
        panic!("no transition")
    };
    let [recent] = &breaker.snapshot().recent[..] else {
        panic!("no transition in the snapshot")
    };
    assert_eq!((event.age, recent.age), (Duration::ZERO, 12 * SECOND));
    let without_age = |transition: &Transition| {
        let mut transition = transition.clone();
        transition.age = Duration::ZERO;
        transition
    };
    assert_eq!(without_age(recent), event);
}

#[test]
fn snapshot_is_displayed_as_a_table() {
    let (_, manager) = manager_with_history();
    manager
        .create_bulkhead(BulkheadConfig::new("übergrößen"))
        .unwrap()
        .shutdown();
    let expected = "\
BULKHEAD    STATE      CIRCUIT  SINCE  RUNNING  WAITING  OK  FAILED  REJECTED  FAILURE RATE  LAST CHANGE
disk        healthy    -            -      1/1    0/100   0       0         0             -  -
payments    isolated   open       12s     0/20    0/100   0       2         3             -  closed -> open: consecutive_failures, 18s left
search      healthy    closed   1h 2m     0/10    0/100   3       1         0        25.0 %  -
übergrößen  shut_down  closed     0ms     0/10    0/100   0       0         0             -  -";
    assert_eq!(
        manager.snapshot().to_string(),
        expected,
        "\n{}",
        manager.snapshot()
    );
    let alone = manager
        .get_bulkhead("search")
        .unwrap()
        .snapshot()
        .to_string();
    assert_eq!(alone.lines().count(), 2);
    assert!(
        alone
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("search    healthy  closed"),
        "{alone}"
    );
}

#[test]
fn table_ends_with_the_connection_of_the_fleet() {
    let runtime = ManualRuntime::new();
    let store = FaultStore::new(MemoryStore::new(runtime.clone()), runtime.clone());
    let manager = BulkheadManager::new(runtime.clone());
    manager.share_through(store.clone()).unwrap();
    let api = manager
        .create_bulkhead(BulkheadConfig::new("api").failure_threshold(1))
        .unwrap();
    let last_line = || {
        manager
            .snapshot()
            .to_string()
            .lines()
            .last()
            .unwrap()
            .to_owned()
    };
    assert_eq!(last_line(), "FLEET     local rules only, no response yet");
    runtime.run_until_stalled();
    runtime.advance(Duration::from_millis(300));
    assert_eq!(last_line(), "FLEET     synchronized 300ms ago");

    store.set(Fault::Down);
    store.break_sessions();
    let _ = api.execute_sync(|| Err::<(), _>(()));
    runtime.advance(60 * SECOND);
    let line = last_line();
    assert!(
        line.starts_with("FLEET     local rules only, last response 1m 0s ago, 1 to publish: "),
        "{line}"
    );
    assert!(line.len() > 80, "with the error: {line}");
}

#[test]
fn forced_circuits_are_listed_with_their_author() {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    let manager = BulkheadManager::new(runtime.clone());
    manager.share_through(store.clone()).unwrap();
    for name in ["api", "mail"] {
        manager.create_bulkhead(BulkheadConfig::new(name)).unwrap();
    }
    runtime.run_until_stalled();
    let command = FleetCommand::new(
        BulkheadName::new("mail").unwrap(),
        FleetAction::ForceOpen,
        OperationId::random(),
        "ada@laptop",
        "the provider\u{1b} migrates",
    );
    runtime.block_on(async {
        let mut session = store.open_session(&[]).await.unwrap();
        session.command(&command).await.unwrap();
    });
    runtime.advance(90 * SECOND);
    let table = manager.snapshot().to_string();
    let lines: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("FORCED"))
        .collect();
    let expected =
        "FORCED    mail: forced_open for 1m 30s by ada@laptop: the provider\\u{1b} migrates";
    assert_eq!(lines, [expected], "{table}");

    let json = serde_json::to_value(manager.snapshot()).unwrap();
    let [api, mail] = [0, 1].map(|index| &json["fleet"]["circuits"][index]);
    assert_eq!(mail["author"], "ada@laptop");
    assert_eq!(mail["age_seconds"], 90.0);
    assert!(
        api["author"].is_null() && api["age_seconds"].is_null(),
        "{api}"
    );
}

#[test]
fn serialized_snapshot_has_ages_in_seconds() {
    let (_, manager) = manager_with_history();
    let json = serde_json::to_value(manager.snapshot()).unwrap();
    let payments = &json["bulkheads"][1];
    assert_eq!(
        (&payments["name"], &payments["state"]),
        (&"payments".into(), &"isolated".into())
    );
    assert_eq!(payments["stats"]["rejected"]["circuit_open"], 3);
    assert_eq!(payments["stats"]["max_concurrent_calls"], 20);
    assert_eq!(payments["circuit"]["state"], "open");
    assert_eq!(payments["circuit"]["age_seconds"], 12.0);
    assert_eq!(payments["circuit"]["retry_after_seconds"], 18.0);
    assert_eq!(
        payments["circuit"]["recent"][0]["cause"],
        "consecutive_failures"
    );
    assert_eq!(payments["circuit"]["recent"][0]["isolation_seconds"], 30.0);
    assert_eq!(
        json["bulkheads"][2]["circuit"]["counts"]["failure_rate"],
        0.25
    );
    assert!(json["bulkheads"][0]["circuit"].is_null());
    let keys = |value: &serde_json::Value| {
        let keys = value.as_object().unwrap().keys();
        keys.cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys(&payments["circuit"]),
        "age_seconds counts open_count probes_remaining recent rejected_calls rejections \
         retry_after_seconds state"
    );
    assert_eq!(
        keys(&payments["circuit"]["recent"][0]),
        "age_seconds cause counts from isolation_seconds to"
    );
    // The reasons are those of the metrics.
    assert_eq!(
        keys(&payments["stats"]["rejected"]),
        "circuit_open evicted forced_open full key_queue_full no_probe_lease \
         probe_limit_reached shutdown timed_out_in_queue weight_too_large"
    );
    assert_eq!(payments["circuit"]["rejections"]["circuit_open"], 3);
    // Names in serialized forms are those in tables and logs.
    for state in [
        BulkheadState::Healthy,
        BulkheadState::Degraded,
        BulkheadState::Isolated,
        BulkheadState::ShutDown,
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for cause in [
        TransitionCause::ProbeTimedOut,
        TransitionCause::IsolationElapsed,
    ] {
        assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
    }
    assert!(
        toml::to_string(&manager.snapshot()).is_ok()
            && serde_yaml_ng::to_string(&manager.snapshot()).is_ok()
    );
}

#[test]
fn the_oldest_running_calls_are_serialized_with_labels() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let config = BulkheadConfig::new("users").track_running_calls(true);
    let users = manager.create_bulkhead(config).unwrap();
    manager.create_bulkhead(BulkheadConfig::new("web")).unwrap();
    let label = users.label("GET /users");
    let call = users.call().label(label).priority(Priority::High);
    let json = call.execute_sync(|| {
        runtime.advance(12 * SECOND);
        let _second = users.try_acquire().unwrap();
        let lines: Vec<_> = manager
            .snapshot()
            .to_string()
            .lines()
            .map(String::from)
            .collect();
        assert_eq!(
            lines.last().unwrap(),
            "OLDEST    users: 12s GET /users, 0ms"
        );
        Ok::<_, ()>(serde_json::to_value(manager.snapshot()).unwrap())
    });
    let json = json.unwrap();
    let oldest = &json["bulkheads"][0]["oldest"];
    let first =
        serde_json::json!({ "age_seconds": 12.0, "label": "GET /users", "priority": "high" });
    let second = serde_json::json!({ "age_seconds": 0.0, "label": null, "priority": "normal" });
    assert_eq!(oldest, &serde_json::json!([first, second]));
    assert_eq!(json["bulkheads"][1]["oldest"], serde_json::json!([]));
    assert_eq!(json["bulkheads"][0]["untracked_calls"], 0);
}

#[test]
fn keys_are_serialized_with_their_names() {
    let manager = BulkheadManager::new(ManualRuntime::new());
    let config = BulkheadConfig::new("db").fairness(Fairness::new());
    let db = manager.create_bulkhead(config).unwrap();
    manager.create_bulkhead(BulkheadConfig::new("web")).unwrap();
    let key = db.name_key("tenant 17", "Acme Inc.").to_string();
    let _named = db.call().key("tenant 17").weight(3).try_acquire().unwrap();
    let _shared = db.try_acquire().unwrap();
    let snapshot = manager.snapshot();
    let json = serde_json::to_value(&snapshot).unwrap();
    let named = serde_json::json!({
        "key": key, "name": "Acme Inc.", "held": 3, "waiting": 0, "at_maximum": false,
    });
    let shared = serde_json::json!({
        "key": null, "name": null, "held": 1, "waiting": 0, "at_maximum": false,
    });
    let bulkheads = &json["bulkheads"];
    assert_eq!(bulkheads[0]["keys"], serde_json::json!([named, shared]));
    assert!(bulkheads[1].get("keys").is_none());
    let toml = toml::to_string(&snapshot).unwrap();
    assert!(toml.contains("name = \"Acme Inc.\"\n"), "{toml}");
}
