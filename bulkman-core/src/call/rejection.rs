//! The reason for which a call is rejected, before it becomes an error.

use std::task::Poll;

use crate::error::{BulkheadError, PackedRejection};

/// The reason for which a call is rejected.
///
/// It is small because it passes through several functions before it becomes an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rejection {
    Circuit(PackedRejection),
    Full,
    TimedOut,
    Shutdown,
    Unsupported(&'static MissingCapability),
    /// The key of the call has as many waiters as it may have.
    KeyQueueFull,
    /// The call had to leave a full queue for one of another key.
    Evicted,
    /// The weight of the call.
    WeightTooLarge(u32),
}

impl Rejection {
    /// Returns the reason in lower case, as in spans, events and metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Circuit(rejection) => rejection.reason.as_str(),
            Self::Full => "full",
            Self::KeyQueueFull => "key_queue_full",
            Self::Evicted => "evicted",
            Self::TimedOut => "timed_out_in_queue",
            Self::Shutdown => "shutdown",
            Self::WeightTooLarge(_) => "weight_too_large",
            Self::Unsupported(_) => "unsupported",
        }
    }
}

/// A capability that the runtime lacks, and the setting or method that needs it.
#[derive(Debug)]
pub(crate) struct MissingCapability {
    pub(crate) setting: &'static str,
    pub(crate) needs: &'static str,
}

impl MissingCapability {
    pub(crate) const TIMEOUT: Self = Self {
        setting: "timeout",
        needs: "timers",
    };
    pub(crate) const MAX_WAIT: Self = Self {
        setting: "max_wait",
        needs: "timers",
    };
    pub(crate) const RUN_TIMEOUT: Self = Self {
        setting: "run_timeout",
        needs: "timers",
    };
    pub(crate) const BLOCKING: Self = Self {
        setting: "execute_blocking",
        needs: "threads for blocking work",
    };
    pub(crate) const RUNNING: Self = Self {
        setting: "execute_blocking",
        needs: "running executor here",
    };
}

/// The return type of a call, which can be created from the error of a rejected call.
///
/// [`CallGuard::reject`](super::guard::CallGuard::reject) writes the error directly to where the
/// caller returns it: each copy of an error costs more than counting the rejection.
pub(crate) trait FromRejection {
    /// The error of the operation.
    type Operation;

    fn from_rejection(error: BulkheadError<Self::Operation>) -> Self;
}

impl<T, E> FromRejection for Result<T, BulkheadError<E>> {
    type Operation = E;

    #[inline]
    fn from_rejection(error: BulkheadError<E>) -> Self {
        Err(error)
    }
}

impl<T, E> FromRejection for Poll<Result<T, BulkheadError<E>>> {
    type Operation = E;

    #[inline]
    fn from_rejection(error: BulkheadError<E>) -> Self {
        Self::Ready(Err(error))
    }
}
