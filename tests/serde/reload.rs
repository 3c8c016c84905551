//! A file that is applied to a running manager.

use std::future::ready;

use bulkman::bulkhead::BulkheadName;
use bulkman::circuit_breaker::CircuitState;
use bulkman::manager::{ManagerConfig, ManagerError};
use bulkman::runtime::ClockOnly;
use bulkman::testing::ManualRuntime;
use bulkman::{BulkheadConfig, BulkheadManager, CircuitBreakerConfig, ConfigError};

use super::{SECOND, TOML};

#[test]
fn reload_changes_a_manager_in_place() {
    let runtime = ManualRuntime::new();
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let manager = BulkheadManager::from_config(&read(TOML), runtime.clone()).unwrap();
    let payments = manager.get_bulkhead("payments").unwrap();
    assert!(
        manager
            .get_bulkhead("reports")
            .unwrap()
            .circuit_breaker()
            .is_none()
    );
    // The window is not empty.
    for _ in 0..19 {
        let _ = payments.execute_sync(|| Err::<(), _>(()));
    }

    let text = TOML
        .replace("max_concurrent_calls = 20", "max_concurrent_calls = 1")
        .replace("[bulkheads.reports]", "[bulkheads.mail]")
        .replace(
            "isolation_duration = \"10s\"",
            "isolation_duration = \"20s\"",
        );
    let applied = manager.apply_config(&read(&text)).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&applied.created), ["mail"]);
    assert_eq!(names(&applied.changed), ["payments"]);
    assert_eq!(
        names(&applied.not_in_config),
        ["reports"],
        "unchanged, and listed"
    );
    assert_eq!(payments.stats().max_concurrent_calls, 1);
    let circuit = payments.circuit_breaker().unwrap();
    assert_eq!(circuit.snapshot().counts.failures, 19, "the window is kept");
    let _ = payments.execute_sync(|| Err::<(), _>(()));
    assert_eq!(circuit.state(), CircuitState::Open, "20 of 20 calls failed");
    assert_eq!(
        circuit.snapshot().retry_after,
        Some(20 * SECOND),
        "the new isolation"
    );

    let again = manager
        .apply_config(&read(&text.replace("\"20s\"", "\"5s\"")))
        .unwrap();
    assert_eq!(names(&again.changed), ["payments"]);
    assert_eq!(names(&again.unchanged), ["mail"]);
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(
        circuit.snapshot().retry_after,
        Some(20 * SECOND),
        "a running isolation is kept"
    );
}

#[test]
fn failed_reload_changes_nothing() {
    let manager =
        BulkheadManager::from_config(&toml::from_str(TOML).unwrap(), ManualRuntime::new()).unwrap();
    let before: Vec<_> = manager
        .bulkheads()
        .iter()
        .map(bulkman::Bulkhead::config)
        .collect();
    let new = BulkheadConfig::new;
    let changed = || {
        ManagerConfig::new()
            .bulkhead(new("mail"))
            .bulkhead(new("payments").max_concurrent_calls(1))
    };
    for (bad, message) in [
        (
            changed().bulkhead(new("more").max_concurrent_calls(0)),
            "bulkhead \"more\": `max_concurrent_calls` is 0",
        ),
        (
            changed().bulkhead(new("mail")),
            "bulkhead \"mail\": `name` conflicts with another bulkhead of the configuration",
        ),
        (
            changed().bulkhead(new("\n")),
            "text without control characters",
        ),
    ] {
        let error = manager.apply_config(&bad).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(matches!(error, ManagerError::Invalid { .. }));
        assert_eq!(
            manager
                .bulkheads()
                .iter()
                .map(bulkman::Bulkhead::config)
                .collect::<Vec<_>>(),
            before
        );
    }
    // A setting that the runtime does not support changes nothing, either.
    let manager = BulkheadManager::new(ClockOnly);
    let config = ManagerConfig::new()
        .bulkhead(new("a"))
        .bulkhead(new("b").timeout(SECOND));
    let error = manager.apply_config(&config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bulkhead \"b\": `timeout` needs timers, which the runtime does not have"
    );
    assert!(manager.is_empty());
}

/// Fault F12, SUR06.
#[test]
fn reload_reports_only_changes_that_took_effect() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let immutable = |field, from: &str, to: &str| ConfigError::Immutable {
        field,
        from: from.into(),
        to: to.into(),
    };
    let manager = BulkheadManager::from_config(&read("[bulkheads.db]"), ClockOnly).unwrap();
    let db = manager.get_bulkhead("db").unwrap();
    for state in [
        "open",
        "half_open",
        "forced_open",
        "disabled",
        "metrics_only",
    ] {
        // An operator forces the circuit open in the file.
        let initial = format!("[bulkheads.db.circuit_breaker]\ninitial_state = '{state}'");
        for _ in 0..2 {
            let applied = manager.apply_config(&read(&initial)).unwrap();
            assert_eq!(
                (names(&applied.changed), names(&applied.unchanged)),
                (vec![], vec!["db".into()])
            );
            assert_eq!(applied.not_applied.len(), 1);
            assert_eq!(applied.not_applied[0].0, "db");
            assert_eq!(
                applied.not_applied[0].1,
                immutable("initial_state", "closed", state)
            );
            assert_eq!(db.config(), BulkheadConfig::new("db"), "what is in force");
        }
        assert_eq!(db.circuit_breaker().unwrap().state(), CircuitState::Closed);
        // Beside another change, which is applied.
        let applied = manager
            .apply_config(&read(&format!("{initial}\nfailure_threshold = 7")))
            .unwrap();
        assert_eq!(
            (names(&applied.changed), applied.not_applied.len()),
            (vec!["db".into()], 1)
        );
        assert_eq!(db.config(), BulkheadConfig::new("db").failure_threshold(7));
        manager.apply_config(&read("[bulkheads.db]")).unwrap();
    }
    // Only what differs in effect is a change.
    let closed = read("[bulkheads.db.circuit_breaker]\ninitial_state = 'closed'");
    assert_eq!(manager.apply_config(&closed).unwrap().not_applied, []);
    // A single bulkhead reports it as an error, and nothing has changed.
    let before = db.config();
    let open = CircuitBreakerConfig::new()
        .initial_state(CircuitState::Open)
        .failure_threshold(9);
    assert_eq!(
        db.reconfigure(BulkheadConfig::new("db").circuit_breaker(open)),
        Err(immutable("initial_state", "closed", "open"))
    );
    assert_eq!(db.config(), before);
}

/// Fault SUR06.
#[test]
fn reload_applies_all_but_an_enabled_circuit() {
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let file = "[bulkheads.a.circuit_breaker]\nfailure_threshold = 2\n\
        [bulkheads.b]\ncircuit_breaker_enabled = false\n[bulkheads.c]";
    let manager = BulkheadManager::from_config(&read(file), ClockOnly).unwrap();
    let file = "[bulkheads.a]\ncircuit_breaker_enabled = false\nmax_queue_size = 1\n\
        [bulkheads.b]\ncircuit_breaker_enabled = true\n\
        [bulkheads.c]\nmax_queue_size = 3\n[bulkheads.d]";
    let applied = manager.apply_config(&read(file)).unwrap();
    let names = |names: &[BulkheadName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&applied.created), ["d"]);
    assert_eq!(names(&applied.changed), ["a", "c"]);
    assert_eq!(names(&applied.unchanged), ["b"]);
    let reasons: Vec<_> = applied
        .not_applied
        .iter()
        .map(|(name, error)| format!("{name}: {error}"))
        .collect();
    assert_eq!(
        reasons,
        [
            "a: `circuit_breaker_enabled` can't change from \"true\" to \"false\" in place",
            "b: `circuit_breaker_enabled` can't change from \"false\" to \"true\" in place",
        ]
    );
    let [a, b] = ["a", "b"].map(|name| manager.get_bulkhead(name).unwrap());
    assert_eq!(
        a.config(),
        BulkheadConfig::new("a")
            .failure_threshold(2)
            .max_queue_size(1),
        "the circuit keeps its rules"
    );
    assert!(b.circuit_breaker().is_none());

    // The rules of a circuit that does not exist are no change.
    let file = "[bulkheads.b]\ncircuit_breaker_enabled = false\n\
        circuit_breaker = { failure_threshold = 9 }";
    assert_eq!(
        names(&manager.apply_config(&read(file)).unwrap().unchanged),
        ["b"]
    );
    // As documented: a new bulkhead has the new settings.
    manager.remove_bulkhead("b");
    let applied = manager.apply_config(&read("[bulkheads.b]")).unwrap();
    assert_eq!(
        (names(&applied.created), applied.not_applied),
        (vec!["b".into()], vec![])
    );
    assert!(
        manager
            .get_bulkhead("b")
            .unwrap()
            .circuit_breaker()
            .is_some()
    );
}

/// Fault F12.
#[test]
fn reload_takes_effect_while_the_circuit_is_open() {
    let runtime = ManualRuntime::new();
    let read = |text: &str| toml::from_str::<ManagerConfig>(text).unwrap();
    let manager = BulkheadManager::from_config(&read("[bulkheads.db]"), runtime.clone()).unwrap();
    let circuit = manager
        .get_bulkhead("db")
        .unwrap()
        .circuit_breaker()
        .unwrap()
        .clone();
    circuit.open();
    let file = "[bulkheads.db.circuit_breaker]\nautomatic_half_open = true";
    let applied = manager.apply_config(&read(file)).unwrap();
    assert_eq!(applied.changed.len(), 1);
    let mut events = circuit.events();
    runtime.advance(30 * SECOND);
    assert!(events.try_next().is_some(), "without a call or a query");
}

#[test]
fn reload_keeps_waiting_calls() {
    let runtime = ManualRuntime::new();
    let config = ManagerConfig::new().bulkhead(BulkheadConfig::new("api").max_concurrent_calls(1));
    let manager = BulkheadManager::from_config(&config, runtime.clone()).unwrap();
    let bulkhead = manager.get_bulkhead("api").unwrap();
    runtime.block_on(async {
        let _permit = bulkhead.acquire().await.unwrap();
        let mut waiting = Box::pin(bulkhead.execute(ready(Ok::<_, ()>(7))));
        assert!(
            futures_lite::future::poll_once(&mut waiting)
                .await
                .is_none()
        );
        let wider =
            ManagerConfig::new().bulkhead(BulkheadConfig::new("api").max_concurrent_calls(2));
        manager.apply_config(&wider).unwrap();
        assert_eq!(waiting.await, Ok(7));
    });
}
