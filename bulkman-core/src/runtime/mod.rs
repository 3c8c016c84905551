//! What a bulkhead needs from the outside: time, tasks, and threads for blocking work.
//!
//! One trait owns both the clock and the timers, because a virtual clock lies as soon as one of
//! them stays real. It is dyn-compatible and held as `Arc<dyn Runtime>`, so that
//! [`Bulkhead`](crate::Bulkhead) is one plain type in its users' structs.

#[cfg(feature = "test-util")]
pub(crate) mod manual;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A boxed future that a [`Runtime`] is asked to run.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A timer made by [`Runtime::sleep_until`].
pub type Sleep = BoxFuture<'static, ()>;

/// Time, tasks and blocking threads of one executor.
///
/// `bulkman-tokio` and `bulkman-smol` implement it; so may anybody. All methods may be called
/// from any thread, also from one that no executor has started.
///
/// # Implementing
///
/// `now` must be monotonic, and `sleep_until` must complete by the same clock: a timer for a
/// deadline that has passed completes at its first poll. A task or job that the runtime can't run
/// (it is shutting down) is dropped; callers notice by the drop.
///
/// ```
/// use std::future::{pending, poll_fn};
/// use std::task::{Poll, Waker};
/// use std::thread;
/// use std::time::{Duration, Instant};
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
/// use bulkman::runtime::{BoxFuture, Sleep};
/// use futures_lite::future::block_on;
///
/// /// Threads for everything: simple, and good enough for a handful of timers.
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
///             if !sleeping_for.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
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
///     fn spawn(&self, task: BoxFuture<'static, ()>) {
///         thread::spawn(move || block_on(task));
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
    /// The current time: the only source of it in this library.
    fn now(&self) -> Instant;

    /// A future that completes once [`now`](Self::now) has reached `deadline`.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// Runs `task` in the background: the store's synchroniser, health checks. It is never an
    /// operation of the user's.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs `job` on a thread where blocking does no harm to the executor.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>);

    /// Blocks the calling thread until it is unparked or the deadline has passed.
    ///
    /// May return early, as [`std::thread::park`] may. `execute_sync` waits so; only a runtime
    /// with a clock of its own needs another implementation.
    fn park(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => {
                std::thread::park_timeout(deadline.saturating_duration_since(self.now()))
            }
            None => std::thread::park(),
        }
    }

    /// What this runtime can do; [`ClockOnly`] has neither timers nor tasks.
    ///
    /// A configuration that needs what is missing is refused when the bulkhead is made.
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::ALL
    }
}

/// What a [`Runtime`] can do besides telling the time.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::Runtime;
/// use bulkman::runtime::{ClockOnly, RuntimeCapabilities};
///
/// assert_eq!(ManualRuntime::new().capabilities(), RuntimeCapabilities::ALL);
/// assert!(!ClockOnly.capabilities().timers);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeCapabilities {
    /// [`Runtime::sleep_until`] works.
    pub timers: bool,
    /// [`Runtime::spawn`] and [`Runtime::spawn_blocking`] work.
    pub tasks: bool,
}

impl RuntimeCapabilities {
    /// Everything: the default.
    pub const ALL: Self = Self {
        timers: true,
        tasks: true,
    };
    /// A clock and nothing else.
    pub const CLOCK: Self = Self {
        timers: false,
        tasks: false,
    };
}

/// The standard clock, without timers and without tasks.
///
/// For crates that embed a bulkhead or a circuit breaker and have no executor to offer. A
/// configuration that needs a timer or a task is refused, with the setting's name.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
/// use std::time::Duration;
///
/// let config = BulkheadConfig::new("embedded").max_concurrent_calls(1);
/// let bulkhead = Bulkhead::new(config.clone(), ClockOnly)?;
/// assert_eq!(bulkhead.execute_sync(|| Ok::<_, ()>(7)).unwrap(), 7);
///
/// let refused = Bulkhead::new(config.timeout(Duration::from_secs(1)), ClockOnly).unwrap_err();
/// assert!(refused.to_string().contains("timeout"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOnly;

impl Runtime for ClockOnly {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where core reads the standard clock"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Never completes: constructors refuse every configuration that would wait for it.
    fn sleep_until(&self, _deadline: Instant) -> Sleep {
        Box::pin(std::future::pending())
    }

    /// Drops the task: there is nothing to run it on.
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(task);
    }

    /// Drops the job: there is nothing to run it on.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::CLOCK
    }
}

/// A runtime that is shared is a runtime too.
impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        (**self).sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        (**self).spawn(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        (**self).spawn_blocking(job);
    }

    fn park(&self, deadline: Option<Instant>) {
        (**self).park(deadline);
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        (**self).capabilities()
    }
}
