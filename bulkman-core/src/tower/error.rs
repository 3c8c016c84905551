//! The error of [`BulkheadService`](super::BulkheadService).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::error::BulkheadError;

/// The boxed error type that tower middleware uses.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error returned by [`BulkheadService`](super::BulkheadService).
///
/// It is a rejection by the bulkhead or an error of the inner service. The type does not depend on
/// the inner service, so axum, tonic and hyper accept it as `Into<Box<dyn Error + Send + Sync>>`.
/// It can be downcast from such a box:
///
/// ```
/// use bulkman::BulkheadError;
/// use bulkman::tower::{BoxError, ServiceError};
///
/// fn advice(error: &BoxError) -> String {
///     match error.downcast_ref::<ServiceError>() {
///         Some(error) => match error.as_error() {
///             BulkheadError::Operation(inner) => format!("the service failed: {inner}"),
///             rejected => {
///                 format!("{rejected}; retry in {} s", error.retry_after_seconds())
///             }
///         },
///         None => String::from("not from a bulkhead"),
///     }
/// }
/// # let _ = advice;
/// ```
#[derive(Debug)]
pub struct ServiceError(BulkheadError<BoxError>);

impl ServiceError {
    pub(super) fn new(error: BulkheadError<impl Into<BoxError>>) -> Self {
        Self(error.map_operation(Into::into))
    }

    /// Returns the underlying error.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// # use bulkman::tower::ServiceError;
    /// fn is_full(error: &ServiceError) -> bool {
    ///     matches!(error.as_error(), BulkheadError::Full { .. })
    /// }
    /// # let _ = is_full;
    /// ```
    #[must_use]
    pub const fn as_error(&self) -> &BulkheadError<BoxError> {
        &self.0
    }

    /// Consumes the wrapper and returns the underlying error.
    ///
    /// ```
    /// # use bulkman::tower::{BoxError, ServiceError};
    /// /// Returns the error of the inner service, if it is one.
    /// fn service_error(error: ServiceError) -> Option<BoxError> {
    ///     error.into_inner().into_operation()
    /// }
    /// # let _ = service_error;
    /// ```
    #[must_use]
    pub fn into_inner(self) -> BulkheadError<BoxError> {
        self.0
    }

    /// Returns `true` if the inner service was never called.
    ///
    /// See [`BulkheadError::is_rejection`].
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        self.0.is_rejection()
    }

    /// Returns the time until the next attempt may succeed, if it is known.
    ///
    /// See [`BulkheadError::retry_after`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after()
    }

    /// Returns the suggested HTTP status for a response to an upstream caller.
    ///
    /// See [`BulkheadError::http_status`].
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        self.0.http_status()
    }

    /// Returns the value of the header `Retry-After`: whole seconds, at least 1.
    ///
    /// See [`BulkheadError::retry_after_seconds`].
    #[must_use]
    pub const fn retry_after_seconds(&self) -> u64 {
        self.0.retry_after_seconds()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            BulkheadError::Operation(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<ServiceError> for BulkheadError<BoxError> {
    fn from(error: ServiceError) -> Self {
        error.0
    }
}
