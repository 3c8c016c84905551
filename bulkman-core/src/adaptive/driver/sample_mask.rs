//! Which calls are samples of the limit.

use std::sync::atomic::{AtomicU64, Ordering};

/// Decides by its number whether a call is a sample.
///
/// It stands beside the counter of starts, which every call increments, and not in the driver: a
/// call without limits of time reads nothing else for an adaptive limit. The driver copies its
/// stride to it under the lock of the rule.
#[derive(Debug)]
pub(crate) struct SampleMask(AtomicU64);

const NEVER: u64 = u64::MAX;

impl SampleMask {
    /// Samples every call with this stride, which is a power of two; `None`: none.
    pub(super) fn set(&self, stride: Option<u64>) {
        let mask = stride.map_or(NEVER, |stride| stride - 1);
        self.0.store(mask, Ordering::Relaxed);
    }

    /// Returns `true` if the call that starts as this number is a sample.
    #[inline]
    pub(crate) fn contains(&self, call: u64) -> bool {
        let mask = self.0.load(Ordering::Relaxed);
        call & mask == mask
    }
}

/// No call is a sample.
impl Default for SampleMask {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}
