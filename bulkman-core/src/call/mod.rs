//! One call with settings of its own.

mod classified;
pub(crate) mod classifier;
pub(crate) mod deadlines;
pub(crate) mod execute;
pub(crate) mod execute_blocking;
mod execute_sync;
pub(crate) mod guard;
pub(crate) mod outcome;
pub(crate) mod permit;
pub(crate) mod rejection;
pub(crate) mod report;
mod with_bulkhead;

pub use self::classified::Classified;
pub use self::classifier::{Classifier, DefaultClassifier};
pub use self::outcome::Outcome;
pub use self::permit::Permit;
pub use self::report::ExecutionReport;
pub use self::with_bulkhead::WithBulkhead;

use std::future::Future;
use std::time::Duration;

use crate::bulkhead::Bulkhead;
use crate::call::deadlines::{Deadlines, Limit, TimeLimits};
use crate::call::execute::Execute;
use crate::call::execute_blocking::ExecuteBlocking;
use crate::call::execute_sync::execute_sync;
use crate::call::permit::Acquire;
use crate::call::report::{ExecuteWithReport, next_id};
use crate::error::BulkheadError;
use crate::queue::Priority;

/// A call that differs from the bulkhead's configuration: made by [`Bulkhead::call`].
///
/// ```
/// use std::time::Duration;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome, Priority};
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
/// let report = runtime.block_on(
///     bulkhead
///         .call()
///         .timeout(Duration::from_secs(2))
///         .max_wait(Duration::from_millis(100))
///         .priority(Priority::High)
///         .classify(|result: &Result<u32, &str>| match result {
///             Ok(status) if *status < 500 => Outcome::Success,
///             Err("no such user") => Outcome::Ignored,
///             _ => Outcome::Failure,
///         })
///         .execute_with_report(async { Ok(503) }),
/// );
/// assert_eq!(report.result.unwrap(), 503);
/// assert_eq!(bulkhead.stats().failed, 1);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a call does nothing until it is given an operation"]
pub struct Call<'a, C = DefaultClassifier> {
    bulkhead: &'a Bulkhead,
    options: CallOptions,
    classifier: C,
}

/// What a call has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    limits: Option<TimeLimits>,
    pub(crate) priority: Priority,
    /// The number of the report that the caller wants; zero: none.
    pub(crate) report: u64,
}

impl<'a> Call<'a> {
    #[inline]
    pub(crate) const fn new(bulkhead: &'a Bulkhead) -> Self {
        Self {
            bulkhead,
            options: CallOptions::NONE,
            classifier: DefaultClassifier,
        }
    }
}

impl<'a, C> Call<'a, C> {
    /// Bounds the whole call, queue and run together; `None`: not at all. Default: as configured.
    ///
    /// Zero gives no more time than the first poll: what is not done by then has timed out.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::{future::pending, time::Duration};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let call = bulkhead.call().timeout(Duration::from_secs(2));
    /// let late = runtime.block_on(call.execute(pending::<Result<(), ()>>())).unwrap_err();
    /// assert!(matches!(late, BulkheadError::Timeout { .. }));
    /// assert_eq!(runtime.elapsed(), Duration::from_secs(2));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.limits().timeout = Limit::new(timeout.into());
        self
    }

    /// Bounds the time in the queue; `None`: as long as the timeout allows. Default: as configured.
    ///
    /// Zero never waits: a call that would have to is refused with [`BulkheadError::Full`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(1), ClockOnly)?;
    /// let _busy = bulkhead.try_acquire().unwrap();
    /// let now_or_never = bulkhead.call().max_wait(Duration::ZERO);
    /// let full = now_or_never.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert!(matches!(full, BulkheadError::Full { .. }));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn max_wait(mut self, max_wait: impl Into<Option<Duration>>) -> Self {
        self.options.limits().max_wait = Limit::new(max_wait.into());
        self
    }

    /// Bounds the run alone, however long the call waited before; `None`: not at all. Default: as
    /// configured.
    ///
    /// Zero gives no more time than the operation's first poll.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::error::TimeoutPhase;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::{future::pending, time::Duration};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let call = bulkhead.call().run_timeout(Duration::from_secs(2));
    /// match runtime.block_on(call.execute(pending::<Result<(), ()>>())).unwrap_err() {
    ///     BulkheadError::Timeout { phase: TimeoutPhase::Running, ran, .. } => assert_eq!(ran, Duration::from_secs(2)),
    ///     other => panic!("{other}"),
    /// }
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn run_timeout(mut self, run_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.limits().run_timeout = Limit::new(run_timeout.into());
        self
    }

    /// Served before waiting calls of a lower priority; default [`Priority::Normal`]. A full queue
    /// is full for all of them.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Priority};
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::zip;
    /// # use std::cell::RefCell;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(1), runtime.clone())?;
    /// # let served = RefCell::new(Vec::new());
    /// # let query = async |who| { served.borrow_mut().push(who); Ok::<_, ()>(()) };
    /// let running = bulkhead.try_acquire().unwrap();
    /// let report = bulkhead.call().priority(Priority::Low).execute(query("nightly report"));
    /// let shop = bulkhead.call().priority(Priority::High).execute(query("shop"));
    /// // They wait, in this order, and then there is a permit.
    /// let _ = runtime.block_on(zip(zip(report, shop), async { running.succeed() }));
    /// assert_eq!(served.into_inner(), ["shop", "nightly report"]);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Decides what the result says about the dependency: see [`Outcome`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let call = bulkhead.call().classify(|response: &Result<u16, ()>| match response {
    ///     Ok(status) if *status < 500 => Outcome::Success,
    ///     _ => Outcome::Failure,
    /// });
    /// assert_eq!(call.execute_sync(|| Ok(503)), Ok(503));
    /// assert_eq!(bulkhead.stats().failed, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn classify<T, E, F>(self, classifier: F) -> Call<'a, F>
    where
        F: Fn(&Result<T, E>) -> Outcome,
    {
        self.classified_by(classifier)
    }

    /// Runs a future: as [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Priority};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let hits = bulkhead.call().priority(Priority::High).execute(async { Ok::<_, ()>(12) }).await;
    /// assert_eq!(hits, Ok(12));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn execute<F, T, E>(self, operation: F) -> Execute<&'a Bulkhead, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        Execute::new(self.bulkhead, operation, self.classifier, self.options)
    }

    /// Runs a future and tells how long it waited and ran.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Runtime};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// # let query = async { runtime.sleep_until(runtime.now() + Duration::from_secs(2)).await; Ok::<_, ()>(12) };
    /// let report = runtime.block_on(bulkhead.call().execute_with_report(query));
    /// assert_eq!(report.result, Ok(12));
    /// assert_eq!((report.queued, report.ran), (Duration::ZERO, Duration::from_secs(2)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn execute_with_report<F, T, E>(
        mut self,
        operation: F,
    ) -> ExecuteWithReport<&'a Bulkhead, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let id = next_id();
        self.options.limits();
        self.options.report = id;
        ExecuteWithReport::new(id, self.execute(operation))
    }

    /// Runs a closure off the executor: as [`Bulkhead::execute_blocking`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("reports"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let call = bulkhead.call().timeout(Duration::from_secs(5));
    /// let sum = call.execute_blocking(|| Ok::<_, ()>((1..=10).sum::<u32>())).await;
    /// assert_eq!(sum, Ok(55));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_blocking<F, T, E>(self, operation: F) -> ExecuteBlocking<F, T, E, C>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        C: Classifier<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        ExecuteBlocking::new(
            self.bulkhead.clone(),
            operation,
            self.classifier,
            self.options,
        )
    }

    /// Runs a closure on this thread: as [`Bulkhead::execute_sync`].
    ///
    /// # Errors
    ///
    /// As [`Bulkhead::execute_sync`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("reports"), ClockOnly)?;
    /// let call = bulkhead.call().max_wait(Duration::from_millis(100));
    /// assert_eq!(call.execute_sync(|| Ok::<_, ()>("written")), Ok("written"));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_sync<F, T, E>(self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
        C: Classifier<T, E>,
    {
        execute_sync(self.bulkhead, operation, self.classifier, self.options)
    }

    /// Waits for a permit: as [`Bulkhead::acquire`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let permit = bulkhead.call().max_wait(Duration::from_millis(100)).acquire().await?;
    /// permit.succeed();
    /// # Ok::<(), bulkman::BulkheadError<std::convert::Infallible>>(()) }).unwrap();
    /// ```
    pub fn acquire(self) -> Acquire {
        Acquire::new(self.bulkhead.clone(), self.options)
    }

    pub(crate) fn classified_by<D>(self, classifier: D) -> Call<'a, D> {
        Call {
            bulkhead: self.bulkhead,
            options: self.options,
            classifier,
        }
    }
}

impl CallOptions {
    /// Nothing of its own.
    pub(crate) const NONE: Self = Self {
        limits: None,
        priority: Priority::Normal,
        report: 0,
    };

    #[inline]
    pub(crate) const fn deadlines(&self) -> Deadlines {
        match self.limits {
            Some(limits) => Deadlines::Asked(limits),
            None => Deadlines::Unkept,
        }
    }

    /// The call's own limits; from now on its times matter.
    fn limits(&mut self) -> &mut TimeLimits {
        self.limits.get_or_insert(TimeLimits::AS_CONFIGURED)
    }
}
