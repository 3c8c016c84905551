//! Calls that ask for several permits or have a key, where they meet other features.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement};
use bulkman_core::bulkhead::Fairness;
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig};

const SECOND: Duration = Duration::from_secs(1);

fn config(permits: usize) -> BulkheadConfig {
    BulkheadConfig::new("test")
        .max_concurrent_calls(permits)
        .fairness(Fairness::new())
}

fn bulkhead(config: BulkheadConfig) -> (Bulkhead, ManualRuntime) {
    let runtime = ManualRuntime::new();
    (Bulkhead::new(config, runtime.clone()).unwrap(), runtime)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn start<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll(&mut future).is_pending());
    future
}

/// Asserts that no call holds a permit and no key holds or waits for one.
#[track_caller]
fn assert_idle(bulkhead: &Bulkhead) {
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.active, stats.waiting, stats.permits_in_use),
        (0, 0, 0)
    );
    assert_eq!(bulkhead.snapshot().keys, []);
    let permits = u32::try_from(stats.max_concurrent_calls).unwrap();
    let all = bulkhead.call().key("all").weight(permits).try_acquire();
    all.expect("every permit is available").succeed();
}

/// Returns a heavy call with a key that was granted its permits and is not polled.
fn uncollected(bulkhead: &Bulkhead) -> Pin<Box<impl Future<Output = Result<i32, Error>> + '_>> {
    let holder = bulkhead.call().key("holder").weight(3).try_acquire();
    let call = bulkhead.call().key("idle").weight(3).timeout(SECOND);
    let idle = start(call.execute(async { Ok(1) }));
    holder.unwrap().succeed();
    let stats = bulkhead.stats();
    assert_eq!((stats.waiting, stats.permits_in_use), (0, 3));
    idle
}

type Error = BulkheadError<&'static str>;

/// Fault F04.
#[test]
fn uncollected_weight_goes_to_a_waiter_at_the_deadline() {
    let (bulkhead, runtime) = bulkhead(config(4));
    let mut idle = uncollected(&bulkhead);
    let mut waiting = start(bulkhead.call().key("b").weight(4).acquire());
    runtime.advance(SECOND);
    let Poll::Ready(granted) = poll(&mut waiting) else {
        panic!("it has all permits")
    };
    assert_eq!(bulkhead.stats().permits_in_use, 4);
    let Poll::Ready(Err(error)) = poll(&mut idle) else {
        panic!("it was taken back")
    };
    assert!(error.is_rejection());
    granted.unwrap().succeed();
    assert_idle(&bulkhead);
}

/// Fault F04.
#[test]
fn overdue_weight_goes_to_a_new_call_as_a_whole() {
    let takers: [fn(&Bulkhead) -> bool; 4] = [
        |bulkhead| bulkhead.call().key("b").weight(4).try_acquire().is_ok(),
        |bulkhead| {
            bulkhead.call().key("b").try_acquire().is_ok()
                && bulkhead.call().weight(3).try_acquire().is_ok()
        },
        // The calls of the key that was granted the permits may have them, too.
        |bulkhead| bulkhead.call().key("idle").weight(4).try_acquire().is_ok(),
        |bulkhead| (0..4).all(|_| bulkhead.try_acquire().map(drop).is_ok()),
    ];
    for takes in takers {
        for max in [None, Some(4)] {
            let fairness = Fairness::new().max_per_key(max);
            let (bulkhead, runtime) = bulkhead(config(4).fairness(fairness));
            let mut idle = uncollected(&bulkhead);
            runtime.advance(2 * SECOND);
            assert!(takes(&bulkhead));
            assert!(poll(&mut idle).is_ready());
            assert_idle(&bulkhead);
        }
    }
    // Without fair shares, the new calls are like most calls.
    let (bulkhead, runtime) = bulkhead(config(4).fairness(None));
    let mut idle = uncollected(&bulkhead);
    runtime.advance(2 * SECOND);
    let permits: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    assert!(bulkhead.try_acquire().is_err());
    drop(permits);
    assert!(matches!(poll(&mut idle), Poll::Ready(Err(_))));
    assert_idle(&bulkhead);
}

/// Fault F04.
#[test]
fn overdue_weight_does_not_prevent_draining() {
    for plain in [true, false] {
        let (bulkhead, runtime) = bulkhead(config(4));
        let _idle = uncollected(&bulkhead);
        if plain {
            bulkhead.reconfigure(config(4).fairness(None)).unwrap();
        }
        bulkhead.shutdown();
        let mut drained = start(bulkhead.drained());
        runtime.advance(SECOND);
        assert!(poll(&mut drained).is_ready());
    }
}

#[test]
fn listed_heavy_call_leaves_list_permits_and_key() {
    let (bulkhead, runtime) = bulkhead(config(4).track_running_calls(true));
    let label = bulkhead.label("export");
    let call = || bulkhead.call().key("a").weight(3).label(label);
    let forever = pending::<Result<(), ()>>;
    let assert_listed = || {
        let oldest = bulkhead.snapshot().oldest;
        assert_eq!(oldest.len(), 1);
        assert_eq!(oldest[0].label.as_deref(), Some("export"));
        assert_eq!(bulkhead.stats().permits_in_use, 3);
    };
    let assert_left = || {
        assert_eq!(bulkhead.snapshot().oldest, []);
        assert_idle(&bulkhead);
    };
    let mut dropped = start(call().execute(forever()));
    assert!(poll(&mut dropped).is_pending());
    assert_listed();
    drop(dropped);
    assert_left();
    let mut late = start(call().run_timeout(SECOND).execute(forever()));
    assert_listed();
    runtime.advance(SECOND);
    assert!(poll(&mut late).is_ready());
    assert_left();
    let permit = call().try_acquire().unwrap();
    assert_listed();
    permit.fail();
    assert_left();
    let blocking = call().execute_blocking(|| Ok::<_, ()>(1));
    assert_eq!(runtime.block_on(blocking), Ok(1));
    assert_left();
}

#[test]
fn heavy_call_in_flight_that_hangs_is_counted_once() {
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(SECOND)
        .hanging_call_threshold(2)
        .count_calls_in_flight(true);
    let (bulkhead, runtime) = bulkhead(config(8).circuit_breaker(rules));
    let hang = || {
        start(
            bulkhead
                .call()
                .key("a")
                .weight(4)
                .execute(pending::<Result<(), ()>>()),
        )
    };
    let first = hang();
    runtime.advance(2 * SECOND);
    assert!(bulkhead.call().key("b").try_acquire().is_ok());
    let second = hang();
    runtime.advance(2 * SECOND);
    let rejected = bulkhead.call().key("b").try_acquire().unwrap_err();
    assert!(matches!(rejected, BulkheadError::CircuitOpen { .. }));
    drop((first, second));
    let stats = bulkhead.stats();
    assert_eq!((stats.permits_in_use, stats.active), (0, 0));
    assert_eq!(bulkhead.snapshot().keys, []);
}

#[test]
fn observed_heavy_call_counts_its_weight() {
    let limit = AdaptiveLimit::new().initial(4);
    let observed = [
        // The calls that find no permit of the limit run without one.
        config(10)
            .adaptive_limit(limit.clone())
            .enforcement(Enforcement::Observe),
        // The limit is only estimated: every call has its permits of the maximum.
        config(10).adaptive_limit(limit.enforcement(Enforcement::Observe)),
    ];
    for config in observed {
        let (bulkhead, _runtime) = bulkhead(config);
        let would_wait = || bulkhead.snapshot().limit.unwrap().would_wait;
        let heavy = || bulkhead.call().key("a").weight(3).try_acquire().unwrap();
        let first = heavy();
        let light = bulkhead.try_acquire().unwrap();
        assert_eq!(would_wait(), 0);
        let second = heavy();
        assert_eq!(would_wait(), 1);
        first.succeed();
        light.succeed();
        second.succeed();
        assert_eq!(bulkhead.stats().permits_in_use, 0);
        assert_eq!(bulkhead.snapshot().keys, []);
        // All permits of the limit are back, and none too many.
        let again = (heavy(), bulkhead.try_acquire().unwrap());
        assert_eq!(would_wait(), 1);
        let third = bulkhead.try_acquire().unwrap();
        assert_eq!(would_wait(), 2);
        drop((again, third));
    }
}

#[test]
fn adaptive_limit_follows_heavy_calls() {
    let limit = AdaptiveLimit::new().initial(4).shrink_on_failure(true);
    let (bulkhead, runtime) = bulkhead(config(10).adaptive_limit(limit));
    let report = bulkhead
        .call()
        .key("a")
        .weight(6)
        .execute_with_report(async { Ok::<_, ()>(1) });
    let report = runtime.block_on(report);
    // The weight is above the limit: it ran alone.
    assert_eq!((report.result, report.permits), (Ok(1), 4));
    for _ in 0..200 {
        let call = bulkhead.call().key("a").weight(2);
        let permit = call.try_acquire().unwrap();
        runtime.advance(Duration::from_millis(20));
        permit.succeed();
    }
    assert!(bulkhead.snapshot().limit.unwrap().latency.is_some());
    assert_idle(&bulkhead);
}

#[test]
fn report_has_the_permits_of_each_call() {
    let (bulkhead, runtime) = bulkhead(config(4));
    let report = |weight| {
        let call = bulkhead.call().key("a").weight(weight);
        runtime.block_on(call.execute_with_report(async { Err::<(), _>("down") }))
    };
    assert_eq!([1, 3, 4].map(|weight| report(weight).permits), [1, 3, 4]);
    assert_eq!(report(5).permits, 0);
    let busy = bulkhead.try_acquire().unwrap();
    let call = bulkhead.call().weight(4).max_wait(Duration::ZERO);
    let full = runtime.block_on(call.execute_with_report(async { Ok::<_, ()>(1) }));
    assert_eq!(full.permits, 0);
    busy.succeed();
    // In observe mode, a call without a permit has none.
    let observed = config(1).enforcement(Enforcement::Observe);
    bulkhead.reconfigure(observed).unwrap();
    let _busy = bulkhead.try_acquire().unwrap();
    for call in [bulkhead.call(), bulkhead.call().weight(1).key("b")] {
        let report = runtime.block_on(call.execute_with_report(async { Ok::<_, ()>(1) }));
        assert_eq!((report.result, report.permits), (Ok(1), 0));
    }
}

/// Permits that a larger limit adds are idle while all waiters are at the maximum of their key.
#[test]
fn added_permits_go_to_a_waiter_whose_key_leaves_its_maximum() {
    let limit = |permits| config(permits).fairness(Fairness::new().max_per_key(2));
    let (bulkhead, _runtime) = bulkhead(limit(2));
    let (a, b) = (bulkhead.call().key("a"), bulkhead.call().key("b"));
    let held = (a.try_acquire().unwrap(), b.try_acquire().unwrap());
    let heavy = start(bulkhead.call().key("a").weight(2).acquire());
    let mut light = start(bulkhead.call().key("a").acquire());
    bulkhead.reconfigure(limit(4)).unwrap();
    assert!(poll(&mut light).is_pending(), "it is behind the heavy call");
    drop(heavy);
    let Poll::Ready(granted) = poll(&mut light) else {
        panic!("two permits are available, and its key holds one")
    };
    drop((held, granted));
    bulkhead.reconfigure(config(4)).unwrap();
    assert_idle(&bulkhead);
}

#[test]
fn heavy_calls_of_one_key_may_ask_for_more_than_its_counter_holds() {
    for max in [None, Some(1_000_000)] {
        let fairness = Fairness::new().max_per_key(max);
        let (bulkhead, _runtime) = bulkhead(config(1_000_000).fairness(fairness));
        let call = || bulkhead.call().key("a").weight(600_000);
        let held = call().try_acquire().unwrap();
        assert!(call().try_acquire().is_err());
        let mut waiting = start(call().acquire());
        held.succeed();
        assert!(poll(&mut waiting).is_ready());
        assert_idle(&bulkhead);
    }
}

/// Fault F04.
#[test]
fn heavy_waiter_that_is_not_polled_blocks_others_until_its_deadline() {
    // It collects permits, or its key is at its maximum.
    for max in [None, Some(3)] {
        let fairness = Fairness::new().max_per_key(max);
        let (bulkhead, runtime) = bulkhead(config(4).fairness(fairness));
        let holder = bulkhead.call().key("a").weight(2).try_acquire().unwrap();
        let heavy = bulkhead.call().key("a").weight(3).timeout(SECOND);
        let mut heavy = start(heavy.execute(async { Ok::<_, ()>(1) }));
        let mut light = start(bulkhead.call().key("a").acquire());
        runtime.advance(SECOND);
        let Poll::Ready(granted) = poll(&mut light) else {
            panic!("two permits are available: {max:?}")
        };
        let stats = bulkhead.stats();
        assert_eq!((stats.waiting, stats.permits_in_use), (0, 3));
        assert!(matches!(poll(&mut heavy), Poll::Ready(Err(_))));
        assert_eq!(bulkhead.stats().rejected.timed_out_in_queue, 1);
        drop((holder, granted));
        bulkhead.reconfigure(config(4)).unwrap();
        assert_idle(&bulkhead);
    }
}

/// Hazard K3.
#[test]
fn keys_below_their_minimum_do_not_starve_a_heavy_call() {
    let (bulkhead, _runtime) = bulkhead(config(4).fairness(Fairness::new().min_per_key(1)));
    let wait = |key: u32| (key, start(bulkhead.call().key(&key).acquire()));
    let mut running: Vec<_> = (0..4)
        .map(|key| (key, bulkhead.call().key(&key).try_acquire().unwrap()))
        .collect();
    let mut heavy = start(bulkhead.call().key("heavy").weight(2).acquire());
    let mut waiting: Vec<_> = (4..8).map(wait).collect();
    let mut ended = 0;
    // One of the others always waits that holds nothing.
    while poll(&mut heavy).is_pending() {
        let (key, permit) = running.remove(0);
        permit.succeed();
        waiting.push(wait(key));
        waiting.retain_mut(|(key, call)| match poll(call) {
            Poll::Ready(granted) => {
                running.push((*key, granted.unwrap()));
                false
            }
            Poll::Pending => true,
        });
        ended += 1;
        assert!(ended < 100, "it starves");
    }
    assert_eq!(ended, 3, "its permits, and the one that stays reserved");
    drop((running, waiting));
    assert_idle(&bulkhead);
}

/// A waker that opens the circuit.
struct OpensCircuit(Bulkhead);

impl Wake for OpensCircuit {
    fn wake(self: Arc<Self>) {
        self.0.circuit_breaker().unwrap().open();
    }
}

/// Hazard K27.
#[test]
fn call_that_is_rejected_while_it_joins_does_not_run() {
    let (bulkhead, _) = bulkhead(config(1).max_queue_size(2));
    let running = bulkhead.call().key("busy").try_acquire().unwrap();
    let _waiting = start(bulkhead.call().key("busy").acquire());
    let mut evicted = Box::pin(bulkhead.call().key("busy").acquire());
    let waker = Waker::from(Arc::new(OpensCircuit(bulkhead.clone())));
    let polled = evicted.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    // It wakes the evicted call once it is in the queue, and that one rejects all waiters.
    let mut joining = start(bulkhead.call().key("quiet").acquire());
    assert_eq!(bulkhead.stats().waiting, 0);
    let error = match poll(&mut joining) {
        Poll::Ready(Err(error)) => error,
        polled => {
            // It owns no permit, so to release one would never end.
            std::mem::forget(polled);
            panic!("the circuit is open");
        }
    };
    assert!(matches!(error, BulkheadError::CircuitOpen { .. }));
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    running.succeed();
}
