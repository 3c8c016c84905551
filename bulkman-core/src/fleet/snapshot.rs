//! A snapshot of a fleet's status.

use std::time::Duration;

use crate::name::BulkheadName;
#[cfg(feature = "serde")]
use crate::seconds;
use crate::store::{Epoch, FleetState};

/// Connection status, staleness and unpublished decisions of a [`Fleet`](super::Fleet).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// Whether the store is connected.
    pub connected: bool,
    /// Whether the store is polled for changes, because it pushes no notifications.
    pub polling: bool,
    /// Time since the last response of the store; `None` before the first. Later decisions of
    /// other processes are unknown here, unless the store has sent a notification.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "staleness_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub staleness: Option<Duration>,
    /// Time since the store became unavailable; `None` if it is available.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "degraded_for_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub degraded_for: Option<Duration>,
    /// The error that made the store unavailable, or with which it rejects an operation, with its
    /// fix if one is known.
    pub error: Option<String>,
    /// The number of circuits with a decision or a probe outcome that is not yet in the store.
    pub pending: usize,
    /// The number of this process's decisions that were superseded by newer ones, since it started.
    pub superseded: u64,
    /// The number of changes that the store rejected since this process started. Usually another
    /// process was first. The decision behind a rejected change is retried or superseded.
    pub rejected: u64,
    /// The circuits as stored, sorted by name.
    pub circuits: Vec<FleetCircuit>,
}

/// A circuit as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FleetCircuit {
    /// The circuit's name.
    pub name: BulkheadName,
    /// The circuit's state; `None` before it has been loaded from the store.
    pub state: Option<FleetState>,
    /// The circuit's epoch: its number of changes.
    pub epoch: Epoch,
}
