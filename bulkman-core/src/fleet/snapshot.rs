//! A fleet's view at one moment.

use std::time::Duration;

use crate::name::BulkheadName;
#[cfg(feature = "serde")]
use crate::seconds;
use crate::store::{Epoch, FleetState};

/// How fresh a process's view of its fleet is, and what it has yet to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// Whether the store answers.
    pub connected: bool,
    /// Whether changes are looked for, instead of being announced.
    pub polling: bool,
    /// How long ago the store answered last; `None` before it ever did. What other processes have
    /// decided since is not known here, unless the store has announced it.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "staleness_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub staleness: Option<Duration>,
    /// For how long the store has not been there.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "degraded_for_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub degraded_for: Option<Duration>,
    /// Why, and what mends it.
    pub error: Option<String>,
    /// Decisions and verdicts of this process that the store does not know yet.
    pub pending: usize,
    /// Decisions of this process that something newer took the place of, since it started.
    pub superseded: u64,
    /// Changes of this process that the store refused since it started: as a rule another process
    /// was first. The decision behind one goes on, or has been superseded.
    pub refused: u64,
    /// The circuits as the store has them, by name.
    pub circuits: Vec<FleetCircuit>,
}

/// A circuit as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetCircuit {
    /// Which.
    pub name: BulkheadName,
    /// Its state; `None` before the store has been heard of it.
    pub state: Option<FleetState>,
    /// Its epoch.
    pub epoch: Epoch,
}
