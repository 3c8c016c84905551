//! What the holder of the lock has to do, in one word that is readable without it.

use super::limits::MAX_QUEUE_CAPACITY;

/// The reasons why calls and releases must take the lock.
///
/// The word packs the number of waiters, the number of permits to forget, and whether the queue is
/// closed:
///
/// ```text
///  63       62 ......... 31         30 ...... 0
/// | closed | permits to forget | waiting calls |
/// ```
///
/// Permits to forget are those that a smaller limit, or closing, removes while calls hold them. The
/// next releases forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueState(u64);

impl QueueState {
    /// Open, without waiters and without permits to forget: calls need not take the lock.
    pub(super) const IDLE: Self = Self(0);

    const CLOSED: u64 = 1 << 63;
    const WAITING: u64 = MAX_QUEUE_CAPACITY as u64;
    const FORGET_SHIFT: u32 = Self::WAITING.trailing_ones();

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    pub(super) const fn with_closed(self) -> Self {
        Self(self.0 | Self::CLOSED)
    }

    /// Returns `true` if the queue is closed and no call holds a permit.
    pub(super) const fn is_drained(self) -> bool {
        self.0 & !Self::WAITING == Self::CLOSED
    }

    pub(super) const fn permits_to_forget(self) -> usize {
        ((self.0 & !Self::CLOSED) >> Self::FORGET_SHIFT) as usize
    }

    pub(super) const fn with_permits_to_forget(self, permits: usize) -> Self {
        Self(self.0 & (Self::CLOSED | Self::WAITING) | (permits as u64) << Self::FORGET_SHIFT)
    }

    pub(super) const fn waiting(self) -> u32 {
        (self.0 & Self::WAITING) as u32
    }

    pub(super) const fn with_waiting(self, waiting: u32) -> Self {
        Self(self.0 & !Self::WAITING | waiting as u64)
    }
}
