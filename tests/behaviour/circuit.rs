//! The circuit in front of the bulkhead: when it opens, what it refuses, how it recovers.
//!
//! Its rules and windows are played step by step in `tests/scenarios.rs`.

use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::{CircuitEvent, CircuitState, SlidingWindow, TransitionCause};
use bulkman::error::RejectionReason;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig};
use futures_lite::StreamExt as _;

use crate::stage::{Stage, now_or_never};
use crate::work::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    the_fifth_failure_in_a_row_opens_and_the_third_success_closes,
    a_rate_opens_at_its_threshold_not_above_it,
    an_open_circuit_refuses_at_once_and_says_when_to_come_back,
    an_old_outcome_neither_closes_nor_reopens,
    an_old_outcome_does_not_land_in_a_fresh_window,
    a_full_bulkhead_leaves_an_open_circuit_open,
    the_state_is_right_without_traffic,
    an_old_failure_does_not_open_after_an_idle_hour,
    manual_controls_are_seen_by_calls,
    without_a_circuit_breaker_nothing_ever_opens,
    events_come_once_and_in_order,
    a_timer_that_is_set_changes_no_state_that_came_by_hand,
    the_minimum_number_of_calls_holds_for_slow_calls,
    a_listener_may_use_the_bulkhead,
    refusals_are_counted_by_their_cause,
    recovery_is_a_full_round,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("ledger").max_concurrent_calls(10)
}

fn circuit_state(bulkhead: &Bulkhead) -> CircuitState {
    bulkhead.circuit_breaker().unwrap().state()
}

/// Hazard P01.
async fn the_fifth_failure_in_a_row_opens_and_the_third_success_closes(t: Stage) {
    let bulkhead = t.bulkhead(config());
    t.fail(&bulkhead, 4).await;
    // One success in between, and the count starts again.
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
async fn a_rate_opens_at_its_threshold_not_above_it(t: Stage) {
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

async fn an_open_circuit_refuses_at_once_and_says_when_to_come_back(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    t.fail(&bulkhead, 1).await;
    t.advance(10 * SECOND).await;
    let (control, operation) = work();
    let refused = now_or_never(bulkhead.execute(operation)).unwrap_err();
    assert!(!control.has_begun());
    assert!(refused.is_rejection());
    assert_eq!(refused.retry_after(), Some(20 * SECOND));
    assert_eq!(
        refused.to_string(),
        r#"bulkhead "ledger" refused the call: circuit is open, retry in 20s"#
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
async fn an_old_outcome_neither_closes_nor_reopens(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(2).success_threshold(1));
    let (old_success, first) = t.running(&bulkhead).await;
    let (old_failure, second) = t.running(&bulkhead).await;
    let (older_failure, third) = t.running(&bulkhead).await;
    t.fail(&bulkhead, 2).await;
    // While open: no cooldown is skipped,
    old_success.succeed();
    assert_eq!(first.await, Ok(1));
    assert_eq!(circuit_state(&bulkhead), CircuitState::Open);
    assert_eq!(
        bulkhead.circuit_breaker().unwrap().snapshot().retry_after,
        Some(30 * SECOND)
    );
    // while half-open: no probe was meant,
    t.advance(30 * SECOND).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::HalfOpen);
    old_failure.fail();
    assert!(second.await.is_err());
    assert_eq!(circuit_state(&bulkhead), CircuitState::HalfOpen);
    // and while closed again: it is not counted.
    t.succeed(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    older_failure.fail();
    assert!(third.await.is_err());
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit_state(&bulkhead), CircuitState::Closed);
    // In the statistics they are all there.
    assert_eq!(
        (bulkhead.stats().successful, bulkhead.stats().failed),
        (2, 5)
    );
}

/// Hazard H22.
async fn an_old_outcome_does_not_land_in_a_fresh_window(t: Stage) {
    let rules = CircuitBreakerConfig::new()
        .sliding_window(SlidingWindow::Count(10))
        .failure_threshold(2);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    let (old, call) = t.running(&bulkhead).await;
    t.fail(&bulkhead, 1).await;
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.reset();
    old.fail();
    assert!(call.await.is_err());
    assert_eq!(circuit.snapshot().counts.calls, 0);
    t.fail(&bulkhead, 1).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
}

/// Hazard P08.
async fn a_full_bulkhead_leaves_an_open_circuit_open(t: Stage) {
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
    let refused = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert!(matches!(refused, BulkheadError::Full { .. }), "{refused:?}");
    let opened = events.next().await;
    assert!(
        matches!(opened, Some(CircuitEvent::Transition(opened)) if opened.to == CircuitState::Open)
    );
    assert!(
        crate::stage::poll_once(std::pin::pin!(events.next())).is_pending(),
        "a refusal moved the circuit"
    );
    control.succeed();
    running.await.unwrap();
}

/// Hazard P09, H14, H16.
async fn the_state_is_right_without_traffic(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    t.fail(&bulkhead, 1).await;
    assert_eq!(
        (bulkhead.state(), bulkhead.is_healthy()),
        (BulkheadState::Isolated, false)
    );
    t.advance(30 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    t.advance(Duration::from_millis(1)).await;
    // No timer, no call: looking is enough.
    assert_eq!(
        (bulkhead.state(), bulkhead.is_healthy()),
        (BulkheadState::Degraded, true)
    );
    assert_eq!(bulkhead.stats().circuit, Some(CircuitState::HalfOpen));
}

/// Hazard H57, H59.
async fn an_old_failure_does_not_open_after_an_idle_hour(t: Stage) {
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

async fn manual_controls_are_seen_by_calls(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(1).success_threshold(1));
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.force_open();
    t.advance(3600 * SECOND).await;
    let refused = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert!(matches!(
        refused,
        BulkheadError::CircuitOpen {
            reason: RejectionReason::ForcedOpen,
            ..
        }
    ));
    assert_eq!(
        (refused.retry_after(), bulkhead.state()),
        (None, BulkheadState::Isolated)
    );
    circuit.disable();
    t.fail(&bulkhead, 10).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    circuit.metrics_only();
    t.fail(&bulkhead, 10).await;
    assert_eq!(circuit.snapshot().counts.failures, 10);
    circuit.open_for(5 * SECOND);
    let refused = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(5 * SECOND));
    circuit.half_open();
    t.succeed(&bulkhead, 1).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
}

async fn without_a_circuit_breaker_nothing_ever_opens(t: Stage) {
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
async fn events_come_once_and_in_order(t: Stage) {
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
            CircuitEvent::Transition(change) => (change.from, change.to, change.cause),
            missed => panic!("{missed:?}"),
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
async fn a_timer_that_is_set_changes_no_state_that_came_by_hand(t: Stage) {
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
async fn the_minimum_number_of_calls_holds_for_slow_calls(t: Stage) {
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
async fn a_listener_may_use_the_bulkhead(t: Stage) {
    let bulkhead = t.bulkhead(config().failure_threshold(1));
    let mut events = bulkhead.events();
    let listener = t.spawn({
        let bulkhead = bulkhead.clone();
        async move {
            let opened = events.next().await;
            assert!(matches!(opened, Some(CircuitEvent::Transition(_))));
            assert_eq!(bulkhead.state(), BulkheadState::Isolated);
            bulkhead.circuit_breaker().unwrap().reset();
            bulkhead.execute(async { Answer::Ok(5) }).await
        }
    });
    t.fail(&bulkhead, 1).await;
    assert_eq!(listener.await, Ok(5));
}

/// Hazard H85.
async fn refusals_are_counted_by_their_cause(t: Stage) {
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
    assert!(crate::stage::poll_once(queued.as_mut()).is_pending());
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
        let refused = call().await.unwrap_err();
        assert!(matches!(
            refused,
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
    bulkhead.circuit_breaker().unwrap().reset();
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

async fn recovery_is_a_full_round(t: Stage) {
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
