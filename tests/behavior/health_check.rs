//! Looking after a dependency while its circuit is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::{CircuitEvent, TransitionCause};
use bulkman::{Bulkhead, BulkheadConfig, ConfigError};

use crate::harness::Harness;

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    a_passed_check_starts_half_open_early,
    a_failed_check_prolongs_nothing,
    a_check_that_hangs_or_panics_has_failed,
    it_checks_only_while_open_and_ends_with_the_bulkhead,
    a_check_from_before_a_reopening_says_nothing_about_it,
    a_check_needs_an_interval_and_a_circuit,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("ledger").failure_threshold(1)
}

/// A check that says how often it was made and passes when it is told to.
#[derive(Clone, Default)]
struct Check {
    made: Arc<AtomicUsize>,
    passes: Arc<AtomicBool>,
}

impl Check {
    fn start(&self, bulkhead: &Bulkhead, interval: Duration) {
        let check = self.clone();
        bulkhead
            .health_check(interval, move || {
                let check = check.clone();
                async move {
                    check.made.fetch_add(1, Ordering::SeqCst);
                    if check.passes.load(Ordering::SeqCst) {
                        Ok(())
                    } else {
                        Err("still down")
                    }
                }
            })
            .unwrap();
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

/// Lets the interval pass once the task counts it, until the check has been made so often.
async fn until_made(t: &Harness, check: &Check, interval: Duration, times: usize) {
    while check.made() < times {
        let before = check.made();
        t.until(|| t.timers().0 == 1).await;
        t.advance(interval).await;
        t.until(|| check.made() > before).await;
    }
}

async fn a_passed_check_starts_half_open_early(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let mut events = bulkhead.events();
    let check = Check::default();
    check.start(&bulkhead, 5 * SECOND);
    t.fail(&bulkhead, 1).await;
    until_made(&t, &check, 5 * SECOND, 2).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    check.passes.store(true, Ordering::SeqCst);
    until_made(&t, &check, 5 * SECOND, 3).await;
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

async fn a_failed_check_prolongs_nothing(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let check = Check::default();
    check.start(&bulkhead, 20 * SECOND);
    t.fail(&bulkhead, 1).await;
    until_made(&t, &check, 20 * SECOND, 1).await;
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(10 * SECOND)
    );
    t.advance(10 * SECOND).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
}

async fn a_check_that_hangs_or_panics_has_failed(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(3600 * SECOND));
    let check = Check::default();
    let inside = check.clone();
    let checking = move || {
        let number = inside.made.fetch_add(1, Ordering::SeqCst);
        assert!(number != 0, "no check at all");
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
    until_made(&t, &check, SECOND, 3).await;
    // The third one hangs, and is given one interval.
    t.until(|| t.timers().0 == 1).await;
    let timers = t.timers().1;
    t.advance(SECOND).await;
    t.until(|| t.timers().1 > timers).await;
    until_made(&t, &check, SECOND, 4).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded)
        .await;
}

async fn it_checks_only_while_open_and_ends_with_the_bulkhead(t: Harness) {
    let check = Check {
        passes: Arc::new(AtomicBool::new(true)),
        ..Check::default()
    };
    let bulkhead = t.bulkhead(config());
    check.start(&bulkhead, SECOND);
    t.advance(100 * SECOND).await;
    assert_eq!((check.made(), t.timers()), (0, (0, 0)));
    t.fail(&bulkhead, 1).await;
    until_made(&t, &check, SECOND, 1).await;
    t.until(|| bulkhead.state() == BulkheadState::Degraded && t.timers().0 == 0)
        .await;
    t.advance(100 * SECOND).await;
    // Half-open, and later open again without a look: nothing to check.
    t.fail(&bulkhead, 1).await;
    until_made(&t, &check, SECOND, 2).await;
    // The check, and what it holds, go with the bulkhead: shut down,
    bulkhead.shutdown();
    t.until(|| Arc::strong_count(&check.made) == 1).await;
    // or dropped, here one that is not among the stage's, which live on.
    let dropped = Bulkhead::with_runtime(config(), t.runtime()).unwrap();
    check.start(&dropped, SECOND);
    drop(dropped);
    t.until(|| Arc::strong_count(&check.made) == 1).await;
    assert_eq!(check.made(), 2);
}

/// The dependency was back for a moment: the check that saw it then is older than the probe that
/// failed since.
async fn a_check_from_before_a_reopening_says_nothing_about_it(t: Harness) {
    let bulkhead = t.bulkhead(config().isolation_duration(15 * SECOND));
    let check = Check::default();
    let (made, (end, ended)) = (check.clone(), tokio::sync::oneshot::channel::<()>());
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let checking = move || {
        made.made.fetch_add(1, Ordering::SeqCst);
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
    until_made(&t, &check, 10 * SECOND, 1).await;
    t.until(|| t.timers().0 == 1).await;
    t.advance(5 * SECOND).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.fail(&bulkhead, 1).await;
    let timers = t.timers().1;
    end.send(()).unwrap();
    // It counts the next interval.
    t.until(|| t.timers().1 > timers).await;
    until_made(&t, &check, 10 * SECOND, 2).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(5 * SECOND)
    );
}

async fn a_check_needs_an_interval_and_a_circuit(t: Harness) {
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
    // It is the configuration that lacks something, not the runtime.
    let told = "`health_check` needs a circuit breaker: `circuit_breaker_enabled` is false";
    assert_eq!(without.to_string(), told);
    // One that never comes due is nobody's concern.
    let never = t.bulkhead(config());
    never.health_check(Duration::MAX, check).unwrap();
    t.fail(&never, 1).await;
}
