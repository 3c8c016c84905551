//! Known faults of other limiters, shown on a bulkhead.

use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, LimitChangeCause, LimitEvent};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, Outcome, Permit};

const MS: Duration = Duration::from_millis(1);

pub(crate) fn adaptive(limit: AdaptiveLimit) -> (Bulkhead, ManualRuntime) {
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(100)
        .circuit_breaker_enabled(false)
        .adaptive_limit(limit);
    with_runtime(config)
}

pub(crate) fn with_runtime(config: BulkheadConfig) -> (Bulkhead, ManualRuntime) {
    let runtime = ManualRuntime::new();
    (Bulkhead::new(config, runtime.clone()).unwrap(), runtime)
}

/// Acquires all permits. Panics if there are more than the maximum.
pub(crate) fn fill(bulkhead: &Bulkhead) -> Vec<Permit> {
    let maximum = bulkhead.config().resolve().max_concurrent_calls;
    let permits: Vec<_> = std::iter::from_fn(|| bulkhead.try_acquire().ok())
        .take(maximum + 1)
        .collect();
    assert!(permits.len() <= maximum, "more than {maximum} permits");
    permits
}

/// Runs calls of `ran` at the full limit for `rounds` times `ran`.
pub(crate) fn saturate(
    bulkhead: &Bulkhead,
    runtime: &ManualRuntime,
    ran: Duration,
    rounds: u32,
    outcome: Outcome,
) {
    for _ in 0..rounds {
        let running = fill(bulkhead);
        runtime.advance(ran);
        running
            .into_iter()
            .for_each(|permit| permit.record(outcome));
    }
}

/// Fault A4
#[test]
fn limit_never_grows_while_every_call_times_out() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new().initial(20));
    let mut limit = bulkhead.limit();
    for _ in 0..100 {
        saturate(&bulkhead, &runtime, 50 * MS, 1, Outcome::Overloaded);
        assert!(bulkhead.limit() <= limit);
        limit = bulkhead.limit();
    }
    assert_eq!(limit, 1);
}

/// Fault A5
#[test]
fn failures_that_are_fast_are_no_samples() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    saturate(&bulkhead, &runtime, MS, 5_000, Outcome::Failure);
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!((bulkhead.limit(), status.baseline), (4, None));
    assert!(status.recent.is_empty(), "{:?}", status.recent);
}

/// Fault A5
#[test]
fn failures_shrink_the_limit_if_it_is_set() {
    let limit = AdaptiveLimit::new().initial(20).shrink_on_failure(true);
    let (bulkhead, runtime) = adaptive(limit);
    saturate(&bulkhead, &runtime, 100 * MS, 4, Outcome::Failure);
    let status = bulkhead.snapshot().limit.unwrap();
    assert!(status.limit < 20, "{status:?}");
    assert_eq!(status.recent[0].cause, LimitChangeCause::NoReply);
}

/// Fault A11
#[test]
fn burst_of_overloads_reduces_the_limit_once() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new().initial(60));
    saturate(&bulkhead, &runtime, 50 * MS, 4, Outcome::Success);
    // The window is complete as soon as enough calls have ended.
    runtime.advance(260 * MS);
    let running = fill(&bulkhead);
    let before = running.len();
    runtime.advance(50 * MS);
    for (index, permit) in running.into_iter().enumerate() {
        permit.record(if index % 3 > 0 {
            Outcome::Overloaded
        } else {
            Outcome::Success
        });
    }
    runtime.advance(500 * MS);
    let recent = bulkhead.snapshot().limit.unwrap().recent;
    let reductions = recent.iter().filter(|change| change.to < change.from);
    assert_eq!(reductions.count(), 1, "{recent:?}");
    assert_eq!(bulkhead.limit(), (before as f64 * 0.7) as usize);
}

/// Fault A16
#[test]
fn rejection_at_the_maximum_changes_nothing() {
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(10)
        .max_queue_size(0)
        .circuit_breaker_enabled(false)
        .adaptive_limit(AdaptiveLimit::new().initial(10).baseline_interval(None));
    let (bulkhead, runtime) = with_runtime(config);
    // Each round ends with a rejection.
    saturate(&bulkhead, &runtime, 20 * MS, 2_000, Outcome::Success);
    assert!(bulkhead.stats().rejected.full >= 2_000);
    assert!(bulkhead.snapshot().limit.unwrap().recent.is_empty());
    assert_eq!(bulkhead.limit(), 10);
}

/// Fault A18
#[test]
fn nothing_is_admitted_before_the_surplus_has_ended() {
    let (bulkhead, _runtime) = adaptive(AdaptiveLimit::new().initial(20));
    let mut running = fill(&bulkhead);
    assert_eq!(running.len(), 20);
    let config = bulkhead.config().max_concurrent_calls(5);
    bulkhead
        .reconfigure(config.adaptive_limit(AdaptiveLimit::new()))
        .unwrap();
    assert_eq!(bulkhead.limit(), 5);
    for ended in 1..=16 {
        assert!(bulkhead.try_acquire().is_err(), "after {}", ended - 1);
        running.pop().unwrap().succeed();
    }
    assert!(bulkhead.try_acquire().is_ok());
}

/// Fault A22
#[test]
fn long_poll_needs_a_permit_and_is_no_sample() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    for _ in 0..50 {
        let poll = bulkhead.call().latency_sample(false).acquire();
        let permit = runtime.block_on(poll).unwrap();
        assert_eq!(bulkhead.stats().permits_in_use, 1);
        runtime.advance(30_000 * MS);
        permit.record(Outcome::Overloaded);
    }
    let status = bulkhead.snapshot().limit.unwrap();
    assert_eq!(
        (status.limit, status.baseline, status.latency),
        (4, None, None)
    );
    assert!(status.recent.is_empty());
}

/// Fault A25
#[test]
fn each_change_appears_once_with_its_cause() {
    let (bulkhead, runtime) = adaptive(AdaptiveLimit::new());
    let mut changes = bulkhead.limit_changes();
    saturate(&bulkhead, &runtime, 20 * MS, 50, Outcome::Success);
    let streamed: Vec<_> = std::iter::from_fn(|| changes.try_next())
        .map(|event| match event {
            LimitEvent::Changed(change) => (change.from, change.to, change.cause),
            other => panic!("{other:?}"),
        })
        .collect();
    let recent = bulkhead.snapshot().limit.unwrap().recent;
    let shown: Vec<_> = recent
        .iter()
        .map(|change| (change.from, change.to, change.cause))
        .collect();
    assert_eq!(streamed, shown);
    assert_eq!(shown[0], (4, 6, LimitChangeCause::Growth));
    assert_eq!(shown.last().unwrap().1, bulkhead.limit());
    assert!(recent.windows(2).all(|pair| pair[0].age >= pair[1].age));
    let latency = recent[0].latency.unwrap();
    assert!(latency.abs_diff(20 * MS) < MS / 50, "{latency:?}");
    drop(bulkhead);
    assert_eq!(changes.try_next(), None);
}
