//! The results of acquiring a permit: at once, by joining the queue, and after waiting.

use super::waiter::{QueueRejection, WaiterId};

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
    /// The caller owns this number of permits, fewer than it asked for: all of a smaller limit.
    GrantedFewer(u32),
    /// All waiters were rejected.
    Rejected(QueueRejection),
    /// The deadline of the wait has passed.
    Expired,
}
