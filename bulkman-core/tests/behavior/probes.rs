//! Half-open: how many probes are admitted, and that the state always ends.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::{CircuitEvent, CircuitState, TransitionCause};
use bulkman::error::RejectionReason;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, CircuitBreaker, CircuitBreakerConfig, Outcome,
};
use futures_lite::FutureExt as _;

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, work};

const SECOND: Duration = Duration::from_secs(1);

on_every_runtime![
    fifty_callers_get_three_probes,
    twenty_callers_cause_one_transition,
    a_hung_probe_times_out_and_others_are_rejected,
    an_ignored_probe_releases_its_slot,
    a_panicking_classifier_fails_the_probe,
    a_cancelled_probe_releases_its_slot,
    a_queued_call_holds_no_probe_slot,
    a_dropped_permit_releases_its_slot,
    a_stale_call_releases_no_slot,
    the_probe_limit_holds_when_the_isolation_elapses,
    a_sample_decides_below_the_minimum_number_of_calls,
    a_circuit_with_few_calls_recovers,
    a_failed_probe_rejects_queued_calls,
    half_open_ends_while_callers_time_out_outside,
    half_open_ends_after_a_hundred_short_cancelled_probes,
    one_cancelled_probe_has_no_outcome_however_long_it_ran,
    an_outcome_begins_the_count_of_cancelled_probes_anew,
    a_sample_completes_even_if_its_result_is_certain,
    nested_call_is_part_of_its_probe,
    nested_calls_of_every_kind_are_part_of_their_probe,
    bulkheads_that_call_each_other_recover,
    calls_beside_a_pending_probe_are_not_part_of_it,
];

fn config() -> BulkheadConfig {
    BulkheadConfig::new("ledger")
        .max_concurrent_calls(100)
        .failure_threshold(1)
}

/// Returns a bulkhead with a circuit that opened, after its isolation.
async fn isolation_elapsed(t: &Harness, config: BulkheadConfig) -> Bulkhead {
    let bulkhead = t.bulkhead(config);
    t.fail(&bulkhead, 1).await;
    t.advance(30 * SECOND).await;
    bulkhead
}

fn slots(bulkhead: &Bulkhead) -> Option<u32> {
    bulkhead
        .circuit_breaker()
        .unwrap()
        .snapshot()
        .probes_remaining
}

/// Hazard P04.
async fn fifty_callers_get_three_probes(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config()).await;
    let mut probes = Vec::new();
    let mut rejected = 0;
    for _ in 0..50 {
        let (control, operation) = work();
        let mut call = Box::pin(bulkhead.execute(operation));
        match poll_once(call.as_mut()) {
            std::task::Poll::Pending => probes.push((control, call)),
            std::task::Poll::Ready(result) => {
                let error = result.unwrap_err();
                assert!(matches!(
                    error,
                    BulkheadError::CircuitOpen {
                        reason: RejectionReason::ProbeLimit,
                        retry_after: None,
                        ..
                    }
                ));
                rejected += 1;
            }
        }
    }
    assert_eq!((probes.len(), rejected), (3, 47));
    for (control, call) in probes {
        control.succeed();
        assert_eq!(call.await, Ok(1));
    }
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard P05.
async fn twenty_callers_cause_one_transition(t: Harness) {
    let bulkhead = t.bulkhead(config());
    let mut events = bulkhead.events();
    t.fail(&bulkhead, 1).await;
    t.advance(30 * SECOND).await;
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move {
                bulkhead
                    .acquire()
                    .await
                    .map(bulkman::Permit::ignore)
                    .is_ok()
            })
        })
        .collect();
    for caller in callers {
        caller.await;
    }
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    bulkhead.circuit_breaker().unwrap().close();
    let mut to = Vec::new();
    while to.last() != Some(&CircuitState::Closed) {
        let Some(CircuitEvent::Transition(transition)) = events.next().await else {
            panic!("an event is missing")
        };
        to.push(transition.to);
    }
    assert_eq!(
        to,
        [
            CircuitState::Open,
            CircuitState::HalfOpen,
            CircuitState::Closed
        ]
    );
}

/// Hazard H01, H03, H13.
async fn a_hung_probe_times_out_and_others_are_rejected(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    let mut events = bulkhead.events();
    let (hung, probe) = t.running(&bulkhead).await;
    let rejected = now_or_never(bulkhead.execute(async { Answer::Ok(1) }));
    assert!(matches!(
        rejected,
        Err(BulkheadError::CircuitOpen {
            reason: RejectionReason::ProbeLimit,
            ..
        })
    ));
    t.advance(30 * SECOND).await;
    // The probe has timed out, which is a failure.
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    let _half_open = events.next().await;
    let timed_out = events.next().await;
    assert!(
        matches!(&timed_out, Some(CircuitEvent::Transition(it)) if it.cause == TransitionCause::ProbeTimedOut),
        "{timed_out:?}"
    );
    t.advance(30 * SECOND).await;
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    // Its late outcome changes nothing.
    hung.fail();
    assert!(probe.await.is_err());
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H02.
async fn an_ignored_probe_releases_its_slot(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    let ignoring = bulkhead.classified(|_: &Answer| Outcome::Ignored);
    for _ in 0..10 {
        assert_eq!(ignoring.execute(async { Ok(1) }).await, Ok(1));
        assert_eq!(
            (bulkhead.state(), slots(&bulkhead)),
            (BulkheadState::Degraded, Some(1))
        );
    }
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H04.
async fn a_panicking_classifier_fails_the_probe(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    let classify = |_: &Answer| -> Outcome { panic!("classifier") };
    let probe = bulkhead.call().classify(classify).execute(async { Ok(1) });
    assert!(AssertUnwindSafe(probe).catch_unwind().await.is_err());
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    t.advance(30 * SECOND).await;
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H05.
async fn a_cancelled_probe_releases_its_slot(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    for _ in 0..10 {
        let (_never, probe) = t.running(&bulkhead).await;
        assert_eq!(slots(&bulkhead), Some(0));
        probe.cancel().await;
        assert_eq!(
            (bulkhead.state(), slots(&bulkhead)),
            (BulkheadState::Degraded, Some(1))
        );
    }
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// A call that took a probe slot before it has a permit would block others without being a probe.
/// Hazard H07.
async fn a_queued_call_holds_no_probe_slot(t: Harness) {
    let bulkhead = t.bulkhead(config().max_concurrent_calls(1).success_threshold(2));
    let (old, running) = t.running(&bulkhead).await;
    bulkhead.circuit_breaker().unwrap().half_open();
    let (_first, a) = t.waiting(&bulkhead).await;
    let (_second, b) = t.waiting(&bulkhead).await;
    let (third, c) = t.waiting(&bulkhead).await;
    assert_eq!(slots(&bulkhead), Some(2));
    a.cancel().await;
    b.cancel().await;
    old.succeed();
    running.await.unwrap();
    t.until(|| third.has_started()).await;
    assert_eq!(slots(&bulkhead), Some(1));
    third.succeed();
    c.await.unwrap();
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H11, H12.
async fn a_dropped_permit_releases_its_slot(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    drop(bulkhead.try_acquire().unwrap());
    assert_eq!(slots(&bulkhead), Some(1));
    // The same if a panic drops it.
    let permit = bulkhead.try_acquire().unwrap();
    let panics = async move {
        let _permit = permit;
        panic!("a bug in the caller") as ()
    };
    assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
    assert_eq!(slots(&bulkhead), Some(1));
    bulkhead.try_acquire().unwrap().succeed();
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H20, H21.
async fn a_stale_call_releases_no_slot(t: Harness) {
    let bulkhead = t.bulkhead(config().success_threshold(1));
    let (_never, cancelled) = t.running(&bulkhead).await;
    let (ends, ending) = t.running(&bulkhead).await;
    t.fail(&bulkhead, 1).await;
    t.advance(30 * SECOND).await;
    let (control, probe) = t.running(&bulkhead).await;
    cancelled.cancel().await;
    ends.fail();
    assert!(ending.await.is_err());
    assert_eq!(
        (bulkhead.state(), slots(&bulkhead)),
        (BulkheadState::Degraded, Some(0))
    );
    control.succeed();
    probe.await.unwrap();
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// All callers start on several threads when the isolation has elapsed.
/// Hazard H27.
async fn the_probe_limit_holds_when_the_isolation_elapses(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(2)).await;
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            t.spawn(async move { bulkhead.acquire().await.ok() })
        })
        .collect();
    let mut permits = Vec::new();
    for caller in callers {
        permits.extend(caller.await);
    }
    assert_eq!(permits.len(), 2);
    permits.into_iter().for_each(bulkman::Permit::succeed);
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Hazard H09.
async fn a_sample_decides_below_the_minimum_number_of_calls(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .minimum_number_of_calls(100)
        .permitted_calls_in_half_open(2);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    let circuit = bulkhead.circuit_breaker().unwrap();
    // Every half-open state starts with all slots.
    for _ in 0..3 {
        circuit.half_open();
        t.fail(&bulkhead, 2).await;
        assert_eq!(bulkhead.state(), BulkheadState::Isolated);
        t.advance(30 * SECOND).await;
        t.succeed(&bulkhead, 2).await;
        assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    }
}

/// One call per minute; the third probe closes.
/// Hazard H15.
async fn a_circuit_with_few_calls_recovers(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config()).await;
    for _ in 0..2 {
        t.succeed(&bulkhead, 1).await;
        assert_eq!(bulkhead.state(), BulkheadState::Degraded);
        t.advance(60 * SECOND).await;
    }
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

async fn a_failed_probe_rejects_queued_calls(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .success_threshold(5);
    let bulkhead = t.bulkhead(config().max_concurrent_calls(1).circuit_breaker(rules));
    bulkhead.circuit_breaker().unwrap().half_open();
    let (control, probe) = t.running(&bulkhead).await;
    let (never, queued) = t.waiting(&bulkhead).await;
    control.fail();
    assert!(probe.await.is_err());
    let rejected = queued.await.unwrap_err();
    assert!(
        matches!(
            rejected,
            BulkheadError::CircuitOpen {
                reason: RejectionReason::Open,
                ..
            }
        ),
        "{rejected:?}"
    );
    assert!(!never.has_started());
}

async fn cancel_probe(t: &Harness, bulkhead: &Bulkhead, after: Duration) {
    let (_never, probe) = t.running(bulkhead).await;
    t.advance(after).await;
    probe.cancel().await;
}

/// Fault SUR01.
async fn half_open_ends_while_callers_time_out_outside(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(2)).await;
    let mut events = bulkhead.events();
    // 30 s is the timeout of one probe.
    for _ in 0..30 {
        assert_ne!(bulkhead.state(), BulkheadState::Isolated);
        cancel_probe(&t, &bulkhead, SECOND).await;
    }
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    let _half_open = events.next().await;
    let ended = events.next().await;
    assert!(
        matches!(&ended, Some(CircuitEvent::Transition(it)) if it.cause == TransitionCause::ProbeTimedOut),
        "{ended:?}"
    );
    // Once the dependency responds, the circuit closes.
    t.advance(30 * SECOND).await;
    t.succeed(&bulkhead, 2).await;
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Fault SUR01.
async fn half_open_ends_after_a_hundred_short_cancelled_probes(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config()).await;
    for _ in 0..100 {
        assert_ne!(bulkhead.state(), BulkheadState::Isolated);
        cancel_probe(&t, &bulkhead, Duration::ZERO).await;
    }
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    // A circuit alone.
    let rules = CircuitBreakerConfig::new().probe_timeout(2 * SECOND);
    let circuit = CircuitBreaker::new("alone", rules, t.runtime()).unwrap();
    circuit.half_open();
    for _ in 0..2 {
        assert!(!circuit.is_open());
        let admission = circuit.try_acquire().unwrap();
        t.advance(SECOND).await;
        drop(admission);
    }
    assert!(circuit.is_open());
}

/// Fault SUR01.
/// Hazard H05.
async fn one_cancelled_probe_has_no_outcome_however_long_it_ran(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config()).await;
    cancel_probe(&t, &bulkhead, 30 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(
        (bulkhead.state(), slots(&bulkhead)),
        (BulkheadState::Degraded, Some(3))
    );
}

/// Fault SUR01.
async fn an_outcome_begins_the_count_of_cancelled_probes_anew(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(3)).await;
    for _ in 0..2 {
        for _ in 0..29 {
            cancel_probe(&t, &bulkhead, SECOND).await;
        }
        t.succeed(&bulkhead, 1).await;
    }
    assert_eq!(
        (bulkhead.state(), slots(&bulkhead)),
        (BulkheadState::Degraded, Some(1))
    );
}

/// Fault D13.
async fn a_sample_completes_even_if_its_result_is_certain(t: Harness) {
    let rules = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .permitted_calls_in_half_open(10);
    let bulkhead = t.bulkhead(config().circuit_breaker(rules));
    bulkhead.circuit_breaker().unwrap().half_open();
    t.fail(&bulkhead, 9).await;
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    t.succeed(&bulkhead, 1).await;
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

/// Fault F02.
async fn nested_call_is_part_of_its_probe(t: Harness) {
    for (threshold, nested_calls) in [(1, 1), (3, 1), (3, 2), (3, 3), (2, 5)] {
        let bulkhead = isolation_elapsed(&t, config().success_threshold(threshold)).await;
        for probe in 1..=threshold {
            let nested = async || {
                for _ in 0..nested_calls {
                    bulkhead
                        .execute(async { Answer::Ok(1) })
                        .await
                        .map_err(|_| "rejected")?;
                }
                Answer::Ok(1)
            };
            assert_eq!(bulkhead.execute(async { nested().await }).await, Ok(1));
            assert_eq!(
                bulkhead.state() == BulkheadState::Healthy,
                probe == threshold
            );
        }
    }
    // The outer call decides, whatever becomes of the nested one.
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    let recovers = async {
        assert!(
            bulkhead
                .execute(async { Answer::Err("down") })
                .await
                .is_err()
        );
        Answer::Ok(1)
    };
    assert_eq!(bulkhead.execute(recovers).await, Ok(1));
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);
}

/// Fault F02.
async fn nested_calls_of_every_kind_are_part_of_their_probe(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(3)).await;
    let nested = async {
        bulkhead.try_acquire().unwrap().succeed();
        bulkhead.acquire().await.unwrap().fail();
        assert_eq!(bulkhead.execute_sync(|| Answer::Ok(1)), Ok(1));
        assert_eq!(bulkhead.execute_blocking(|| Answer::Ok(1)).await, Ok(1));
        assert_eq!(slots(&bulkhead), Some(2));
        Answer::Ok(1)
    };
    assert_eq!(bulkhead.execute(nested).await, Ok(1));
    let nested = || {
        bulkhead
            .execute_sync(|| Answer::Ok(1))
            .map_err(|_| "rejected")
    };
    assert_eq!(bulkhead.execute_sync(nested), Ok(1));
    let inner = bulkhead.clone();
    let nested = move || inner.execute_sync(|| Answer::Ok(1)).map_err(|_| "rejected");
    assert_eq!(bulkhead.execute_blocking(nested).await, Ok(1));
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);

    let rules = CircuitBreakerConfig::new().success_threshold(1);
    let circuit = CircuitBreaker::new("alone", rules, t.runtime()).unwrap();
    circuit.half_open();
    let nested = async {
        circuit
            .execute(async { Answer::Ok(1) })
            .await
            .map_err(|_| "rejected")
    };
    assert_eq!(circuit.execute(nested).await, Ok(1));
    assert!(circuit.is_closed());
    circuit.half_open();
    let nested = || {
        circuit
            .execute_sync(|| Answer::Ok(1))
            .map_err(|_| "rejected")
    };
    assert_eq!(circuit.execute_sync(nested), Ok(1));
    assert!(circuit.is_closed());
}

/// Fault F02.
async fn bulkheads_that_call_each_other_recover(t: Harness) {
    let left = isolation_elapsed(&t, config().success_threshold(1)).await;
    let right = isolation_elapsed(&t, config().success_threshold(1)).await;
    let back = async {
        left.execute(async { Answer::Ok(1) })
            .await
            .map_err(|_| "rejected")
    };
    let there = async { right.execute(back).await.map_err(|_| "rejected") };
    assert_eq!(left.execute(there).await, Ok(1));
    assert_eq!(left.state(), BulkheadState::Healthy);
    assert_eq!(right.state(), BulkheadState::Healthy);
}

/// Between its polls, a probe encloses nothing.
/// Fault F02.
async fn calls_beside_a_pending_probe_are_not_part_of_it(t: Harness) {
    let bulkhead = isolation_elapsed(&t, config().success_threshold(1)).await;
    let (control, operation) = work();
    let mut probe = Box::pin(bulkhead.execute(operation));
    assert!(poll_once(probe.as_mut()).is_pending());
    let beside = now_or_never(bulkhead.execute(async { Answer::Ok(1) }));
    assert!(
        matches!(beside, Err(BulkheadError::CircuitOpen { .. })),
        "{beside:?}"
    );
    // A panic ends it as well.
    let panicking = bulkhead.execute(async { panic!("a bug") as Answer });
    control.succeed();
    assert_eq!(probe.await, Ok(1));
    bulkhead.circuit_breaker().unwrap().half_open();
    assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
    bulkhead.circuit_breaker().unwrap().half_open();
    let held = bulkhead.try_acquire().unwrap();
    let beside = now_or_never(bulkhead.execute(async { Answer::Ok(1) }));
    assert!(
        matches!(beside, Err(BulkheadError::CircuitOpen { .. })),
        "{beside:?}"
    );
    held.succeed();
}
