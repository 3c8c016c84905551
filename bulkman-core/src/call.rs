//! One call with settings of its own.

use std::future::Future;
use std::time::Duration;

use crate::blocking::ExecuteBlocking;
use crate::bulkhead::Bulkhead;
use crate::classify::{ByResult, Classifier};
use crate::deadlines::{Deadlines, Limit, TimeLimits};
use crate::error::BulkheadError;
use crate::execute::Execute;
use crate::execute_sync::execute_sync;
use crate::outcome::Outcome;
use crate::permit::Acquire;
use crate::queue::Priority;
use crate::report::{Report, next_id};

/// A call that differs from the bulkhead's configuration: made by [`Bulkhead::call`].
///
/// ```
/// use std::time::Duration;
/// use bulkman_core::testing::ManualRuntime;
/// use bulkman_core::{Bulkhead, BulkheadConfig, Outcome, Priority};
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
///         .report(async { Ok(503) }),
/// );
/// assert_eq!(report.result.unwrap(), 503);
/// assert_eq!(bulkhead.stats().failed, 1);
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a call does nothing until it is given an operation"]
pub struct Call<'a, C = ByResult> {
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
        Self { bulkhead, options: CallOptions::NONE, classifier: ByResult }
    }
}

impl<'a, C> Call<'a, C> {
    /// Bounds the whole call, queue and run together; `None`: not at all.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.limits().timeout = Limit::new(timeout.into());
        self
    }

    /// Bounds the time in the queue; zero: never wait; `None`: as long as the timeout allows.
    pub fn max_wait(mut self, max_wait: impl Into<Option<Duration>>) -> Self {
        self.options.limits().max_wait = Limit::new(max_wait.into());
        self
    }

    /// Bounds the run alone; `None`: not at all.
    pub fn run_timeout(mut self, run_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.limits().run_timeout = Limit::new(run_timeout.into());
        self
    }

    /// Served before waiting calls of a lower priority. A full queue is full for all of them.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Decides what the result says about the dependency: see [`Outcome`].
    pub fn classify<T, E, F>(self, classifier: F) -> Call<'a, F>
    where
        F: Fn(&Result<T, E>) -> Outcome,
    {
        self.classified_by(classifier)
    }

    /// Runs a future: as [`Bulkhead::execute`].
    #[inline]
    pub fn execute<F, T, E>(self, operation: F) -> Execute<&'a Bulkhead, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        Execute::new(self.bulkhead, operation, self.classifier, self.options)
    }

    /// Runs a future and tells how long it waited and ran.
    #[inline]
    pub fn report<F, T, E>(mut self, operation: F) -> Report<&'a Bulkhead, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let id = next_id();
        self.options.limits();
        self.options.report = id;
        Report::new(id, self.execute(operation))
    }

    /// Runs a closure off the executor: as [`Bulkhead::execute_blocking`].
    pub fn execute_blocking<F, T, E>(self, operation: F) -> ExecuteBlocking<F, T, E, C>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        C: Classifier<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        ExecuteBlocking::new(self.bulkhead.clone(), operation, self.classifier, self.options)
    }

    /// Runs a closure on this thread: as [`Bulkhead::execute_sync`].
    ///
    /// # Errors
    ///
    /// As [`Bulkhead::execute_sync`].
    pub fn execute_sync<F, T, E>(self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
        C: Classifier<T, E>,
    {
        execute_sync(self.bulkhead, operation, self.classifier, self.options)
    }

    /// Waits for a permit: as [`Bulkhead::acquire`].
    pub fn acquire(self) -> Acquire {
        Acquire::new(self.bulkhead.clone(), self.options)
    }

    pub(crate) fn classified_by<D>(self, classifier: D) -> Call<'a, D> {
        Call { bulkhead: self.bulkhead, options: self.options, classifier }
    }
}

impl CallOptions {
    /// Nothing of its own.
    pub(crate) const NONE: Self = Self { limits: None, priority: Priority::Normal, report: 0 };

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
