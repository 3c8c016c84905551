//! Events of transitions, rejections, limits and stores.

use std::future::ready;

use bulkman::adaptive::AdaptiveLimit;
use bulkman::fleet::Fleet;
use bulkman::runtime::ClockOnly;
use bulkman::store::{Fault, FaultStore};
use bulkman::store::{MemoryStore, StoreError};
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
use tracing::Level;

use crate::SECOND;
use crate::recorder::record_events;

#[test]
fn store_events_have_their_level() {
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone());
    let store = FaultStore::new(memory, runtime.clone());
    let ((), recorded) = record_events(Level::DEBUG, || {
        let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
        let bulkhead = Bulkhead::new(BulkheadConfig::new("api"), runtime.clone()).unwrap();
        fleet.attach(&bulkhead).unwrap();
        runtime.run_until_stalled();
        let unusable = [
            Fault::Down,
            Fault::Error(StoreError::denied("GRANT bulkman_app TO shop")),
        ];
        for fault in unusable {
            store.set(fault);
            store.break_sessions();
            runtime.advance(10 * SECOND);
        }
        bulkhead.circuit_breaker().unwrap().open();
        runtime.advance(SECOND);
        store.clear();
        runtime.advance(10 * SECOND);
        drop(fleet);
    });
    assert_eq!(recorded.events("synchronized with the store").len(), 1);
    let degraded = &recorded.events("store is unavailable, circuits follow local rules")[..];
    let [down] = degraded else {
        panic!("{recorded:?}")
    };
    assert_eq!(down["level"], "WARN");
    let [denied] = &recorded.events("store can't be used until an operator fixes the problem")[..]
    else {
        panic!("{recorded:?}")
    };
    assert_eq!(denied["level"], "ERROR");
    assert!(
        denied["error"].contains("GRANT bulkman_app TO shop"),
        "{denied:?}"
    );
    let [again] = &recorded.events("synchronized with the store again")[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!(again["level"], "INFO");
    assert!(again.contains_key("after_seconds"), "{again:?}");
    let [pending] = &recorded.events("decision is pending until the store is available")[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!((&*pending["level"], &*pending["circuit"]), ("INFO", "api"));
    let [resolved] = &recorded.events("decision resolved")[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!(
        (&*resolved["level"], &*resolved["outcome"]),
        ("DEBUG", "published")
    );
}

#[test]
fn transitions_are_info_events_and_openings_are_warnings() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api")
        .failure_threshold(2)
        .success_threshold(1);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::INFO, || {
        for _ in 0..2 {
            let _ = bulkhead.execute_sync(|| Err::<(), _>(()));
        }
        let _ = bulkhead.execute_sync(|| Ok::<_, ()>(()));
        runtime.advance(30 * SECOND);
        bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
    });
    let opened = &recorded.events("circuit opened")[0];
    assert_eq!((&*opened["level"], &*opened["circuit"]), ("WARN", "api"));
    assert_eq!((&*opened["from"], &*opened["to"]), ("closed", "open"));
    assert_eq!(
        (&*opened["cause"], &*opened["isolation_seconds"]),
        ("consecutive_failures", "30.0")
    );
    assert_eq!(opened["consecutive_failures"], "2");
    let others = recorded.events("circuit changed state");
    assert!(others.iter().all(|event| event["level"] == "INFO"));
    let observed: Vec<_> = others
        .iter()
        .map(|event| (&*event["to"], &*event["cause"]))
        .collect();
    assert_eq!(
        observed,
        [
            ("half_open", "isolation_elapsed"),
            ("closed", "probes_succeeded")
        ]
    );
    // Spans and rejections are below this level.
    assert!(recorded.spans("call").is_empty() && recorded.events("call rejected").is_empty());
}

#[test]
fn limit_events_name_the_cause_and_the_minimum_is_information() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api")
        .circuit_breaker_enabled(false)
        .adaptive_limit(AdaptiveLimit::new());
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let ((), recorded) = record_events(Level::DEBUG, || {
        for outcome in [Outcome::Success, Outcome::Overloaded] {
            for _ in 0..100 {
                let running: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire().ok()).collect();
                runtime.advance(SECOND / 50);
                running.into_iter().for_each(|it| it.record(outcome));
            }
        }
    });
    let grown = &recorded.events("limit changed")[0];
    assert_eq!((&*grown["level"], &*grown["bulkhead"]), ("DEBUG", "api"));
    assert_eq!((&*grown["from"], &*grown["to"]), ("4", "6"));
    assert_eq!(grown["cause"], "growth");
    assert!(grown.contains_key("latency") && grown.contains_key("throughput"));
    let [reached] = &recorded.events("limit reached its minimum")[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!((&*reached["level"], &*reached["to"]), ("INFO", "1"));
    assert_eq!(reached["cause"], "no_reply");
}

#[test]
fn standalone_circuit_breaker_emits_transition_events() {
    let breaker = CircuitBreaker::new("alone", CircuitBreakerConfig::new(), ClockOnly).unwrap();
    let ((), recorded) = record_events(Level::INFO, || breaker.force_open());
    assert_eq!(recorded.events("circuit opened")[0]["to"], "forced_open");
    assert!(!recorded.events("circuit opened")[0].contains_key("isolation_seconds"));
}

#[test]
fn each_rejection_emits_one_event() {
    let runtime = ManualRuntime::new();
    let config = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .success_threshold(1);
    let breaker = CircuitBreaker::new("alone", config, runtime.clone()).unwrap();
    let inside = Bulkhead::new(BulkheadConfig::new("api"), runtime.clone()).unwrap();
    inside.circuit_breaker().unwrap().force_open();
    let ((), recorded) = record_events(Level::DEBUG, || {
        assert!(breaker.execute_sync(|| Err::<(), _>("down")).is_err());
        // Each way to acquire.
        assert!(breaker.execute_sync(|| Ok::<_, ()>(())).is_err());
        assert!(
            runtime
                .block_on(breaker.execute(ready(Ok::<_, ()>(()))))
                .is_err()
        );
        assert!(breaker.try_acquire().is_err());
        assert!(breaker.try_acquire_at(runtime.now() + SECOND).is_err());
        // An admission emits no event.
        breaker.half_open();
        let probe = breaker.try_acquire().unwrap();
        assert!(breaker.try_acquire().is_err());
        drop(probe);
        breaker.force_open();
        assert!(breaker.try_acquire().is_err());

        assert!(
            runtime
                .block_on(inside.execute(ready(Ok::<_, ()>(()))))
                .is_err()
        );
    });
    let rejections = recorded.events("call rejected");
    let observed: Vec<_> = rejections
        .iter()
        .map(|event| {
            assert_eq!(event["level"], "DEBUG");
            let name = event
                .get("circuit")
                .or_else(|| event.get("bulkhead"))
                .unwrap();
            (
                name.as_str(),
                event["reason"].as_str(),
                event.get("retry_after_seconds").map(String::as_str),
            )
        })
        .collect();
    let open = |remaining| ("alone", "circuit_open", Some(remaining));
    let expected = [
        open("30.0"),
        open("30.0"),
        open("30.0"),
        open("29.0"),
        ("alone", "probe_limit_reached", None),
        ("alone", "forced_open", None),
        ("api", "forced_open", None),
    ];
    assert_eq!(observed, expected);
}

#[test]
fn rejections_are_debug_events() {
    let breaker = CircuitBreaker::new("alone", CircuitBreakerConfig::new(), ClockOnly).unwrap();
    breaker.force_open();
    let ((), recorded) = record_events(Level::INFO, || assert!(breaker.try_acquire().is_err()));
    assert!(recorded.0.lock().unwrap().is_empty(), "{recorded:?}");
}
