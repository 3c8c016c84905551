//! Calls through a bulkhead.

use std::convert::Infallible;
use std::future::Future;

use super::Bulkhead;
use crate::call::classifier::DefaultClassifier;
use crate::call::execute::{Execute, ExecuteOwned};
use crate::call::execute_blocking::ExecuteBlocking;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::permit::{Acquire, Permit};
use crate::call::{Call, Classified};
use crate::error::BulkheadError;

impl Bulkhead {
    /// Runs a future under the bulkhead's protection.
    ///
    /// The operation is polled in the caller's task; it need not be `Send`, and it may borrow.
    /// `Err` of the operation, a panic in it and a timeout while it runs count as failures of the
    /// dependency; see [`classified`](Self::classified) to decide otherwise.
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Operation`] is the operation's own; all others are the bulkhead's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives back all it holds. See [`Execute`].
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

    /// Runs a closure where blocking does no harm to the executor.
    ///
    /// The closure keeps its permit until it has ended, whatever becomes of the caller; a timeout
    /// is prompt all the same.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); a panic comes back as [`BulkheadError::Panicked`], work that
    /// the runtime dropped as [`BulkheadError::Shutdown`].
    ///
    /// # Cancel safety
    ///
    /// See [`ExecuteBlocking`].
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

    /// Runs a closure on the calling thread, for callers without an executor.
    ///
    /// Waits for a permit by parking the thread, bounded by `max_wait` and `timeout`. The closure
    /// itself can't be interrupted: if it overruns, its value is returned and the call is
    /// recorded as a failure.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
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

    /// Begins a call with settings of its own: see [`Call`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// // Whatever the bulkhead is set to, this call rather goes without than waits.
    /// let hits = bulkhead.call().max_wait(Duration::ZERO).execute_sync(|| Ok::<_, ()>(12));
    /// assert_eq!(hits, Ok(12));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub const fn call(&self) -> Call<'_> {
        Call::new(self)
    }

    /// A function that goes through the bulkhead whenever it is called.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
    /// let search = bulkhead.wrap(|word: &'static str| async move { Ok::<_, ()>(word.len()) });
    /// assert_eq!(runtime.block_on(search("bulkhead")), Ok(8));
    /// ```
    pub fn wrap<A, Fut, T, E>(
        &self,
        function: impl Fn(A) -> Fut,
    ) -> impl Fn(A) -> ExecuteOwned<Fut, DefaultClassifier>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let bulkhead = self.clone();
        move |argument| bulkhead.clone().into_execute(function(argument))
    }

    /// A view of the bulkhead with a classifier of its own for one type of result.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone()).unwrap();
    /// let users = bulkhead.classified(|result: &Result<String, u16>| match result {
    ///     Err(404) => Outcome::Ignored,            // says nothing about the server's health
    ///     Err(_) => Outcome::Failure,
    ///     Ok(_) => Outcome::Success,
    /// });
    /// let _ = runtime.block_on(users.execute(async { Err(404) }));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// ```
    pub fn classified<T, E, C>(&self, classifier: C) -> Classified<T, E, C>
    where
        C: Fn(&Result<T, E>) -> Outcome,
    {
        Classified::new(self.clone(), classifier)
    }

    /// Waits for a permit: see [`Permit`].
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), but for the operation's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue and loses nothing.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// let permit = bulkhead.acquire().await?;
    /// // .. hold a connection for as long as it is of use ..
    /// permit.succeed();
    /// # Ok::<(), bulkman::BulkheadError<std::convert::Infallible>>(()) }).unwrap();
    /// ```
    pub fn acquire(&self) -> Acquire {
        self.call().acquire()
    }

    /// Takes a permit if one is free: see [`Permit`].
    ///
    /// # Errors
    ///
    /// [`BulkheadError::Full`] if it would have to wait; otherwise as [`acquire`](Self::acquire).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp").max_concurrent_calls(1), ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// assert!(matches!(bulkhead.try_acquire(), Err(BulkheadError::Full { .. })));
    /// permit.succeed();
    /// assert!(bulkhead.try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permit, BulkheadError<Infallible>> {
        Permit::try_acquire(self)
    }

    pub(crate) fn into_execute<F>(self, operation: F) -> ExecuteOwned<F, DefaultClassifier> {
        ExecuteOwned::new(self, operation, DefaultClassifier, CallOptions::DEFAULT)
    }
}
