//! What has happened to a fleet's link and decisions, in numbers.

use super::event::{DecisionOutcome, FleetEvent};
use crate::store::RejectReason;

/// Counts since the fleet was made, for its snapshot and its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// In the order of [`DecisionOutcome::ALL`].
    settled: [u64; DecisionOutcome::ALL.len()],
    /// In the order of [`RejectReason::ALL`].
    refused: [u64; RejectReason::ALL.len()],
    /// In the order of [`EVENTS`].
    events: [u64; EVENTS.len()],
}

impl Counted {
    pub(super) fn count(&mut self, event: &FleetEvent) {
        if let FleetEvent::DecisionResolved { ending, .. } = event {
            bump(&mut self.settled, &DecisionOutcome::ALL, ending);
        } else if let Some(name) = name(event) {
            bump(&mut self.events, &EVENTS, &name);
        }
    }

    pub(super) fn count_refusal(&mut self, why: RejectReason) {
        bump(&mut self.refused, &RejectReason::ALL, &why);
    }

    pub(super) fn superseded(&self) -> u64 {
        let superseded = DecisionOutcome::ALL
            .iter()
            .position(|ending| *ending == DecisionOutcome::Superseded);
        superseded.map_or(0, |place| self.settled[place])
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }
}

#[cfg(feature = "metrics")]
impl Counted {
    /// What has been added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            settled: std::array::from_fn(|place| self.settled[place] - before.settled[place]),
            refused: std::array::from_fn(|place| self.refused[place] - before.refused[place]),
            events: std::array::from_fn(|place| self.events[place] - before.events[place]),
        }
    }

    /// Decisions of this process, by how they ended.
    pub(crate) fn decisions(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        DecisionOutcome::ALL
            .map(DecisionOutcome::as_str)
            .into_iter()
            .zip(self.settled)
    }

    /// Changes that the store refused, by why.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        RejectReason::ALL
            .map(RejectReason::as_str)
            .into_iter()
            .zip(self.refused)
    }

    /// All other events.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        EVENTS.into_iter().zip(self.events)
    }
}

fn bump<T: PartialEq>(counts: &mut [u64], all: &[T], this: &T) {
    if let Some(place) = all.iter().position(|one| one == this) {
        counts[place] += 1;
    }
}

const fn name(event: &FleetEvent) -> Option<&'static str> {
    Some(match event {
        FleetEvent::Synchronized { .. } => "synchronised",
        FleetEvent::Degraded { .. } => "degraded",
        FleetEvent::Pending { .. } => "pending",
        FleetEvent::FellBackToPolling => "push_given_up",
        FleetEvent::HistoryLost => "history_lost",
        FleetEvent::ClockStepped { .. } => "clock_stepped",
        // What a listener has missed is that listener's affair.
        FleetEvent::DecisionResolved { .. } | FleetEvent::Missed(_) => return None,
    })
}

const EVENTS: [&str; 6] = [
    "synchronised",
    "degraded",
    "pending",
    "push_given_up",
    "history_lost",
    "clock_stepped",
];
