//! The same invariants on real threads, where the model can't follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, Priority, QueueOrder};
use futures_lite::future::{block_on, poll_once, yield_now};

use crate::watchdog::watchdog;

const CALLERS: usize = 8;
const CALLS: usize = 1_500;

/// A small generator: which is not important, only that the threads differ.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Every way to call, to give up and to change the bulkhead, at once. `most` bounds those inside.
#[test]
fn many_threads_do_everything_at_once() {
    watchdog(|| {
        const MOST: usize = 4;
        const PLACES: usize = 2;
        let runtime = ManualRuntime::new();
        let config = |permits| {
            BulkheadConfig::new("stress")
                .max_concurrent_calls(permits)
                .max_queue_size(PLACES)
                .failure_threshold(3)
        };
        let bulkhead = Bulkhead::new(config(MOST), runtime.clone()).unwrap();
        let inside = Arc::new(AtomicUsize::new(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let (bulkhead, inside) = (bulkhead.clone(), Arc::clone(&inside));
                    threads
                        .spawn(move || block_on(calls(&bulkhead, &inside, MOST, caller as u64 + 1)))
                })
                .collect();
            // The operator: resizes, opens, closes, and lets time pass, until the callers are done.
            let (operator, ended) = (bulkhead.clone(), &done);
            threads.spawn(move || {
                let mut dice = Dice(99);
                while !ended.load(Ordering::SeqCst) {
                    match dice.roll(8) {
                        0 => operator.circuit_breaker().unwrap().force_open(),
                        1..3 => {
                            let order = if dice.roll(2) == 0 {
                                QueueOrder::Fifo
                            } else {
                                QueueOrder::Lifo
                            };
                            let permits = 1 + dice.roll(MOST as u64) as usize;
                            operator
                                .reconfigure(config(permits).queue_order(order))
                                .unwrap();
                        }
                        3..5 => runtime.advance(Duration::from_millis(dice.roll(20))),
                        _ => operator.circuit_breaker().unwrap().close(),
                    }
                    let stats = operator.stats();
                    let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
                    assert_eq!(stats.started, ended + stats.active, "{stats:?}");
                    assert!(stats.peak_waiting <= PLACES, "{stats:?}");
                    std::thread::yield_now();
                }
                // Nobody is left to wait for it: what is open stays open otherwise.
                operator.circuit_breaker().unwrap().close();
            });
            let mut totals = [0; 2];
            for caller in callers {
                let [ran, refused] = caller.join().unwrap();
                totals = [totals[0] + ran, totals[1] + refused];
            }
            done.store(true, Ordering::SeqCst);
            assert_eq!(totals[0] + totals[1], CALLERS * CALLS);
            assert!(totals[0] > CALLS, "nothing ran: {totals:?}");
        });
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.active, stats.permits_in_use, stats.waiting),
            (0, 0, 0),
            "{stats:?}"
        );
        bulkhead.reconfigure(config(MOST)).unwrap();
        let all: Vec<_> = (0..MOST).map(|_| bulkhead.try_acquire().unwrap()).collect();
        assert!(bulkhead.try_acquire().is_err());
        drop(all);
        bulkhead.shutdown();
        block_on(bulkhead.drained());
    });
}

/// Makes calls; says how many ran and how many did not.
async fn calls(bulkhead: &Bulkhead, inside: &AtomicUsize, most: usize, seed: u64) -> [usize; 2] {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut ran = 0;
    for _ in 0..CALLS {
        let began = AtomicBool::new(false);
        let enter = || {
            began.store(true, Ordering::SeqCst);
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= most, "{now} at once");
            Leaves(inside)
        };
        let fails = dice.roll(5) == 0;
        let answer = || if fails { Err(()) } else { Ok(()) };
        let yields = dice.roll(3);
        let operation = async {
            let _inside = enter();
            for _ in 0..yields {
                yield_now().await;
            }
            answer()
        };
        let priority = [Priority::Low, Priority::Normal, Priority::High][dice.roll(3) as usize];
        let call = bulkhead
            .call()
            .priority(priority)
            .max_wait(Duration::from_millis(10));
        match dice.roll(6) {
            // Given up after its first poll, if it waits or runs.
            0 => drop(poll_once(call.execute(operation)).await),
            1 => drop(call.execute_sync(|| {
                let _inside = enter();
                answer()
            })),
            2 => drop(bulkhead.try_acquire().map(|permit| {
                let left = enter();
                drop(left);
                permit.ignore();
            })),
            3 => {
                if let Ok(permit) = call.acquire().await {
                    let left = enter();
                    yield_now().await;
                    drop(left);
                    if fails {
                        permit.fail()
                    } else {
                        permit.succeed()
                    }
                }
            }
            _ => drop(call.execute(operation).await),
        }
        ran += usize::from(began.load(Ordering::SeqCst));
        // Otherwise all calls are refused while the operator has no turn.
        let circuit = bulkhead.circuit_breaker().unwrap();
        if circuit.is_open() && dice.roll(4) == 0 {
            circuit.close();
        }
    }
    [ran, CALLS - ran]
}

struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Callers who come back at once do not keep others out: each gets its turns.
#[test]
fn nobody_starves_behind_callers_who_come_back_at_once() {
    const TURNS: usize = 200;

    watchdog(|| {
        let config = BulkheadConfig::new("stress")
            .max_concurrent_calls(2)
            .max_queue_size(1000);
        let bulkhead = Bulkhead::new(config, ManualRuntime::new()).unwrap();
        let turns: [AtomicUsize; 6] = Default::default();
        let all_had_theirs = || {
            turns
                .iter()
                .all(|turns| turns.load(Ordering::SeqCst) >= TURNS)
        };
        std::thread::scope(|threads| {
            for own in &turns {
                threads.spawn(|| {
                    while !all_had_theirs() {
                        let operation = async {
                            yield_now().await;
                            Ok::<_, ()>(())
                        };
                        block_on(bulkhead.execute(operation)).unwrap();
                        own.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            // Nor do they keep a thread out that waits by parking.
            for _ in 0..TURNS {
                bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
            }
        });
        assert_eq!(bulkhead.stats().permits_in_use, 0);
    });
}
