//! Time limits of the whole call, of the wait and of the run.

use std::future::pending;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::error::TimeoutPhase;
use bulkman::{BulkheadConfig, BulkheadError, Outcome};

use crate::harness::{Harness, now_or_never};
use crate::operations::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    timeout_while_running_counts_as_failure,
    timeout_limits_wait_and_run_together,
    wait_does_not_reduce_the_run_timeout,
    timeout_of_a_mostly_queued_call_is_ignored,
    run_timeout_of_a_mostly_queued_call_is_a_failure,
    timeout_in_half_open_is_a_failed_probe,
    cancelled_call_does_not_count_as_success,
    call_options_override_the_configured_limits,
    call_options_can_remove_the_configured_limits,
    zero_limits_admit_calls_that_are_ready,
    timeout_error_contains_phase_and_times,
    operation_within_its_deadline_succeeds,
    timer_is_created_lazily_and_dropped_with_the_call,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("search").max_concurrent_calls(1)
}

/// Hazard P02.
async fn timeout_while_running_counts_as_failure(t: Harness) {
    let bulkhead = t.bulkhead(config().timeout(SECOND).failure_threshold(3));
    for _ in 0..3 {
        let (_never, call) = t.running(&bulkhead).await;
        t.advance(SECOND).await;
        assert!(matches!(
            call.await,
            Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            })
        ));
    }
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.timed_out_running, stats.active),
        (3, 3, 0)
    );
}

async fn timeout_limits_wait_and_run_together(t: Harness) {
    let bulkhead = t.bulkhead(config().timeout(10 * SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(4 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_started()).await;
    t.advance(6 * SECOND).await;
    let error = call.await.unwrap_err();
    let BulkheadError::Timeout {
        phase: TimeoutPhase::Running,
        queued,
        ran,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((queued, ran), (4 * SECOND, 6 * SECOND));
    // It ran longer than it waited, so the timeout is a failure of the dependency.
    assert_eq!(bulkhead.stats().failed, 1);
}

/// Hazard H50.
async fn wait_does_not_reduce_the_run_timeout(t: Harness) {
    let bulkhead = t.bulkhead(config().run_timeout(5 * SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(100 * SECOND).await;
    assert!(!call.is_finished());
    permit.succeed();
    t.until(|| never.has_started()).await;
    t.advance(4 * SECOND).await;
    assert!(!call.is_finished());
    t.advance(SECOND).await;
    let error = call.await.unwrap_err();
    let BulkheadError::Timeout {
        phase: TimeoutPhase::Running,
        ran,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(ran, 5 * SECOND);
}

async fn timeout_of_a_mostly_queued_call_is_ignored(t: Harness) {
    let bulkhead = t.bulkhead(config().timeout(10 * SECOND).failure_threshold(1));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(6 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_started()).await;
    t.advance(4 * SECOND).await;
    assert!(matches!(
        call.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.ignored, stats.failed, stats.timed_out_running),
        (1, 0, 1)
    );
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn run_timeout_of_a_mostly_queued_call_is_a_failure(t: Harness) {
    let limits = config().timeout(10 * SECOND).run_timeout(2 * SECOND);
    let bulkhead = t.bulkhead(limits.failure_threshold(1));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(6 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_started()).await;
    t.advance(2 * SECOND).await;
    assert!(matches!(
        call.await,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
    assert_eq!(
        (bulkhead.stats().failed, bulkhead.state()),
        (1, BulkheadState::Isolated)
    );
}

/// Hazard H54.
async fn timeout_in_half_open_is_a_failed_probe(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1).run_timeout(SECOND));
    t.fail(&bulkhead, 1).await;
    t.advance(30 * SECOND).await;
    let (_never, probe) = t.running(&bulkhead).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.advance(SECOND).await;
    assert!(matches!(probe.await, Err(BulkheadError::Timeout { .. })));
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

/// Hazard H54.
async fn cancelled_call_does_not_count_as_success(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(2).success_threshold(1));
    // A cancellation does not reset the count of consecutive failures.
    t.fail(&bulkhead, 1).await;
    let (_never, call) = t.running(&bulkhead).await;
    call.cancel().await;
    t.fail(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    // A cancellation does not close a half-open circuit.
    t.advance(30 * SECOND).await;
    let (_never, probe) = t.running(&bulkhead).await;
    probe.cancel().await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn call_options_override_the_configured_limits(t: Harness) {
    let bulkhead = t.bulkhead(config().timeout(100 * SECOND));
    for (call, limit) in [
        (bulkhead.call().timeout(SECOND), SECOND),
        (bulkhead.call().run_timeout(2 * SECOND), 2 * SECOND),
        (
            bulkhead
                .call()
                .timeout(500 * SECOND)
                .run_timeout(300 * SECOND),
            300 * SECOND,
        ),
    ] {
        let mut running = Box::pin(call.execute_with_report(pending::<Answer>()));
        assert!(crate::harness::poll_once(running.as_mut()).is_pending());
        t.advance(limit - Duration::from_millis(1)).await;
        assert!(crate::harness::poll_once(running.as_mut()).is_pending());
        t.advance(Duration::from_millis(1)).await;
        let report = now_or_never(running);
        assert!(matches!(
            report.result,
            Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            })
        ));
        assert_eq!(report.ran, limit);
    }
}

async fn call_options_can_remove_the_configured_limits(t: Harness) {
    let bulkhead = t.bulkhead(
        config()
            .timeout(SECOND)
            .run_timeout(SECOND)
            .max_wait(SECOND),
    );
    let permit = bulkhead.try_acquire().unwrap();
    let (control, operation) = work();
    let call = t.spawn({
        let bulkhead = bulkhead.clone();
        async move {
            bulkhead
                .call()
                .timeout(None)
                .run_timeout(None)
                .max_wait(None)
                .execute(operation)
                .await
        }
    });
    t.until(|| bulkhead.stats().waiting == 1).await;
    t.advance(3600 * SECOND).await;
    permit.succeed();
    t.until(|| control.has_started()).await;
    t.advance(3600 * SECOND).await;
    control.succeed();
    assert_eq!(call.await, Ok(1));
}

/// A configuration rejects zero. A call accepts it, because it may have no time left.
async fn zero_limits_admit_calls_that_are_ready(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let zero = || bulkhead.call().timeout(Duration::ZERO);
    assert_eq!(zero().execute(async { Answer::Ok(1) }).await, Ok(1));
    let late = now_or_never(zero().execute(pending::<Answer>())).unwrap_err();
    assert!(
        matches!(
            late,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }
        ),
        "{late:?}"
    );
    let late = now_or_never(
        bulkhead
            .call()
            .run_timeout(Duration::ZERO)
            .execute(pending::<Answer>()),
    );
    assert!(
        matches!(
            late,
            Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            })
        ),
        "{late:?}"
    );
    let permit = bulkhead.try_acquire().unwrap();
    let late = now_or_never(zero().execute(pending::<Answer>())).unwrap_err();
    assert!(
        matches!(
            late,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Queued,
                ..
            }
        ),
        "{late:?}"
    );
    // A call that never waits is rejected, not timed out.
    let full = now_or_never(
        bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute(pending::<Answer>()),
    );
    assert!(matches!(full, Err(BulkheadError::Full { .. })), "{full:?}");
    permit.succeed();
    assert_eq!(
        bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute(async { Answer::Ok(1) })
            .await,
        Ok(1)
    );
}

async fn timeout_error_contains_phase_and_times(t: Harness) {
    let bulkhead = t.bulkhead(config().run_timeout(SECOND));
    let (_never, call) = t.running(&bulkhead).await;
    t.advance(SECOND).await;
    let error = call.await.unwrap_err();
    let text = error.to_string();
    assert_eq!(
        text,
        r#"call timed out while running in bulkhead "search" (queued 0ns, ran 1s)"#
    );
    assert!(!error.is_rejection() && error.retry_after().is_none());
    assert_eq!(t.elapsed(), SECOND);
}

async fn operation_within_its_deadline_succeeds(t: Harness) {
    let bulkhead = t.bulkhead(config().timeout(SECOND));
    let (control, call) = t.running(&bulkhead).await;
    t.advance(SECOND - Duration::from_millis(1)).await;
    control.succeed();
    assert_eq!(call.await, Ok(1));
    t.advance(10 * SECOND).await;
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.timed_out_running), (1, 0));
    let ignored = bulkhead.call().classify(|_: &Answer| Outcome::Ignored);
    assert_eq!(ignored.execute(async { Ok(3) }).await, Ok(3));
}

/// Hazard H55, H56.
async fn timer_is_created_lazily_and_dropped_with_the_call(t: Harness) {
    let bulkhead = t.bulkhead(
        config()
            .timeout(SECOND)
            .max_wait(SECOND)
            .run_timeout(SECOND),
    );
    t.succeed(&bulkhead, 1000).await;
    t.fail(&bulkhead, 4).await;
    assert_eq!(
        t.timers(),
        (0, 0),
        "a call that completes at its first poll needs no timer"
    );
    for number in 1..=50 {
        let mut call = Box::pin(bulkhead.execute(pending::<Answer>()));
        for _ in 0..10 {
            assert!(crate::harness::poll_once(call.as_mut()).is_pending());
        }
        assert_eq!(t.timers(), (1, number), "each call creates one timer");
        drop(call);
        assert_eq!(t.timers().0, 0, "the timer outlives its call");
    }
    let (control, running) = t.running(&bulkhead).await;
    let (next, queued) = t.waiting(&bulkhead).await;
    t.until(|| t.timers().0 == 2).await;
    control.succeed();
    running.await.unwrap();
    next.succeed();
    queued.await.unwrap();
    assert_eq!(t.timers().0, 0);
}
