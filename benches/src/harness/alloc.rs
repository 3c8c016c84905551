//! Counts allocations.
//!
//! `allocation-counter` installs itself as the global allocator and counts by thread, so what is
//! measured here has to allocate on the thread that asks.

/// What some code asked the allocator for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocations {
    /// Calls to the allocator.
    pub(crate) count: u64,
    /// Bytes that are still allocated afterwards.
    pub(crate) kept: i64,
}

/// Runs `code` and counts.
pub(crate) fn during<T>(code: impl FnOnce() -> T) -> (T, Allocations) {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(code()));
    let result = result.expect("the closure was called");
    (
        result,
        Allocations {
            count: info.count_total,
            kept: info.bytes_current,
        },
    )
}
