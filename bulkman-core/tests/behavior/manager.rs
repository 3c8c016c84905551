//! The registry of bulkheads by name.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::manager::{ManagerConfig, ManagerError};
use bulkman::{BulkheadConfig, BulkheadError, BulkheadManager, ConfigError};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, work};

on_every_runtime![
    new_manager_is_empty,
    duplicate_name_is_rejected,
    get_bulkhead_returns_the_same_bulkhead,
    get_or_create_finds_creates_or_reports_a_conflict,
    one_of_many_concurrent_creators_wins,
    call_by_name_uses_that_bulkhead,
    stats_and_states_are_ordered_by_name,
    slow_bulkhead_does_not_delay_another,
    removed_bulkhead_frees_its_name,
    invalid_part_that_is_not_applied_is_an_error,
    shutdown_and_drained_cover_all_bulkheads,
];

fn config(name: &str) -> BulkheadConfig {
    BulkheadConfig::new(name).max_concurrent_calls(1)
}

fn manager(t: &Harness) -> BulkheadManager {
    BulkheadManager::new(t.runtime())
}

async fn new_manager_is_empty(t: Harness) {
    let manager = manager(&t);
    assert!(
        manager.is_empty() && manager.all_stats().is_empty() && manager.health_status().is_empty()
    );
    assert!(manager.get_bulkhead("database").is_none());
    assert!(manager.remove_bulkhead("database").is_none());
    manager.shutdown();
    manager.drained().await;
}

async fn duplicate_name_is_rejected(t: Harness) {
    let manager = manager(&t);
    let created = manager.create_bulkhead(config("database")).unwrap();
    assert_eq!((created.name().as_str(), manager.len()), ("database", 1));
    let again = manager.create_bulkhead(config("database")).unwrap_err();
    assert!(
        matches!(&again, ManagerError::AlreadyExists { name } if name == "database"),
        "{again:?}"
    );
    assert_eq!(
        again.to_string(),
        r#"a bulkhead named "database" exists already"#
    );
    let bad = manager
        .create_bulkhead(config("cache").max_concurrent_calls(0))
        .unwrap_err();
    assert!(matches!(
        bad,
        ManagerError::Config(ConfigError::OutOfRange {
            field: "max_concurrent_calls",
            ..
        })
    ));
    assert!(manager.get_bulkhead("cache").is_none());
}

async fn get_bulkhead_returns_the_same_bulkhead(t: Harness) {
    let manager = manager(&t);
    let created = manager.create_bulkhead(config("database")).unwrap();
    let found = manager.clone().get_bulkhead("database").unwrap();
    let permit = created.try_acquire().unwrap();
    // The same bulkhead, not a copy.
    assert_eq!(found.stats().permits_in_use, 1);
    assert!(manager.get_bulkhead("Database").is_none());
    drop(permit);
}

async fn get_or_create_finds_creates_or_reports_a_conflict(t: Harness) {
    let manager = manager(&t);
    let created = manager.get_or_create_bulkhead(config("database")).unwrap();
    let permit = created.try_acquire().unwrap();
    let found = manager.get_or_create_bulkhead(config("database")).unwrap();
    assert_eq!((found.stats().permits_in_use, manager.len()), (1, 1));
    drop(permit);
    for (other, differs) in [
        (
            config("database").max_concurrent_calls(2),
            "max_concurrent_calls",
        ),
        (
            config("database").timeout(Duration::from_secs(1)),
            "timeout",
        ),
        (config("database").failure_threshold(1), "circuit_breaker"),
    ] {
        let conflict = manager.get_or_create_bulkhead(other).unwrap_err();
        assert!(
            matches!(&conflict, ManagerError::Conflict { field, .. } if *field == differs),
            "{conflict:?}"
        );
    }
    // The current configuration counts, not the one at the creation.
    created
        .reconfigure(config("database").max_concurrent_calls(2))
        .unwrap();
    assert!(
        manager
            .get_or_create_bulkhead(config("database").max_concurrent_calls(2))
            .is_ok()
    );
    assert!(manager.get_or_create_bulkhead(config("database")).is_err());
}

async fn one_of_many_concurrent_creators_wins(t: Harness) {
    let manager = manager(&t);
    let creators: Vec<_> = (0..16)
        .map(|_| {
            let manager = manager.clone();
            t.spawn(async move { manager.create_bulkhead(config("database")).is_ok() })
        })
        .collect();
    let mut successes = 0;
    for creator in creators {
        successes += usize::from(creator.await);
    }
    assert_eq!((successes, manager.len()), (1, 1));
}

async fn call_by_name_uses_that_bulkhead(t: Harness) {
    let manager = manager(&t);
    let database = manager.create_bulkhead(config("database")).unwrap();
    assert_eq!(
        manager
            .execute_in_bulkhead("database", async { Answer::Ok(3) })
            .await,
        Ok(3)
    );
    let failed = manager
        .execute_in_bulkhead("database", async { Answer::Err("down") })
        .await;
    assert_eq!(failed.unwrap_err().into_operation(), Some("down"));
    assert_eq!(
        (database.stats().successful, database.stats().failed),
        (1, 1)
    );
    let (control, operation) = work();
    let missing = manager
        .execute_in_bulkhead("cache", operation)
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, BulkheadError::NotFound { name } if &**name == "cache"),
        "{missing:?}"
    );
    assert!(missing.is_rejection() && !control.has_started());
    assert_eq!(missing.to_string(), r#"no bulkhead is named "cache""#);
}

async fn stats_and_states_are_ordered_by_name(t: Harness) {
    let manager = manager(&t);
    for name in ["queue", "cache", "database"] {
        manager
            .create_bulkhead(config(name).failure_threshold(1))
            .unwrap();
    }
    let _ = manager
        .execute_in_bulkhead("cache", async { Answer::Err("down") })
        .await;
    let _ = manager
        .execute_in_bulkhead("queue", async { Answer::Ok(1) })
        .await;
    manager.get_bulkhead("database").unwrap().shutdown();
    let stats: Vec<_> = manager
        .all_stats()
        .iter()
        .map(|one| (one.bulkhead.to_string(), one.successful, one.failed))
        .collect();
    let expected = [("cache", 0, 1), ("database", 0, 0), ("queue", 1, 0)];
    assert_eq!(
        stats,
        expected.map(|(name, successful, failed)| (name.to_owned(), successful, failed))
    );
    let health: Vec<_> = manager
        .health_status()
        .into_iter()
        .map(|(_, state)| state)
        .collect();
    assert_eq!(
        health,
        [
            BulkheadState::Isolated,
            BulkheadState::ShutDown,
            BulkheadState::Healthy
        ]
    );
}

async fn slow_bulkhead_does_not_delay_another(t: Harness) {
    let manager = manager(&t);
    let slow = manager.create_bulkhead(config("slow")).unwrap();
    manager.create_bulkhead(config("fast")).unwrap();
    let (control, running) = t.running(&slow).await;
    let mut queued = Box::pin(manager.execute_in_bulkhead("slow", async { Answer::Ok(1) }));
    assert!(poll_once(queued.as_mut()).is_pending());
    for _ in 0..10 {
        let fast = manager.execute_in_bulkhead("fast", async { Answer::Ok(2) });
        assert_eq!(now_or_never(fast), Ok(2));
    }
    control.succeed();
    running.await.unwrap();
    assert_eq!(queued.await, Ok(1));
}

/// Hazard H82, H84.
async fn removed_bulkhead_frees_its_name(t: Harness) {
    let manager = manager(&t);
    let first = manager.create_bulkhead(config("database")).unwrap();
    let permit = first.try_acquire().unwrap();
    let removed = manager.remove_bulkhead("database").unwrap();
    assert!(manager.is_empty() && manager.all_stats().is_empty());
    // Its clones continue to work, and the name is free.
    permit.succeed();
    t.succeed(&removed, 1).await;
    let second = manager.create_bulkhead(config("database")).unwrap();
    assert_eq!(
        (first.stats().successful, second.stats().successful),
        (2, 0)
    );
    for i in 0..1000 {
        manager
            .create_bulkhead(config(&format!("tenant-{i}")))
            .unwrap();
        manager.remove_bulkhead(&format!("tenant-{i}")).unwrap();
    }
    assert_eq!(manager.len(), 1);
}

/// A circuit breaker can't be added or removed in place, so its rules are not applied.
async fn invalid_part_that_is_not_applied_is_an_error(t: Harness) {
    for enabled in [false, true] {
        let manager = manager(&t);
        let before = config("database").circuit_breaker_enabled(enabled);
        manager.create_bulkhead(before.clone()).unwrap();
        let valid = config("database").circuit_breaker_enabled(!enabled);
        let invalid = valid.clone().max_concurrent_calls(2).failure_threshold(0);
        let reload = ManagerConfig::new().bulkhead(invalid);
        let error = manager.apply_config(&reload).unwrap_err();
        assert!(
            error.to_string().contains("`failure_threshold` is 0"),
            "{error}"
        );
        assert!(matches!(error, ManagerError::Invalid { .. }));
        let database = manager.get_bulkhead("database").unwrap();
        assert_eq!(database.config(), before);
        // Without the invalid part, it is reported as not applied.
        let reload = ManagerConfig::new().bulkhead(valid);
        let applied = manager.apply_config(&reload).unwrap();
        assert_eq!(applied.not_applied.len(), 1);
    }
}

async fn shutdown_and_drained_cover_all_bulkheads(t: Harness) {
    let manager = manager(&t);
    let database = manager.create_bulkhead(config("database")).unwrap();
    manager.create_bulkhead(config("cache")).unwrap();
    let (control, running) = t.running(&database).await;
    manager.shutdown();
    for name in ["database", "cache"] {
        let rejected = manager
            .execute_in_bulkhead(name, async { Answer::Ok(1) })
            .await;
        assert!(matches!(rejected, Err(BulkheadError::Shutdown { .. })));
    }
    let mut drained = Box::pin(manager.drained());
    assert!(poll_once(drained.as_mut()).is_pending());
    control.succeed();
    assert_eq!(running.await, Ok(1));
    drained.await;
}
