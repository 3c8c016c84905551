//! The probes of one half-open state: those in flight, and the outcomes of the completed ones.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::counts::{Sample, Tally};

/// Counts probes when they are admitted; if completed ones were counted, any number would pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    in_flight: Vec<Probe>,
    admitted: u64,
    completed: Tally,
    streak: u32,
    max_streak: u32,
    /// The probes that were cancelled since the last outcome, and how long they ran in total.
    cancelled: (u32, Duration),
}

/// The number of probes in a row that may be cancelled, however short they were.
const MAX_CANCELLED: u32 = 100;

impl Probes {
    /// Admits a probe.
    pub(crate) fn admit(&mut self, now: Instant) -> ProbeId {
        let id = ProbeId(NonZeroU64::MIN.saturating_add(self.admitted));
        self.admitted += 1;
        self.in_flight.push(Probe {
            id,
            since: now,
            at_given_time: false,
        });
        id
    }

    /// Ends a probe without an outcome. Returns `false` if it is not in flight (any more).
    pub(crate) fn release(&mut self, id: ProbeId) -> bool {
        let index = self.in_flight.iter().position(|probe| probe.id == id);
        index
            .map(|index| self.in_flight.swap_remove(index))
            .is_some()
    }

    /// The time of the admission of this probe was an argument.
    pub(crate) fn set_given_time(&mut self, id: ProbeId) {
        if let Some(probe) = self.in_flight.iter_mut().find(|probe| probe.id == id) {
            probe.at_given_time = true;
        }
    }

    /// Returns `true` if the time of the admission of this probe was an argument.
    pub(crate) fn is_at_given_time(&self, id: ProbeId) -> bool {
        self.in_flight
            .iter()
            .any(|probe| probe.id == id && probe.at_given_time)
    }

    /// Ends a probe that was cancelled, and returns how long it ran; `None` if it is not in flight.
    pub(crate) fn cancel(&mut self, id: ProbeId, now: Instant) -> Option<Duration> {
        let index = self.in_flight.iter().position(|probe| probe.id == id)?;
        let ran = now.saturating_duration_since(self.in_flight.swap_remove(index).since);
        let (number, total) = self.cancelled;
        self.cancelled = (number.saturating_add(1), total.saturating_add(ran));
        Some(ran)
    }

    /// Returns `true` if the probes cancelled in a row count as one that timed out.
    pub(crate) fn cancelled_too_long(&self, timeout: Duration) -> bool {
        let (number, total) = self.cancelled;
        number >= MAX_CANCELLED || number > 1 && total >= timeout
    }

    /// Counts the outcome of a probe that has been released.
    pub(crate) fn record(&mut self, sample: Sample) {
        self.cancelled = (0, Duration::ZERO);
        self.completed.add(sample);
        self.streak = if sample.failed { self.streak + 1 } else { 0 };
        self.max_streak = self.max_streak.max(self.streak);
    }

    /// Returns the probe that times out next, and when: `timeout` after its admission.
    pub(crate) fn next_timeout(&self, timeout: Duration) -> Option<(Instant, ProbeId)> {
        let oldest = self.in_flight.iter().min_by_key(|probe| probe.since)?;
        Some((oldest.since.checked_add(timeout)?, oldest.id))
    }

    /// Moves the start of probes to `now`, if it is later by a clock that has stepped back.
    pub(crate) fn not_after(&mut self, now: Instant) {
        for probe in &mut self.in_flight {
            probe.since = probe.since.min(now);
        }
    }

    /// Returns how many more probes can be admitted, of `limit` in total.
    pub(crate) fn remaining(&self, limit: u32) -> u32 {
        let taken = self.completed.calls + self.in_flight.len() as u64;
        limit.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Returns the number of probes in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    /// Returns the outcomes so far.
    pub(crate) fn completed(&self) -> Tally {
        self.completed
    }

    /// Returns the number of failures since the last success.
    pub(crate) fn streak(&self) -> u32 {
        self.streak
    }

    /// Returns the largest number of consecutive failures.
    pub(crate) fn max_streak(&self) -> u32 {
        self.max_streak
    }
}

/// Identifies a probe within its half-open state.
///
/// Never zero, and as wide as the rest of a ticket. An `Option` of it takes one word, so a ticket
/// fits in two registers; values of mixed width would be copied through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeId(NonZeroU64);

impl ProbeId {
    pub(super) const fn from_bits(bits: NonZeroU64) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> NonZeroU64 {
        self.0
    }
}

#[derive(Clone, Debug)]
struct Probe {
    id: ProbeId,
    since: Instant,
    /// Whether `since` was an argument. The clock of the runtime may be another one.
    at_given_time: bool,
}
