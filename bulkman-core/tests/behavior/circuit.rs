//! The circuit breaker of a bulkhead: when it opens, what it rejects, how it recovers.
//!
//! `tests/scenarios/main.rs` tests its rules and windows step by step.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::{CircuitEvent, CircuitState, SlidingWindow, TransitionCause};
use bulkman::error::RejectionReason;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig};
use futures_lite::StreamExt as _;

use crate::harness::{Harness, now_or_never};
use crate::operations::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    five_consecutive_failures_open_and_three_successes_close,
    a_rate_equal_to_its_threshold_opens,
    an_open_circuit_rejects_at_once_with_retry_after,
    a_stale_outcome_neither_closes_nor_reopens,
    a_stale_outcome_is_not_counted_in_a_new_window,
    a_full_bulkhead_leaves_an_open_circuit_open,
    the_state_is_current_without_traffic,
    failures_of_an_hour_ago_are_not_counted,
    manual_changes_affect_calls,
    a_disabled_circuit_breaker_never_opens,
    events_are_emitted_once_and_in_order,
    a_pending_timer_does_not_change_a_manual_state,
    the_minimum_number_of_calls_applies_to_slow_calls,
    an_event_receiver_may_use_the_bulkhead,
    rejections_are_counted_by_reason,
    a_circuit_can_open_and_recover_repeatedly,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("ledger").max_concurrent_calls(10)
}

fn circuit_state(bulkhead: &Bulkhead) -> CircuitState {
    bulkhead.circuit_breaker().unwrap().state()
}

/// Hazard P01.
async fn five_consecutive_failures_open_and_three_successes_close(t: Harness) {
    let bulkhead = t.bulkhead(config());
    t.fail(&bulkhead, 4).await;
    // A success resets the count.
    t.succeed(&bulkhead, 1).await;
    t.fail(&bulkhead, 4).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
    t.advance(30 * SECOND).await;
    t.succeed(&bulkhead, 2).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::HalfOpen);
    t.succeed(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
}

/// Hazard H29.
async fn a_rate_equal_to_its_threshold_opens(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .sliding_window(SlidingWindow::Count(4))
        .minimum_number_of_calls(4);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    t.succeed(&bulkhead, 2).await;
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
}

async fn an_open_circuit_rejects_at_once_with_retry_after(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    t.fail(&bulkhead, 1).await;
    t.advance(10 * SECOND).await;
    let (control, operation) = work();
    let rejected = now_or_never(bulkhead.execute(operation)).unwrap_err();
    assert!(!control.has_started());
    assert!(rejected.is_rejection());
    assert_eq!(rejected.retry_after(), Some(20 * SECOND));
    assert_eq!(
        rejected.to_string(),
        r#"bulkhead "ledger" rejected the call: circuit is open, retry in 20s"#
    );
    let stats = bulkhead.stats();
    assert_eq!(
        (
            stats.started,
            stats.peak_waiting,
            stats.rejected.circuit.open
        ),
        (1, 0, 1)
    );
    assert!(!bulkhead.is_healthy());
}

/// Hazard P06, H17, H18, H19.
async fn a_stale_outcome_neither_closes_nor_reopens(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(2).success_threshold(1));
    let (old_success, first) = t.running(&bulkhead).await;
    let (old_failure, second) = t.running(&bulkhead).await;
    let (older_failure, third) = t.running(&bulkhead).await;
    t.fail(&bulkhead, 2).await;
    // While open: the isolation is not shortened.
    old_success.succeed();
    assert_eq!(first.await, Ok(1));
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(30 * SECOND)
    );
    // While half-open: the call was not a probe.
    t.advance(30 * SECOND).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::HalfOpen);
    old_failure.fail();
    assert!(second.await.is_err());
    assert_eq!(circuit_state(&bulkhead), CircuitState::HalfOpen);
    // While closed again: the outcome is not counted.
    t.succeed(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    older_failure.fail();
    assert!(third.await.is_err());
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    // The statistics count all of them.
    assert_eq!(
        (bulkhead.stats().successful, bulkhead.stats().failed),
        (2, 5)
    );
}

/// Hazard H22.
async fn a_stale_outcome_is_not_counted_in_a_new_window(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .sliding_window(SlidingWindow::Count(10))
        .failure_threshold(2);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    let (old, call) = t.running(&bulkhead).await;
    t.fail(&bulkhead, 1).await;
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.close();
    old.fail();
    assert!(call.await.is_err());
    assert_eq!(circuit.snapshot().counts.calls, 0);
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
}

/// Hazard P08.
async fn a_full_bulkhead_leaves_an_open_circuit_open(t: Harness) {
    let bulkhead = t.bulkhead(
        config()
            .max_concurrent_calls(1)
            .max_queue_size(0)
            .failure_threshold(1),
    );
    let circuit = bulkhead.circuit_breaker().unwrap();
    let mut events = bulkhead.events();
    let (control, running) = t.running(&bulkhead).await;
    circuit.open_for(SECOND);
    t.advance(SECOND).await;
    let rejected = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert!(
        matches!(rejected, BulkheadError::Full { .. }),
        "{rejected:?}"
    );
    let opened = events.next().await;
    assert!(
        matches!(opened, Some(CircuitEvent::Transition(opened)) if opened.to == CircuitState::Open)
    );
    assert!(
        crate::harness::poll_once(std::pin::pin!(events.next())).is_pending(),
        "a rejection changed the state"
    );
    control.succeed();
    running.await.unwrap();
}

/// Hazard P09, H14, H16.
async fn the_state_is_current_without_traffic(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    t.fail(&bulkhead, 1).await;
    assert_eq!(
        (bulkhead.state(), bulkhead.is_healthy()),
        (BulkheadState::Isolated, false)
    );
    t.advance(30 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    t.advance(Duration::from_millis(1)).await;
    // Without a timer or a call: the query performs the transition.
    assert_eq!(
        (bulkhead.state(), bulkhead.is_healthy()),
        (BulkheadState::Degraded, true)
    );
    assert_eq!(bulkhead.stats().circuit, Some(CircuitState::HalfOpen));
}

/// Hazard H57, H59.
async fn failures_of_an_hour_ago_are_not_counted(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_count_threshold(3)
        .sliding_window(SlidingWindow::Time {
            length: 10 * SECOND,
            buckets: 10,
        });
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    t.fail(&bulkhead, 2).await;
    t.advance(3600 * SECOND).await;
    t.fail(&bulkhead, 2).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
}

async fn manual_changes_affect_calls(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1).success_threshold(1));
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.force_open();
    t.advance(3600 * SECOND).await;
    let rejected = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert!(matches!(
        rejected,
        BulkheadError::CircuitOpen {
            reason: RejectionReason::ForcedOpen,
            ..
        }
    ));
    assert_eq!(
        (rejected.retry_after(), bulkhead.state()),
        (None, BulkheadState::Isolated)
    );
    circuit.disable();
    t.fail(&bulkhead, 10).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    circuit.metrics_only();
    t.fail(&bulkhead, 10).await;
    assert_eq!(circuit.snapshot().counts.failures, 10);
    circuit.open_for(5 * SECOND);
    let rejected = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert_eq!(rejected.retry_after(), Some(5 * SECOND));
    circuit.half_open();
    t.succeed(&bulkhead, 1).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
}

async fn a_disabled_circuit_breaker_never_opens(t: Harness) {
    let bulkhead = t.bulkhead(config().circuit_breaker_enabled(false).failure_threshold(1));
    t.fail(&bulkhead, 100).await;
    assert!(bulkhead.circuit_breaker().is_none());
    assert_eq!(
        (bulkhead.state(), bulkhead.stats().circuit),
        (BulkheadState::Healthy, None)
    );
    assert_eq!(bulkhead.events().next().await, None);
    t.succeed(&bulkhead, 1).await;
}

/// Hazard H24, H25.
async fn events_are_emitted_once_and_in_order(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1).success_threshold(1));
    let events = bulkhead.events();
    t.fail(&bulkhead, 1).await;
    for _ in 0..5 {
        assert!(bulkhead.execute(async { Answer::Ok(1) }).await.is_err());
    }
    t.advance(30 * SECOND).await;
    t.fail(&bulkhead, 1).await;
    t.advance(30 * SECOND).await;
    t.succeed(&bulkhead, 1).await;
    let seen: Vec<_> = events
        .take(5)
        .map(|event| match event {
            CircuitEvent::Transition(it) => (it.from, it.to, it.cause),
            other => panic!("{other:?}"),
        })
        .collect()
        .await;
    use CircuitState::{Closed, HalfOpen, Open};
    assert_eq!(
        seen,
        [
            (Closed, Open, TransitionCause::ConsecutiveFailures),
            (Open, HalfOpen, TransitionCause::IsolationElapsed),
            (HalfOpen, Open, TransitionCause::ProbeFailed),
            (Open, HalfOpen, TransitionCause::IsolationElapsed),
            (HalfOpen, Closed, TransitionCause::ProbesSucceeded),
        ]
    );
}

/// Hazard H26.
async fn a_pending_timer_does_not_change_a_manual_state(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .automatic_half_open(true);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    let circuit = bulkhead.circuit_breaker().unwrap();
    t.fail(&bulkhead, 1).await;
    t.until(|| t.timers().0 == 1).await;
    circuit.force_open();
    t.advance(3600 * SECOND).await;
    t.until(|| t.timers().0 == 0).await;
    assert_eq!(circuit.state(), CircuitState::ForcedOpen);
    circuit.open_for(100 * SECOND);
    t.until(|| t.timers().0 == 1).await;
    circuit.close();
    t.advance(3600 * SECOND).await;
    t.until(|| t.timers().0 == 0).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
}

/// Hazard H63.
async fn the_minimum_number_of_calls_applies_to_slow_calls(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(SECOND)
        .slow_call_rate_threshold(0.5)
        .minimum_number_of_calls(4);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    for calls in 1..=4 {
        assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
        let (control, call) = t.running(&bulkhead).await;
        t.advance(2 * SECOND).await;
        control.succeed();
        call.await.unwrap();
        let counts = bulkhead.circuit_breaker().unwrap().snapshot().counts;
        assert_eq!((counts.calls, counts.slow_calls), (calls, calls));
    }
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
}

/// Hazard H78.
async fn an_event_receiver_may_use_the_bulkhead(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    let mut events = bulkhead.events();
    let listener = t.spawn({
        let bulkhead = bulkhead.clone();
        async move {
            let opened = events.next().await;
            assert!(matches!(opened, Some(CircuitEvent::Transition(_))));
            assert_eq!(bulkhead.state(), BulkheadState::Isolated);
            bulkhead.circuit_breaker().unwrap().close();
            bulkhead.execute(async { Answer::Ok(5) }).await
        }
    });
    t.fail(&bulkhead, 1).await;
    assert_eq!(listener.await, Ok(5));
}

/// Hazard H85.
async fn rejections_are_counted_by_reason(t: Harness) {
    let bulkhead = t.bulkhead(
        config()
            .max_concurrent_calls(1)
            .max_queue_size(1)
            .failure_threshold(1)
            .success_threshold(1),
    );
    let call = || {
        bulkhead
            .call()
            .max_wait(SECOND)
            .execute(async { Answer::Ok(1) })
    };
    let (control, running) = t.running(&bulkhead).await;
    let mut queued = Box::pin(call());
    assert!(crate::harness::poll_once(queued.as_mut()).is_pending());
    assert!(call().await.is_err());
    t.advance(SECOND).await;
    assert!(queued.await.is_err());
    control.fail();
    assert!(running.await.is_err());
    for _ in 0..2 {
        assert!(call().await.is_err());
    }
    t.advance(30 * SECOND).await;
    let (control, probe) = t.running(&bulkhead).await;
    for _ in 0..3 {
        let rejected = call().await.unwrap_err();
        assert!(matches!(
            rejected,
            BulkheadError::CircuitOpen {
                reason: RejectionReason::ProbeLimit,
                ..
            }
        ));
    }
    control.succeed();
    probe.await.unwrap();
    bulkhead.circuit_breaker().unwrap().force_open();
    for _ in 0..4 {
        assert!(call().await.is_err());
    }
    bulkhead.circuit_breaker().unwrap().close();
    bulkhead.shutdown();
    for _ in 0..5 {
        assert!(matches!(call().await, Err(BulkheadError::Shutdown { .. })));
    }
    let rejected = bulkhead.stats().rejected;
    assert_eq!(
        (
            rejected.full,
            rejected.timed_out_in_queue,
            rejected.circuit.open
        ),
        (1, 1, 2)
    );
    assert_eq!(
        (
            rejected.circuit.probe_limit_reached,
            rejected.circuit.forced_open,
            rejected.shutdown
        ),
        (3, 4, 5)
    );
    assert_eq!(rejected.total(), 16);
}

async fn a_circuit_can_open_and_recover_repeatedly(t: Harness) {
    let bulkhead = t.bulkhead(config().failure_threshold(3).success_threshold(2));
    for _ in 0..5 {
        t.fail(&bulkhead, 3).await;
        assert!(bulkhead.execute(async { Answer::Ok(1) }).await.is_err());
        t.advance(30 * SECOND).await;
        t.succeed(&bulkhead, 12).await;
        assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    }
    assert_eq!(bulkhead.stats().rejected.circuit.open, 5);
}
