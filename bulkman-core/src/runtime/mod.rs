//! The interface to an executor: time, tasks, and threads for blocking work.
//!
//! One trait provides both the clock and the timers, because virtual time is wrong if only one of
//! them is virtual. The trait is dyn-compatible and stored as `Arc<dyn Runtime>`, so
//! [`Bulkhead`](crate::Bulkhead) has no type parameter.

#[cfg(feature = "test-util")]
pub(crate) mod manual;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A boxed future, such as a task that a [`Runtime`] runs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A timer, as returned by [`Runtime::sleep_until`].
pub type Sleep = BoxFuture<'static, ()>;

/// A function that charges a call to the budget of the current task.
///
/// Returned by [`Runtime::cooperation`]. If the task has used up its budget, the function wakes the
/// task and returns [`Poll::Pending`], and the call begins in a later poll.
///
/// ```
/// use std::task::{Context, Poll, Waker};
/// use bulkman::runtime::Cooperation;
///
/// // For an executor without budgets.
/// let unlimited: Cooperation = |_| Poll::Ready(());
/// assert!(unlimited(&mut Context::from_waker(Waker::noop())).is_ready());
/// ```
pub type Cooperation = fn(&mut Context<'_>) -> Poll<()>;

/// The clock, timers, tasks and blocking threads of an executor.
///
/// `bulkman-tokio` and `bulkman-smol` implement it, and any other crate can. All methods may be
/// called from any thread, including threads that do not belong to an executor.
///
/// # Implementing
///
/// `now` must be monotonic, and `sleep_until` must complete by the same clock. A timer whose
/// deadline has passed completes at its first poll. A runtime that can't run a task returns it. One
/// that ends, or can't run a job, must drop it: callers detect the drop.
///
/// ```
/// use bulkman::runtime::{BoxFuture, Sleep};
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
/// use futures_lite::future::block_on;
/// use std::future::{pending, poll_fn};
/// use std::task::{Poll, Waker};
/// use std::thread;
/// use std::time::{Duration, Instant};
///
/// /// Starts a thread for every timer and task: sufficient for a few of them.
/// #[derive(Debug)]
/// struct Threads;
///
/// impl Runtime for Threads {
///     fn now(&self) -> Instant {
///         Instant::now()
///     }
///     fn sleep_until(&self, deadline: Instant) -> Sleep {
///         let mut sleeping_for: Option<Waker> = None;
///         Box::pin(poll_fn(move |cx| {
///             let rest = deadline.saturating_duration_since(Instant::now());
///             if rest.is_zero() {
///                 return Poll::Ready(());
///             }
///             if !sleeping_for
///                 .as_ref()
///                 .is_some_and(|waker| waker.will_wake(cx.waker()))
///             {
///                 let waker = cx.waker().clone();
///                 sleeping_for = Some(waker.clone());
///                 thread::spawn(move || {
///                     thread::sleep(rest);
///                     waker.wake();
///                 });
///             }
///             Poll::Pending
///         }))
///     }
///     fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
///         thread::spawn(move || block_on(task));
///         Ok(())
///     }
///     fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
///         thread::spawn(job);
///     }
/// }
///
/// let config = BulkheadConfig::new("slow").timeout(Duration::from_millis(10));
/// let bulkhead = Bulkhead::new(config, Threads)?;
/// let result = block_on(bulkhead.execute(pending::<Result<(), ()>>()));
/// assert!(matches!(result, Err(BulkheadError::Timeout { .. })));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
pub trait Runtime: Send + Sync + fmt::Debug + 'static {
    /// Returns the current time. The library has no other source of time.
    fn now(&self) -> Instant;

    /// Returns a future that completes when [`now`](Self::now) has reached `deadline`.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// Runs `task` in the background, such as a health check or the driver of a fleet.
    ///
    /// It is never an operation that is passed to a bulkhead.
    ///
    /// # Errors
    ///
    /// Returns the task if this runtime can't run it, for example because none is current. The
    /// constructor that needs the task then returns an error, or the task is spawned again later.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>>;

    /// Runs `job` on a thread on which it may block.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>);

    /// Blocks the calling thread until it is unparked or the deadline has passed.
    ///
    /// It may return early, as [`std::thread::park`] may. `execute_sync` uses it to wait. Only a
    /// runtime whose clock is not the standard clock has to implement it.
    fn park(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => {
                std::thread::park_timeout(deadline.saturating_duration_since(self.now()))
            }
            None => std::thread::park(),
        }
    }

    /// Returns how calls take part in the executor's cooperative scheduling. Default: `None`.
    ///
    /// An executor that cannot interrupt a task may give each task a budget per poll, as Tokio
    /// does. A call invokes this function when it begins, before it holds anything. A loop of calls
    /// that are ready at once then yields to other tasks and to a timeout around it.
    ///
    /// A bulkhead reads this once, when it is created. A runtime that wraps another should forward
    /// it. With `None`, calls pay nothing for it.
    fn cooperation(&self) -> Option<Cooperation> {
        None
    }

    /// Returns `false` if there is no executor now that could run a blocking job.
    ///
    /// `execute_blocking` then rejects the call. Only a runtime that uses an executor of its caller
    /// has to implement it.
    fn is_running(&self) -> bool {
        true
    }

    /// Returns the capabilities of this runtime.
    ///
    /// A configuration that needs a missing capability is rejected when the bulkhead is created.
    /// [`ClockOnly`] has neither timers nor tasks.
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::ALL
    }
}

/// The capabilities of a [`Runtime`], besides its clock.
///
/// ```
/// use bulkman::Runtime;
/// use bulkman::runtime::{ClockOnly, RuntimeCapabilities};
/// use bulkman::testing::ManualRuntime;
///
/// assert_eq!(
///     ManualRuntime::new().capabilities(),
///     RuntimeCapabilities::ALL
/// );
/// assert!(!ClockOnly.capabilities().timers);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeCapabilities {
    /// [`Runtime::sleep_until`] works.
    pub timers: bool,
    /// [`Runtime::spawn`] works.
    pub tasks: bool,
    /// [`Runtime::spawn_blocking`] works.
    pub blocking: bool,
}

impl RuntimeCapabilities {
    /// All capabilities: the default.
    pub const ALL: Self = Self {
        timers: true,
        tasks: true,
        blocking: true,
    };
    /// No capabilities besides the clock.
    pub const CLOCK: Self = Self {
        timers: false,
        tasks: false,
        blocking: false,
    };

    /// Sets whether [`Runtime::sleep_until`] works.
    ///
    /// ```
    /// # use bulkman::runtime::RuntimeCapabilities;
    /// const TIMERS: RuntimeCapabilities = RuntimeCapabilities::CLOCK.with_timers(true);
    /// assert!(TIMERS.timers && !TIMERS.tasks && !TIMERS.blocking);
    /// ```
    #[must_use]
    pub const fn with_timers(mut self, timers: bool) -> Self {
        self.timers = timers;
        self
    }

    /// Sets whether [`Runtime::spawn`] works.
    ///
    /// ```
    /// # use bulkman::runtime::RuntimeCapabilities;
    /// const NO_TASKS: RuntimeCapabilities = RuntimeCapabilities::ALL.with_tasks(false);
    /// assert!(NO_TASKS.timers && !NO_TASKS.tasks && NO_TASKS.blocking);
    /// ```
    #[must_use]
    pub const fn with_tasks(mut self, tasks: bool) -> Self {
        self.tasks = tasks;
        self
    }

    /// Sets whether [`Runtime::spawn_blocking`] works.
    ///
    /// ```
    /// # use bulkman::runtime::RuntimeCapabilities;
    /// const BLOCKING: RuntimeCapabilities = RuntimeCapabilities::CLOCK.with_blocking(true);
    /// assert!(!BLOCKING.timers && !BLOCKING.tasks && BLOCKING.blocking);
    /// ```
    #[must_use]
    pub const fn with_blocking(mut self, blocking: bool) -> Self {
        self.blocking = blocking;
        self
    }
}

/// A runtime with the standard clock, without timers and without tasks.
///
/// It is for crates that embed a bulkhead or a circuit breaker without an executor. A configuration
/// that needs a timer or a task is rejected with an error that names the setting.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use std::time::Duration;
///
/// let config = BulkheadConfig::new("embedded").max_concurrent_calls(1);
/// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
/// assert_eq!(bulkhead.execute_sync(|| Ok::<_, ()>(7)).unwrap(), 7);
///
/// let error =
///     Bulkhead::new(config.timeout(Duration::from_secs(1)), ClockOnly).unwrap_err();
/// assert!(error.to_string().contains("timeout"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOnly;

impl Runtime for ClockOnly {
    #[allow(
        clippy::disallowed_methods,
        reason = "the only place where core reads the standard clock"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Never completes. Constructors reject every configuration that needs it.
    fn sleep_until(&self, _deadline: Instant) -> Sleep {
        Box::pin(std::future::pending())
    }

    /// Returns the task, because there is no executor.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }

    /// Drops the job, because there is no executor.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::CLOCK
    }
}

/// A shared runtime is a runtime.
impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        (**self).sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        (**self).spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        (**self).spawn_blocking(job);
    }

    fn park(&self, deadline: Option<Instant>) {
        (**self).park(deadline);
    }

    fn cooperation(&self) -> Option<Cooperation> {
        (**self).cooperation()
    }

    fn is_running(&self) -> bool {
        (**self).is_running()
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        (**self).capabilities()
    }
}
