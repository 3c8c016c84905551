//! Two things at the same moment, over and over: either order is right, and nothing falls between.

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

/// Where two threads meet, by turning: a wake-up takes longer than what is to be hit.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn wait(&self, round: usize) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut turns = 0_u32;
        while self.0.load(Ordering::SeqCst) < 2 * (round + 1) {
            std::hint::spin_loop();
            turns += 1;
            if turns % 4_096 == 0 {
                std::thread::yield_now();
            }
        }
    }
}

/// A little later in each round, so that every moment is hit.
fn shift(round: usize) {
    for _ in 0..round % 97 {
        std::hint::spin_loop();
    }
}

fn bulkhead(places: usize) -> Bulkhead {
    let config = BulkheadConfig::new("races")
        .max_concurrent_calls(1)
        .max_queue_size(places);
    Bulkhead::new(config, ManualRuntime::new()).unwrap()
}

fn poll(call: &mut Acquire) -> Poll<Result<bulkman::Permit, Error>> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

/// `act` on one thread and a newcomer's first poll on another, then `judge` what is left.
fn against_a_newcomer(
    bulkhead: &Bulkhead,
    mut before: impl FnMut() + Send,
    act: impl Fn() + Sync,
    judge: impl Fn(Acquire, Poll<Result<bulkman::Permit, Error>>),
) {
    let (begin, end) = (Meeting::default(), Meeting::default());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..ROUNDS {
                begin.wait(round);
                shift(round);
                act();
                end.wait(round);
            }
        });
        for round in 0..ROUNDS {
            before();
            let mut call = bulkhead.acquire();
            begin.wait(round);
            shift(round / 97);
            let polled = poll(&mut call);
            end.wait(round);
            judge(call, polled);
        }
    });
}

#[test]
fn a_release_and_a_newcomer_leave_no_permit_idle() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let held = std::sync::Mutex::new(None);
        against_a_newcomer(
            &bulkhead,
            || *held.lock().unwrap() = Some(bulkhead.try_acquire().unwrap()),
            || drop(held.lock().unwrap().take()),
            |mut call, polled| {
                let Poll::Ready(Ok(permit)) = (if polled.is_pending() {
                    poll(&mut call)
                } else {
                    polled
                }) else {
                    panic!("the permit is free, and somebody waits for it")
                };
                drop(permit);
            },
        );
    });
}

#[test]
fn nobody_waits_behind_a_circuit_that_opened() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let circuit = bulkhead.circuit_breaker().unwrap();
        let _held = bulkhead.try_acquire().unwrap();
        against_a_newcomer(
            &bulkhead,
            || circuit.close(),
            || circuit.force_open(),
            |mut call, polled| {
                let refused = if polled.is_pending() {
                    poll(&mut call)
                } else {
                    polled
                };
                assert!(
                    matches!(refused, Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))),
                    "{refused:?}"
                );
            },
        );
    });
}

#[test]
fn nobody_waits_for_a_bulkhead_that_shut_down() {
    watchdog(|| {
        for round in 0..ROUNDS / 6 {
            let bulkhead = bulkhead(1);
            let held = bulkhead.try_acquire().unwrap();
            let mut call = bulkhead.acquire();
            let begin = Meeting::default();
            let polled = std::thread::scope(|threads| {
                threads.spawn(|| {
                    begin.wait(0);
                    shift(round);
                    bulkhead.shutdown();
                });
                begin.wait(0);
                poll(&mut call)
            });
            let refused = if polled.is_pending() {
                poll(&mut call)
            } else {
                polled
            };
            assert!(
                matches!(refused, Poll::Ready(Err(BulkheadError::Shutdown { .. }))),
                "{refused:?}"
            );
            drop(held);
            futures_lite::future::block_on(bulkhead.drained());
        }
    });
}

#[test]
fn two_newcomers_share_no_place() {
    watchdog(|| {
        let bulkhead = bulkhead(1);
        let _held = bulkhead.try_acquire().unwrap();
        let (begin, end, judged) = (Meeting::default(), Meeting::default(), Meeting::default());
        let joins = |own: fn(usize) -> usize, check: &dyn Fn()| {
            for round in 0..ROUNDS {
                let mut call = bulkhead.acquire();
                begin.wait(round);
                shift(own(round));
                let polled = poll(&mut call);
                end.wait(round);
                check();
                assert!(matches!(
                    polled,
                    Poll::Pending | Poll::Ready(Err(BulkheadError::Full { .. }))
                ));
                judged.wait(round);
                drop(call);
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| joins(|round| round / 97, &|| ()));
            joins(|round| round, &|| {
                assert_eq!(bulkhead.stats().waiting, 1, "one place, one waiter")
            });
        });
        assert_eq!(bulkhead.stats().peak_waiting, 1);
    });
}
