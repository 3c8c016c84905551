//! Which reads of a session store the status of its process.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows;

/// The reports of a session's process.
pub(super) struct ProcessReports {
    /// Whether this role may store them.
    allowed: bool,
    /// How many more reads store no status, after an error.
    skipped: u32,
    live_processes: Option<u32>,
}

impl ProcessReports {
    pub(super) const fn new(allowed: bool) -> Self {
        Self {
            allowed,
            skipped: 0,
            live_processes: None,
        }
    }

    pub(super) const fn are_allowed(&self) -> bool {
        self.allowed
    }

    /// Returns whether the next read stores the status, and counts it among those that skip it.
    pub(super) fn are_due(&mut self, is_read_only: bool) -> bool {
        let skips = self.skipped > 0;
        self.skipped = self.skipped.saturating_sub(1);
        self.allowed && !is_read_only && !skips
    }

    /// Records the rows of a read that stored the status.
    pub(super) fn stored(&mut self, rows: &[PgRow]) -> sqlx::Result<()> {
        let live = rows.first().map(|row| row.try_get("live_processes"));
        self.live_processes = live.transpose()?.map(saturated);
        Ok(())
    }

    /// Records that the server rejected a read with the status.
    pub(super) const fn rejected(&mut self) {
        self.skipped = SKIPPED_AFTER_ERROR;
    }

    /// Returns the number of processes that report, as of the last report.
    pub(super) const fn live_processes(&self) -> Option<u32> {
        self.live_processes
    }
}

fn saturated(count: i64) -> u32 {
    u32::try_from(rows::unsigned(count)).unwrap_or(u32::MAX)
}

/// A minute of reads at the default interval.
const SKIPPED_AFTER_ERROR: u32 = 12;
