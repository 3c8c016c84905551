//! The error of a guarded service.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::error::BulkheadError;

/// An error of any type, as tower's middleware passes it around.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a guarded service has no response: the bulkhead's refusal, or the inner service's error.
///
/// One type whatever the inner service is, so that it goes where axum, tonic and hyper want an
/// `Into<Box<dyn Error + Send + Sync>>`. There it can be found again:
///
/// ```
/// use bulkman::BulkheadError;
/// use bulkman::tower::{BoxError, ServiceError};
///
/// fn advice(error: &BoxError) -> String {
///     match error.downcast_ref::<ServiceError>() {
///         Some(error) => match error.get() {
///             BulkheadError::Operation(inner) => format!("the service failed: {inner}"),
///             refusal => format!("{refusal}; come back in {} s", error.retry_after_seconds()),
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

    /// What happened.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// # use bulkman::tower::ServiceError;
    /// fn is_full(error: &ServiceError) -> bool {
    ///     matches!(error.get(), BulkheadError::Full { .. })
    /// }
    /// # let _ = is_full;
    /// ```
    #[must_use]
    pub const fn get(&self) -> &BulkheadError<BoxError> {
        &self.0
    }

    /// What happened, as a value.
    ///
    /// ```
    /// # use bulkman::tower::{BoxError, ServiceError};
    /// /// The service's own error, if it is that.
    /// fn of_the_service(error: ServiceError) -> Option<BoxError> {
    ///     error.into_inner().into_operation()
    /// }
    /// # let _ = of_the_service;
    /// ```
    #[must_use]
    pub fn into_inner(self) -> BulkheadError<BoxError> {
        self.0
    }

    /// Whether the inner service was never called: see [`BulkheadError::is_rejection`].
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        self.0.is_rejection()
    }

    /// When to come back, if the bulkhead knows: see [`BulkheadError::retry_after`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after()
    }

    /// See [`BulkheadError::http_status`].
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        self.0.http_status()
    }

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
