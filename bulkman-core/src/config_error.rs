//! The error returned for settings that are invalid or not supported.

use std::fmt;

use thiserror::Error;

/// A configuration that can't be used: says which field, its value, and what would do.
///
/// ```
/// use bulkman::{BulkheadConfig, ConfigError};
///
/// match BulkheadConfig::new("search").max_concurrent_calls(0).validate() {
///     Err(ConfigError::OutOfRange { field, value, range }) => {
///         assert_eq!((field, &*value, range), ("max_concurrent_calls", "0", "1 to 1,000,000"));
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside its range.
    #[error("`{field}` is {value}, must be {range}")]
    OutOfRange {
        /// The configuration's field.
        field: &'static str,
        /// The value it had.
        value: Box<str>,
        /// What is accepted.
        range: &'static str,
    },

    /// A setting that the runtime can't honour.
    #[error("`{setting}` needs {needs}, which the runtime does not have")]
    Unsupported {
        /// The configuration's field.
        setting: &'static str,
        /// What it needs from the runtime.
        needs: &'static str,
    },

    /// A setting that is of no use without something else, which is not there.
    #[error("`{setting}` needs {needs}")]
    Requires {
        /// The configuration's field, or the method.
        setting: &'static str,
        /// What has to be there.
        needs: &'static str,
    },

    /// A value that may not change while the bulkhead lives.
    #[error("`{field}` can't change from {from:?} to {to:?} in place")]
    Immutable {
        /// The configuration's field.
        field: &'static str,
        /// The value in force.
        from: Box<str>,
        /// The value that was asked for.
        to: Box<str>,
    },
}

impl ConfigError {
    pub(crate) fn immutable(field: &'static str, from: &str, to: &str) -> Self {
        Self::Immutable {
            field,
            from: from.into(),
            to: to.into(),
        }
    }

    pub(crate) fn out_of_range(
        field: &'static str,
        value: impl fmt::Display,
        range: &'static str,
    ) -> Self {
        Self::OutOfRange {
            field,
            value: value.to_string().into(),
            range,
        }
    }
}
