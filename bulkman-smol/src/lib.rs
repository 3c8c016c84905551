//! [`SmolRuntime`]: [bulkman](https://docs.rs/bulkman)'s clock, timers, tasks and blocking work on
//! smol.
//!
//! Applications get it from `bulkman` by the feature `smol`. Libraries that are tied to smol may
//! depend on this crate and `bulkman-core`.
//!
//! Operations are never spawned: they run in their callers' tasks, on whatever executor these are.
//! smol is asked for a timer when a call with a limit has to wait, for a task by health checks,
//! `automatic_half_open`, stores and publishers, and for a thread by `execute_blocking`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use bulkman_core::{BoxFuture, Runtime, Sleep};
use smol::{Executor, Timer};

/// Runs a bulkhead on smol: timers of `async-io`, threads of `blocking`.
///
/// Both bring their own threads, so this runtime serves any executor that has no reactor of its
/// own (`futures::executor`, `async-std`, `pollster`, ..).
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
    /// Runs background tasks on smol's global executor.
    #[must_use]
    pub const fn new() -> Self {
        Self { executor: None }
    }

    /// Runs background tasks on this executor; somebody must be running it.
    #[must_use]
    pub const fn with_executor(executor: Arc<Executor<'static>>) -> Self {
        Self { executor: Some(executor) }
    }
}

impl Runtime for SmolRuntime {
    #[allow(clippy::disallowed_methods, reason = "a runtime is where time comes from")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(async move {
            Timer::at(deadline).await;
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.executor {
            Some(executor) => executor.spawn(task).detach(),
            None => smol::spawn(task).detach(),
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        smol::unblock(job).detach();
    }
}

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
