//! Counters of a fleet's events, decisions and rejected changes.

use super::events::{DecisionOutcome, FleetEvent};
use crate::store::RejectReason;

/// Counts since the fleet was created, for its snapshot and its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetCounters {
    /// In the order of [`DecisionOutcome::ALL`].
    decisions: [u64; DecisionOutcome::ALL.len()],
    /// In the order of [`RejectReason::ALL`].
    rejections: [u64; RejectReason::ALL.len()],
    /// In the order of [`EVENTS`].
    events: [u64; EVENTS.len()],
}

impl FleetCounters {
    pub(super) fn record(&mut self, event: &FleetEvent) {
        if let FleetEvent::DecisionResolved { outcome, .. } = event {
            increment(&mut self.decisions, &DecisionOutcome::ALL, outcome);
        } else if let Some(name) = name(event) {
            increment(&mut self.events, &EVENTS, &name);
        }
    }

    pub(super) fn record_rejection(&mut self, reason: RejectReason) {
        increment(&mut self.rejections, &RejectReason::ALL, &reason);
    }

    pub(super) fn superseded(&self) -> u64 {
        let superseded = DecisionOutcome::ALL
            .iter()
            .position(|outcome| *outcome == DecisionOutcome::Superseded);
        superseded.map_or(0, |index| self.decisions[index])
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejections.iter().sum()
    }
}

#[cfg(feature = "metrics")]
impl FleetCounters {
    /// Returns the difference from an earlier value.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            decisions: std::array::from_fn(|i| self.decisions[i] - before.decisions[i]),
            rejections: std::array::from_fn(|i| self.rejections[i] - before.rejections[i]),
            events: std::array::from_fn(|i| self.events[i] - before.events[i]),
        }
    }

    /// Returns the decisions of this process by outcome.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        DecisionOutcome::ALL
            .map(DecisionOutcome::as_str)
            .into_iter()
            .zip(self.decisions)
    }

    /// Returns the rejected changes by reason.
    pub(crate) fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        RejectReason::ALL
            .map(RejectReason::as_str)
            .into_iter()
            .zip(self.rejections)
    }

    /// Returns all other events by name.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        EVENTS.into_iter().zip(self.events)
    }
}

fn increment<T: PartialEq>(counts: &mut [u64], all: &[T], this: &T) {
    if let Some(index) = all.iter().position(|one| one == this) {
        counts[index] += 1;
    }
}

const fn name(event: &FleetEvent) -> Option<&'static str> {
    Some(match event {
        FleetEvent::Synchronized { .. } => "synchronized",
        FleetEvent::Degraded { .. } => "degraded",
        FleetEvent::OperationRejected { .. } => "operation_rejected",
        FleetEvent::ReadOnly { .. } => "read_only",
        FleetEvent::WritesResumed => "writes_resumed",
        FleetEvent::Pending { .. } => "pending",
        FleetEvent::FellBackToPolling => "fell_back_to_polling",
        FleetEvent::PushResumed => "push_resumed",
        FleetEvent::HistoryLost => "history_lost",
        FleetEvent::ClockStepped { .. } => "clock_stepped",
        // `Lagged` concerns one receiver, not the fleet.
        FleetEvent::DecisionResolved { .. } | FleetEvent::Lagged(_) => return None,
    })
}

const EVENTS: [&str; 10] = [
    "synchronized",
    "degraded",
    "operation_rejected",
    "read_only",
    "writes_resumed",
    "pending",
    "fell_back_to_polling",
    "push_resumed",
    "history_lost",
    "clock_stepped",
];
