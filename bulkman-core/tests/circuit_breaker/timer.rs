//! The task that ends an isolation.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, ConfigError, Runtime};
use futures_core::Stream;

use super::{SECOND, config, fail, manual, transition};

/// Hazard H14.
#[test]
fn a_runtime_without_working_tasks_only_loses_the_timer() {
    #[derive(Debug)]
    struct Broken(ManualRuntime, AtomicBool);
    impl Runtime for Broken {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn sleep_until(&self, deadline: Instant) -> Sleep {
            self.0.sleep_until(deadline)
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            drop(task);
            assert!(
                !self.1.swap(true, Ordering::Relaxed),
                "no runtime to spawn on"
            );
            Ok(())
        }
        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
    }
    let clock = ManualRuntime::new();
    let runtime = Broken(clock.clone(), AtomicBool::new(false));
    let breaker =
        CircuitBreaker::new("broken", config().automatic_half_open(true), runtime).unwrap();
    for _ in 0..3 {
        fail(&breaker, 5);
        clock.advance(30 * SECOND);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        breaker.close();
    }
}

/// Hazard H10.
#[test]
fn a_shorter_isolation_replaces_the_timer() {
    #[derive(Clone, Debug, Default)]
    struct Sleeps(ManualRuntime, Arc<AtomicUsize>);
    impl Runtime for Sleeps {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn sleep_until(&self, deadline: Instant) -> Sleep {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.sleep_until(deadline)
        }
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            self.0.spawn(task)
        }
        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
    }
    let runtime = Sleeps::default();
    let config = config()
        .automatic_half_open(true)
        .isolation_duration(SECOND);
    let config = config.max_half_open_duration(
        SECOND,
        bulkman_core::circuit_breaker::HalfOpenTimeoutAction::Open,
    );
    let breaker = CircuitBreaker::new("timed", config, runtime.clone()).unwrap();
    let start = runtime.now();
    for seconds in (2..=11).rev() {
        breaker.open_for(Duration::from_secs(seconds));
    }
    let mut events = breaker.events();
    runtime.0.advance(30 * SECOND);
    // Without a query, each transition was caused by a timer at its due time.
    let times: Vec<_> = (0..29)
        .map(|_| transition(&mut events).at - start)
        .collect();
    assert_eq!(times, (2..=30).map(Duration::from_secs).collect::<Vec<_>>());
    // Ten tasks were started, and one of them kept running.
    assert_eq!(runtime.1.load(Ordering::Relaxed), 10 + 29);
}

#[test]
fn the_timer_task_does_not_keep_the_circuit_alive() {
    let (breaker, runtime) = manual(config().automatic_half_open(true));
    let mut events = breaker.events();
    breaker.open();
    runtime.run_until_stalled();
    drop(breaker);
    transition(&mut events);
    assert_eq!(
        pin!(&mut events).poll_next(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(None)
    );
}

#[test]
fn a_missing_capability_is_an_error_that_names_the_setting() {
    let automatic = config().automatic_half_open(true);
    let error = CircuitBreaker::new("test", automatic.clone(), ClockOnly).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::Unsupported {
                setting: "automatic_half_open",
                ..
            }
        ),
        "{error}"
    );
    let breaker = CircuitBreaker::new("test", config(), ClockOnly).unwrap();
    assert!(breaker.reconfigure(&automatic).is_err());
    assert!(!breaker.resolved_config().automatic_half_open);
}
