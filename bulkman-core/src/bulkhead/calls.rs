//! The methods of a bulkhead that run calls.

use std::convert::Infallible;
use std::future::Future;

use super::Bulkhead;
use crate::call::classifier::DefaultClassifier;
use crate::call::execute::{Execute, ExecuteOwned};
use crate::call::execute_blocking::ExecuteBlocking;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::permit::{Acquire, Permit};
use crate::call::{Call, Classified, ClassifiedBy};
use crate::error::BulkheadError;

impl Bulkhead {
    /// Runs a future through the bulkhead.
    ///
    /// The operation is polled in the caller's task: it need not be `Send`, and it may borrow. It
    /// is not polled before the call is admitted. An `Err`, a panic and a timeout while running
    /// count as failures of the dependency. To classify results differently, use
    /// [`classified`](Self::classified) or [`call`](Self::call).
    ///
    /// An error that occurs before the future exists, as in `execute(create()?)`, is not counted.
    /// An operation that can't fail returns `Ok::<_, Infallible>(value)`.
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Operation`] contains the error of the operation. All other variants are
    /// errors of the bulkhead.
    ///
    /// # Panics
    ///
    /// A panic of the operation is counted and then continues in the caller.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time: its position in the queue, its permit and its probe
    /// slot are released. See [`Execute`].
    ///
    /// A future that is kept and no longer polled may hold a permit that was granted to it. Other
    /// calls get the permit at the deadline of its wait. Without a deadline they do not: drop the
    /// future, or spawn the call with [`execute_owned`](Self::execute_owned).
    ///
    /// A loop that creates its call anew in each iteration of `select!` joins the end of the queue
    /// each time, and may never be served. Create the call once, before the loop, and pin it.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("docs"), runtime.clone()).unwrap();
    /// # async fn fetch(_: &str) -> Result<String, std::io::Error> { Ok(String::from("page")) }
    /// # runtime.block_on(async {
    /// let page = bulkhead.execute(fetch("/index.html")).await?;
    /// # assert_eq!(page, "page");
    /// # Ok::<(), bulkman::BulkheadError<std::io::Error>>(()) }).unwrap();
    /// ```
    #[inline]
    pub fn execute<F, T, E>(&self, operation: F) -> Execute<'_, F, DefaultClassifier>
    where
        F: Future<Output = Result<T, E>>,
    {
        Execute::new(self, operation, DefaultClassifier, CallOptions::DEFAULT)
    }

    /// Runs a blocking closure on the runtime's blocking pool.
    ///
    /// The closure holds its permit until it has returned, even if the caller timed out or was
    /// cancelled. A timeout is returned to the caller without waiting for the closure.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute). A panic of the closure is returned as
    /// [`BulkheadError::Panicked`]. If the runtime drops the closure, the error is
    /// [`BulkheadError::Shutdown`].
    /// Where no executor runs, such as outside of a Tokio runtime, the error is
    /// [`BulkheadError::Unsupported`].
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time. A closure that has started runs to its end. See
    /// [`ExecuteBlocking`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("files"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let text = bulkhead.execute_blocking(|| std::fs::read_to_string("Cargo.toml")).await?;
    /// assert!(text.contains("[package]"));
    /// # Ok::<(), bulkman::BulkheadError<std::io::Error>>(()) }).unwrap();
    /// ```
    pub fn execute_blocking<F, T, E>(
        &self,
        operation: F,
    ) -> ExecuteBlocking<F, T, E, DefaultClassifier>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.call().execute_blocking(operation)
    }

    /// Runs a closure on the calling thread, for callers that are not async.
    ///
    /// Blocks the thread while waiting for a permit, for at most `max_wait` and `timeout`. The
    /// closure can't be interrupted: if it exceeds its timeout, its value is still returned, and
    /// the call counts as a failure. Do not call it from async code, since it blocks the executor.
    ///
    /// # Panics
    ///
    /// With `TokioRuntime`, if it has to wait in an asynchronous task. Other runtimes do not detect
    /// this, and block the thread. Use [`execute`](Self::execute) there.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    ///
    /// # Panics
    ///
    /// A panic of the closure is counted and then continues in the caller.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("files"), ClockOnly)?;
    /// let text = bulkhead.execute_sync(|| std::fs::read_to_string("Cargo.toml"));
    /// assert!(text.is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_sync<F, T, E>(&self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
    {
        self.call().execute_sync(operation)
    }

    /// Returns a builder for a call with options that override the configuration.
    ///
    /// See [`Call`] for the options.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// // This call never waits in the queue.
    /// let hits = bulkhead
    ///     .call()
    ///     .max_wait(Duration::ZERO)
    ///     .execute_sync(|| Ok::<_, ()>(12));
    /// assert_eq!(hits, Ok(12));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub const fn call(&self) -> Call<'_> {
        Call::new(self)
    }

    /// Wraps an async function, so that each of its calls goes through the bulkhead.
    ///
    /// The returned function shares the bulkhead, and can be called any number of times.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
    /// let search = bulkhead.wrap(|word: &'static str| async move { Ok::<_, ()>(word.len()) });
    /// assert_eq!(runtime.block_on(search("bulkhead")), Ok(8));
    /// ```
    pub fn wrap<A, F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Fn(A) -> ExecuteOwned<Fut, DefaultClassifier> + use<A, F, Fut, T, E>
    where
        F: Fn(A) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let bulkhead = self.clone();
        move |argument| bulkhead.clone().into_execute(function(argument))
    }

    /// Binds a classifier to this bulkhead, for results of one type.
    ///
    /// The classifier decides how each result counts toward the circuit breaker. Limits, queue,
    /// circuit and counters remain those of this bulkhead.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone()).unwrap();
    /// let users = bulkhead.classified(|result: &Result<String, u16>| match result {
    ///     Ok(_) | Err(404) => Outcome::Success,    // the server answered
    ///     Err(499) => Outcome::Ignored,            // the client closed the connection
    ///     Err(_) => Outcome::Failure,
    /// });
    /// let _ = runtime.block_on(users.execute(async { Err(499) }));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// ```
    pub fn classified<T, E, C>(&self, classifier: C) -> Classified<T, E, C>
    where
        C: Fn(&Result<T, E>) -> Outcome,
    {
        Classified::new(self.clone(), classifier)
    }

    /// Binds a classifier that is a type, for results of several types.
    ///
    /// See [`ClassifiedBy`] for an example.
    pub fn classified_by<C>(&self, classifier: C) -> ClassifiedBy<C> {
        ClassifiedBy::new(self.clone(), classifier)
    }

    /// Waits for a permit to run one call.
    ///
    /// The caller runs the call, and records its outcome with the [`Permit`].
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), without [`BulkheadError::Operation`].
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time. The call then loses its position in the queue, and
    /// no permit is lost.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let permit = bulkhead.acquire().await?;
    /// // Use a connection for as long as the permit is held.
    /// permit.succeed();
    /// # Ok::<(), bulkman::BulkheadError<std::convert::Infallible>>(()) }).unwrap();
    /// ```
    pub fn acquire(&self) -> Acquire {
        self.call().acquire()
    }

    /// Acquires a permit without waiting.
    ///
    /// The caller runs the call, and records its outcome with the [`Permit`].
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Full`] if the call would have to wait. Otherwise as
    /// [`acquire`](Self::acquire).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("ftp").max_concurrent_calls(1);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// assert!(matches!(
    ///     bulkhead.try_acquire(),
    ///     Err(BulkheadError::Full { .. })
    /// ));
    /// permit.succeed();
    /// assert!(bulkhead.try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit, BulkheadError<Infallible>> {
        Permit::try_acquire(self, &CallOptions::DEFAULT)
    }

    /// Runs a future through the bulkhead. The returned future owns the bulkhead and can be
    /// spawned.
    ///
    /// Otherwise it is the same as [`execute`](Self::execute).
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    ///
    /// # Cancel safety
    ///
    /// As [`execute`](Self::execute).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// fn spawnable<T: Send + 'static>(future: T) -> T {
    ///     future
    /// }
    ///
    /// let call = spawnable(bulkhead.execute_owned(async { Ok::<_, ()>("found") }));
    /// assert_eq!(runtime.block_on(call), Ok("found"));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_owned<F, T, E>(&self, operation: F) -> ExecuteOwned<F, DefaultClassifier>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.clone().into_execute(operation)
    }

    pub(crate) fn into_execute<F>(self, operation: F) -> ExecuteOwned<F, DefaultClassifier> {
        ExecuteOwned::new(self, operation, DefaultClassifier, CallOptions::DEFAULT)
    }
}
