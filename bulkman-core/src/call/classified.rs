//! A bulkhead with a classifier for one type of result.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use crate::bulkhead::Bulkhead;
use crate::call::Call;
use crate::call::execute::Execute;
use crate::call::execute_blocking::ExecuteBlocking;
use crate::call::outcome::Outcome;
use crate::error::BulkheadError;

/// A bulkhead with a classifier for one type of result.
///
/// Created by [`Bulkhead::classified`]. It shares the bulkhead's permits, queue and circuit.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
/// let users = bulkhead.classified(|result: &Result<&str, u16>| match result {
///     Ok(_) | Err(404) => Outcome::Success,
///     Err(400) => Outcome::Ignored,
///     Err(_) => Outcome::Failure,
/// });
/// let _ = users.execute_sync(|| Err(400));
/// let _ = users.execute_sync(|| Err(503));
/// assert_eq!((bulkhead.stats().ignored, bulkhead.stats().failed), (1, 1));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
pub struct Classified<T, E, C> {
    bulkhead: Bulkhead,
    classifier: C,
    results: PhantomData<fn(&Result<T, E>)>,
}

impl<T, E, C: Fn(&Result<T, E>) -> Outcome> Classified<T, E, C> {
    pub(crate) const fn new(bulkhead: Bulkhead, classifier: C) -> Self {
        Self {
            bulkhead,
            classifier,
            results: PhantomData,
        }
    }

    /// Runs a future through the bulkhead. See [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone())?;
    /// let tolerant = bulkhead.classified(|_: &Result<(), &str>| Outcome::Ignored);
    /// let error = runtime
    ///     .block_on(tolerant.execute(async { Err("no such user") }))
    ///     .unwrap_err();
    /// assert_eq!(error.into_operation(), Some("no such user"));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn execute<F>(&self, operation: F) -> Execute<'_, F, &C>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.call().execute(operation)
    }

    /// Runs a blocking closure on the runtime's blocking pool. See [`Bulkhead::execute_blocking`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), runtime.clone())?;
    /// let tolerant = bulkhead.classified(|_: &Result<(), &str>| Outcome::Ignored);
    /// let read = tolerant.execute_blocking(|| Err("no such file"));
    /// let error = runtime.block_on(read).unwrap_err();
    /// assert_eq!(error.into_operation(), Some("no such file"));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_blocking<F>(&self, operation: F) -> ExecuteBlocking<F, T, E, C>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        C: Clone + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.bulkhead
            .call()
            .with_classifier(self.classifier.clone())
            .execute_blocking(operation)
    }

    /// Runs a closure on the current thread. See [`Bulkhead::execute_sync`].
    ///
    /// # Errors
    ///
    /// As [`Bulkhead::execute_sync`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
    /// let tolerant = bulkhead.classified(|_: &Result<(), &str>| Outcome::Ignored);
    /// assert!(tolerant.execute_sync(|| Err("no such user")).is_err());
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_sync<F>(&self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
    {
        self.call().execute_sync(operation)
    }

    /// Returns a builder for a call with this classifier. See [`Bulkhead::call`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
    /// let tolerant = bulkhead.classified(|_: &Result<(), &str>| Outcome::Ignored);
    /// let _ = tolerant
    ///     .call()
    ///     .max_wait(Duration::ZERO)
    ///     .execute_sync(|| Err("no such user"));
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn call(&self) -> Call<'_, &C> {
        self.bulkhead.call().with_classifier(&self.classifier)
    }

    /// Returns the bulkhead.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
    /// let users = bulkhead.classified(|_: &Result<(), &str>| Outcome::Ignored);
    /// assert!(users.bulkhead().is_healthy());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }
}

impl<T, E, C: Clone> Clone for Classified<T, E, C> {
    fn clone(&self) -> Self {
        Self {
            bulkhead: self.bulkhead.clone(),
            classifier: self.classifier.clone(),
            results: PhantomData,
        }
    }
}

impl<T, E, C> fmt::Debug for Classified<T, E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classified")
            .field("bulkhead", &self.bulkhead)
            .finish_non_exhaustive()
    }
}
