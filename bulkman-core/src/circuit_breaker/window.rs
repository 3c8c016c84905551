//! The sliding windows: exact, and O(1) to record into however large they are.

use std::time::Instant;

use super::config::SlidingWindow;
use super::count_window::LastOutcomes;
use super::counts::{Sample, Tally};
use super::time_window::TimeWindow;

/// The outcomes that rates are computed from.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    Count(LastOutcomes),
    /// Apart, since it is larger and few want it.
    Time(Box<TimeWindow>),
}

/// What an outcome did to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// A count window's tally is another one.
    Count,
    /// A time window's may be, also by the time that has passed.
    Time,
    /// The tally is the same.
    InPlaceOfItsLike,
    /// Nothing: the time is needed.
    NeedsTime,
}

impl Window {
    /// An empty window. The buckets of a time window begin at `origin` and at every multiple of
    /// their length from it.
    pub(crate) fn new(kind: SlidingWindow, origin: Instant) -> Self {
        match kind {
            SlidingWindow::Count(size) => Self::Count(LastOutcomes::new(size)),
            SlidingWindow::Time { length, buckets } => {
                Self::Time(Box::new(TimeWindow::new(length, buckets, origin)))
            }
        }
    }

    /// Adds an outcome, at `now`; without the time only a count window can.
    #[inline]
    pub(crate) fn record(&mut self, sample: Sample, now: Option<Instant>) -> Recorded {
        match (self, now) {
            (Self::Count(window), _) => {
                if window.record(sample) {
                    Recorded::Count
                } else {
                    Recorded::InPlaceOfItsLike
                }
            }
            (Self::Time(window), Some(now)) => {
                window.record(sample, now);
                Recorded::Time
            }
            (Self::Time(_), None) => Recorded::NeedsTime,
        }
    }

    /// Whether a success that is not slow changes anything.
    #[inline]
    pub(crate) fn hears_success(&self) -> bool {
        match self {
            Self::Count(window) => !window.is_saturated(),
            Self::Time(_) => true,
        }
    }

    /// Drops what is too old at `now`.
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

    /// Changes size, keeping the newest part; empty when the kind changes.
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

    /// What is in it.
    #[inline]
    pub(crate) fn tally(&self) -> Tally {
        match self {
            Self::Count(window) => window.tally(),
            Self::Time(window) => window.tally(),
        }
    }
}
