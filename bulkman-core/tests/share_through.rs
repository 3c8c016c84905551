//! `share_through` on bulkheads and managers, over one store in memory.

use std::time::Duration;

use bulkman_core::runtime::ClockOnly;
use bulkman_core::store::MemoryStore;
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadManager, ConfigError};

#[test]
fn a_bulkhead_and_its_clones_share_one_store() {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), runtime.clone()).unwrap();
    let clone = bulkhead.clone();
    clone.share_through(store.clone()).unwrap();
    assert!(bulkhead.fleet().is_some());
    let error = bulkhead.share_through(store).unwrap_err();
    assert!(
        matches!(
            &error,
            ConfigError::Conflict {
                setting: "store",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "`store` conflicts with the store that the bulkhead already uses"
    );
}

#[test]
fn a_manager_shares_existing_and_later_bulkheads() {
    let runtime = ManualRuntime::new();
    let store = MemoryStore::new(runtime.clone());
    let managers = [(); 2].map(|()| BulkheadManager::new(runtime.clone()));
    for manager in &managers {
        manager
            .create_bulkhead(BulkheadConfig::new("before"))
            .unwrap();
        manager.clone().share_through(store.clone()).unwrap();
        manager
            .create_bulkhead(BulkheadConfig::new("after"))
            .unwrap();
        let error = manager.share_through(store.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`store` conflicts with the store that the manager already uses"
        );
    }
    runtime.run_until_stalled();
    let [here, there] = &managers;
    for name in ["before", "after"] {
        let circuit = here.get_bulkhead(name).unwrap();
        circuit.circuit_breaker().unwrap().open();
        runtime.advance(Duration::from_secs(1));
        assert!(!there.get_bulkhead(name).unwrap().is_healthy(), "{name}");
    }
}

#[test]
fn a_bulkhead_of_another_fleet_is_reported_and_kept() {
    let runtime = ManualRuntime::new();
    let manager = BulkheadManager::new(runtime.clone());
    let names = ["a", "b", "c"];
    for name in names {
        manager.create_bulkhead(BulkheadConfig::new(name)).unwrap();
    }
    let taken = manager.get_bulkhead("b").unwrap();
    taken
        .share_through(MemoryStore::new(runtime.clone()))
        .unwrap();
    assert!(
        manager
            .share_through(MemoryStore::new(runtime.clone()))
            .is_err()
    );
    // All others are shared.
    runtime.run_until_stalled();
    let shared = manager.fleet().unwrap().snapshot().circuits;
    let shared: Vec<_> = shared.iter().map(|circuit| circuit.name.as_str()).collect();
    assert_eq!(shared, ["a", "c"]);
}

#[test]
fn a_store_that_cannot_be_used_changes_nothing() {
    let store = MemoryStore::new(ManualRuntime::new());
    let manager = BulkheadManager::new(ClockOnly);
    let bulkhead = manager
        .create_bulkhead(BulkheadConfig::new("mail"))
        .unwrap();
    for error in [
        manager.share_through(store.clone()).unwrap_err(),
        bulkhead.share_through(store).unwrap_err(),
    ] {
        assert!(matches!(error, ConfigError::Unsupported { .. }), "{error}");
    }
    assert!(manager.fleet().is_none() && bulkhead.fleet().is_none());
}
