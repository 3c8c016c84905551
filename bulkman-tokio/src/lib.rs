//! The Tokio runtime for [bulkman](https://docs.rs/bulkman).
//!
//! Applications should enable the feature `tokio` of `bulkman`. Libraries that require Tokio can
//! depend on this crate and on `bulkman-core`.
//!
//! Operations are never spawned: they run in the tasks of their callers, on any executor. bulkman
//! uses Tokio for:
//!
//! * timers, when a call with a limit has to wait;
//! * tasks, for health checks, `automatic_half_open`, stores and publishers;
//! * blocking threads, for `execute_blocking`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bulkman_core::Runtime;
use bulkman_core::runtime::{BoxFuture, Cooperation, Sleep};
use tokio::runtime::{Handle, TryCurrentError};
use tokio::task::coop;

/// A [`Runtime`] that uses Tokio.
///
/// It uses Tokio's clock, so `tokio::time::pause()` and `advance()` control every timeout,
/// isolation and window.
///
/// ```
/// use bulkman_core::{Bulkhead, BulkheadConfig};
/// use bulkman_tokio::TokioRuntime;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let bulkhead =
///     Bulkhead::new(BulkheadConfig::new("search"), TokioRuntime::new()).unwrap();
/// let answer = bulkhead
///     .execute(async { Ok::<_, std::io::Error>(42) })
///     .await;
/// assert_eq!(answer.unwrap(), 42);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct TokioRuntime {
    handle: Option<Handle>,
}

impl TokioRuntime {
    /// Creates a runtime that uses the current Tokio runtime for each timer and task.
    ///
    /// A bulkhead in a `static` can therefore be used by several Tokio runtimes, such as those of
    /// tests.
    ///
    /// # Outside of a Tokio runtime
    ///
    /// A call that has to wait panics if it is polled outside of a Tokio runtime, as Tokio's timers
    /// do. Background tasks and blocking work are dropped there, and
    /// [`execute_blocking`](bulkman_core::Bulkhead::execute_blocking) returns `Shutdown`.
    #[must_use]
    pub const fn new() -> Self {
        Self { handle: None }
    }

    /// Creates a runtime bound to `handle`, for use outside of a Tokio context.
    #[must_use]
    pub const fn from_handle(handle: Handle) -> Self {
        Self {
            handle: Some(handle),
        }
    }

    fn handle(&self) -> Result<Handle, TryCurrentError> {
        self.handle.clone().map_or_else(Handle::try_current, Ok)
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Instant {
        // The clock that `pause` stops is that of the current runtime.
        let _entered = self.handle.as_ref().map(Handle::enter);
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let _entered = self.handle.as_ref().map(Handle::enter);
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if let Ok(handle) = self.handle() {
            handle.spawn(task);
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        if let Ok(handle) = self.handle() {
            handle.spawn_blocking(job);
        }
    }

    /// Returns the function that charges calls to the budget of Tokio's tasks.
    ///
    /// Tokio gives a task 128 units per poll. Sixteen calls on a thread cost one unit, so a loop of
    /// calls that are ready at once yields after about 2,000 calls. This costs a call a few
    /// nanoseconds: 1.23 times a bare semaphore instead of 0.90. A unit for each call would cost
    /// 2.2. It is on by default, because a loop without it starves the timeout around it. The
    /// function has no effect outside of Tokio's tasks and in [`coop::unconstrained`].
    ///
    /// To turn it off for a bulkhead, pass a [`Runtime`] that forwards to this one and returns
    /// `None` here.
    fn cooperation(&self) -> Option<Cooperation> {
        Some(poll_proceed)
    }
}

fn poll_proceed(cx: &mut Context<'_>) -> Poll<()> {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    let calls = CALLS.get().wrapping_add(1);
    if calls % CALLS_PER_UNIT == 0 {
        // A call without budget is charged when it is polled again.
        ready!(charge(cx));
    }
    CALLS.set(calls);
    Poll::Ready(())
}

#[cold]
fn charge(cx: &mut Context<'_>) -> Poll<()> {
    coop::poll_proceed(cx).map(|unit| unit.made_progress())
}

/// How many calls cost one unit of a task's budget.
const CALLS_PER_UNIT: u32 = 16;

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
