//! Successes and failures of a whole fleet.

use std::time::Duration;

use super::view::Epoch;
use crate::name::BulkheadName;

/// The window over which a store adds up.
///
/// Processes that use different windows for one circuit don't see each other's counts.
///
/// ```
/// use bulkman::store::BucketedWindow;
/// use std::time::Duration;
///
/// let ten_seconds = BucketedWindow::new(Duration::from_secs(1), 10);
/// assert_eq!(ten_seconds.bucket * u32::from(ten_seconds.buckets), Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BucketedWindow {
    /// How long one bucket is; at least a millisecond.
    pub bucket: Duration,
    /// How many make the window: 1 to 1000.
    pub buckets: u16,
}

impl BucketedWindow {
    /// A window of `buckets` times `bucket`.
    #[must_use]
    pub const fn new(bucket: Duration, buckets: u16) -> Self {
        Self { bucket, buckets }
    }
}

/// What one process has to add.
///
/// ```
/// use bulkman::store::{BucketedWindow, CircuitStore, CountsDelta, Epoch};
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session = block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let window = BucketedWindow::new(Duration::from_secs(60), 10);
/// let ours = CountsDelta::new(mail, Epoch(0), 3, 1);
/// let totals = block_on(session.add_counts(window, &[ours.clone(), ours]))?;
/// assert_eq!((totals[1].successes, totals[1].failures), (6, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountsDelta {
    /// Which circuit.
    pub circuit: BulkheadName,
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
    pub const fn new(circuit: BulkheadName, epoch: Epoch, successes: u64, failures: u64) -> Self {
        Self {
            circuit,
            epoch,
            successes,
            failures,
        }
    }
}

/// The fleet's counts of one circuit, within the window that ends now.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::store::{Epoch, FleetCounts};
///
/// let totals = FleetCounts::new(BulkheadName::new("mail")?, Epoch(3), 90, 10);
/// assert_eq!(totals.failures, 10);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetCounts {
    /// Which circuit.
    pub circuit: BulkheadName,
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
    pub const fn new(circuit: BulkheadName, epoch: Epoch, successes: u64, failures: u64) -> Self {
        Self {
            circuit,
            epoch,
            successes,
            failures,
        }
    }
}
