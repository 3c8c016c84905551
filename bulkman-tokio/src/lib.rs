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
    uncooperative: bool,
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
    /// do. [`execute_blocking`](bulkman_core::Bulkhead::execute_blocking) returns `Unsupported`
    /// there, and a constructor that needs a background task returns an error. The driver of a
    /// fleet whose Tokio runtime has ended starts again on the next one that is used. The clock is
    /// the real one there, even if that of a runtime is paused.
    ///
    /// # `execute_sync` in a task
    ///
    /// [`execute_sync`](bulkman_core::Bulkhead::execute_sync) panics if it has to wait on a thread
    /// that runs tasks, as Tokio's own blocking calls do: the holder of the permit may need that
    /// thread. It may wait in `spawn_blocking`, in `block_in_place` and on other threads. There, a
    /// paused clock has to be advanced by another thread.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            handle: None,
            uncooperative: false,
        }
    }

    /// Creates a runtime bound to `handle`, for use outside of a Tokio context.
    #[must_use]
    pub const fn from_handle(handle: Handle) -> Self {
        Self {
            handle: Some(handle),
            uncooperative: false,
        }
    }

    /// Sets whether calls are charged to the budget of Tokio's tasks: default `true`.
    ///
    /// Tokio can't interrupt a task. It gives each task a budget of 128 units per poll, and its own
    /// resources make a task that has used them up yield. With `true`, sixteen calls on a thread
    /// cost one unit. A loop of calls that are ready at once then yields after about 2,000 calls,
    /// to other tasks and to a timeout around it.
    ///
    /// With `false`, such a loop starves both. In return, a call that need not wait takes 0.90
    /// times as long as a bare semaphore, instead of 1.23 times: a few nanoseconds less. Set it
    /// where every operation waits for I/O or a timer of Tokio, which consume the budget
    /// themselves.
    ///
    /// The default is `true`, because a loop that never yields is a defect that appears under load
    /// only, and the difference in time is small beside any operation worth guarding. Calls are
    /// not charged outside of Tokio's tasks and in [`coop::unconstrained`].
    ///
    /// ```
    /// use bulkman_core::{Bulkhead, BulkheadConfig};
    /// use bulkman_tokio::TokioRuntime;
    ///
    /// let runtime = TokioRuntime::new().cooperative(false);
    /// let cache = Bulkhead::new(BulkheadConfig::new("cache"), runtime)?;
    /// # let _ = cache;
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn cooperative(mut self, cooperative: bool) -> Self {
        self.uncooperative = !cooperative;
        self
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

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let Ok(handle) = self.handle() else {
            return Err(task);
        };
        handle.spawn(task);
        Ok(())
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        if let Ok(handle) = self.handle() {
            handle.spawn_blocking(job);
        }
    }

    /// Returns the function that charges calls to the budget of Tokio's tasks.
    ///
    /// `None` if [`cooperative`](Self::cooperative) is `false`.
    fn cooperation(&self) -> Option<Cooperation> {
        (!self.uncooperative).then_some(poll_proceed as Cooperation)
    }

    fn park(&self, deadline: Option<Instant>) {
        // Panics if the thread runs tasks, with a message that says so. A runtime of the thread
        // counts, whether or not it is the one of the handle.
        if let Ok(handle) = Handle::try_current() {
            handle.block_on(async {});
        }
        match deadline {
            Some(deadline) => {
                std::thread::park_timeout(deadline.saturating_duration_since(self.now()))
            }
            None => std::thread::park(),
        }
    }

    fn is_running(&self) -> bool {
        self.handle().is_ok()
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
///
/// A unit for each call would make a call take 2.2 times as long as a bare semaphore.
const CALLS_PER_UNIT: u32 = 16;

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
