//! A bulkhead with a classifier for results of several types.

use std::future::Future;

use crate::bulkhead::Bulkhead;
use crate::call::Call;
use crate::call::classifier::Classifier;
use crate::call::execute::Execute;
use crate::call::execute_blocking::ExecuteBlocking;
use crate::error::BulkheadError;

/// A bulkhead with a classifier that is a type, for results of several types.
///
/// Created by [`Bulkhead::classified_by`]. It shares the bulkhead's permits, queue and circuit.
/// Each call clones the classifier.
///
/// ```
/// use bulkman::call::Classifier;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
///
/// /// Decides by the status of the error, whatever the value.
/// #[derive(Clone, Copy)]
/// struct ByStatus;
///
/// impl<T> Classifier<T, u16> for ByStatus {
///     fn classify(&self, result: &Result<T, u16>) -> Outcome {
///         match result {
///             Ok(_) | Err(404) => Outcome::Success,
///             Err(_) => Outcome::Failure,
///         }
///     }
/// }
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
/// let users = bulkhead.classified_by(ByStatus);
/// let _ = users.execute_sync(|| Err::<String, _>(404));
/// let _ = users.execute_sync(|| Ok::<u32, _>(7));
/// assert_eq!(bulkhead.stats().successful, 2);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClassifiedBy<C> {
    bulkhead: Bulkhead,
    classifier: C,
}

impl<C> ClassifiedBy<C> {
    pub(crate) const fn new(bulkhead: Bulkhead, classifier: C) -> Self {
        Self {
            bulkhead,
            classifier,
        }
    }

    /// Runs a future through the bulkhead. See [`Bulkhead::execute`].
    #[inline]
    pub fn execute<F, T, E>(&self, operation: F) -> Execute<'_, F, C>
    where
        F: Future<Output = Result<T, E>>,
        C: Classifier<T, E> + Clone,
    {
        self.call().execute(operation)
    }

    /// Runs a blocking closure on the runtime's blocking pool. See [`Bulkhead::execute_blocking`].
    pub fn execute_blocking<F, T, E>(&self, operation: F) -> ExecuteBlocking<F, T, E, C>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        C: Classifier<T, E> + Clone + Send + 'static,
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
    pub fn execute_sync<F, T, E>(&self, operation: F) -> Result<T, BulkheadError<E>>
    where
        F: FnOnce() -> Result<T, E>,
        C: Classifier<T, E> + Clone,
    {
        self.call().execute_sync(operation)
    }

    /// Returns a builder for a call with this classifier. See [`Bulkhead::call`].
    pub fn call(&self) -> Call<'_, C>
    where
        C: Clone,
    {
        self.bulkhead
            .call()
            .with_classifier(self.classifier.clone())
    }

    /// Returns the bulkhead.
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }
}
