//! Random operations on a bulkhead, compared to a simple model of it.
//!
//! Runs 256 cases, or the number in `PROPTEST_CASES`. These invariants hold after every operation:
//!
//! * at most as many calls run as there are permits, except for calls that ran before a resize;
//! * no permit is available while a call waits;
//! * each waiter is granted, rejected, timed out or cancelled once, and is woken by the decision;
//! * `started = successful + failed + ignored + cancelled + active` in every reading.

#[path = "invariants/model.rs"]
mod model;
#[path = "invariants/races.rs"]
mod races;
#[path = "invariants/stress.rs"]
mod stress;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bulkman::error::{RejectionReason, TimeoutPhase};
use bulkman::future::Acquire;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Outcome, Permit, Priority, QueueOrder};
use proptest::prelude::*;

use model::{Model, Response};

#[derive(Clone, Debug)]
enum Op {
    /// A call arrives; durations in milliseconds.
    Acquire {
        priority: Priority,
        max_wait: Option<u64>,
        timeout: Option<u64>,
    },
    /// A call that does not wait arrives.
    TryAcquire,
    /// A running call ends, or is dropped if `outcome` is `None`.
    End {
        index: usize,
        outcome: Option<Outcome>,
    },
    /// A waiting call is dropped.
    Cancel {
        index: usize,
    },
    /// A waiting call is polled, even if it was not woken, with another waker or the same.
    Poll {
        index: usize,
        other_waker: bool,
    },
    /// All calls that were woken are polled.
    PollWoken,
    Advance {
        millis: u64,
    },
    Resize {
        permits: usize,
        queue_capacity: usize,
        lifo: bool,
    },
    Open,
    Close,
    ResetStats,
    Shutdown,
}

fn op() -> impl Strategy<Value = Op> {
    let priority = prop_oneof![
        Just(Priority::Low),
        Just(Priority::Normal),
        Just(Priority::High)
    ];
    let limit = || proptest::option::weighted(0.4, 0..40_u64);
    let outcome = proptest::option::weighted(
        0.8,
        prop_oneof![
            4 => Just(Outcome::Success),
            2 => Just(Outcome::Failure),
            1 => Just(Outcome::Ignored)
        ],
    );
    prop_oneof![
        30 => (priority, limit(), limit())
            .prop_map(|(priority, max_wait, timeout)| Op::Acquire { priority, max_wait, timeout }),
        3 => Just(Op::TryAcquire),
        20 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Op::End { index, outcome }),
        6 => any::<usize>().prop_map(|index| Op::Cancel { index }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(index, other_waker)| Op::Poll { index, other_waker }),
        12 => Just(Op::PollWoken),
        10 => (1..25_u64).prop_map(|millis| Op::Advance { millis }),
        4 => (1..5_usize, 0..7_usize, any::<bool>())
            .prop_map(|(permits, queue_capacity, lifo)| Op::Resize { permits, queue_capacity, lifo }),
        2 => Just(Op::Open),
        4 => Just(Op::Close),
        1 => Just(Op::ResetStats),
        1 => Just(Op::Shutdown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(
        proptest::test_runner::FileFailurePersistence::Direct("tests/invariants.proptest-regressions")
    )), ..ProptestConfig::default() })]

    /// Fault F04.
    #[test]
    fn bulkhead_matches_its_model(
        permits in 1..4_usize,
        queue_capacity in 0..6_usize,
        lifo in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut comparison = Comparison::new(permits, queue_capacity, lifo);
        for op in &ops {
            comparison.apply(op);
            comparison.check();
        }
        comparison.finish();
    }
}

/// A bulkhead and its model, to which the same operations are applied.
struct Comparison {
    runtime: ManualRuntime,
    bulkhead: Bulkhead,
    model: Model,
    waiting: Vec<Waiting>,
    running: Vec<Permit>,
    arrivals: usize,
}

struct Waiting {
    id: usize,
    call: Acquire,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Consecutive failures that open the circuit. It stays open: half-open is tested elsewhere.
const FAILURE_THRESHOLD: u32 = 3;

impl Comparison {
    fn new(permits: usize, queue_capacity: usize, lifo: bool) -> Self {
        let runtime = ManualRuntime::new();
        let bulkhead =
            Bulkhead::new(config(permits, queue_capacity, lifo), runtime.clone()).unwrap();
        let model = Model::new(permits, queue_capacity, lifo, FAILURE_THRESHOLD);
        Self {
            runtime,
            bulkhead,
            model,
            waiting: Vec::new(),
            running: Vec::new(),
            arrivals: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Acquire {
                priority,
                max_wait,
                timeout,
            } => {
                let id = self.arrivals;
                self.arrivals += 1;
                let millis = |limit: Option<u64>| limit.map(Duration::from_millis);
                let call = self
                    .bulkhead
                    .call()
                    .priority(priority)
                    .max_wait(millis(max_wait))
                    .timeout(millis(timeout));
                let mut waiting = Waiting {
                    id,
                    call: call.acquire(),
                    woken: Arc::default(),
                };
                let expected = self.model.acquire(id, priority, max_wait, timeout);
                let polled = waiting.poll();
                self.compare(waiting, polled, expected);
            }
            Op::TryAcquire => {
                let expected = self.model.try_acquire();
                match self.bulkhead.try_acquire() {
                    Ok(permit) => {
                        assert_eq!(expected, Response::Granted);
                        self.running.push(permit);
                    }
                    Err(error) => assert_eq!(response(&error), expected),
                }
            }
            Op::End { index, outcome } => {
                let Some(index) = pick(index, self.running.len()) else {
                    return;
                };
                let permit = self.running.swap_remove(index);
                match outcome {
                    Some(outcome) => permit.record(outcome),
                    None => drop(permit),
                }
                self.model.end(index, outcome);
            }
            Op::Cancel { index } => {
                let Some(index) = pick(index, self.waiting.len()) else {
                    return;
                };
                let waiting = self.waiting.swap_remove(index);
                self.model.cancel(waiting.id);
                drop(waiting);
            }
            Op::Poll { index, other_waker } => {
                let Some(index) = pick(index, self.waiting.len()) else {
                    return;
                };
                self.poll(index, other_waker);
            }
            Op::PollWoken => {
                while let Some(index) = self
                    .waiting
                    .iter()
                    .position(|waiting| waiting.woken.is_set())
                {
                    self.poll(index, false);
                }
            }
            Op::Advance { millis } => {
                self.runtime.advance(Duration::from_millis(millis));
                self.model.advance(millis);
            }
            Op::Resize {
                permits,
                queue_capacity,
                lifo,
            } => {
                self.bulkhead
                    .reconfigure(config(permits, queue_capacity, lifo))
                    .unwrap();
                self.model.resize(permits, queue_capacity, lifo);
            }
            Op::Open => {
                self.bulkhead.circuit_breaker().unwrap().force_open();
                self.model.open();
            }
            Op::Close => {
                self.bulkhead.circuit_breaker().unwrap().close();
                self.model.close();
            }
            Op::ResetStats => {
                self.bulkhead.reset_stats();
                self.model.reset_stats();
            }
            Op::Shutdown => {
                self.bulkhead.shutdown();
                self.model.shutdown();
            }
        }
    }

    fn poll(&mut self, index: usize, other_waker: bool) {
        let mut waiting = self.waiting.swap_remove(index);
        if other_waker {
            waiting.woken = Arc::default();
        }
        let polled = waiting.poll();
        let expected = self.model.poll(waiting.id);
        self.compare(waiting, polled, expected);
    }

    fn compare(
        &mut self,
        waiting: Waiting,
        polled: Poll<Result<Permit, Error>>,
        expected: Response,
    ) {
        match polled {
            Poll::Pending => {
                assert_eq!(expected, Response::Waits, "call {} waits", waiting.id);
                self.waiting.push(waiting);
            }
            Poll::Ready(Ok(permit)) => {
                assert_eq!(
                    expected,
                    Response::Granted,
                    "call {} is granted",
                    waiting.id
                );
                self.running.push(permit);
            }
            Poll::Ready(Err(error)) => {
                assert_eq!(response(&error), expected, "call {}: {error}", waiting.id)
            }
        }
    }

    fn check(&self) {
        let stats = self.bulkhead.stats();
        let model = &self.model;
        let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
        assert_eq!(stats.started, ended + stats.active, "{stats:?}");
        assert_eq!(stats.active as usize, self.running.len(), "{stats:?}");
        assert_eq!(stats.permits_in_use, model.in_use(), "{stats:?}");
        assert_eq!(stats.waiting, model.waiting(), "{stats:?}");
        assert!(
            stats.permits_in_use <= model.max_in_use(),
            "more permits in use than the largest limit: {stats:?}"
        );
        let available = stats.permits_in_use < stats.max_concurrent_calls;
        assert!(
            !available || stats.waiting == 0,
            "a permit is available while a call waits: {stats:?}"
        );
        model.check_counts(&stats);
        for waiting in &self.waiting {
            assert!(
                waiting.woken.is_set() || !model.is_decided(waiting.id),
                "call {} was decided without a wake-up",
                waiting.id
            );
        }
    }

    /// Drops all calls, and checks that all permits are available.
    fn finish(mut self) {
        self.waiting.clear();
        self.running.clear();
        assert_eq!(
            (
                self.bulkhead.stats().permits_in_use,
                self.bulkhead.stats().waiting
            ),
            (0, 0)
        );
        let limit = self.bulkhead.stats().max_concurrent_calls;
        self.bulkhead.circuit_breaker().unwrap().close();
        if self.model.is_shut_down() {
            self.runtime.block_on(self.bulkhead.drained());
            return;
        }
        // Each permit is available, once.
        let all: Vec<_> = (0..limit)
            .map(|_| self.bulkhead.try_acquire().unwrap())
            .collect();
        assert!(self.bulkhead.try_acquire().is_err());
        drop(all);
    }
}

type Error = BulkheadError<std::convert::Infallible>;

impl Waiting {
    fn poll(&mut self) -> Poll<Result<Permit, Error>> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        std::pin::pin!(&mut self.call).poll(&mut Context::from_waker(&waker))
    }
}

fn response(error: &Error) -> Response {
    match error {
        BulkheadError::CircuitOpen {
            reason: RejectionReason::Open | RejectionReason::ForcedOpen,
            ..
        } => Response::Open,
        BulkheadError::Full { .. } => Response::Full,
        BulkheadError::Timeout {
            phase: TimeoutPhase::Queued,
            ..
        } => Response::TimedOut,
        BulkheadError::Shutdown { .. } => Response::Shutdown,
        error => panic!("{error:?}"),
    }
}

fn config(permits: usize, queue_capacity: usize, lifo: bool) -> BulkheadConfig {
    BulkheadConfig::new("model")
        .max_concurrent_calls(permits)
        .max_queue_size(queue_capacity)
        .queue_order(if lifo {
            QueueOrder::Lifo
        } else {
            QueueOrder::Fifo
        })
        .failure_threshold(FAILURE_THRESHOLD)
        .isolation_duration(Duration::MAX)
}

fn pick(index: usize, of: usize) -> Option<usize> {
    (of > 0).then(|| index % of.max(1))
}
