//! Calls that take several permits.

use std::future::pending;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bulkman::adaptive::{AdaptiveLimit, Enforcement};
use bulkman::bulkhead::Fairness;
use bulkman::future::Acquire;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Priority};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, Outcome, blocking_work, work};

on_every_runtime![
    every_kind_of_call_holds_its_weight,
    weight_above_the_maximum_is_rejected_by_every_kind_of_call,
    weight_of_zero_is_one,
    heavy_call_runs_alone_under_a_smaller_limit,
    heavy_call_keeps_its_permits_when_the_limit_grows,
    light_calls_never_starve_a_heavy_one,
    light_calls_overtake_a_heavy_one_as_often_as_set,
    overtaking_crosses_no_priority,
    overtaking_applies_to_waiting_calls_at_once,
    a_call_of_the_same_key_overtakes_if_others_are_too_heavy,
    cancelled_heavy_call_leaves_its_permits_to_the_next,
    timed_out_heavy_call_leaves_its_permits_to_the_next,
    shrinking_below_a_waiting_weight_neither_rejects_nor_blocks,
    queue_size_counts_calls_and_queue_weight_permits,
    higher_priority_takes_permits_that_a_heavy_call_collects,
    higher_priority_need_not_wait_for_a_heavy_call,
    opening_rejects_a_heavy_call_that_collects_permits,
    probes_hold_their_weight,
    shutdown_waits_for_all_permits,
    panic_cancellation_and_timeout_release_every_permit,
    timed_out_blocking_work_keeps_its_permits,
    observe_mode_runs_heavy_calls_without_permits,
];

const SECOND: Duration = Duration::from_secs(1);

fn permits(count: usize) -> BulkheadConfig {
    BulkheadConfig::new("weights").max_concurrent_calls(count)
}

fn in_use(bulkhead: &Bulkhead) -> usize {
    bulkhead.stats().permits_in_use
}

async fn every_kind_of_call_holds_its_weight(t: Harness) {
    let bulkhead = t.bulkhead(permits(5));
    let held = || in_use(&bulkhead);
    let call = || bulkhead.call().weight(3);
    assert_eq!(call().execute(async { Ok::<_, ()>(held()) }).await, Ok(3));
    assert_eq!(call().execute_sync(|| Ok::<_, ()>(held())), Ok(3));
    let inside = bulkhead.clone();
    let blocking = call().execute_blocking(move || Ok::<_, ()>(in_use(&inside)));
    assert_eq!(blocking.await, Ok(3));
    let inside = bulkhead.clone();
    let owned = call().execute_owned(async move { Ok::<_, ()>(in_use(&inside)) });
    assert_eq!(owned.await, Ok(3));
    let permit = call().acquire().await.unwrap();
    assert_eq!(held(), 3);
    // The other two are available, and no third.
    assert!(matches!(
        call().try_acquire(),
        Err(BulkheadError::Full { .. })
    ));
    let other = bulkhead.call().weight(2).try_acquire().unwrap();
    assert_eq!(held(), 5);
    other.fail();
    permit.succeed();
    let report = call().execute_with_report(async { Answer::Ok(1) }).await;
    assert_eq!((report.permits, held()), (3, 0));
    let timed = call()
        .timeout(SECOND)
        .execute(async { Ok::<_, ()>(held()) });
    assert_eq!(timed.await, Ok(3));
    let stats = bulkhead.stats();
    assert_eq!((stats.active, stats.started), (0, 8));
}

/// Hazard K1, K2.
async fn weight_above_the_maximum_is_rejected_by_every_kind_of_call(t: Harness) {
    fn check<E: std::fmt::Debug>(bulkhead: &Bulkhead, error: BulkheadError<E>, count: u64) {
        let BulkheadError::WeightTooLarge { weight, max, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((weight, max), (7_000_000, 5));
        assert!(error.is_rejection());
        assert_eq!((error.http_status(), error.retry_after()), (413, None));
        let stats = bulkhead.stats();
        assert_eq!(stats.rejected.weight_too_large, count);
        assert_eq!((stats.rejected.total(), stats.started), (count, 0));
        assert_eq!(
            (stats.waiting, stats.peak_waiting, stats.permits_in_use),
            (0, 0, 0)
        );
    }
    let bulkhead = t.bulkhead(permits(5));
    let call = || bulkhead.call().weight(7_000_000);
    let report = call().execute_with_report(async { Answer::Ok(1) }).await;
    assert_eq!(report.permits, 0);
    check(&bulkhead, report.result.unwrap_err(), 1);
    check(
        &bulkhead,
        call().execute_sync(|| Answer::Ok(1)).unwrap_err(),
        2,
    );
    check(
        &bulkhead,
        call().execute_blocking(|| Answer::Ok(1)).await.unwrap_err(),
        3,
    );
    check(
        &bulkhead,
        call()
            .execute_owned(async { Answer::Ok(1) })
            .await
            .unwrap_err(),
        4,
    );
    check(&bulkhead, call().acquire().await.unwrap_err(), 5);
    check(&bulkhead, call().try_acquire().unwrap_err(), 6);
    // The configured maximum counts, also while nothing is available.
    let _held = bulkhead.call().weight(5).try_acquire();
    assert!(matches!(
        bulkhead.call().weight(6).try_acquire(),
        Err(BulkheadError::WeightTooLarge {
            weight: 6,
            max: 5,
            ..
        })
    ));
    // A retry can't succeed, even once the circuit has closed.
    bulkhead.circuit_breaker().unwrap().force_open();
    assert_eq!(
        bulkhead
            .call()
            .weight(6)
            .try_acquire()
            .unwrap_err()
            .http_status(),
        413
    );
    bulkhead.circuit_breaker().unwrap().close();
    bulkhead.reconfigure(permits(6)).unwrap();
    let mut waiting = Box::pin(bulkhead.call().weight(6).acquire());
    assert!(poll_once(waiting.as_mut()).is_pending());
}

async fn weight_of_zero_is_one(t: Harness) {
    let bulkhead = t.bulkhead(permits(1));
    let permit = bulkhead.call().weight(0).try_acquire().unwrap();
    assert_eq!(in_use(&bulkhead), 1);
    permit.succeed();
    assert_eq!(in_use(&bulkhead), 0);
}

/// Hazard K2, K25.
async fn heavy_call_runs_alone_under_a_smaller_limit(t: Harness) {
    let adaptive = AdaptiveLimit::new().initial(4);
    let bulkhead = t.bulkhead(permits(20).adaptive_limit(adaptive));
    let light = bulkhead.try_acquire().unwrap();
    let (control, operation) = work();
    let mut heavy = Box::pin(bulkhead.call().weight(6).execute_with_report(operation));
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert!(!control.has_started(), "another call holds a permit");
    light.ignore();
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert!(control.has_started());
    assert_eq!((in_use(&bulkhead), bulkhead.limit()), (4, 4));
    assert!(bulkhead.try_acquire().is_err(), "it runs alone");
    control.succeed();
    let report = heavy.await;
    assert_eq!((report.result, report.permits), (Ok(1), 4));
    assert_eq!(in_use(&bulkhead), 0);
}

async fn heavy_call_keeps_its_permits_when_the_limit_grows(t: Harness) {
    let adaptive = AdaptiveLimit::new().initial(4);
    let bulkhead = t.bulkhead(permits(20).adaptive_limit(adaptive));
    let heavy = bulkhead.call().weight(6).try_acquire().unwrap();
    assert_eq!(in_use(&bulkhead), 4);
    bulkhead.reconfigure(permits(20)).unwrap();
    assert_eq!((in_use(&bulkhead), bulkhead.limit()), (4, 20));
    let rest = bulkhead.call().weight(16).try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_err());
    heavy.succeed();
    rest.succeed();
    assert_eq!(in_use(&bulkhead), 0);
}

/// Hazard K3.
async fn light_calls_never_starve_a_heavy_one(t: Harness) {
    let bulkhead = t.bulkhead(permits(3));
    let mut running: Vec<_> = (0..3).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let mut heavy = Box::pin(bulkhead.call().weight(3).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    let mut light: Vec<_> = (0..3).map(|_| Box::pin(bulkhead.acquire())).collect();
    while let Some(permit) = running.pop() {
        // A steady stream of light calls: none of them passes.
        assert!(matches!(
            bulkhead.try_acquire(),
            Err(BulkheadError::Full { .. })
        ));
        for call in &mut light {
            assert!(poll_once(call.as_mut()).is_pending());
        }
        permit.succeed();
    }
    let heavy = now_or_never(heavy).unwrap();
    assert!(
        light
            .iter_mut()
            .all(|call| poll_once(call.as_mut()).is_pending())
    );
    heavy.succeed();
    for call in light {
        now_or_never(call).unwrap().succeed();
    }
}

/// Hazard K4.
async fn cancelled_heavy_call_leaves_its_permits_to_the_next(t: Harness) {
    let bulkhead = t.bulkhead(permits(2));
    let [first, second] = [(); 2].map(|()| bulkhead.try_acquire().unwrap());
    let mut heavy = Box::pin(bulkhead.call().weight(2).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    first.succeed();
    assert!(
        poll_once(next.as_mut()).is_pending(),
        "the heavy call collects"
    );
    drop(heavy);
    let next = now_or_never(next).unwrap();
    assert_eq!(
        (in_use(&bulkhead), bulkhead.stats().cancelled_in_queue),
        (2, 1)
    );
    next.succeed();
    second.succeed();
    // Granted, and dropped before it was polled: all permits return.
    let held = bulkhead.try_acquire().unwrap();
    let mut heavy = Box::pin(bulkhead.call().weight(2).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    held.succeed();
    assert_eq!(in_use(&bulkhead), 2);
    drop(heavy);
    assert_eq!(in_use(&bulkhead), 0);
}

/// Hazard K4.
async fn timed_out_heavy_call_leaves_its_permits_to_the_next(t: Harness) {
    let bulkhead = t.bulkhead(permits(2));
    let [first, _second] = [(); 2].map(|()| bulkhead.try_acquire().unwrap());
    let mut heavy = Box::pin(bulkhead.call().weight(2).max_wait(SECOND).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    let mut next = Box::pin(bulkhead.acquire());
    assert!(poll_once(next.as_mut()).is_pending());
    first.succeed();
    t.advance(SECOND).await;
    assert!(matches!(heavy.await, Err(BulkheadError::Timeout { .. })));
    now_or_never(next).unwrap().succeed();
}

/// Hazard K5.
async fn shrinking_below_a_waiting_weight_neither_rejects_nor_blocks(t: Harness) {
    let bulkhead = t.bulkhead(permits(4));
    let running: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let (control, operation) = work();
    let mut heavy = Box::pin(bulkhead.call().weight(4).execute_with_report(operation));
    assert!(poll_once(heavy.as_mut()).is_pending());
    bulkhead.reconfigure(permits(2)).unwrap();
    for permit in running {
        assert!(poll_once(heavy.as_mut()).is_pending());
        assert!(!control.has_started());
        permit.succeed();
    }
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert!(control.has_started());
    assert_eq!(in_use(&bulkhead), 2);
    // New calls of this weight can never run.
    assert!(matches!(
        bulkhead.call().weight(4).try_acquire(),
        Err(BulkheadError::WeightTooLarge { .. })
    ));
    control.succeed();
    assert_eq!(heavy.await.permits, 2);
    assert_eq!(bulkhead.stats().rejected.total(), 1);
}

/// Hazard K3.
async fn light_calls_overtake_a_heavy_one_as_often_as_set(t: Harness) {
    let bulkhead = t.bulkhead(permits(4).overtaking(2));
    let held = bulkhead.call().weight(3).try_acquire().unwrap();
    let mut heavy = waiting(&bulkhead, 4, Priority::Normal).unwrap();
    let first = bulkhead.acquire().await.unwrap();
    let mut second = waiting(&bulkhead, 1, Priority::Normal).unwrap();
    let mut third = waiting(&bulkhead, 1, Priority::Normal).unwrap();
    first.succeed();
    let Poll::Ready(Ok(second)) = poll_once(second.as_mut()) else {
        panic!("one has overtaken, of two that may")
    };
    second.succeed();
    assert!(poll_once(third.as_mut()).is_pending(), "two have overtaken");
    assert_eq!(in_use(&bulkhead), 3);
    assert!(
        bulkhead.try_acquire().is_err(),
        "only waiting calls may overtake"
    );
    held.succeed();
    let Poll::Ready(Ok(all)) = poll_once(heavy.as_mut()) else {
        panic!("the heavy call is next")
    };
    assert_eq!(in_use(&bulkhead), 4);
    // Each heavy call is overtaken as often.
    let mut other = waiting(&bulkhead, 4, Priority::Normal).unwrap();
    all.succeed();
    let Poll::Ready(Ok(third)) = poll_once(third.as_mut()) else {
        panic!("the third is next")
    };
    let overtaker = bulkhead.acquire().await.unwrap();
    assert!(poll_once(other.as_mut()).is_pending());
    drop((third, overtaker));
    assert!(poll_once(other.as_mut()).is_ready());
}

/// Hazard K20.
async fn overtaking_crosses_no_priority(t: Harness) {
    let bulkhead = t.bulkhead(permits(4).overtaking(9));
    let _held = bulkhead.call().weight(3).try_acquire().unwrap();
    let mut heavy = waiting(&bulkhead, 2, Priority::High).unwrap();
    assert!(waiting(&bulkhead, 1, Priority::Normal).is_some());
    bulkhead
        .call()
        .priority(Priority::High)
        .acquire()
        .await
        .unwrap()
        .succeed();
    assert!(poll_once(heavy.as_mut()).is_pending());
}

async fn overtaking_applies_to_waiting_calls_at_once(t: Harness) {
    let bulkhead = t.bulkhead(permits(4));
    let _held = bulkhead.call().weight(3).try_acquire().unwrap();
    let _heavy = waiting(&bulkhead, 2, Priority::Normal).unwrap();
    let mut light = waiting(&bulkhead, 1, Priority::Normal).unwrap();
    bulkhead.reconfigure(permits(4).overtaking(1)).unwrap();
    assert!(poll_once(light.as_mut()).is_ready());
    assert_eq!(bulkhead.config().resolve().overtaking, 1);
    bulkhead.reconfigure(permits(4)).unwrap();
    assert!(waiting(&bulkhead, 1, Priority::Normal).is_some());
}

async fn a_call_of_the_same_key_overtakes_if_others_are_too_heavy(t: Harness) {
    let bulkhead = t.bulkhead(permits(4).overtaking(1).fairness(Fairness::new()));
    let held = bulkhead.call().key("a").weight(3).try_acquire().unwrap();
    let key = |key: &str, weight| bulkhead.call().key(key).weight(weight).acquire();
    let (mut heavy, mut other) = (Box::pin(key("b", 2)), Box::pin(key("c", 2)));
    assert!(poll_once(heavy.as_mut()).is_pending());
    assert!(poll_once(other.as_mut()).is_pending(), "too heavy as well");
    key("b", 1).await.unwrap().succeed();
    assert!(
        poll_once(Box::pin(key("c", 1)).as_mut()).is_pending(),
        "one has overtaken"
    );
    held.succeed();
    assert!(poll_once(heavy.as_mut()).is_ready() && poll_once(other.as_mut()).is_ready());
}

/// Returns a call that waits.
fn waiting(bulkhead: &Bulkhead, weight: u32, priority: Priority) -> Option<Pin<Box<Acquire>>> {
    let mut call = Box::pin(bulkhead.call().weight(weight).priority(priority).acquire());
    poll_once(call.as_mut()).is_pending().then_some(call)
}

/// Hazard K7.
async fn queue_size_counts_calls_and_queue_weight_permits(t: Harness) {
    let config = permits(4).max_queue_size(3).max_queue_weight(8);
    let bulkhead = t.bulkhead(config.clone());
    let held = bulkhead.call().weight(4).try_acquire().unwrap();
    let wait = |weight| {
        let mut call = Box::pin(bulkhead.call().weight(weight).acquire());
        poll_once(call.as_mut()).is_pending().then_some(call)
    };
    let (first, second) = (wait(4).unwrap(), wait(3).unwrap());
    assert!(wait(2).is_none(), "9 of 8 permits");
    let third = wait(1).unwrap();
    assert!(wait(1).is_none(), "4 of 3 calls");
    drop(first);
    assert!(
        wait(4).is_some(),
        "what a call asked for is free once it has left"
    );
    assert_eq!(
        (bulkhead.stats().waiting, bulkhead.stats().rejected.full),
        (2, 2)
    );
    // A lower bound rejects new calls only.
    bulkhead.reconfigure(config.max_queue_weight(2)).unwrap();
    assert!(wait(1).is_none());
    assert_eq!(bulkhead.stats().waiting, 2);
    held.succeed();
    now_or_never(second).unwrap().succeed();
    now_or_never(third).unwrap().succeed();
}

async fn higher_priority_takes_permits_that_a_heavy_call_collects(t: Harness) {
    let bulkhead = t.bulkhead(permits(2));
    let [first, second] = [(); 2].map(|()| bulkhead.try_acquire().unwrap());
    let mut heavy = Box::pin(bulkhead.call().weight(2).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    first.succeed();
    let mut urgent = Box::pin(bulkhead.call().priority(Priority::High).acquire());
    // It joins the queue, is next there, and the permit that was collected suffices.
    assert!(poll_once(urgent.as_mut()).is_pending());
    let urgent = now_or_never(urgent).unwrap();
    assert!(poll_once(heavy.as_mut()).is_pending());
    second.succeed();
    urgent.succeed();
    now_or_never(heavy).unwrap().succeed();
}

/// Hazard K26.
async fn higher_priority_need_not_wait_for_a_heavy_call(t: Harness) {
    let bulkhead = t.bulkhead(permits(4).max_queue_size(1));
    let running = bulkhead.call().weight(2).try_acquire().unwrap();
    let mut heavy = Box::pin(bulkhead.call().weight(4).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    let urgent = || bulkhead.call().priority(Priority::High);
    let answer = || async { Answer::Ok(1) };
    for weight in [1, 2] {
        let call = || urgent().weight(weight);
        call().try_acquire().unwrap().succeed();
        let at_once = call().max_wait(Duration::ZERO);
        assert_eq!(now_or_never(at_once.execute(answer())), Ok(1));
        let at_once = call().max_wait(Duration::ZERO);
        assert_eq!(at_once.execute_sync(|| Answer::Ok(1)), Ok(1));
        // The queue is full.
        assert_eq!(now_or_never(call().execute(answer())), Ok(1));
        assert_eq!(call().execute_sync(|| Answer::Ok(1)), Ok(1));
    }
    assert_eq!(bulkhead.stats().rejected.total(), 0);
    for rejected in [urgent().weight(3), bulkhead.call()] {
        let rejected = rejected.try_acquire();
        assert!(matches!(rejected, Err(BulkheadError::Full { .. })));
    }
    running.succeed();
    now_or_never(heavy).unwrap().succeed();
    assert_eq!(in_use(&bulkhead), 0);
}

/// Hazard K4.
async fn opening_rejects_a_heavy_call_that_collects_permits(t: Harness) {
    let bulkhead = t.bulkhead(permits(2));
    let [first, second] = [(); 2].map(|()| bulkhead.try_acquire().unwrap());
    let mut heavy = Box::pin(bulkhead.call().weight(2).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    first.succeed();
    let circuit = bulkhead.circuit_breaker().unwrap();
    circuit.open();
    assert!(matches!(
        now_or_never(heavy),
        Err(BulkheadError::CircuitOpen { .. })
    ));
    circuit.close();
    let third = bulkhead.try_acquire().unwrap();
    assert_eq!(in_use(&bulkhead), 2);
    second.succeed();
    third.succeed();
    assert_eq!(in_use(&bulkhead), 0);
}

async fn probes_hold_their_weight(t: Harness) {
    let bulkhead = t.bulkhead(permits(5).success_threshold(1));
    bulkhead.circuit_breaker().unwrap().half_open();
    let probe = bulkhead.call().weight(4).try_acquire().unwrap();
    assert_eq!(in_use(&bulkhead), 4);
    let second = bulkhead.call().weight(1).try_acquire().unwrap_err();
    assert!(matches!(second, BulkheadError::CircuitOpen { .. }));
    assert_eq!(in_use(&bulkhead), 4);
    probe.succeed();
    assert_eq!(in_use(&bulkhead), 0);
    assert!(bulkhead.is_healthy());
}

async fn shutdown_waits_for_all_permits(t: Harness) {
    let bulkhead = t.bulkhead(permits(4));
    let heavy = bulkhead.call().weight(3).try_acquire().unwrap();
    let light = bulkhead.try_acquire().unwrap();
    let mut waiting = Box::pin(bulkhead.call().weight(2).acquire());
    assert!(poll_once(waiting.as_mut()).is_pending());
    bulkhead.shutdown();
    assert!(matches!(
        now_or_never(waiting),
        Err(BulkheadError::Shutdown { .. })
    ));
    let mut drained = Box::pin(bulkhead.drained());
    light.succeed();
    assert!(poll_once(drained.as_mut()).is_pending());
    heavy.succeed();
    drained.await;
    assert_eq!(in_use(&bulkhead), 0);
}

async fn panic_cancellation_and_timeout_release_every_permit(t: Harness) {
    let bulkhead = t.bulkhead(permits(4));
    let task = {
        let bulkhead = bulkhead.clone();
        t.spawn(async move {
            let call = bulkhead.call().weight(3);
            let panics = std::panic::AssertUnwindSafe(call.execute(async {
                if true {
                    panic!("corrupt")
                } else {
                    Answer::Ok(1)
                }
            }));
            futures_lite::FutureExt::catch_unwind(panics).await.is_err()
        })
    };
    assert!(task.await);
    assert_eq!((in_use(&bulkhead), bulkhead.stats().panicked), (0, 1));

    let mut cancelled = Box::pin(bulkhead.call().weight(3).execute(pending::<Answer>()));
    assert!(poll_once(cancelled.as_mut()).is_pending());
    assert_eq!(in_use(&bulkhead), 3);
    drop(cancelled);
    assert_eq!((in_use(&bulkhead), bulkhead.stats().cancelled), (0, 1));

    let call = bulkhead.call().weight(3).run_timeout(SECOND);
    let mut late = Box::pin(call.execute(pending::<Answer>()));
    assert!(poll_once(late.as_mut()).is_pending());
    t.advance(SECOND).await;
    assert!(matches!(late.await, Err(BulkheadError::Timeout { .. })));
    assert_eq!(
        (in_use(&bulkhead), bulkhead.stats().timed_out_running),
        (0, 1)
    );

    drop(bulkhead.call().weight(4).try_acquire().unwrap());
    assert_eq!((in_use(&bulkhead), bulkhead.stats().cancelled), (0, 2));
}

async fn timed_out_blocking_work_keeps_its_permits(t: Harness) {
    let bulkhead = t.bulkhead(permits(4));
    let (control, operation) = blocking_work();
    let call = bulkhead.call().weight(3).timeout(SECOND);
    let mut call = Box::pin(call.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    t.advance(SECOND).await;
    let late: Outcome = call.await;
    assert!(matches!(late, Err(BulkheadError::Timeout { .. })));
    assert_eq!(in_use(&bulkhead), 3);
    control.succeed();
    t.until(|| in_use(&bulkhead) == 0).await;
    assert_eq!(bulkhead.stats().failed, 1);
}

async fn observe_mode_runs_heavy_calls_without_permits(t: Harness) {
    let bulkhead = t.bulkhead(permits(4).enforcement(Enforcement::Observe));
    let held = bulkhead.call().weight(3).try_acquire().unwrap();
    let report = bulkhead
        .call()
        .weight(2)
        .execute_with_report(async { Answer::Ok(1) })
        .await;
    assert_eq!((report.result, report.permits), (Ok(1), 0));
    let too_heavy = bulkhead
        .call()
        .weight(5)
        .execute(async { Answer::Ok(1) })
        .await;
    assert_eq!(too_heavy, Ok(1));
    let stats = bulkhead.stats();
    assert_eq!((stats.rejected.total(), stats.permits_in_use), (0, 3));
    held.succeed();
    assert_eq!((in_use(&bulkhead), bulkhead.stats().active), (0, 0));
}
