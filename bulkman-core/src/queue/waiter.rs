//! One waiting call: its identity, its state, and why it may be rejected.

/// Identifies a waiter of a queue. Identifiers are never reused.
///
/// It is the waiter's sequence number within its priority, and the index of that priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaiterId(u64);

impl WaiterId {
    /// The bits of no waiter.
    pub(super) const NONE: u64 = u64::MAX;

    #[inline]
    pub(super) const fn new(priority: usize, sequence: u64) -> Self {
        Self(sequence << 2 | priority as u64)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the position in the order of arrival, among the waiters of one priority.
    pub(super) const fn sequence(self) -> u64 {
        self.0 >> 2
    }

    /// Returns the index of the priority.
    pub(super) const fn priority(self) -> usize {
        (self.0 & 3) as usize
    }
}

/// The state of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaiterState {
    /// It waits for a permit.
    Waiting,
    /// It owns permits: those that it asked for, or all of a smaller limit.
    Granted,
    /// It was rejected, together with all others.
    Rejected(QueueRejection),
    /// Its deadline had passed when a permit became available to it.
    Expired,
}

/// The reason why a waiter is rejected, mostly together with all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueRejection {
    /// The circuit opened.
    CircuitOpened,
    /// The bulkhead was shut down.
    Shutdown,
    /// It was the newest waiter of the key with the most waiters, and the queue was full.
    Evicted,
}
