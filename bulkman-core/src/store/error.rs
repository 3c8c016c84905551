//! What can go wrong with a store.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;

/// A store that did not do what it was asked.
///
/// A lost compare-and-swap is not among these: that is an answer, see [`Applied`](super::Applied).
/// None of them ever reaches a call: while a store fails, calls go by the local breaker.
///
/// ```
/// use bulkman::store::StoreError;
///
/// let error = StoreError::unavailable("connection refused");
/// assert_eq!(error.to_string(), "store is unavailable: connection refused");
/// ```
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Not reachable, too slow, cut off, or not taking writes. It may come back by itself.
    #[error("store is unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: Arc<str>,
        /// What the backend said.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// Reachable, but not as this version needs it. Somebody has to do something.
    #[error("store is incompatible: {message}")]
    Incompatible {
        /// What is wrong and what mends it.
        message: Arc<str>,
        /// What the backend said.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// Reachable, but this process may not. Somebody has to grant something.
    #[error("store denied access: {message}")]
    Denied {
        /// What is not allowed and what mends it.
        message: Arc<str>,
        /// What the backend said.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },

    /// The store can't take this value, now or later.
    #[error("store refused an argument: {message}")]
    InvalidArgument {
        /// Which, and what would do.
        message: Arc<str>,
        /// What the backend said.
        #[source]
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
}

/// The four kinds are made alike.
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

            /// The same error, caused by `error`.
            ///
            /// ```
            /// # use bulkman::store::StoreError;
            /// # use std::error::Error;
            /// let error = StoreError::unavailable("cannot connect").with_source(std::io::Error::other("refused"));
            /// assert_eq!(error.source().unwrap().to_string(), "refused");
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
    /// [`Unavailable`](Self::Unavailable) because of `message`.
    unavailable => Unavailable;
    /// [`Incompatible`](Self::Incompatible) because of `message`.
    incompatible => Incompatible;
    /// [`Denied`](Self::Denied) because of `message`.
    denied => Denied;
    /// [`InvalidArgument`](Self::InvalidArgument) because of `message`.
    invalid_argument => InvalidArgument;
}

impl StoreError {
    /// Whether it may mend itself: somebody has to act on every other kind.
    ///
    /// ```
    /// # use bulkman::store::StoreError;
    /// assert!(StoreError::unavailable("connection refused").is_transient());
    /// assert!(!StoreError::denied("no right to write").is_transient());
    /// ```
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
