//! bulkman and everything it is compared with, one file for each kind.
//!
//! Each file lists its cases for the suites: calls that are polled once on one thread
//! ([`overhead`](crate::suites::overhead)), and [`Gate`]s, which let tasks through (the other
//! suites).

pub(crate) mod blocking;
pub(crate) mod breakers;
pub(crate) mod bulkman;
pub(crate) mod execution_policy;
pub(crate) mod floor;
pub(crate) mod pairs;
pub(crate) mod semaphores;
pub(crate) mod threads;
pub(crate) mod throttle_net;
pub(crate) mod tower;
pub(crate) mod tower_resilience;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::suites::contention::Began;

/// The groups of the overhead suite: what the cases in them do.
pub(crate) mod group {
    pub(crate) const FLOOR: &str = "the parts that calls are made of";
    pub(crate) const SEMAPHORE: &str = "a semaphore: acquire and release";
    pub(crate) const BULKHEAD: &str = "a bulkhead alone, admitted";
    pub(crate) const BREAKER: &str = "a circuit breaker alone, closed";
    pub(crate) const BOTH: &str = "circuit breaker and bulkhead, closed and admitted";
    pub(crate) const TIMEOUT: &str = "circuit breaker, bulkhead and a timeout";
    pub(crate) const SYNC: &str = "circuit breaker and bulkhead around a synchronous function";
    pub(crate) const BLOCKING: &str = "work that blocks, on a thread for it: one call at a time";
    pub(crate) const OPEN: &str = "rejected: the circuit is open";
    pub(crate) const FULL: &str = "rejected: the bulkhead is full";
}

/// Limits that are not reached on one thread, the same for all.
pub(crate) const PERMITS: usize = 10;
/// A timeout that never elapses.
pub(crate) const FAR: Duration = Duration::from_secs(3600);
/// Failures in a row that open a circuit.
pub(crate) const FAILURES: u32 = 5;
/// Calls in a window.
pub(crate) const WINDOW: usize = 100;
/// Length of a window.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// The error of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

impl std::error::Error for Failed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

/// The guarded operation: ready at once, and opaque to the optimizer.
///
/// Each use has its own type, as operations in programs have, so its code is compiled separately.
macro_rules! succeeds {
    () => {
        async { std::hint::black_box(Ok::<u64, crate::contenders::Failed>(7)) }
    };
}
pub(crate) use succeeds;

/// An operation that fails.
pub(crate) async fn fails() -> Result<u64, Failed> {
    black_box(Err(Failed))
}

/// Polls a future that is ready at its first poll, as a call that need not wait must be.
///
/// No executor takes part, so that only the call itself is measured. Inlined, so that a future is
/// made where it is polled, as by an `.await`.
#[inline(always)]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the call had to wait"),
    }
}

/// What happens while a permit is held.
#[derive(Debug)]
pub(crate) struct Work {
    rest: Rest,
    began: Option<Arc<Began>>,
}

#[derive(Debug)]
enum Rest {
    Nothing,
    Yield,
    Forever,
}

impl Work {
    /// Yields to other tasks once.
    pub(crate) const fn one_yield() -> Self {
        Self {
            rest: Rest::Yield,
            began: None,
        }
    }

    /// Never ends.
    pub(crate) const fn forever() -> Self {
        Self {
            rest: Rest::Forever,
            began: None,
        }
    }

    /// Reports its first poll, which happens when the permit has been granted.
    pub(crate) fn telling(self, began: Arc<Began>) -> Self {
        Self {
            began: Some(began),
            ..self
        }
    }
}

impl Future for Work {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(began) = self.began.take() {
            began.now();
        }
        match self.rest {
            Rest::Nothing => Poll::Ready(()),
            Rest::Yield => {
                self.rest = Rest::Nothing;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Rest::Forever => Poll::Pending,
        }
    }
}

/// Admits a limited number of tasks at a time; the others wait.
///
/// Each task has a clone, as tower's services require.
pub(crate) trait Gate: Clone + Send + 'static {
    /// The name in the tables.
    const NAME: &'static str;

    fn new(permits: usize) -> Self;

    /// Waits for a permit, runs the work, and releases the permit.
    fn pass(&mut self, work: Work) -> impl Future<Output = ()> + Send;
}

/// A fallible operation that runs [`Work`], for libraries that guard only fallible ones.
pub(crate) async fn infallible(work: Work) -> Result<(), Infallible> {
    work.await;
    Ok(())
}
