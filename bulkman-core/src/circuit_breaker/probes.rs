//! The probes of one half-open stay: those out, and what those that came back said.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::counts::{Sample, Tally};

/// Counts probes when they leave, not when they return: otherwise any number would pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    out: Vec<Probe>,
    sent: u64,
    back: Tally,
    failures_in_a_row: u32,
    longest_run: u32,
}

impl Probes {
    /// Sends one out.
    pub(crate) fn admit(&mut self, now: Instant) -> ProbeId {
        let id = ProbeId(NonZeroU64::MIN.saturating_add(self.sent));
        self.sent += 1;
        self.out.push(Probe { id, since: now });
        id
    }

    /// Takes one back unrecorded; `false` when it is not out (any more).
    pub(crate) fn give_back(&mut self, id: ProbeId) -> bool {
        let place = self.out.iter().position(|probe| probe.id == id);
        place.map(|place| self.out.swap_remove(place)).is_some()
    }

    /// Counts the outcome of one that has been given back.
    pub(crate) fn record(&mut self, sample: Sample) {
        self.back.add(sample);
        self.failures_in_a_row = if sample.failed {
            self.failures_in_a_row + 1
        } else {
            0
        };
        self.longest_run = self.longest_run.max(self.failures_in_a_row);
    }

    /// The probe that is lost first, and when: `timeout` after it went out.
    pub(crate) fn first_lost(&self, timeout: Duration) -> Option<(Instant, ProbeId)> {
        let eldest = self.out.iter().min_by_key(|probe| probe.since)?;
        Some((eldest.since.checked_add(timeout)?, eldest.id))
    }

    /// How many more may go out, of `limit` in all.
    pub(crate) fn slots(&self, limit: u32) -> u32 {
        let taken = self.back.calls + self.out.len() as u64;
        limit.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// How many are out.
    pub(crate) fn out(&self) -> u32 {
        u32::try_from(self.out.len()).unwrap_or(u32::MAX)
    }

    /// The outcomes so far.
    pub(crate) fn back(&self) -> Tally {
        self.back
    }

    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    pub(crate) fn longest_run(&self) -> u32 {
        self.longest_run
    }
}

/// Names a probe within its half-open stay.
///
/// Never zero, and as wide as the rest of a ticket: so a call that is no probe costs one word,
/// and a ticket two registers instead of three values of mixed width that are copied by memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeId(NonZeroU64);

#[derive(Clone, Debug)]
struct Probe {
    id: ProbeId,
    since: Instant,
}
