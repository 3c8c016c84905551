//! What is counted.

use std::hint::black_box;

use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, CircuitBreaker, CircuitBreakerConfig};

use crate::contenders::bulkman::{self, rate_of};
use crate::contenders::{Gate, Work, infallible, ready, succeeds};
use crate::waiting_calls::{call, gather};

/// One way through the library.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) walk: fn(u64),
}

pub(crate) static PATHS: [Path; 10] = [
    Path {
        name: "semaphore",
        walk: semaphore,
    },
    Path {
        name: "breaker-closed",
        walk: breaker_closed,
    },
    Path {
        name: "closed",
        walk: |calls| closed(calls, CircuitBreakerConfig::new()),
    },
    Path {
        name: "closed-count-window",
        walk: |calls| closed(calls, rate_of(100)),
    },
    Path {
        name: "closed-some-fail",
        walk: closed_some_fail,
    },
    Path {
        name: "closed-sync",
        walk: closed_sync,
    },
    Path {
        name: "rejected-open",
        walk: refused_open,
    },
    Path {
        name: "rejected-full",
        walk: refused_full,
    },
    Path {
        name: "hand-off",
        walk: hand_off,
    },
    Path {
        name: "cancel",
        walk: cancel,
    },
];

/// `S`, for comparison: it changes with `async-lock` and the compiler only.
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
    let bulkhead = make(bulkman::config().circuit_breaker(rule));
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_ok());
    }
}

/// A window that has failures in it records its successes.
fn closed_some_fail(calls: u64) {
    let bulkhead = make(bulkman::config().circuit_breaker(rate_of(100)));
    for call in 0..calls {
        let _failed = ready(bulkhead.execute(bulkman::seldom_fails(call as u32))).is_err();
    }
}

fn closed_sync(calls: u64) {
    let bulkhead = make(bulkman::config());
    for _ in 0..calls {
        assert!(bulkhead.execute_sync(|| ready(succeeds!())).is_ok());
    }
}

fn refused_open(calls: u64) {
    let bulkhead = make(bulkman::config());
    bulkhead.circuit_breaker().expect("there is one").open();
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_err());
    }
}

fn refused_full(calls: u64) {
    let bulkhead = make(bulkman::config().max_concurrent_calls(1).max_queue_size(0));
    let _held = ready(bulkhead.acquire()).expect("a free permit");
    for _ in 0..calls {
        assert!(ready(bulkhead.execute(succeeds!())).is_err());
    }
}

/// A call ends, the next in line is granted its permit, and another queues.
fn hand_off(calls: u64) {
    const WAITING: usize = 8;
    let gate = Standalone::new(1);
    let mut waiting_calls = gather(WAITING, || call(gate.clone()));
    waiting_calls.queue();
    for head in (0..WAITING)
        .cycle()
        .take(usize::try_from(calls).expect("a small number"))
    {
        waiting_calls.hand_off(head);
        waiting_calls.refill(head, call(gate.clone()));
    }
}

/// A call queues and is cancelled, with others before and behind it.
fn cancel(calls: u64) {
    const WAITING: usize = 8;
    let gate = Standalone::new(1);
    let mut waiting_calls = gather(WAITING, || call(gate.clone()));
    waiting_calls.queue();
    for index in (0..WAITING)
        .cycle()
        .take(usize::try_from(calls).expect("a small number"))
    {
        waiting_calls.cancel(index);
        waiting_calls.refill(index, call(gate.clone()));
    }
}

fn make(config: bulkman_core::BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, ClockOnly).expect("a valid configuration")
}

/// Bulkhead and circuit breaker without an executor.
#[derive(Clone)]
struct Standalone(Bulkhead);

impl Gate for Standalone {
    const NAME: &'static str = "bulkman";

    fn new(permits: usize) -> Self {
        Self(make(bulkman::config().max_concurrent_calls(permits)))
    }

    async fn pass(&mut self, work: Work) {
        self.0
            .execute(infallible(work))
            .await
            .expect("there is room for everyone");
    }
}
