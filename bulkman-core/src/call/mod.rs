//! How a call runs: its admission, its deadlines, its outcome.

pub(crate) mod admission;
pub(crate) mod admitted;
mod claim_admission;
mod classified;
mod classified_by;
pub(crate) mod classifier;
pub(crate) mod deadlines;
pub(crate) mod execute;
pub(crate) mod execute_blocking;
mod execute_sync;
pub(crate) mod guard;
#[cfg(feature = "http")]
pub(crate) mod held;
mod key;
mod key_hash;
pub(crate) mod limits;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod permit;
mod queue_timer;
pub(crate) mod rejection;
pub(crate) mod report;
pub(crate) mod run;
mod with_bulkhead;

use std::convert::Infallible;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

pub use self::classified::Classified;
pub use self::classified_by::ClassifiedBy;
pub use self::classifier::{
    Classifier, DefaultClassifier, IgnoreBoxedRejections, IgnoreRejections,
};
pub use self::key::CallKey;
pub(crate) use self::key_hash::hash_key;
pub use self::outcome::Outcome;
pub use self::permit::Permit;
pub use self::report::ExecutionReport;
pub use self::with_bulkhead::WithBulkhead;
use crate::bulkhead::{Bulkhead, Label};
use crate::call::execute::{Execute, ExecuteOwned};
use crate::call::execute_blocking::ExecuteBlocking;
use crate::call::execute_sync::execute_sync;
use crate::call::limits::Limit;
use crate::call::options::CallOptions;
use crate::call::permit::Acquire;
use crate::call::report::ExecuteWithReport;
use crate::error::BulkheadError;
use crate::observe::next_call_id;
use crate::queue::Priority;

/// A builder for a call with options that override the configuration.
///
/// Created by [`Bulkhead::call`].
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome, Priority};
/// use std::time::Duration;
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
///             Err("invalid query") => Outcome::Ignored,
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

impl<'a> Call<'a> {
    #[inline]
    pub(crate) const fn new(bulkhead: &'a Bulkhead) -> Self {
        Self {
            bulkhead,
            options: CallOptions::DEFAULT,
            classifier: DefaultClassifier,
        }
    }
}

impl<'a, C> Call<'a, C> {
    /// Limits the whole call, the wait and the run; `None` for no limit. Default: as configured.
    ///
    /// With zero, a call that is not complete after its first poll has timed out.
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
        self.options.limits_mut().timeout = Limit::new(timeout.into());
        self
    }

    /// Limits the wait in the queue; `None` for no limit but `timeout`. Default: as configured.
    ///
    /// With zero, a call that would have to wait is rejected with [`BulkheadError::Full`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(1);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let _busy = bulkhead.try_acquire().unwrap();
    /// let call = bulkhead.call().max_wait(Duration::ZERO);
    /// let full = call.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert!(matches!(full, BulkheadError::Full { .. }));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "max_wait_duration")]
    pub fn max_wait(mut self, max_wait: impl Into<Option<Duration>>) -> Self {
        self.options.limits_mut().max_wait = Limit::new(max_wait.into());
        self
    }

    /// Limits the run of the operation; `None` for no limit. Default: as configured.
    ///
    /// The wait does not count. With zero, an operation that is not complete after its first poll
    /// has timed out.
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
    ///     BulkheadError::Timeout { phase: TimeoutPhase::Running, ran, .. } => {
    ///         assert_eq!(ran, Duration::from_secs(2));
    ///     }
    ///     other => panic!("{other}"),
    /// }
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn run_timeout(mut self, run_timeout: impl Into<Option<Duration>>) -> Self {
        self.options.limits_mut().run_timeout = Limit::new(run_timeout.into());
        self
    }

    /// Sets the priority among queued calls. Default: [`Priority::Normal`].
    ///
    /// A waiter receives a permit before all waiters of a lower priority. The capacity of the queue
    /// is the same for all priorities.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Priority};
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::zip;
    /// # use std::cell::RefCell;
    /// # let runtime = ManualRuntime::new();
    /// # let config = BulkheadConfig::new("search").max_concurrent_calls(1);
    /// # let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// # let served = RefCell::new(Vec::new());
    /// # let query = async |name| { served.borrow_mut().push(name); Ok::<_, ()>(()) };
    /// let running = bulkhead.try_acquire().unwrap();
    /// let report = bulkhead
    ///     .call()
    ///     .priority(Priority::Low)
    ///     .execute(query("nightly report"));
    /// let shop = bulkhead
    ///     .call()
    ///     .priority(Priority::High)
    ///     .execute(query("shop"));
    /// // Both are queued, in this order, before the permit is released.
    /// let _ = runtime.block_on(zip(zip(report, shop), async { running.succeed() }));
    /// assert_eq!(served.into_inner(), ["shop", "nightly report"]);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.tags.priority = priority;
        self
    }

    /// Sets the number of permits that the call takes. Default: 1; 0 means 1.
    ///
    /// For calls that cost the dependency different amounts: set the weight in proportion to rows,
    /// bytes or tokens. The limits of the bulkhead count permits, its statistics count calls.
    ///
    /// A call that is next in the queue waits until its permits are released, and no call overtakes
    /// it. The end of the call releases all of them. If the limit in force is smaller than the
    /// weight, for example an [adaptive limit](crate::BulkheadConfig::adaptive_limit), the call
    /// takes all permits and runs alone: see [`ExecutionReport::permits`].
    ///
    /// A weight above [`max_concurrent_calls`](crate::BulkheadConfig::max_concurrent_calls) is
    /// rejected with [`BulkheadError::WeightTooLarge`], before anything is queued.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("warehouse").max_concurrent_calls(10);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let report = bulkhead.call().weight(8).try_acquire().unwrap();
    /// assert_eq!(bulkhead.stats().permits_in_use, 8);
    /// assert!(bulkhead.call().weight(3).try_acquire().is_err()); // 2 permits are available
    ///
    /// let error = bulkhead.call().weight(11).try_acquire().unwrap_err();
    /// assert!(matches!(error, BulkheadError::WeightTooLarge { weight: 11, max: 10, .. }));
    /// # drop(report);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "acquire_many")]
    #[doc(alias = "cost")]
    #[inline]
    pub fn weight(mut self, permits: u32) -> Self {
        self.options.weight = permits.max(1);
        self
    }

    /// Sets the key of the call, usually its tenant. Default: none.
    ///
    /// A bulkhead with [fair shares](crate::BulkheadConfig::fairness) shares its permits between
    /// keys; others ignore them. Calls without a key share one. The key is hashed, with a secret
    /// seed of the bulkhead, and not kept.
    ///
    /// # Panics
    ///
    /// If the implementation of [`Hash`] panics. Nothing is held then.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("db").fairness(Fairness::new().max_per_key(1));
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let running = bulkhead.call().key("tenant 17").try_acquire().unwrap();
    /// assert!(bulkhead.call().key("tenant 17").try_acquire().is_err());
    /// assert!(bulkhead.call().key("tenant 18").try_acquire().is_ok());
    /// # drop(running);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "tenant")]
    #[inline]
    pub fn key<K: Hash + ?Sized>(mut self, key: &K) -> Self {
        if self.bulkhead.inner().queue.shares_permits() {
            self.options.key = self.bulkhead.call_key(key).to_bits();
        }
        self
    }

    /// Sets the key of the call to one that was computed before. See [`key`](Self::key).
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let config = BulkheadConfig::new("db").fairness(Fairness::new());
    /// # let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let tenant = bulkhead.call_key("tenant 17");
    /// let permit = bulkhead.call().with_key(tenant).try_acquire().unwrap();
    /// assert_eq!(bulkhead.snapshot().keys[0].key, Some(tenant));
    /// # drop(permit);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn with_key(mut self, key: CallKey) -> Self {
        // Without fair shares, the call remains one of those that ask for nothing but a permit.
        if self.bulkhead.inner().queue.shares_permits() {
            self.options.key = key.to_bits();
        }
        self
    }

    /// Sets the share of the key among all keys: 1 to 1,000, default 1. Others are clamped.
    ///
    /// While they compete, a key with share 4 holds four times the permits of a key with share 1.
    /// The share of the latest call that waits counts for the key.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let config = BulkheadConfig::new("db").fairness(Fairness::new());
    /// # let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let gold = bulkhead.call().key("tenant 17").key_share(4);
    /// assert_eq!(gold.execute_sync(|| Ok::<_, ()>(3)), Ok(3));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn key_share(mut self, share: u32) -> Self {
        self.options.key_share = share.clamp(1, 1000);
        self
    }

    /// Sets whether an adaptive limit may learn from the call. Default: `true`.
    ///
    /// Set it to `false` for streams, long polls and hedged requests: their duration is not the
    /// latency of the dependency. The call needs a permit all the same. Without an
    /// [adaptive limit](crate::BulkheadConfig::adaptive_limit) it has no effect.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::AdaptiveLimit;
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::ready;
    /// # let runtime = ManualRuntime::new();
    /// let config = BulkheadConfig::new("chat").adaptive_limit(AdaptiveLimit::new());
    /// let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// let long_poll = ready(Ok::<_, ()>("message"));
    /// let call = bulkhead.call().latency_sample(false).execute(long_poll);
    /// assert_eq!(runtime.block_on(call), Ok("message"));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn latency_sample(mut self, sample: bool) -> Self {
        self.options.tags.is_sampled = sample;
        self
    }

    /// Sets the label of the call in the list of running calls. Default: none.
    ///
    /// Has an effect only with
    /// [`track_running_calls`](crate::BulkheadConfig::track_running_calls). The label must belong
    /// to this bulkhead.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("users").track_running_calls(true);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let get = bulkhead.label("GET /users");
    /// let call = bulkhead.call().label(get);
    /// let oldest = call.execute_sync(|| Ok::<_, ()>(bulkhead.snapshot().oldest));
    /// assert_eq!(oldest.unwrap()[0].label.as_deref(), Some("GET /users"));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn label(mut self, label: Label) -> Self {
        self.options.tags.label = label;
        self
    }

    /// Sets how the result counts toward the circuit breaker. See [`Outcome`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let call = bulkhead
    ///     .call()
    ///     .classify(|response: &Result<u16, ()>| match response {
    ///         Ok(status) if *status < 500 => Outcome::Success,
    ///         _ => Outcome::Failure,
    ///     });
    /// assert_eq!(call.execute_sync(|| Ok(503)), Ok(503));
    /// assert_eq!(bulkhead.stats().failed, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn classify<T, E, F>(self, classifier: F) -> Call<'a, F>
    where
        F: Fn(&Result<T, E>) -> Outcome,
    {
        self.with_classifier(classifier)
    }

    /// Sets the classifier, which can be a type of yours. See [`classify`](Self::classify).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// use bulkman::call::DefaultClassifier;
    ///
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let call = bulkhead.call().classify_by(DefaultClassifier);
    /// assert!(call.execute_sync(|| Err::<(), _>("down")).is_err());
    /// assert_eq!(bulkhead.stats().failed, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn classify_by<D>(self, classifier: D) -> Call<'a, D> {
        self.with_classifier(classifier)
    }

    /// Runs a future. See [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Priority};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let query = async { Ok::<_, ()>(12) };
    /// let hits = bulkhead.call().priority(Priority::High).execute(query).await;
    /// assert_eq!(hits, Ok(12));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn execute<F, T, E>(self, operation: F) -> Execute<'a, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        Execute::new(self.bulkhead, operation, self.classifier, self.options)
    }

    /// Runs a future and returns how long it waited and ran.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Runtime};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// # let query = async {
    /// #     runtime.sleep_until(runtime.now() + Duration::from_secs(2)).await;
    /// #     Ok::<_, ()>(12)
    /// # };
    /// let report = runtime.block_on(bulkhead.call().execute_with_report(query));
    /// assert_eq!(report.result, Ok(12));
    /// assert_eq!((report.queued, report.ran), (Duration::ZERO, Duration::from_secs(2)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn execute_with_report<F, T, E>(mut self, operation: F) -> ExecuteWithReport<'a, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        let id = next_call_id();
        // A report contains the times of the call.
        self.options.limits_mut();
        self.options.report_id = id;
        ExecuteWithReport::new(id, self.execute(operation))
    }

    /// Runs a blocking closure on the runtime's blocking pool. See [`Bulkhead::execute_blocking`].
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

    /// Runs a closure on the current thread. See [`Bulkhead::execute_sync`].
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

    /// Waits for a permit. See [`Bulkhead::acquire`].
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

    /// Acquires a permit without waiting. See [`Bulkhead::try_acquire`].
    ///
    /// # Errors
    ///
    /// As [`Bulkhead::try_acquire`], and [`BulkheadError::WeightTooLarge`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// let permit = bulkhead.call().weight(2).try_acquire().unwrap();
    /// assert_eq!(bulkhead.stats().permits_in_use, 2);
    /// permit.succeed();
    /// assert_eq!(bulkhead.stats().permits_in_use, 0);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_acquire(self) -> Result<Permit, BulkheadError<Infallible>> {
        Permit::try_acquire(self.bulkhead, &self.options)
    }

    /// Runs a future that owns the bulkhead. See [`Bulkhead::execute_owned`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let call = bulkhead.call().weight(3).execute_owned(async { Ok::<_, ()>(12) });
    /// drop(bulkhead);
    /// assert_eq!(runtime.block_on(call), Ok(12));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_owned<F, T, E>(self, operation: F) -> ExecuteOwned<F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E>,
    {
        ExecuteOwned::new(
            self.bulkhead.clone(),
            operation,
            self.classifier,
            self.options,
        )
    }

    #[cfg(feature = "tower")]
    pub(crate) const fn options(&self) -> CallOptions {
        self.options
    }

    pub(crate) fn with_classifier<D>(self, classifier: D) -> Call<'a, D> {
        Call {
            bulkhead: self.bulkhead,
            options: self.options,
            classifier,
        }
    }
}
