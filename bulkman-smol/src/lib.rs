//! The smol runtime for [bulkman](https://docs.rs/bulkman).
//!
//! Applications should enable the feature `smol` of `bulkman`. Libraries that require smol can
//! depend on this crate and on `bulkman-core`.
//!
//! Operations are never spawned: they run in the tasks of their callers, on any executor. bulkman
//! uses smol for:
//!
//! * timers, when a call with a limit has to wait;
//! * tasks, for health checks, `automatic_half_open`, stores and publishers;
//! * blocking threads, for `execute_blocking`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use bulkman_core::Runtime;
use bulkman_core::runtime::{BoxFuture, Sleep};
use smol::{Executor, Timer};

/// A [`Runtime`] that uses smol: the timers of `async-io` and the threads of `blocking`.
///
/// Both crates start their threads on demand, so this runtime also works on executors without a
/// reactor, such as `futures::executor`, `async-std` and `pollster`.
///
/// Do not call [`execute_sync`](bulkman_core::Bulkhead::execute_sync) in a task: if it has to wait,
/// it blocks the thread, which may be the one that the holder of the permit needs. In contrast to
/// Tokio, this executor does not detect it. Use `smol::unblock`.
///
/// ```
/// use bulkman_core::{Bulkhead, BulkheadConfig};
/// use bulkman_smol::SmolRuntime;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), SmolRuntime::new())?;
/// let answer = smol::block_on(bulkhead.execute(async { Ok::<_, std::io::Error>(42) }));
/// assert_eq!(answer.unwrap(), 42);
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SmolRuntime {
    executor: Option<Arc<Executor<'static>>>,
}

impl SmolRuntime {
    /// Creates a runtime that runs background tasks on smol's global executor.
    #[must_use]
    pub const fn new() -> Self {
        Self { executor: None }
    }

    /// Creates a runtime that runs background tasks on `executor`.
    ///
    /// The executor must be driven by the caller.
    #[must_use]
    pub const fn with_executor(executor: Arc<Executor<'static>>) -> Self {
        Self {
            executor: Some(executor),
        }
    }
}

impl Runtime for SmolRuntime {
    #[allow(clippy::disallowed_methods, reason = "the runtime provides the clock")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(async move {
            Timer::at(deadline).await;
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        match &self.executor {
            Some(executor) => executor.spawn(task).detach(),
            None => smol::spawn(task).detach(),
        }
        Ok(())
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        smol::unblock(job).detach();
    }
}

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
