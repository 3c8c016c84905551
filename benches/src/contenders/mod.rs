//! bulkman and its peers, one file for each kind.
//!
//! Each file lists its cases for the suites. The suite [`overhead`](crate::suites::overhead) polls
//! calls once, on one thread. The other suites run tasks through [`ConcurrencyLimiter`]s.

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

use crate::suites::contention::GrantRecord;

/// The groups of the overhead suite: the kinds of calls.
pub(crate) mod group {
    pub(crate) const FLOOR: &str = "the unavoidable parts of a call";
    pub(crate) const SEMAPHORE: &str = "a semaphore: acquire and release";
    pub(crate) const BULKHEAD: &str = "a bulkhead alone, admitted";
    pub(crate) const BREAKER: &str = "a circuit breaker alone, closed";
    pub(crate) const BOTH: &str = "circuit breaker and bulkhead, closed and admitted";
    pub(crate) const TIMEOUT: &str = "circuit breaker, bulkhead and a timeout";
    pub(crate) const SYNC: &str = "circuit breaker and bulkhead around a synchronous function";
    pub(crate) const BLOCKING: &str = "blocking work on another thread, one call at a time";
    pub(crate) const OPEN: &str = "rejected: the circuit is open";
    pub(crate) const FULL: &str = "rejected: the bulkhead is full";
}

/// The limit of every contender, which one thread does not reach.
pub(crate) const PERMITS: usize = 10;
/// A timeout that does not elapse during a run.
pub(crate) const ONE_HOUR: Duration = Duration::from_secs(3600);
/// The number of consecutive failures that open a circuit.
pub(crate) const FAILURES: u32 = 5;
/// The number of calls in a window.
pub(crate) const WINDOW: usize = 100;
/// The length of a time window.
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

/// The guarded operation: ready at its first poll, and opaque to the optimizer.
///
/// Each use has its own type, as in a program, so the code around it is compiled separately.
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
/// There is no executor, so that only the call itself is measured. Inlined, so that a future is
/// created where it is polled, as with an `.await`.
///
/// # Panics
///
/// Panics if the future is pending.
#[inline(always)]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the call had to wait"),
    }
}

/// The work of a task while it holds a permit.
#[derive(Debug)]
pub(crate) struct Work {
    remaining: Remaining,
    grant: Option<Arc<GrantRecord>>,
}

#[derive(Debug)]
enum Remaining {
    Nothing,
    Yield,
    Forever,
}

impl Work {
    /// Creates work that yields to other tasks once.
    pub(crate) const fn one_yield() -> Self {
        Self {
            remaining: Remaining::Yield,
            grant: None,
        }
    }

    /// Creates work that never ends.
    pub(crate) const fn forever() -> Self {
        Self {
            remaining: Remaining::Forever,
            grant: None,
        }
    }

    /// Records its first poll in `grant`: the permit has just been granted.
    pub(crate) fn recording(self, grant: Arc<GrantRecord>) -> Self {
        Self {
            grant: Some(grant),
            ..self
        }
    }
}

impl Future for Work {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(grant) = self.grant.take() {
            grant.record();
        }
        match self.remaining {
            Remaining::Nothing => Poll::Ready(()),
            Remaining::Yield => {
                self.remaining = Remaining::Nothing;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Remaining::Forever => Poll::Pending,
        }
    }
}

/// Limits how many tasks run their work at once; the others wait.
///
/// Each task has its own clone, as tower's services require.
pub(crate) trait ConcurrencyLimiter: Clone + Send + 'static {
    /// The name in the tables.
    const NAME: &'static str;

    fn new(permits: usize) -> Self;

    /// Acquires a permit, waiting for it if needed, runs the work, and releases the permit.
    fn run(&mut self, work: Work) -> impl Future<Output = ()> + Send;
}

/// Runs [`Work`] as a fallible operation, for libraries that guard only these.
pub(crate) async fn infallible(work: Work) -> Result<(), Infallible> {
    work.await;
    Ok(())
}
