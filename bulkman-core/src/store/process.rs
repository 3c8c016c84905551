//! The status of a process, which a store keeps for operators and for the fleet.

use std::sync::Arc;
use std::time::Duration;

/// The status of a process, stored with its periodic reads.
///
/// It is what [`StoreSession::resync`](super::StoreSession::resync) stores. The driver of a fleet
/// sends it at most once per [`resync_interval`](super::StoreSettings::resync_interval).
///
/// ```
/// use bulkman::store::ProcessStatus;
/// use std::time::Duration;
///
/// let mut status = ProcessStatus::new("shop@node-7:12".into(), 7, Duration::from_secs(15));
/// status.pending = 2;
/// assert!(status.degraded_for.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// The [name of the process](super::StoreSettings::instance_name): 1 to 200 bytes.
    pub instance: Arc<str>,
    /// Distinguishes processes of the same name: a random number.
    pub id: u64,
    /// The time after this report for which the process counts as live.
    pub valid_for: Duration,
    /// The [version of the application](super::StoreSettings::application_version).
    pub application_version: Option<Arc<str>>,
    /// The version of this library.
    pub library_version: &'static str,
    /// Whether the store could only be read, until this report.
    pub read_only: bool,
    /// The number of circuits with a decision or a probe outcome that is not yet in the store.
    pub pending: usize,
    /// How long the store has been unavailable until this report, or has rejected an operation.
    ///
    /// `None` if it is available and rejects nothing.
    pub degraded_for: Option<Duration>,
}

impl ProcessStatus {
    /// Creates the status of a process that has nothing pending and is not degraded.
    #[must_use]
    pub const fn new(instance: Arc<str>, id: u64, valid_for: Duration) -> Self {
        Self {
            instance,
            id,
            valid_for,
            application_version: None,
            library_version: env!("CARGO_PKG_VERSION"),
            read_only: false,
            pending: 0,
            degraded_for: None,
        }
    }
}
