//! The results of acquiring a permit: at once, by joining the queue, and after waiting.

use std::task::Poll;

use super::waiter::{QueueRejection, WaiterId, WaiterState};

/// The result of [`WaitQueue::try_acquire`](super::WaitQueue::try_acquire).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryAcquire {
    /// The caller owns the permits that its claim states.
    Acquired,
    /// No permit is available to the caller; the queue has room.
    MustWait,
    /// No permit is available to the caller, and the queue is full.
    Full,
    /// The queue is closed.
    Closed,
}

/// The result of [`WaitQueue::enqueue`](super::WaitQueue::enqueue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueue {
    /// The caller owns the permits that its claim states, without having waited.
    Acquired,
    /// The caller waits.
    Waiting(WaiterId),
    /// The queue has become full.
    Full,
    /// The key of the caller has as many waiters as it may have.
    KeyFull,
    /// The circuit has opened, or the queue was closed.
    Rejected(QueueRejection),
}

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitResult {
    /// The caller owns the permits that it asked for.
    Granted,
    /// All waiters were rejected.
    Rejected(QueueRejection),
    /// The deadline of the wait has passed.
    Expired,
}

impl WaiterState {
    /// Returns the result of polling the waiter.
    #[inline]
    pub(super) const fn into_poll(self) -> Poll<WaitResult> {
        match self {
            Self::Waiting => Poll::Pending,
            Self::Granted => Poll::Ready(WaitResult::Granted),
            Self::Rejected(reason) => Poll::Ready(WaitResult::Rejected(reason)),
            Self::Expired => Poll::Ready(WaitResult::Expired),
        }
    }

    /// Returns the result of a waiter whose deadline has passed.
    #[inline]
    pub(super) const fn into_expired(self) -> WaitResult {
        match self {
            Self::Waiting | Self::Expired => WaitResult::Expired,
            Self::Granted => WaitResult::Granted,
            Self::Rejected(reason) => WaitResult::Rejected(reason),
        }
    }
}
