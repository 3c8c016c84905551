//! Errors of store operations.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;

/// The error returned by store operations.
///
/// A lost compare-and-swap is not an error, but a
/// [`TransitionResult::Rejected`](super::TransitionResult::Rejected). No call ever returns a store
/// error: while a store fails, the local circuit breaker decides.
///
/// ```
/// use bulkman::store::StoreError;
///
/// let error = StoreError::unavailable("connection refused");
/// assert_eq!(
///     error.to_string(),
///     "store is unavailable: connection refused"
/// );
/// ```
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store is unreachable, too slow, disconnected, or read-only; retrying may succeed.
    #[error("store is unavailable: {message}")]
    Unavailable {
        /// A description of the failure.
        message: Arc<str>,
        /// The error of the backend.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// The schema or server version is incompatible; needs operator action.
    #[error("store is incompatible: {message}")]
    Incompatible {
        /// The problem and its fix.
        message: Arc<str>,
        /// The error of the backend.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// This process lacks a privilege; an operator has to grant it.
    #[error("store denied access: {message}")]
    Denied {
        /// The missing privilege and how to grant it.
        message: Arc<str>,
        /// The error of the backend.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// The store rejects this value; retrying can't succeed.
    #[error("store rejected an argument: {message}")]
    InvalidArgument {
        /// The value, and what is accepted.
        message: Arc<str>,
        /// The error of the backend.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
}

/// Generates a constructor for each kind of error.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $variant:ident;)*) => {
        impl StoreError {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(message: impl Into<Arc<str>>) -> Self {
                    Self::$variant { message: message.into(), source: None }
                }
            )*

            /// Adds the error that caused this one.
            ///
            /// ```
            /// # use bulkman::store::StoreError;
            /// # use std::error::Error;
            /// let source = std::io::Error::other("reset");
            /// let error = StoreError::unavailable("cannot connect").with_source(source);
            /// assert_eq!(error.source().unwrap().to_string(), "reset");
            /// ```
            #[must_use]
            pub fn with_source(self, error: impl StdError + Send + Sync + 'static) -> Self {
                match self {
                    $(Self::$variant { message, .. } => {
                        Self::$variant { message, source: Some(Arc::new(error)) }
                    })*
                }
            }
        }
    };
}

constructors! {
    /// Creates an [`Unavailable`](Self::Unavailable) error.
    unavailable => Unavailable;
    /// Creates an [`Incompatible`](Self::Incompatible) error.
    incompatible => Incompatible;
    /// Creates a [`Denied`](Self::Denied) error.
    denied => Denied;
    /// Creates an [`InvalidArgument`](Self::InvalidArgument) error.
    invalid_argument => InvalidArgument;
}

impl StoreError {
    /// Returns `true` if retrying may succeed without intervention.
    ///
    /// ```
    /// # use bulkman::store::StoreError;
    /// assert!(StoreError::unavailable("connection refused").is_transient());
    /// assert!(!StoreError::denied("missing UPDATE privilege").is_transient());
    /// ```
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
