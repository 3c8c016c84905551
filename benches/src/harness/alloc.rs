//! Counts allocations.
//!
//! `allocation-counter` installs itself as the global allocator and counts per thread. So only
//! allocations on the calling thread are counted.

/// The allocations of a piece of code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocations {
    /// The number of allocations.
    pub(crate) count: u64,
    /// The bytes that are still allocated afterwards.
    pub(crate) kept: i64,
}

/// Runs `code` and counts its allocations.
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
