//! Health checks while a circuit is open.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulkman::bulkhead::{BulkheadState, HealthCheck};
use bulkman::circuit_breaker::{CircuitEvent, TransitionCause};
use bulkman::runtime::BoxFuture;
use bulkman::{Bulkhead, BulkheadConfig, ConfigError};
use futures_lite::future::or;

use crate::harness::{Harness, poll_once};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    passed_check_starts_half_open_early,
    failed_check_does_not_extend_the_isolation,
    hanging_or_panicking_check_has_failed,
    checks_run_only_while_open_and_end_with_the_bulkhead,
    check_started_before_a_reopening_is_discarded,
    stopped_check_is_cancelled_and_does_not_run_again,
    check_that_passes_after_it_was_stopped_is_discarded,
    dropped_handle_detaches_the_check,
    second_check_replaces_the_first,
    added_checks_run_beside_the_others,
    local_check_runs_until_its_future_is_dropped,
    local_check_ends_with_the_bulkhead,
    check_requires_an_interval_and_a_circuit,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("ledger").failure_threshold(1)
}

/// A check that counts its runs, and passes when `passes` is set.
#[derive(Clone, Default)]
struct Check {
    runs: Arc<AtomicUsize>,
    passes: Arc<AtomicBool>,
}

impl Check {
    fn start(&self, bulkhead: &Bulkhead, interval: Duration) -> HealthCheck {
        bulkhead.health_check(interval, self.function()).unwrap()
    }

    fn add(&self, bulkhead: &Bulkhead, interval: Duration) -> HealthCheck {
        bulkhead
            .add_health_check(interval, self.function())
            .unwrap()
    }

    fn function(
        &self,
    ) -> impl Fn() -> BoxFuture<'static, Result<(), &'static str>> + Send + Sync + 'static {
        let check = self.clone();
        move || {
            let check = check.clone();
            Box::pin(async move {
                check.runs.fetch_add(1, Ordering::SeqCst);
                if check.passes.load(Ordering::SeqCst) {
                    Ok(())
                } else {
                    Err("still down")
                }
            })
        }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// Advances the clock by intervals, until the check has run the given number of times.
async fn until_runs(t: &Harness, check: &Check, interval: Duration, times: usize) {
    while check.runs() < times {
        let before = check.runs();
        t.until(|| t.timers().0 == 1).await;
        t.advance(interval).await;
        t.until(|| check.runs() > before).await;
    }
}

async fn passed_check_starts_half_open_early(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let mut events = bulkhead.events();
    let check = Check::default();
    check.start(&bulkhead, 5 * SECOND);
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, 5 * SECOND, 2).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    check.passes.store(true, Ordering::SeqCst);
    until_runs(&t, &check, 5 * SECOND, 3).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded)
        .await;
    let _opened = events.next().await;
    let Some(CircuitEvent::Transition(half_open)) = events.next().await else {
        panic!("no second event")
    };
    assert_eq!(half_open.cause, TransitionCause::HealthCheck);
    t.succeed(&bulkhead, 3).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn failed_check_does_not_extend_the_isolation(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let check = Check::default();
    check.start(&bulkhead, 20 * SECOND);
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, 20 * SECOND, 1).await;
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(10 * SECOND)
    );
    t.advance(10 * SECOND).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
}

async fn hanging_or_panicking_check_has_failed(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let check = Check::default();
    let inside = check.clone();
    let checking = move || {
        let number = inside.runs.fetch_add(1, Ordering::SeqCst);
        assert!(
            number != 0,
            "the first check panics before it returns a future"
        );
        async move {
            match number {
                1 => panic!("a bug in the check"),
                2 => std::future::pending().await,
                _ => Ok::<_, ()>(()),
            }
        }
    };
    bulkhead.health_check(SECOND, checking).unwrap();
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, SECOND, 3).await;
    // The third check hangs, until one interval has elapsed.
    t.until(|| t.timers().0 == 1).await;
    let timers = t.timers().1;
    t.advance(SECOND).await;
    t.until(|| t.timers().1 > timers).await;
    until_runs(&t, &check, SECOND, 4).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded)
        .await;
}

async fn checks_run_only_while_open_and_end_with_the_bulkhead(t: Harness) {
    let check = Check {
        passes: Arc::new(AtomicBool::new(true)),
        ..Check::default()
    };
    let bulkhead = t.bulkhead(config());
    check.start(&bulkhead, SECOND);
    t.advance(100 * SECOND).await;
    assert_eq!((check.runs(), t.timers()), (0, (0, 0)));
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, SECOND, 1).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded && t.timers().0 == 0)
        .await;
    t.advance(100 * SECOND).await;
    // The circuit opens again from half-open, and the checks resume.
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, SECOND, 2).await;
    // The task and the check are dropped when the bulkhead is shut down,
    bulkhead.shutdown();
    t.until(|| Arc::strong_count(&check.runs) == 1).await;
    // or dropped. The bulkheads of the stage live longer, so this one is created without it.
    let dropped = Bulkhead::new(config(), t.runtime()).unwrap();
    check.start(&dropped, SECOND);
    drop(dropped);
    t.until(|| Arc::strong_count(&check.runs) == 1).await;
    assert_eq!(check.runs(), 2);
}

/// The dependency recovers only for a moment: the check starts before the probe that fails.
async fn check_started_before_a_reopening_is_discarded(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(15 * SECOND));
    let check = Check::default();
    let (counter, (end, ended)) = (check.clone(), tokio::sync::oneshot::channel::<()>());
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let checking = move || {
        counter.runs.fetch_add(1, Ordering::SeqCst);
        let ended = ended.lock().unwrap().take();
        async move {
            match ended {
                Some(ended) => ended.await.map_err(|_| "gone"),
                None => Err("down again"),
            }
        }
    };
    bulkhead.health_check(10 * SECOND, checking).unwrap();
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, 10 * SECOND, 1).await;
    t.until(|| t.timers().0 == 1).await;
    t.advance(5 * SECOND).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.fail(&bulkhead, 1).await;
    let timers = t.timers().1;
    end.send(()).unwrap();
    // The task waits for the next interval.
    t.until(|| t.timers().1 > timers).await;
    until_runs(&t, &check, 10 * SECOND, 2).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(5 * SECOND)
    );
}

async fn stopped_check_is_cancelled_and_does_not_run_again(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let (runs, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let (counter, held) = (Arc::clone(&runs), Arc::clone(&alive));
    let hanging = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let held = Arc::clone(&held);
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, ()>(())
        }
    };
    let handle = bulkhead.health_check(5 * SECOND, hanging).unwrap();
    assert!(!handle.is_stopped());
    t.fail(&bulkhead, 1).await;
    t.until(|| t.timers().0 == 1).await;
    t.advance(5 * SECOND).await;
    t.until(|| runs.load(Ordering::SeqCst) == 1).await;
    handle.clone().stop();
    assert!(handle.is_stopped());
    // The task drops the check and the future in progress, without another timer.
    t.until(|| Arc::strong_count(&alive) == 1).await;
    t.until(|| t.timers().0 == 0).await;
    t.advance(100 * SECOND).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    handle.stop();
    // A stopped check can be replaced by another one.
    let check = Check::default();
    check.passes.store(true, Ordering::SeqCst);
    check.start(&bulkhead, SECOND);
    until_runs(&t, &check, SECOND, 1).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded)
        .await;
}

/// It is stopped while it is polled for the last time, so nothing can cancel it.
async fn check_that_passes_after_it_was_stopped_is_discarded(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let handle = Arc::new(OnceLock::<HealthCheck>::new());
    let inside = Arc::clone(&handle);
    let checking = move || {
        let handle = Arc::clone(&inside);
        async move {
            handle.get().unwrap().stop();
            Ok::<_, ()>(())
        }
    };
    handle
        .set(bulkhead.health_check(5 * SECOND, checking).unwrap())
        .unwrap();
    t.fail(&bulkhead, 1).await;
    t.until(|| t.timers().0 == 1).await;
    t.advance(5 * SECOND).await;
    // The task has ended.
    t.until(|| Arc::strong_count(&handle) == 1).await;
    assert!(handle.get().unwrap().is_stopped());
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

async fn dropped_handle_detaches_the_check(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let check = Check::default();
    drop(check.start(&bulkhead, 5 * SECOND));
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &check, 5 * SECOND, 2).await;
    // A handle that is kept reports the end of the bulkhead.
    let added = Check::default().add(&bulkhead, SECOND);
    bulkhead.shutdown();
    t.until(|| added.is_stopped()).await;
    t.until(|| Arc::strong_count(&check.runs) == 1).await;
}

async fn second_check_replaces_the_first(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let (first, second) = (Check::default(), Check::default());
    let replaced = first.start(&bulkhead, 5 * SECOND);
    t.fail(&bulkhead, 1).await;
    until_runs(&t, &first, 5 * SECOND, 1).await;
    // An error leaves the first check running.
    let check = || async { Ok::<_, ()>(()) };
    bulkhead.health_check(Duration::ZERO, check).unwrap_err();
    assert!(!replaced.is_stopped());
    let current = second.start(&bulkhead, 5 * SECOND);
    assert!(replaced.is_stopped() && !current.is_stopped());
    t.until(|| Arc::strong_count(&first.runs) == 1).await;
    until_runs(&t, &second, 5 * SECOND, 2).await;
    assert_eq!((first.runs(), second.runs()), (1, 2));
    // Stopping the first one again does not affect the second.
    replaced.stop();
    until_runs(&t, &second, 5 * SECOND, 3).await;
}

async fn added_checks_run_beside_the_others(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let [first, second, added] = [(); 3].map(|()| Check::default());
    let handle = added.add(&bulkhead, 5 * SECOND);
    first.start(&bulkhead, 5 * SECOND);
    second.start(&bulkhead, 5 * SECOND);
    assert!(!handle.is_stopped());
    t.until(|| Arc::strong_count(&first.runs) == 1).await;
    t.fail(&bulkhead, 1).await;
    for run in 1..=2 {
        t.until(|| t.timers().0 == 2).await;
        t.advance(5 * SECOND).await;
        t.until(|| (second.runs(), added.runs()) == (run, run))
            .await;
    }
    // Either of them detects the recovery.
    added.passes.store(true, Ordering::SeqCst);
    t.until(|| t.timers().0 == 2).await;
    t.advance(5 * SECOND).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded)
        .await;
    assert_eq!(first.runs(), 0);
}

/// Returns a check with a client of this thread, neither of which can be sent to another one.
fn local_check(check: &Check) -> impl Fn() -> LocalFuture + use<> {
    let client = Rc::new(check.clone());
    move || {
        let client = Rc::clone(&client);
        Box::pin(async move { client.function()().await })
    }
}

type LocalFuture = Pin<Box<dyn Future<Output = Result<(), &'static str>>>>;

/// Fault API06.
async fn local_check_runs_until_its_future_is_dropped(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let (local, spawned) = (Check::default(), Check::default());
    let mut checks = Box::pin(
        bulkhead
            .run_health_check(5 * SECOND, local_check(&local))
            .unwrap(),
    );
    let handle = spawned.start(&bulkhead, 7 * SECOND);
    assert!(poll_once(checks.as_mut()).is_pending());
    t.fail(&bulkhead, 1).await;
    // It runs beside the check of the background task, which does not replace it.
    let driven = async {
        for (seconds, runs) in [(0, (0, 0)), (5, (1, 0)), (2, (1, 1)), (3, (2, 1))] {
            t.advance(seconds * SECOND).await;
            // Both have run, and wait for their next interval.
            t.until(|| (local.runs(), spawned.runs()) == runs && t.timers().0 == 2)
                .await;
        }
    };
    or(
        async {
            checks.as_mut().await;
            panic!("the check has ended")
        },
        driven,
    )
    .await;
    assert!(!handle.is_stopped());
    handle.stop();
    t.until(|| t.timers().0 == 1).await;

    let runs = local.runs();
    drop(checks);
    t.until(|| t.timers().0 == 0).await;
    t.advance(60 * SECOND).await;
    assert_eq!(local.runs(), runs);
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);

    // Another one finds the recovery.
    local.passes.store(true, Ordering::SeqCst);
    let checks = bulkhead
        .run_health_check(5 * SECOND, local_check(&local))
        .unwrap();
    let recovery = async {
        t.until(|| t.timers().0 == 1).await;
        t.advance(5 * SECOND).await;
        t.until(|| bulkhead.state() == BulkheadState::Degraded)
            .await;
    };
    or(checks, recovery).await;
    assert_eq!(local.runs(), runs + 1);
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
}

/// Fault API06.
async fn local_check_ends_with_the_bulkhead(t: Harness) {
    for drops in [false, true] {
        // Not of the harness, which keeps a clone.
        let bulkhead = Bulkhead::new(config(), t.runtime()).unwrap();
        let check = Check::default();
        let checks = bulkhead
            .run_health_check(SECOND, local_check(&check))
            .unwrap();
        let mut checks = Box::pin(checks);
        assert!(poll_once(checks.as_mut()).is_pending());
        if drops {
            drop(bulkhead);
        } else {
            bulkhead.shutdown();
        }
        checks.await;
        assert_eq!(check.runs(), 0);
    }
}

async fn check_requires_an_interval_and_a_circuit(t: Harness) {
    let check = || async { Ok::<_, ()>(()) };
    let zero = t
        .bulkhead(config())
        .health_check(Duration::ZERO, check)
        .unwrap_err();
    assert!(
        matches!(
            zero,
            ConfigError::OutOfRange {
                field: "health_check interval",
                ..
            }
        ),
        "{zero}"
    );
    let without = t
        .bulkhead(config().circuit_breaker_enabled(false))
        .health_check(SECOND, check)
        .unwrap_err();
    // The configuration lacks something, not the runtime.
    let expected = "`health_check` needs a circuit breaker: `circuit_breaker_enabled` is false";
    assert_eq!(without.to_string(), expected);
    let local = |bulkhead: Bulkhead, interval| bulkhead.run_health_check(interval, check).err();
    assert_eq!(local(t.bulkhead(config()), Duration::ZERO), Some(zero));
    let without = local(t.bulkhead(config().circuit_breaker_enabled(false)), SECOND);
    let expected = "`run_health_check` needs a circuit breaker: `circuit_breaker_enabled` is false";
    assert_eq!(
        without.map(|error| error.to_string()),
        Some(expected.into())
    );
    // An interval that never elapses is accepted.
    let never = t.bulkhead(config());
    never.health_check(Duration::MAX, check).unwrap();
    t.fail(&never, 1).await;
}
