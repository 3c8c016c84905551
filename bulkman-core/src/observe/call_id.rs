//! Ids of calls.

use std::sync::atomic::{AtomicU64, Ordering};

/// Returns an id that is unique among the calls of this process. It is never zero.
pub(crate) fn next_call_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
