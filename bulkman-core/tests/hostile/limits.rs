//! Limits and durations at the ends of their ranges, and beyond.

use std::future::pending;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::SlidingWindow;
use bulkman::error::TimeoutPhase;
use bulkman::runtime::ClockOnly;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig, ConfigError};

use crate::poll_once;
use crate::watchdog::watchdog;

type Answer = Result<u32, &'static str>;

const MAX_CALLS: usize = 1_000_000;
const MAX_QUEUE_CAPACITY: usize = (1 << 31) - 1;

fn config() -> BulkheadConfig {
    BulkheadConfig::new("edge")
}

#[track_caller]
fn assert_rejected(config: BulkheadConfig, field: &str, value: &str, range: &str) {
    let by_validate = config.validate().unwrap_err();
    let by_new = Bulkhead::new(config, ManualRuntime::new()).unwrap_err();
    assert_eq!(by_validate, by_new);
    let ConfigError::OutOfRange {
        field: named,
        value: shown,
        range: reported,
    } = &by_new
    else {
        panic!("{by_new:?}")
    };
    assert_eq!((*named, &**shown, *reported), (field, value, range));
    assert_eq!(
        by_new.to_string(),
        format!("`{field}` is {value}, must be {range}")
    );
}

/// Hazard P11.
#[test]
fn invalid_values_are_rejected_by_field_value_and_range() {
    for (calls, shown) in [
        (0, "0"),
        (MAX_CALLS + 1, "1000001"),
        (usize::MAX, &usize::MAX.to_string()),
    ] {
        assert_rejected(
            config().max_concurrent_calls(calls),
            "max_concurrent_calls",
            shown,
            "1 to 1,000,000",
        );
    }
    for (calls, shown) in [
        (MAX_QUEUE_CAPACITY + 1, "2147483648"),
        (usize::MAX, &usize::MAX.to_string()),
    ] {
        assert_rejected(
            config().max_queue_size(calls),
            "max_queue_size",
            shown,
            "0 to 2,147,483,647",
        );
    }
    let some = "more than zero";
    assert_rejected(config().timeout(Duration::ZERO), "timeout", "0ns", some);
    assert_rejected(
        config().run_timeout(Duration::ZERO),
        "run_timeout",
        "0ns",
        some,
    );
    assert_rejected(
        config().failure_threshold(0),
        "failure_threshold",
        "0",
        "1 or more",
    );
    assert_rejected(
        config().success_threshold(0),
        "success_threshold",
        "0",
        "1 to 10,000",
    );
    assert_rejected(
        config().isolation_duration(Duration::ZERO),
        "isolation_duration",
        "0ns",
        some,
    );
    for rate in [f64::NAN, 0.0, -1.0, 1.0001, f64::INFINITY] {
        let rules = CircuitBreakerConfig::new().failure_rate_threshold(rate);
        let range = "a fraction within (0, 1]";
        assert_rejected(
            config().circuit_breaker(rules),
            "failure_rate_threshold",
            &rate.to_string(),
            range,
        );
    }
    let rules = CircuitBreakerConfig::new().sliding_window(SlidingWindow::Count(0));
    assert_rejected(
        config().circuit_breaker(rules),
        "sliding_window.count",
        "0",
        "1 to 1,000,000",
    );
}

#[test]
fn values_at_both_ends_of_their_range_are_accepted() {
    let tick = Duration::from_nanos(1);
    for (calls, waiting, time) in [(1, 0, tick), (MAX_CALLS, MAX_QUEUE_CAPACITY, Duration::MAX)] {
        let limits = config().max_concurrent_calls(calls).max_queue_size(waiting);
        let limits = limits.timeout(time).run_timeout(time).max_wait(time);
        let limits = limits
            .failure_threshold(1)
            .success_threshold(10_000)
            .isolation_duration(time);
        let bulkhead = Bulkhead::new(limits.clone(), ManualRuntime::new()).unwrap();
        assert_eq!(bulkhead.config(), limits);
    }
    assert_eq!(
        config().max_wait(Duration::ZERO).validate(),
        Ok(()),
        "zero means that calls never wait"
    );
}

/// Some operations take time in proportion to the limit.
#[test]
fn operations_end_with_the_largest_limits() {
    watchdog(|| {
        let largest = || {
            config()
                .max_concurrent_calls(MAX_CALLS)
                .max_queue_size(MAX_QUEUE_CAPACITY)
        };
        let runtime = ManualRuntime::new();
        let bulkhead = Bulkhead::new(largest(), runtime.clone()).unwrap();
        let held: Vec<_> = (0..1000).map(|_| bulkhead.try_acquire().unwrap()).collect();
        bulkhead
            .reconfigure(largest().max_concurrent_calls(1))
            .unwrap();
        assert_eq!(bulkhead.stats().permits_in_use, 1000);
        assert!(bulkhead.try_acquire().is_err());
        bulkhead.reconfigure(largest()).unwrap();
        drop(bulkhead.try_acquire().unwrap());
        bulkhead.shutdown();
        drop(held);
        runtime.block_on(bulkhead.drained());
        assert_eq!(bulkhead.stats().permits_in_use, 0);
    });
}

/// Hazard H62.
#[test]
fn longest_durations_never_elapse() {
    watchdog(|| {
        for long in [
            Duration::MAX,
            Duration::from_secs(u64::MAX),
            Duration::from_secs(1 << 62),
            Duration::MAX / 2,
        ] {
            let runtime = ManualRuntime::new();
            let limits = config()
                .timeout(long)
                .max_wait(long)
                .run_timeout(long)
                .max_concurrent_calls(1);
            let limits = limits.isolation_duration(long).failure_threshold(2);
            let bulkhead = Bulkhead::new(limits, runtime.clone()).unwrap();
            let mut call = Box::pin(bulkhead.execute(pending::<Answer>()));
            assert!(poll_once(call.as_mut()).is_pending());
            let own = bulkhead
                .call()
                .timeout(long)
                .max_wait(long)
                .run_timeout(long);
            let mut waiter = Box::pin(own.execute(async { Answer::Ok(1) }));
            assert!(poll_once(waiter.as_mut()).is_pending());
            runtime.advance(Duration::from_secs(1 << 40));
            assert!(
                poll_once(call.as_mut()).is_pending() && poll_once(waiter.as_mut()).is_pending()
            );
            drop(call);
            assert_eq!(runtime.block_on(waiter), Ok(1));
            for _ in 0..2 {
                assert!(
                    runtime
                        .block_on(bulkhead.execute(async { Answer::Err("down") }))
                        .is_err()
                );
            }
            runtime.advance(Duration::from_secs(1 << 40));
            assert_eq!(bulkhead.state(), BulkheadState::Isolated);
            let rejected = runtime
                .block_on(bulkhead.execute(async { Answer::Ok(1) }))
                .unwrap_err();
            assert!(
                matches!(rejected, BulkheadError::CircuitOpen { .. }),
                "{rejected:?}"
            );
            bulkhead.circuit_breaker().unwrap().open_for(long);
            assert_eq!(bulkhead.state(), BulkheadState::Isolated);
        }
    });
}

#[test]
fn shortest_durations_are_honored() {
    watchdog(|| {
        let tick = Duration::from_nanos(1);
        let runtime = ManualRuntime::new();
        let limits = config()
            .timeout(tick)
            .max_wait(tick)
            .run_timeout(tick)
            .isolation_duration(tick);
        let bulkhead = Bulkhead::new(limits.failure_threshold(1), runtime.clone()).unwrap();
        assert_eq!(
            runtime.block_on(bulkhead.execute(async { Answer::Ok(1) })),
            Ok(1)
        );
        let late = runtime
            .block_on(bulkhead.execute(pending::<Answer>()))
            .unwrap_err();
        assert!(
            matches!(late, BulkheadError::Timeout { phase: TimeoutPhase::Running, ran, .. } if ran == tick)
        );
        assert_eq!(bulkhead.state(), BulkheadState::Isolated);
        runtime.advance(tick);
        assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    });
}

/// `ClockOnly` has no timers: settings that need them are rejected by name.
#[test]
fn settings_that_the_runtime_does_not_support_are_rejected() {
    let second = Duration::from_secs(1);
    for (limits, named) in [
        (config().timeout(second), "timeout"),
        (config().run_timeout(second), "run_timeout"),
        (
            config().circuit_breaker(CircuitBreakerConfig::new().automatic_half_open(true)),
            "automatic_half_open",
        ),
    ] {
        let rejected = Bulkhead::new(limits, ClockOnly).unwrap_err();
        assert!(
            matches!(rejected, ConfigError::Unsupported { setting, .. } if setting == named),
            "{rejected:?}"
        );
    }
    let bulkhead = Bulkhead::new(config(), ClockOnly).unwrap();
    let own = bulkhead
        .call()
        .max_wait(second)
        .execute(async { Answer::Ok(1) });
    let rejected = futures_lite::future::block_on(own).unwrap_err();
    assert!(
        matches!(
            rejected,
            BulkheadError::Unsupported {
                setting: "max_wait",
                ..
            }
        ),
        "{rejected:?}"
    );
    assert!(rejected.is_rejection());
    assert_eq!(bulkhead.stats().started, 0);
    // A thread that parks needs no timer.
    assert_eq!(
        bulkhead
            .call()
            .max_wait(second)
            .execute_sync(|| Answer::Ok(1)),
        Ok(1)
    );
    let check = bulkhead
        .health_check(second, || async { Ok::<_, ()>(()) })
        .unwrap_err();
    let message = "`health_check` needs tasks and timers, which the runtime does not have";
    assert_eq!(check.to_string(), message);
    let check = bulkhead.run_health_check(second, || async { Ok::<_, ()>(()) });
    let message = "`run_health_check` needs timers, which the runtime does not have";
    assert_eq!(
        check.err().map(|error| error.to_string()),
        Some(message.into())
    );
    // `ClockOnly` has no threads for blocking work.
    let rejected =
        futures_lite::future::block_on(bulkhead.execute_blocking(|| Answer::Ok(1))).unwrap_err();
    assert!(
        matches!(
            rejected,
            BulkheadError::Unsupported {
                setting: "execute_blocking",
                ..
            }
        ),
        "{rejected:?}"
    );
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}
