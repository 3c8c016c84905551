//! Random operations on a bulkhead, against a plain model of it.
//!
//! 256 cases, or as many as `PROPTEST_CASES` says. What must hold whatever happens:
//!
//! * never more run than there are permits, but for those who ran before the limit shrank;
//! * no permit is idle while anybody waits;
//! * whoever waits is granted, refused, timed out or cancelled, once, and woken when it is decided;
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

use model::{Answer, Model};

#[derive(Clone, Debug)]
enum Op {
    /// A call arrives; durations in milliseconds.
    Acquire {
        priority: Priority,
        max_wait: Option<u64>,
        timeout: Option<u64>,
    },
    /// One that does not wait.
    TryAcquire,
    /// One of those that run ends; `None`: it is dropped.
    End {
        which: usize,
        outcome: Option<Outcome>,
    },
    /// One of those that wait goes away.
    Cancel {
        which: usize,
    },
    /// One of those that wait is polled, woken or not, with another waker or the same.
    Poll {
        which: usize,
        other_waker: bool,
    },
    /// All that were woken are polled.
    PollWoken,
    Advance {
        millis: u64,
    },
    Resize {
        permits: usize,
        places: usize,
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
        20 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Op::End { which, outcome }),
        6 => any::<usize>().prop_map(|which| Op::Cancel { which }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, other_waker)| Op::Poll { which, other_waker }),
        12 => Just(Op::PollWoken),
        10 => (1..25_u64).prop_map(|millis| Op::Advance { millis }),
        4 => (1..5_usize, 0..7_usize, any::<bool>())
            .prop_map(|(permits, places, lifo)| Op::Resize { permits, places, lifo }),
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

    #[test]
    fn a_bulkhead_does_what_its_model_does(
        permits in 1..4_usize,
        places in 0..6_usize,
        lifo in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut player = Player::new(permits, places, lifo);
        for op in &ops {
            player.play(op);
            player.check();
        }
        player.end();
    }
}

/// The bulkhead and its model, side by side.
struct Player {
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

/// Failures in a row that open the circuit, for good: half-open has a test of its own.
const FAILURES: u32 = 3;

impl Player {
    fn new(permits: usize, places: usize, lifo: bool) -> Self {
        let runtime = ManualRuntime::new();
        let bulkhead = Bulkhead::new(config(permits, places, lifo), runtime.clone()).unwrap();
        let model = Model::new(permits, places, lifo, FAILURES);
        Self {
            runtime,
            bulkhead,
            model,
            waiting: Vec::new(),
            running: Vec::new(),
            arrivals: 0,
        }
    }

    fn play(&mut self, op: &Op) {
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
                let answer = waiting.poll();
                self.settle(waiting, answer, expected);
            }
            Op::TryAcquire => {
                let expected = self.model.try_acquire();
                match self.bulkhead.try_acquire() {
                    Ok(permit) => {
                        assert_eq!(expected, Answer::Granted);
                        self.running.push(permit);
                    }
                    Err(error) => assert_eq!(answer(&error), expected),
                }
            }
            Op::End { which, outcome } => {
                let Some(which) = pick(which, self.running.len()) else {
                    return;
                };
                let permit = self.running.swap_remove(which);
                match outcome {
                    Some(outcome) => permit.record(outcome),
                    None => drop(permit),
                }
                self.model.end(which, outcome);
            }
            Op::Cancel { which } => {
                let Some(which) = pick(which, self.waiting.len()) else {
                    return;
                };
                let waiting = self.waiting.swap_remove(which);
                self.model.cancel(waiting.id);
                drop(waiting);
            }
            Op::Poll { which, other_waker } => {
                let Some(which) = pick(which, self.waiting.len()) else {
                    return;
                };
                self.poll(which, other_waker);
            }
            Op::PollWoken => {
                while let Some(which) = self
                    .waiting
                    .iter()
                    .position(|waiting| waiting.woken.is_set())
                {
                    self.poll(which, false);
                }
            }
            Op::Advance { millis } => {
                self.runtime.advance(Duration::from_millis(millis));
                self.model.advance(millis);
            }
            Op::Resize {
                permits,
                places,
                lifo,
            } => {
                self.bulkhead
                    .reconfigure(config(permits, places, lifo))
                    .unwrap();
                self.model.resize(permits, places, lifo);
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

    fn poll(&mut self, which: usize, other_waker: bool) {
        let mut waiting = self.waiting.swap_remove(which);
        if other_waker {
            waiting.woken = Arc::default();
        }
        let answer = waiting.poll();
        let expected = self.model.poll(waiting.id);
        self.settle(waiting, answer, expected);
    }

    fn settle(&mut self, waiting: Waiting, polled: Poll<Result<Permit, Error>>, expected: Answer) {
        match polled {
            Poll::Pending => {
                assert_eq!(expected, Answer::Waits, "{} waits", waiting.id);
                self.waiting.push(waiting);
            }
            Poll::Ready(Ok(permit)) => {
                assert_eq!(expected, Answer::Granted, "{} is granted", waiting.id);
                self.running.push(permit);
            }
            Poll::Ready(Err(error)) => {
                assert_eq!(answer(&error), expected, "{}: {error}", waiting.id)
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
            stats.permits_in_use <= model.most_in_use(),
            "more than ever allowed: {stats:?}"
        );
        let idle = stats.permits_in_use < stats.max_concurrent_calls;
        assert!(
            !idle || stats.waiting == 0,
            "a permit is idle, and somebody waits: {stats:?}"
        );
        model.check_counts(&stats);
        for waiting in &self.waiting {
            assert!(
                waiting.woken.is_set() || !model.is_decided(waiting.id),
                "{} was decided, and nobody told it",
                waiting.id
            );
        }
    }

    /// Everybody goes, and nothing is left.
    fn end(mut self) {
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
        // Each permit is there, once.
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

fn answer(error: &Error) -> Answer {
    match error {
        BulkheadError::CircuitOpen {
            reason: RejectionReason::Open | RejectionReason::ForcedOpen,
            ..
        } => Answer::Open,
        BulkheadError::Full { .. } => Answer::Full,
        BulkheadError::Timeout {
            phase: TimeoutPhase::Queued,
            ..
        } => Answer::TimedOut,
        BulkheadError::Shutdown { .. } => Answer::Shutdown,
        error => panic!("{error:?}"),
    }
}

fn config(permits: usize, places: usize, lifo: bool) -> BulkheadConfig {
    BulkheadConfig::new("model")
        .max_concurrent_calls(permits)
        .max_queue_size(places)
        .queue_order(if lifo {
            QueueOrder::Lifo
        } else {
            QueueOrder::Fifo
        })
        .failure_threshold(FAILURES)
        .isolation_duration(Duration::MAX)
}

fn pick(which: usize, of: usize) -> Option<usize> {
    (of > 0).then(|| which % of.max(1))
}
