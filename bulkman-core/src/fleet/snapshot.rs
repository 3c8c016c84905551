//! A snapshot of a fleet's status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::CircuitStatus;
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
    /// Whether the store can only be read, as a standby: its state is adopted, and this process's
    /// decisions stay pending. [`error`](Self::error) has the reason.
    pub read_only: bool,
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
    /// The error that made the store unavailable or read-only, or with which it rejects an
    /// operation, with its fix if one is known.
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
    /// The time since the last change; `None` if the circuit never changed.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::serialize_option")
    )]
    pub age: Option<Duration>,
    /// The process or operator that made the last change; `None` if it is unknown.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_text"))]
    pub author: Option<Arc<str>>,
    /// The reason for the last change; `None` if there is none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_text"))]
    pub reason: Option<Arc<str>>,
}

impl FleetCircuit {
    pub(super) fn new(circuit: &CircuitStatus, now: Instant) -> Self {
        let change = circuit.last_change.as_deref();
        let text = |text: &Arc<str>| (!text.is_empty()).then(|| Arc::clone(text));
        Self {
            name: circuit.name.clone(),
            state: circuit.state,
            epoch: circuit.epoch,
            age: change.and_then(|change| Some(now.saturating_duration_since(change.at?))),
            author: change.and_then(|change| text(&change.author)),
            reason: change.and_then(|change| text(&change.reason)),
        }
    }
}

#[cfg(feature = "serde")]
#[allow(clippy::ref_option, reason = "the signature that serde calls")]
fn serialize_text<S: serde::Serializer>(
    text: &Option<Arc<str>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&text.as_deref(), serializer)
}
