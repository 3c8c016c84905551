//! A change of the limit.

use std::fmt;

/// A change of the fractional limit, with its cause.
///
/// Whole permits are the floor of a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct LimitAdjustment {
    /// The limit before the change.
    pub from: f64,
    /// The limit after the change.
    pub to: f64,
    /// The cause of the change.
    pub cause: LimitChangeCause,
}

impl LimitAdjustment {
    /// Returns `true` if the number of whole permits fell.
    ///
    /// Calls that were admitted before it queued under the larger limit, and must not be sampled.
    #[must_use]
    pub fn reduces_permits(&self) -> bool {
        self.to.floor() < self.from.floor()
    }

    /// Returns `true` if the dependency needs time to empty its queue.
    ///
    /// An unused limit left no queue, and a window without a success has no latency to wait for.
    #[must_use]
    pub fn needs_quiet_time(&self) -> bool {
        self.reduces_permits()
            && !matches!(
                self.cause,
                LimitChangeCause::NoReply | LimitChangeCause::Unused
            )
    }
}

/// The cause of a change of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum LimitChangeCause {
    /// The limit was reached, and latency showed no queue.
    Growth,
    /// A growth raised the throughput by less than 30 % of its share, and was undone.
    NoGain,
    /// Two consecutive windows had a latency above the allowed one.
    Queueing,
    /// Calls timed out, or the dependency requested less load.
    Overload,
    /// No call of the window succeeded.
    NoReply,
    /// A measurement of the baseline started.
    Measuring,
    /// A reduction emptied no queue, so the dependency is slower, and a measurement started.
    LatencyShift,
    /// A measurement of the baseline ended.
    Measured,
    /// A measurement ended without a result, because too few calls ended.
    Discarded,
    /// Less than half of the limit was in use for ten windows.
    Unused,
    /// The circuit closed, and the limit starts again from a small one.
    CircuitClosed,
    /// The share of the fleet limit changed.
    FleetShare,
    /// The settings changed.
    Reconfigured,
}

impl LimitChangeCause {
    pub(crate) const ALL: [Self; 13] = [
        Self::Growth,
        Self::NoGain,
        Self::Queueing,
        Self::Overload,
        Self::NoReply,
        Self::Measuring,
        Self::LatencyShift,
        Self::Measured,
        Self::Discarded,
        Self::Unused,
        Self::CircuitClosed,
        Self::FleetShare,
        Self::Reconfigured,
    ];

    /// Returns the cause in snake case, as in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::NoGain => "no_gain",
            Self::Queueing => "queueing",
            Self::Overload => "overload",
            Self::NoReply => "no_reply",
            Self::Measuring => "measuring",
            Self::LatencyShift => "latency_shift",
            Self::Measured => "measured",
            Self::Discarded => "discarded",
            Self::Unused => "unused",
            Self::CircuitClosed => "circuit_closed",
            Self::FleetShare => "fleet_share",
            Self::Reconfigured => "reconfigured",
        }
    }
}

impl fmt::Display for LimitChangeCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
