//! The sliding windows. Counts are exact; recording takes constant time for any size.

use std::time::Instant;

use super::config::SlidingWindow;
use super::count_window::CountWindow;
use super::counts::{Sample, Tally};
use super::time_window::TimeWindow;

/// The outcomes that rates are computed from.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    Count(CountWindow),
    /// Boxed, because it is larger and rarely used.
    Time(Box<TimeWindow>),
}

/// The effect of an outcome on a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowChange {
    /// The tally of a count window has changed.
    Count,
    /// The tally of a time window may have changed, perhaps only because time has passed.
    Time,
    /// The tally is the same.
    Unchanged,
    /// The outcome was not recorded, because the time is needed.
    NeedsTime,
}

impl Window {
    /// Creates an empty window.
    ///
    /// The buckets of a time window begin at `origin` plus multiples of their length.
    pub(crate) fn new(kind: SlidingWindow, origin: Instant) -> Self {
        match kind {
            SlidingWindow::Count(size) => Self::Count(CountWindow::new(size)),
            SlidingWindow::Time { length, buckets } => {
                Self::Time(Box::new(TimeWindow::new(length, buckets, origin)))
            }
        }
    }

    /// Adds an outcome at `now`. Only a count window can do so without the time.
    #[inline]
    pub(crate) fn record(&mut self, sample: Sample, now: Option<Instant>) -> WindowChange {
        match (self, now) {
            (Self::Count(window), _) => {
                if window.record(sample) {
                    WindowChange::Count
                } else {
                    WindowChange::Unchanged
                }
            }
            (Self::Time(window), Some(now)) => {
                window.record(sample, now);
                WindowChange::Time
            }
            (Self::Time(_), None) => WindowChange::NeedsTime,
        }
    }

    /// Returns `true` if recording a success that is not slow has an effect.
    #[inline]
    pub(crate) fn records_success(&self) -> bool {
        match self {
            Self::Count(window) => !window.is_saturated(),
            Self::Time(_) => true,
        }
    }

    /// Drops outcomes that are too old at `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        if let Self::Time(window) = self {
            window.advance(now);
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }

    /// Changes the size and keeps the newest part. A change of the kind empties the window.
    pub(crate) fn reshape(&mut self, kind: SlidingWindow, origin: Instant) {
        match (&mut *self, kind) {
            (Self::Count(window), SlidingWindow::Count(size)) => window.resize(size),
            (Self::Time(window), SlidingWindow::Time { length, buckets }) => {
                window.resize(length, buckets)
            }
            (Self::Count(_), SlidingWindow::Time { .. })
            | (Self::Time(_), SlidingWindow::Count(_)) => {
                *self = Self::new(kind, origin);
            }
        }
    }

    /// Returns the counts as if `slow` slow calls were recorded now.
    pub(crate) fn tally_with_slow(&self, slow: u32) -> Tally {
        match self {
            Self::Count(window) => window.tally_with_slow(slow as usize),
            Self::Time(window) => {
                let mut tally = window.tally();
                tally.calls += u64::from(slow);
                tally.slow += u64::from(slow);
                tally
            }
        }
    }

    /// Returns the counts of the outcomes in the window.
    #[inline]
    pub(crate) fn tally(&self) -> Tally {
        match self {
            Self::Count(window) => window.tally(),
            Self::Time(window) => window.tally(),
        }
    }
}
