//! The source of every rejection.

use std::error::Error;
use std::fmt;

/// The source of the errors that reject a call: the operation was not started.
///
/// It has no type parameter, so it can be found in any error that contains a rejection, such as an
/// `anyhow::Error`, an [`std::io::Error`] or the error of an enum with a `#[source]`.
///
/// ```
/// use bulkman::error::NotStarted;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
/// use std::io::Error;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), ClockOnly)?;
/// bulkhead.circuit_breaker().unwrap().open();
/// let rejected = bulkhead.execute_sync(|| Ok::<_, Error>("sent")).unwrap_err();
/// assert!(NotStarted::is_source_of(&Error::other(rejected)));
/// assert!(!NotStarted::is_source_of(&Error::other("connection reset")));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotStarted;

impl NotStarted {
    pub(super) const fn new() -> &'static Self {
        &Self
    }

    /// Returns `true` if `error` or one of its sources is a rejection.
    #[must_use]
    pub fn is_source_of(error: &(dyn Error + 'static)) -> bool {
        with_sources(error).any(|error| error.is::<Self>())
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operation was not started")
    }
}

impl Error for NotStarted {}

/// Returns an error and its sources.
pub(super) fn with_sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // The source of an `io::Error` is that of the error inside, not the error inside.
        match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inside) => Some(inside),
            None => error.source(),
        }
    })
}
