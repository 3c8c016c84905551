//! Deadlines of the whole call, of the wait and of the run.

use std::future::pending;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::error::TimeoutPhase;
use bulkman::{BulkheadConfig, BulkheadError, Outcome};

use crate::stage::{Stage, now_or_never};
use crate::work::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    a_timeout_while_running_is_a_failure_of_the_dependency,
    the_timeout_bounds_queue_and_run_together,
    waiting_takes_nothing_off_the_run_timeout,
    waiting_longer_than_running_is_the_queues_fault,
    the_queues_fault_is_no_excuse_for_the_run_timeout,
    a_timeout_in_half_open_is_a_failed_probe,
    a_cancelled_call_is_no_success,
    each_call_may_have_its_own_limits,
    a_limit_can_be_lifted_for_one_call,
    zero_is_over_at_once_but_not_for_what_is_ready,
    the_error_tells_the_phase_and_the_times,
    an_operation_that_ends_in_time_is_not_disturbed,
    a_timer_is_made_for_who_waits_and_goes_with_the_call,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("search").max_concurrent_calls(1)
}

/// Hazard P02.
async fn a_timeout_while_running_is_a_failure_of_the_dependency(t: Stage) {
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

async fn the_timeout_bounds_queue_and_run_together(t: Stage) {
    let bulkhead = t.bulkhead(config().timeout(10 * SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(4 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_begun()).await;
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
    // It ran longer than it waited: the dependency's fault.
    assert_eq!(bulkhead.stats().failed, 1);
}

/// Hazard H50.
async fn waiting_takes_nothing_off_the_run_timeout(t: Stage) {
    let bulkhead = t.bulkhead(config().run_timeout(5 * SECOND));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(100 * SECOND).await;
    assert!(!call.is_finished());
    permit.succeed();
    t.until(|| never.has_begun()).await;
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

async fn waiting_longer_than_running_is_the_queues_fault(t: Stage) {
    let bulkhead = t.bulkhead(config().timeout(10 * SECOND).failure_threshold(1));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(6 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_begun()).await;
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

async fn the_queues_fault_is_no_excuse_for_the_run_timeout(t: Stage) {
    let limits = config().timeout(10 * SECOND).run_timeout(2 * SECOND);
    let bulkhead = t.bulkhead(limits.failure_threshold(1));
    let permit = bulkhead.try_acquire().unwrap();
    let (never, call) = t.waiting(&bulkhead).await;
    t.advance(6 * SECOND).await;
    permit.succeed();
    t.until(|| never.has_begun()).await;
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
async fn a_timeout_in_half_open_is_a_failed_probe(t: Stage) {
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
async fn a_cancelled_call_is_no_success(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(2).success_threshold(1));
    // Cancelling resets no run of failures,
    t.fail(&bulkhead, 1).await;
    let (_never, call) = t.running(&bulkhead).await;
    call.cancel().await;
    t.fail(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    // and closes no circuit.
    t.advance(30 * SECOND).await;
    let (_never, probe) = t.running(&bulkhead).await;
    probe.cancel().await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn each_call_may_have_its_own_limits(t: Stage) {
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
        assert!(crate::stage::poll_once(running.as_mut()).is_pending());
        t.advance(limit - Duration::from_millis(1)).await;
        assert!(crate::stage::poll_once(running.as_mut()).is_pending());
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

async fn a_limit_can_be_lifted_for_one_call(t: Stage) {
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
    t.until(|| control.has_begun()).await;
    t.advance(3600 * SECOND).await;
    control.succeed();
    assert_eq!(call.await, Ok(1));
}

/// A configuration refuses zero; a call that has no time left may say so.
async fn zero_is_over_at_once_but_not_for_what_is_ready(t: Stage) {
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
    // Never to wait is not a timeout.
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

async fn the_error_tells_the_phase_and_the_times(t: Stage) {
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

async fn an_operation_that_ends_in_time_is_not_disturbed(t: Stage) {
    let bulkhead = t.bulkhead(config().timeout(SECOND));
    let (control, call) = t.running(&bulkhead).await;
    t.advance(SECOND - Duration::from_millis(1)).await;
    control.succeed();
    assert_eq!(call.await, Ok(1));
    t.advance(10 * SECOND).await;
    let stats = bulkhead.stats();
    assert_eq!((stats.successful, stats.timed_out_running), (1, 0));
    let ignoring = bulkhead.call().classify(|_: &Answer| Outcome::Ignored);
    assert_eq!(ignoring.execute(async { Ok(3) }).await, Ok(3));
}

/// Hazard H55, H56.
async fn a_timer_is_made_for_who_waits_and_goes_with_the_call(t: Stage) {
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
        "a call that is ready at once needs no timer"
    );
    for number in 1..=50 {
        let mut call = Box::pin(bulkhead.execute(pending::<Answer>()));
        for _ in 0..10 {
            assert!(crate::stage::poll_once(call.as_mut()).is_pending());
        }
        assert_eq!(t.timers(), (1, number), "one call, one timer");
        drop(call);
        assert_eq!(t.timers().0, 0, "the call is gone, its timer is not");
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
