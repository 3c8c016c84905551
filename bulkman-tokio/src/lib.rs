//! [`TokioRuntime`]: [bulkman](https://docs.rs/bulkman)'s clock, timers, tasks and blocking work on
//! Tokio.
//!
//! Applications get it from `bulkman` by the feature `tokio`. Libraries that are tied to Tokio may
//! depend on this crate and `bulkman-core`.
//!
//! Operations are never spawned: they run in their callers' tasks, on whatever scheduler these
//! are. Tokio is asked for a timer when a call with a limit has to wait, for a task by health
//! checks, `automatic_half_open`, stores and publishers, and for a thread by `execute_blocking`.
#![forbid(unsafe_code)]

use std::time::Instant;

use bulkman_core::{BoxFuture, Runtime, Sleep};
use tokio::runtime::{Handle, TryCurrentError};

/// Runs a bulkhead on Tokio.
///
/// The clock is Tokio's, so `tokio::time::pause()` and `advance()` steer every timeout, isolation
/// and window.
///
/// ```
/// use bulkman_core::{Bulkhead, BulkheadConfig};
/// use bulkman_tokio::TokioRuntime;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), TokioRuntime::new()).unwrap();
/// let answer = bulkhead.execute(async { Ok::<_, std::io::Error>(42) }).await;
/// assert_eq!(answer.unwrap(), 42);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct TokioRuntime {
    handle: Option<Handle>,
}

impl TokioRuntime {
    /// Uses the Tokio runtime that is current whenever a timer or a task is needed.
    ///
    /// A bulkhead in a `static` so outlives the runtimes of several tests.
    ///
    /// # Panics
    ///
    /// Not here, but a call that has to wait panics when it is polled outside a Tokio runtime, as
    /// Tokio's own timers do. Background tasks and blocking work started outside of one are
    /// dropped: [`execute_blocking`](bulkman_core::Bulkhead::execute_blocking) then returns
    /// `Shutdown`.
    #[must_use]
    pub const fn new() -> Self {
        Self { handle: None }
    }

    /// Uses this runtime always, whichever is current: for callers on threads of their own.
    #[must_use]
    pub const fn from_handle(handle: Handle) -> Self {
        Self { handle: Some(handle) }
    }

    fn handle(&self) -> Result<Handle, TryCurrentError> {
        self.handle.clone().map_or_else(Handle::try_current, Ok)
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Instant {
        // Only the current runtime's clock can be paused.
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
}

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
