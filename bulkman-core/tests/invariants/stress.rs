//! The same invariants with real threads, which the model can't follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, Priority, QueueOrder};
use futures_lite::future::{block_on, poll_once, yield_now};

use crate::watchdog::watchdog;

const CALLERS: usize = 8;
const CALLS: usize = 1_500;

/// A small xorshift generator. Any generator would do, as long as the threads differ.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Starts calls of every kind, drops some, and changes the bulkhead, all at once.
///
/// `MAX` bounds the number of operations that run.
#[test]
fn invariants_hold_under_concurrent_calls_and_changes() {
    watchdog(|| {
        const MAX: usize = 4;
        const QUEUE_CAPACITY: usize = 2;
        let runtime = ManualRuntime::new();
        let config = |permits| {
            BulkheadConfig::new("stress")
                .max_concurrent_calls(permits)
                .max_queue_size(QUEUE_CAPACITY)
                .failure_threshold(3)
        };
        let bulkhead = Bulkhead::new(config(MAX), runtime.clone()).unwrap();
        let inside = Arc::new(AtomicUsize::new(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let (bulkhead, inside) = (bulkhead.clone(), Arc::clone(&inside));
                    threads
                        .spawn(move || block_on(calls(&bulkhead, &inside, MAX, caller as u64 + 1)))
                })
                .collect();
            // The operator resizes, opens, closes and advances the clock until the callers are
            // done.
            let (operator, ended) = (bulkhead.clone(), &done);
            threads.spawn(move || {
                let mut random = Random(99);
                while !ended.load(Ordering::SeqCst) {
                    match random.below(8) {
                        0 => operator.circuit_breaker().unwrap().force_open(),
                        1..3 => {
                            let order = if random.below(2) == 0 {
                                QueueOrder::Fifo
                            } else {
                                QueueOrder::Lifo
                            };
                            let permits = 1 + random.below(MAX as u64) as usize;
                            operator
                                .reconfigure(config(permits).queue_order(order))
                                .unwrap();
                        }
                        3..5 => runtime.advance(Duration::from_millis(random.below(20))),
                        _ => operator.circuit_breaker().unwrap().close(),
                    }
                    let stats = operator.stats();
                    let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
                    assert_eq!(stats.started, ended + stats.active, "{stats:?}");
                    assert!(stats.peak_waiting <= QUEUE_CAPACITY, "{stats:?}");
                    std::thread::yield_now();
                }
                // Nothing closes the circuit after this thread, and the checks below need it
                // closed.
                operator.circuit_breaker().unwrap().close();
            });
            let mut totals = [0; 2];
            for caller in callers {
                let [ran, rejected] = caller.join().unwrap();
                totals = [totals[0] + ran, totals[1] + rejected];
            }
            done.store(true, Ordering::SeqCst);
            assert_eq!(totals[0] + totals[1], CALLERS * CALLS);
            assert!(totals[0] > CALLS, "too few calls ran: {totals:?}");
        });
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.active, stats.permits_in_use, stats.waiting),
            (0, 0, 0),
            "{stats:?}"
        );
        bulkhead.reconfigure(config(MAX)).unwrap();
        let all: Vec<_> = (0..MAX).map(|_| bulkhead.try_acquire().unwrap()).collect();
        assert!(bulkhead.try_acquire().is_err());
        drop(all);
        bulkhead.shutdown();
        block_on(bulkhead.drained());
    });
}

/// Runs calls, and returns how many ran and how many did not.
async fn calls(bulkhead: &Bulkhead, inside: &AtomicUsize, max: usize, seed: u64) -> [usize; 2] {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut ran = 0;
    for _ in 0..CALLS {
        let started = AtomicBool::new(false);
        let enter = || {
            started.store(true, Ordering::SeqCst);
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= max, "{now} operations run at once");
            LeaveOnDrop(inside)
        };
        let fails = random.below(5) == 0;
        let result = || if fails { Err(()) } else { Ok(()) };
        let yields = random.below(3);
        let operation = async {
            let _inside = enter();
            for _ in 0..yields {
                yield_now().await;
            }
            result()
        };
        let priority = [Priority::Low, Priority::Normal, Priority::High][random.below(3) as usize];
        let call = bulkhead
            .call()
            .priority(priority)
            .max_wait(Duration::from_millis(10));
        match random.below(6) {
            // Dropped after its first poll, whether it waits or runs.
            0 => drop(poll_once(call.execute(operation)).await),
            1 => drop(call.execute_sync(|| {
                let _inside = enter();
                result()
            })),
            2 => drop(bulkhead.try_acquire().map(|permit| {
                let guard = enter();
                drop(guard);
                permit.ignore();
            })),
            3 => {
                if let Ok(permit) = call.acquire().await {
                    let guard = enter();
                    yield_now().await;
                    drop(guard);
                    if fails {
                        permit.fail()
                    } else {
                        permit.succeed()
                    }
                }
            }
            _ => drop(call.execute(operation).await),
        }
        ran += usize::from(started.load(Ordering::SeqCst));
        // Otherwise all calls are rejected until the operator thread runs.
        let circuit = bulkhead.circuit_breaker().unwrap();
        if circuit.is_open() && random.below(4) == 0 {
            circuit.close();
        }
    }
    [ran, CALLS - ran]
}

struct LeaveOnDrop<'a>(&'a AtomicUsize);

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Callers that call again immediately do not starve others.
#[test]
fn no_caller_starves_behind_callers_that_repeat_immediately() {
    const CALLS_EACH: usize = 200;

    watchdog(|| {
        let config = BulkheadConfig::new("stress")
            .max_concurrent_calls(2)
            .max_queue_size(1000);
        let bulkhead = Bulkhead::new(config, ManualRuntime::new()).unwrap();
        let completed: [AtomicUsize; 6] = Default::default();
        let all_completed = || {
            completed
                .iter()
                .all(|count| count.load(Ordering::SeqCst) >= CALLS_EACH)
        };
        std::thread::scope(|threads| {
            for count in &completed {
                threads.spawn(|| {
                    while !all_completed() {
                        let operation = async {
                            yield_now().await;
                            Ok::<_, ()>(())
                        };
                        block_on(bulkhead.execute(operation)).unwrap();
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            // Nor do they starve a thread that parks.
            for _ in 0..CALLS_EACH {
                bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
            }
        });
        assert_eq!(bulkhead.stats().permits_in_use, 0);
    });
}
