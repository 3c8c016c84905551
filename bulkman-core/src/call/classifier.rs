//! Decides how the result of an operation counts.

use crate::call::outcome::Outcome;
use crate::error::BulkheadError;

/// Decides how the result of an operation counts toward the circuit breaker.
///
/// Implemented by closures `Fn(&Result<T, E>) -> Outcome`, and by [`DefaultClassifier`], the
/// default. It runs where the operation ran, outside of every lock. A panic in it is treated as a
/// panic of the operation. A classifier that is a type can be named and shared:
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::Classifier;
///
/// /// For HTTP statuses: an invalid request is not a failure of the server.
/// #[derive(Clone, Copy)]
/// struct StatusClassifier;
///
/// impl<E> Classifier<u16, E> for StatusClassifier {
///     fn classify(&self, result: &Result<u16, E>) -> Outcome {
///         match result {
///             Ok(429 | 500..) | Err(_) => Outcome::Failure,
///             Ok(400 | 401 | 403) => Outcome::Ignored,
///             Ok(_) => Outcome::Success,
///         }
///     }
/// }
/// # let _ = |result: Result<u16, ()>| StatusClassifier.classify(&result);
/// ```
#[doc(alias = "should_handle")]
#[doc(alias = "record_exceptions")]
pub trait Classifier<T, E> {
    /// Returns the outcome of this result.
    fn classify(&self, result: &Result<T, E>) -> Outcome;
}

/// The default classifier: `Ok` is a success and `Err` is a failure.
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::{Classifier, DefaultClassifier};
///
/// assert_eq!(
///     DefaultClassifier.classify(&Ok::<_, ()>(503)),
///     Outcome::Success
/// );
/// assert_eq!(
///     DefaultClassifier.classify(&Err::<(), _>("no route")),
///     Outcome::Failure
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClassifier;

impl<T, E> Classifier<T, E> for DefaultClassifier {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

/// Ignores rejections by an inner bulkhead; otherwise `Ok` is a success and `Err` is a failure.
///
/// Use it where an operation calls another bulkhead and returns its [`BulkheadError`]. A rejection
/// shows nothing about the dependency, so it must not open the outer circuit.
///
/// ```
/// use bulkman::call::IgnoreRejections;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let region = Bulkhead::new(BulkheadConfig::new("region"), ClockOnly)?;
/// let host = Bulkhead::new(BulkheadConfig::new("host"), ClockOnly)?;
/// host.shutdown();
/// let calls = region.classified_by(IgnoreRejections);
/// let rejected = calls.execute_sync(|| host.execute_sync(|| Ok::<_, ()>("found")));
/// assert!(rejected.unwrap_err().flatten().is_rejection());
/// assert_eq!((region.stats().ignored, region.stats().failed), (1, 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnoreRejections;

impl<T, E> Classifier<T, BulkheadError<E>> for IgnoreRejections {
    fn classify(&self, result: &Result<T, BulkheadError<E>>) -> Outcome {
        match result {
            Err(error) if error.is_rejection() => Outcome::Ignored,
            _ => DefaultClassifier.classify(result),
        }
    }
}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome> Classifier<T, E> for F {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        self(result)
    }
}
