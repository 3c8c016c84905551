//! An error that does not depend on the type of the operation's error.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::not_started::with_sources;
use super::{BulkheadError, NotStarted, note_rejection};

/// A boxed error of any type, as tower's middleware and most applications use it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A [`BulkheadError`] with the operation's error in a box.
///
/// Returned by [`BulkheadError::boxed`], and by the services of the module `tower`. It implements
/// [`Error`] whatever the operation's error is, so `?` converts it to `anyhow::Error`,
/// `eyre::Report` and `Box<dyn Error + Send + Sync>`, and axum, tonic and hyper accept it. It can
/// be downcast from such a box.
///
/// A rejection by an inner bulkhead is a rejection here, too: [`is_rejection`](Self::is_rejection),
/// [`retry_after`](Self::retry_after) and [`http_status`](Self::http_status) find it among the
/// sources of the operation's error. Of a rejection that was converted to another type, only the
/// fact is known, by its source [`NotStarted`].
///
/// ```
/// use bulkman::BulkheadError;
/// use bulkman::error::{BoxError, BoxedError};
///
/// fn advice(error: &BoxError) -> String {
///     match error.downcast_ref::<BoxedError>() {
///         Some(error) => match error.as_error() {
///             BulkheadError::Operation(inner) => format!("the operation failed: {inner}"),
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
pub struct BoxedError(BulkheadError<BoxError>);

impl BoxedError {
    pub(crate) fn new(error: BulkheadError<impl Into<BoxError>>) -> Self {
        let error = Self(error.map_operation(Into::into));
        note_rejection(error.is_rejection());
        error
    }

    /// Returns `true` if the operation's error has a rejection of another type among its sources.
    fn converts_rejection(&self) -> bool {
        match self.effective() {
            BulkheadError::Operation(error) => NotStarted::is_source_of(&**error),
            _ => false,
        }
    }

    /// Returns the rejection by an inner bulkhead if there is one, else this error.
    pub(crate) fn effective(&self) -> &BulkheadError<BoxError> {
        let BulkheadError::Operation(error) = &self.0 else {
            return &self.0;
        };
        find_rejection(&**error).map_or(&self.0, |inner| &inner.0)
    }

    /// Returns the underlying error.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// # use bulkman::error::BoxedError;
    /// fn is_full(error: &BoxedError) -> bool {
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
    /// # use bulkman::error::{BoxError, BoxedError};
    /// /// Returns the error of the operation, if it is one.
    /// fn operation_error(error: BoxedError) -> Option<BoxError> {
    ///     error.into_inner().into_operation()
    /// }
    /// # let _ = operation_error;
    /// ```
    #[must_use]
    pub fn into_inner(self) -> BulkheadError<BoxError> {
        self.0
    }

    /// Returns `true` if the operation did not run.
    ///
    /// See [`BulkheadError::is_rejection`].
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        // It is the source of every rejection, of this bulkhead or of an inner one.
        NotStarted::is_source_of(self)
    }

    /// Returns the time until the next attempt may succeed, if it is known.
    ///
    /// See [`BulkheadError::retry_after`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.effective().retry_after()
    }

    /// Returns the suggested HTTP status for a response to an upstream caller.
    ///
    /// See [`BulkheadError::http_status`].
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.converts_rejection() {
            return 503;
        }
        self.effective().http_status()
    }

    /// Returns the value of the header `Retry-After`: whole seconds, at least 1.
    ///
    /// See [`BulkheadError::retry_after_seconds`].
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        self.effective().retry_after_seconds()
    }
}

impl fmt::Display for BoxedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for BoxedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            BulkheadError::Operation(error) => Some(&**error),
            rejection if rejection.is_rejection() => Some(NotStarted::new()),
            _ => None,
        }
    }
}

impl From<BoxedError> for BulkheadError<BoxError> {
    fn from(error: BoxedError) -> Self {
        error.0
    }
}

/// Returns the first rejection by a bulkhead among an error and its sources.
fn find_rejection<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a BoxedError> {
    with_sources(error)
        .filter_map(|error| error.downcast_ref::<BoxedError>())
        .find(|boxed| boxed.0.is_rejection())
}

impl<E: Into<BoxError>> BulkheadError<E> {
    /// Boxes the operation's error, so that `?` converts to the error types of applications.
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    ///
    /// fn charge(bulkhead: &Bulkhead) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     // The operation's error is a string, which is no `Error`.
    ///     let receipt = bulkhead
    ///         .execute_sync(|| Err::<u32, &str>("declined"))
    ///         .map_err(BulkheadError::boxed)?;
    ///     Ok(receipt)
    /// }
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
    /// let error = charge(&bulkhead).unwrap_err();
    /// assert_eq!(error.source().unwrap().to_string(), "declined");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn boxed(self) -> BoxedError {
        BoxedError::new(self)
    }
}

impl<E> BulkheadError<BulkheadError<E>> {
    /// Merges the errors of two nested bulkheads: a rejection by the inner one is a rejection.
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    ///
    /// let region = Bulkhead::new(BulkheadConfig::new("region"), ClockOnly)?;
    /// let host = Bulkhead::new(BulkheadConfig::new("host"), ClockOnly)?;
    /// host.shutdown();
    /// let nested = region.execute_sync(|| host.execute_sync(|| Ok::<_, ()>("found")));
    /// let error: BulkheadError<()> = nested.unwrap_err().flatten();
    /// assert!(error.is_rejection());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn flatten(self) -> BulkheadError<E> {
        match self {
            Self::Operation(inner) => inner,
            outer => outer.map_operation(|_| unreachable!("it is no error of the operation")),
        }
    }
}
