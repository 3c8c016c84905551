//! Successes and failures of a whole fleet.

use std::time::Duration;

use super::view::Epoch;
use crate::name::BulkheadName;

/// A sliding time window in buckets, over which a store sums counts.
///
/// Processes that use different windows for one circuit don't see each other's counts.
///
/// ```
/// use bulkman::store::BucketedWindow;
/// use std::time::Duration;
///
/// let window = BucketedWindow::new(Duration::from_secs(60), 10);
/// assert_eq!(window.bucket_length(), Duration::from_secs(6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BucketedWindow {
    /// The length of the window; at least 1 ms and at most a day per bucket.
    pub length: Duration,
    /// The number of buckets: 1 to 1000.
    pub buckets: u16,
}

impl BucketedWindow {
    /// Creates a window of `length`, divided into `buckets`.
    #[must_use]
    pub const fn new(length: Duration, buckets: u16) -> Self {
        Self { length, buckets }
    }

    /// Returns the length of one bucket, or the window's length if it has no buckets.
    ///
    /// ```
    /// # use bulkman::store::BucketedWindow;
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// assert_eq!(BucketedWindow::new(10 * second, 10).bucket_length(), second);
    /// ```
    #[must_use]
    pub const fn bucket_length(&self) -> Duration {
        match self.length.checked_div(self.buckets as u32) {
            Some(length) => length,
            None => self.length,
        }
    }
}

/// The counts that one process adds to a circuit.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::store::MemoryStore;
/// use bulkman::store::{BucketedWindow, CircuitStore, CountsDelta, Epoch};
/// use futures_lite::future::block_on;
/// use std::time::Duration;
///
/// let mail = BulkheadName::new("mail")?;
/// let mut session =
///     block_on(MemoryStore::new(ClockOnly).open_session(std::slice::from_ref(&mail)))?;
/// let window = BucketedWindow::new(Duration::from_secs(600), 10);
/// let ours = CountsDelta::new(mail, Epoch(0), 3, 1);
/// let totals = block_on(session.add_counts(window, &[ours.clone(), ours]))?;
/// assert_eq!((totals[1].successes, totals[1].failures), (6, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountsDelta {
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The epoch in which these calls ran. They are added to no other epoch's counts.
    pub epoch: Epoch,
    /// The number of successful calls.
    pub successes: u64,
    /// The number of failed calls.
    pub failures: u64,
}

impl CountsDelta {
    /// Creates the given numbers of successes and failures of `circuit`.
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
    /// The name of the circuit.
    pub circuit: BulkheadName,
    /// The epoch in which the calls were counted.
    pub epoch: Epoch,
    /// The number of successful calls.
    pub successes: u64,
    /// The number of failed calls.
    pub failures: u64,
}

impl FleetCounts {
    /// Creates the totals of `circuit`.
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
