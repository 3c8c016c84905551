//! Races of two operations, repeated many times. Either order is correct.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bulkman::future::Acquire;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};

use crate::Error;
use crate::watchdog::watchdog;

const ROUNDS: usize = 6_000;

/// A barrier for two threads that spins: a wake-up would take longer than the race.
#[derive(Default)]
struct SpinBarrier(AtomicUsize);

impl SpinBarrier {
    fn wait(&self, round: usize) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0_u32;
        while self.0.load(Ordering::SeqCst) < 2 * (round + 1) {
            std::hint::spin_loop();
            spins += 1;
            if spins % 4_096 == 0 {
                std::thread::yield_now();
            }
        }
    }
}

/// Delays a little longer in each round, so that the operations overlap in every way.
fn delay(round: usize) {
    for _ in 0..round % 97 {
        std::hint::spin_loop();
    }
}

fn bulkhead(queue_capacity: usize) -> Bulkhead {
    let config = BulkheadConfig::new("races")
        .max_concurrent_calls(1)
        .max_queue_size(queue_capacity);
    Bulkhead::new(config, ManualRuntime::new()).unwrap()
}

fn poll(call: &mut Acquire) -> Poll<Result<bulkman::Permit, Error>> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `act` on one thread and the first poll of a new call on another, and then `check`.
fn race_with_acquire(
    bulkhead: &Bulkhead,
    mut before: impl FnMut() + Send,
    act: impl Fn() + Sync,
    check: impl Fn(Acquire, Poll<Result<bulkman::Permit, Error>>),
) {
    let (begin, end) = (SpinBarrier::default(), SpinBarrier::default());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..ROUNDS {
                begin.wait(round);
                delay(round);
                act();
                end.wait(round);
            }
        });
        for round in 0..ROUNDS {
            before();
            let mut call = bulkhead.acquire();
            begin.wait(round);
            delay(round / 97);
            let polled = poll(&mut call);
            end.wait(round);
            check(call, polled);
        }
    });
}

#[test]
fn release_racing_acquire_leaves_no_permit_available() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let held = std::sync::Mutex::new(None);
        race_with_acquire(
            &bulkhead,
            || *held.lock().unwrap() = Some(bulkhead.try_acquire().unwrap()),
            || drop(held.lock().unwrap().take()),
            |mut call, polled| {
                let Poll::Ready(Ok(permit)) = (if polled.is_pending() {
                    poll(&mut call)
                } else {
                    polled
                }) else {
                    panic!("a call waits while a permit is available")
                };
                drop(permit);
            },
        );
    });
}

#[test]
fn no_call_waits_after_the_circuit_opened() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let circuit = bulkhead.circuit_breaker().unwrap();
        let _held = bulkhead.try_acquire().unwrap();
        race_with_acquire(
            &bulkhead,
            || circuit.close(),
            || circuit.force_open(),
            |mut call, polled| {
                let rejected = if polled.is_pending() {
                    poll(&mut call)
                } else {
                    polled
                };
                assert!(
                    matches!(
                        rejected,
                        Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))
                    ),
                    "{rejected:?}"
                );
            },
        );
    });
}

#[test]
fn no_call_waits_after_the_shutdown() {
    watchdog(|| {
        for round in 0..ROUNDS / 6 {
            let bulkhead = bulkhead(1);
            let held = bulkhead.try_acquire().unwrap();
            let mut call = bulkhead.acquire();
            let begin = SpinBarrier::default();
            let polled = std::thread::scope(|threads| {
                threads.spawn(|| {
                    begin.wait(0);
                    delay(round);
                    bulkhead.shutdown();
                });
                begin.wait(0);
                poll(&mut call)
            });
            let rejected = if polled.is_pending() {
                poll(&mut call)
            } else {
                polled
            };
            assert!(
                matches!(rejected, Poll::Ready(Err(BulkheadError::Shutdown { .. }))),
                "{rejected:?}"
            );
            drop(held);
            futures_lite::future::block_on(bulkhead.drained());
        }
    });
}

#[test]
fn racing_calls_never_exceed_the_queue_capacity() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let _held = bulkhead.try_acquire().unwrap();
        let (begin, end, checked) = (
            SpinBarrier::default(),
            SpinBarrier::default(),
            SpinBarrier::default(),
        );
        let acquires = |offset: fn(usize) -> usize, assertion: &dyn Fn()| {
            for round in 0..ROUNDS {
                let mut call = bulkhead.acquire();
                begin.wait(round);
                delay(offset(round));
                let polled = poll(&mut call);
                end.wait(round);
                assertion();
                assert!(matches!(
                    polled,
                    Poll::Pending | Poll::Ready(Err(BulkheadError::Full { .. }))
                ));
                checked.wait(round);
                drop(call);
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| acquires(|round| round / 97, &|| ()));
            acquires(|round| round, &|| {
                assert_eq!(
                    bulkhead.stats().waiting,
                    1,
                    "a queue of capacity 1 has one waiter"
                )
            });
        });
        assert_eq!(bulkhead.stats().peak_waiting, 1);
    });
}
