//! Successes and failures of a whole fleet.

use std::time::Duration;

use super::view::Epoch;
use crate::name::Name;

/// The window over which a store adds up.
///
/// Processes that use different windows for one circuit don't see each other's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CountWindow {
    /// How long one bucket is; at least a millisecond.
    pub bucket: Duration,
    /// How many make the window: 1 to 1000.
    pub buckets: u16,
}

impl CountWindow {
    /// A window of `buckets` times `bucket`.
    #[must_use]
    pub const fn new(bucket: Duration, buckets: u16) -> Self {
        Self { bucket, buckets }
    }
}

/// What one process has to add.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountsDelta {
    /// Which circuit.
    pub circuit: Name,
    /// The epoch in which these calls ran; counts of another are not added to.
    pub epoch: Epoch,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
}

impl CountsDelta {
    /// So many successes and failures of `circuit`.
    #[must_use]
    pub const fn new(circuit: Name, epoch: Epoch, successes: u64, failures: u64) -> Self {
        Self { circuit, epoch, successes, failures }
    }
}

/// The fleet's counts of one circuit, within the window that ends now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetCounts {
    /// Which circuit.
    pub circuit: Name,
    /// The epoch in which they were counted.
    pub epoch: Epoch,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
}

impl FleetCounts {
    /// Totals of `circuit`.
    #[must_use]
    pub const fn new(circuit: Name, epoch: Epoch, successes: u64, failures: u64) -> Self {
        Self { circuit, epoch, successes, failures }
    }
}
