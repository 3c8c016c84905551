//! The paths of which the instructions are counted.

use std::collections::VecDeque;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_core::bulkhead::Fairness;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::{Bulkhead, CircuitBreaker, CircuitBreakerConfig, Runtime};

use crate::contenders::bulkman::{self, rate_over_calls};
use crate::contenders::{ConcurrencyLimiter, Work, infallible, ready, succeeds};
use crate::waiting_calls::{WaitingCalls, call};

/// A path through the library.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) run: fn(u64),
}

pub(crate) static PATHS: [Path; 16] = [
    Path {
        name: "semaphore",
        run: semaphore,
    },
    Path {
        name: "breaker-closed",
        run: breaker_closed,
    },
    Path {
        name: "closed",
        run: |calls| closed(calls, CircuitBreakerConfig::new()),
    },
    Path {
        name: "closed-count-window",
        run: |calls| closed(calls, rate_over_calls(100)),
    },
    Path {
        name: "closed-some-fail",
        run: closed_some_fail,
    },
    Path {
        name: "closed-sync",
        run: closed_sync,
    },
    Path {
        name: "closed-adaptive",
        run: |calls| closed_adaptive(calls, Duration::from_millis(1)),
    },
    Path {
        name: "closed-adaptive-sample",
        run: |calls| closed_adaptive(calls, Duration::from_secs(60)),
    },
    Path {
        name: "closed-key",
        run: closed_key,
    },
    Path {
        name: "closed-key-bounds",
        run: closed_key_bounds,
    },
    Path {
        name: "closed-weight",
        run: closed_weight,
    },
    Path {
        name: "rejected-open",
        run: rejected_open,
    },
    Path {
        name: "rejected-full",
        run: rejected_full,
    },
    Path {
        name: "grant",
        run: grant,
    },
    Path {
        name: "grant-key",
        run: grant_key,
    },
    Path {
        name: "cancel",
        run: cancel,
    },
];

/// Runs `S`, for comparison. It changes only with `async-lock` and the compiler.
fn semaphore(calls: u64) {
    let semaphore = async_lock::Semaphore::new(10);
    for _ in 0..calls {
        drop(black_box(ready(semaphore.acquire())));
    }
}

fn breaker_closed(calls: u64) {
    let config = CircuitBreakerConfig::new();
    let breaker = CircuitBreaker::new("bench", config, ClockOnly).expect("a valid configuration");
    for _ in 0..calls {
        assert!(ready(breaker.execute(succeeds!())).is_ok());
    }
}

fn closed(calls: u64, rule: CircuitBreakerConfig) {
    let bulkhead = bulkhead(bulkman::config().circuit_breaker(rule));
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_ok());
    }
}

/// Runs calls with a key, which is hashed for each, of a bulkhead that shares its permits.
fn closed_key(calls: u64) {
    keyed(calls, Fairness::new());
}

/// Runs calls of a key whose permits are bounded, in both directions.
fn closed_key_bounds(calls: u64) {
    keyed(calls, Fairness::new().min_per_key(1).max_per_key(2));
}

fn keyed(calls: u64, fairness: Fairness) {
    let bulkhead = bulkhead(bulkman::config().fairness(fairness));
    for _ in 0..calls {
        let call = bulkhead.call().key(black_box("tenant-1234"));
        assert!(ready(call.execute(succeeds!())).is_ok());
    }
}

fn closed_weight(calls: u64) {
    let bulkhead = bulkhead(bulkman::config());
    for _ in 0..calls {
        let call = bulkhead.call().weight(3);
        assert!(ready(call.execute(succeeds!())).is_ok());
    }
}

/// Runs calls of which hardly any is a sample of the adaptive limit, or all in a long window.
fn closed_adaptive(calls: u64, window: Duration) {
    let limit = AdaptiveLimit::new().window(window);
    let config = bulkman::config().adaptive_limit(limit);
    let clock = Ticking(ClockOnly.now(), AtomicU64::new(0));
    let bulkhead = Bulkhead::new(config, clock).expect("a valid configuration");
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_ok());
    }
}

/// Runs calls of which some fail. With failures in its window, a circuit records successes.
fn closed_some_fail(calls: u64) {
    let bulkhead = bulkhead(bulkman::config().circuit_breaker(rate_over_calls(100)));
    for call in 0..calls {
        let _failed = ready(bulkhead.execute(bulkman::fails_rarely(call as u32))).is_err();
    }
}

fn closed_sync(calls: u64) {
    let bulkhead = bulkhead(bulkman::config());
    for _ in 0..calls {
        assert!(bulkhead.execute_sync(|| ready(succeeds!())).is_ok());
    }
}

fn rejected_open(calls: u64) {
    let bulkhead = bulkhead(bulkman::config());
    bulkhead.circuit_breaker().expect("it is enabled").open();
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_err());
    }
}

fn rejected_full(calls: u64) {
    let bulkhead = bulkhead(bulkman::config().max_concurrent_calls(1).max_queue_size(0));
    let _held = ready(bulkhead.acquire()).expect("a free permit");
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_err());
    }
}

/// Ends a call, so that its permit is granted to the oldest waiter, and queues another call.
fn grant(calls: u64) {
    const WAITING: usize = 8;
    let limiter = Standalone::new(1);
    let mut waiting_calls = WaitingCalls::new(WAITING, || call(limiter.clone()));
    waiting_calls.queue();
    for head in (0..WAITING)
        .cycle()
        .take(usize::try_from(calls).expect("a small number"))
    {
        waiting_calls.grant_next(head);
        waiting_calls.refill(head, call(limiter.clone()));
    }
}

/// As [`grant`], where each of two waiters has the same key.
fn grant_key(calls: u64) {
    const WAITING: usize = 8;
    const KEYS: usize = 4;
    let config = bulkman::config().max_concurrent_calls(1);
    let bulkhead = bulkhead(config.fairness(Fairness::new()));
    let mut held = Some(bulkhead.try_acquire().expect("a free permit"));
    let wait = |index: usize| {
        let mut call = Box::pin(bulkhead.call().key(&(index % KEYS)).acquire());
        assert!(ready_once(&mut call).is_none());
        call
    };
    let mut waiting: VecDeque<_> = (0..WAITING).map(wait).collect();
    for head in (0..WAITING)
        .cycle()
        .take(usize::try_from(calls).expect("a small number"))
    {
        drop(held.take());
        let mut next = waiting.pop_front().expect("it is never empty");
        held = ready_once(&mut next).map(|granted| granted.expect("no call is rejected"));
        assert!(held.is_some());
        waiting.push_back(wait(head));
    }
}

fn ready_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Queues and cancels a call, with other waiters before and behind it.
fn cancel(calls: u64) {
    const WAITING: usize = 8;
    let limiter = Standalone::new(1);
    let mut waiting_calls = WaitingCalls::new(WAITING, || call(limiter.clone()));
    waiting_calls.queue();
    for index in (0..WAITING)
        .cycle()
        .take(usize::try_from(calls).expect("a small number"))
    {
        waiting_calls.cancel(index);
        waiting_calls.refill(index, call(limiter.clone()));
    }
}

fn bulkhead(config: bulkman_core::BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, ClockOnly).expect("a valid configuration")
}

/// A bulkhead with a circuit breaker, without an executor.
#[derive(Clone)]
struct Standalone(Bulkhead);

impl ConcurrencyLimiter for Standalone {
    const NAME: &'static str = "bulkman";

    fn new(permits: usize) -> Self {
        Self(bulkhead(bulkman::config().max_concurrent_calls(permits)))
    }

    async fn run(&mut self, work: Work) {
        self.0
            .execute(infallible(work))
            .await
            .expect("the queue never fills");
    }
}

/// A clock that advances by a microsecond at each reading.
///
/// Only samples read it. So each window of samples appears to be as short as the one before, its
/// throughput to be larger, and the samples become rare at once.
#[derive(Debug)]
struct Ticking(Instant, AtomicU64);

impl Runtime for Ticking {
    fn now(&self) -> Instant {
        self.0 + Duration::from_micros(self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        ClockOnly.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        ClockOnly.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        ClockOnly.spawn_blocking(job);
    }
}
