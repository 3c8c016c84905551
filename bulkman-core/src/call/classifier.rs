//! Decides how the result of an operation counts.

use std::error::Error;

use crate::call::outcome::Outcome;
use crate::error::{NotStarted, is_nested_rejection};

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
/// There is one exception: a rejection by an inner bulkhead or circuit is ignored, because the
/// dependency was not called. It is recognized if the operation's error is that of the inner call:
/// a [`BulkheadError`](crate::BulkheadError), a [`BoxedError`](crate::error::BoxedError), a
/// [`CircuitError`](crate::circuit_breaker::CircuitError) or a
/// [`CircuitOpen`](crate::error::CircuitOpen). If it is converted to another type, use
/// [`IgnoreRejections`] or [`IgnoreBoxedRejections`]. The tower layer recognizes both.
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
            Err(error) if is_nested_rejection(error) => Outcome::Ignored,
            Err(_) => Outcome::Failure,
        }
    }
}

/// Ignores errors with a rejection by an inner bulkhead among their sources.
///
/// All other results count as with [`DefaultClassifier`]. Use it where an operation calls another
/// bulkhead and converts its error. A rejection shows nothing about the dependency, so it must not
/// open the outer circuit. An error that was converted to text has no source.
///
/// ```
/// use std::io::Error;
///
/// use bulkman::call::IgnoreRejections;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let region = Bulkhead::new(BulkheadConfig::new("region"), ClockOnly)?;
/// let host = Bulkhead::new(BulkheadConfig::new("host"), ClockOnly)?;
/// host.circuit_breaker().unwrap().open();
/// let fetch = || {
///     host.execute_sync(|| Ok::<_, Error>("page"))
///         .map_err(Error::other)
/// };
///
/// let calls = region.classified_by(IgnoreRejections);
/// assert!(calls.execute_sync(fetch).is_err());
/// assert_eq!((region.stats().ignored, region.stats().failed), (1, 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnoreRejections;

impl<T, E: Error + 'static> Classifier<T, E> for IgnoreRejections {
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Err(error) if NotStarted::is_source_of(error) => Outcome::Ignored,
            result => DefaultClassifier.classify(result),
        }
    }
}

/// As [`IgnoreRejections`], for boxed errors.
///
/// It accepts `anyhow::Error`, `eyre::Report` and `Box<dyn Error + Send + Sync>`, which do not
/// implement `Error` themselves.
///
/// ```
/// use std::error::Error;
///
/// use bulkman::call::IgnoreBoxedRejections;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let region = Bulkhead::new(BulkheadConfig::new("region"), ClockOnly)?;
/// let host = Bulkhead::new(BulkheadConfig::new("host"), ClockOnly)?;
/// host.circuit_breaker().unwrap().open();
/// let fetch = || -> Result<&str, Box<dyn Error + Send + Sync>> {
///     Ok(host.execute_sync(|| Ok::<_, std::io::Error>("page"))?)
/// };
///
/// let calls = region.classified_by(IgnoreBoxedRejections);
/// assert!(calls.execute_sync(fetch).is_err());
/// assert_eq!((region.stats().ignored, region.stats().failed), (1, 0));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnoreBoxedRejections;

impl<T, E> Classifier<T, E> for IgnoreBoxedRejections
where
    E: AsRef<dyn Error + Send + Sync>,
{
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Err(error) if NotStarted::is_source_of(error.as_ref()) => Outcome::Ignored,
            result => DefaultClassifier.classify(result),
        }
    }
}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome> Classifier<T, E> for F {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        self(result)
    }
}
