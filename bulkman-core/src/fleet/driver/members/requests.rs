//! What is requested from the store, and when.

use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{MemberEntry, Members};
use crate::fleet::member::Request;
use crate::fleet::shared::MemberId;
use crate::name::BulkheadName;
use crate::store::Epoch;

impl Members {
    /// Returns the next request to the store. The circuits take turns.
    ///
    /// When there is no request, the next turn is drawn at random. Processes in which the same
    /// circuits fail at once then start with different ones, and rarely conflict.
    pub(in crate::fleet::driver) fn next_request(
        &mut self,
        now: Instant,
    ) -> Option<(MemberId, Request)> {
        if is_later(self.retry_at, now) {
            return None;
        }
        let after = (Bound::Excluded(self.last_served), Bound::Unbounded);
        let round_is_due = self.round_is_due(now);
        let mut in_turn = self
            .entries
            .range(after)
            .chain(self.entries.range(..=self.last_served));
        let next = in_turn.find_map(|(id, entry)| {
            let request = entry.next_request(now)?;
            (round_is_due || !entry.member.can_wait(request)).then_some((*id, request))
        });
        self.last_served = match next {
            Some((id, _)) => id,
            None => self
                .entries
                .keys()
                .next_back()
                .map_or(0, |last| self.jitter.number_up_to(*last)),
        };
        next
    }

    pub(in crate::fleet::driver) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = self
            .entries
            .values()
            .filter_map(|entry| entry.member.next_deadline(now));
        let retries = self.entries.values().filter_map(|entry| entry.retry_at);
        let retries = retries.chain(self.retry_at).chain(self.next_round_at);
        let retries = retries.filter(|at| *at > now);
        deadlines.chain(retries).min()
    }

    /// Handles the number of live processes of the fleet.
    pub(in crate::fleet::driver) fn set_live_processes(&mut self, live: Option<u32>) {
        self.live_processes = live.or(self.live_processes);
    }

    fn round_is_due(&self, now: Instant) -> bool {
        !is_later(self.next_round_at, now)
    }

    /// Begins a round of requests for leases, and draws when to repeat those that find none
    /// available, all at once. `contended`: all that are wanted were requested, and some of them
    /// are held by other processes.
    ///
    /// Processes ask at different times, and not in step with their periodic calls. The more of
    /// them are live, the longer each waits: a lease that becomes available is requested soon
    /// enough if any of them does.
    pub(in crate::fleet::driver) fn begin_round(
        &mut self,
        now: Instant,
        contended: bool,
    ) -> Option<Instant> {
        let delay = self.rules.acquire_retry_delay;
        if contended {
            let others = self.live_processes.unwrap_or(1).saturating_sub(1);
            let share = PAUSE_PER_PROCESS.saturating_mul(others).min(delay * 2);
            self.next_round_at = now.checked_add(delay / 4 + self.jitter.up_to(share));
        }
        now.checked_add(delay / 2 + self.jitter.up_to(delay / 2))
    }

    /// Returns all circuits with their requests, starting with the circuit `first`. Requests for
    /// leases include those that are due by `due`.
    pub(in crate::fleet::driver) fn requests_from(
        &self,
        first: MemberId,
        now: Instant,
        due: Instant,
    ) -> impl Iterator<Item = (MemberId, &MemberEntry, Request)> {
        self.entries
            .range(first..)
            .chain(self.entries.range(..first))
            .filter_map(move |(id, entry)| Some((*id, entry, entry.next_request_by(now, due)?)))
    }

    /// Returns all circuits in which probing can start, with the epochs of their openings, starting
    /// with the circuit `first`.
    pub(in crate::fleet::driver) fn probing_due(
        &self,
        first: MemberId,
        now: Instant,
    ) -> impl Iterator<Item = (MemberId, &BulkheadName, Epoch)> {
        self.entries
            .range(first..)
            .chain(self.entries.range(..first))
            .filter(move |(_, entry)| !is_later(entry.retry_at, now))
            .filter_map(move |(id, entry)| Some((*id, &entry.name, entry.member.probing_due(now)?)))
    }

    /// Sends no request before `at`.
    pub(in crate::fleet::driver) const fn pause_requests(&mut self, at: Instant) {
        self.retry_at = Some(at);
    }

    /// Sends no request of the circuit `id` before `at`.
    pub(in crate::fleet::driver) fn pause_requests_of(&mut self, id: MemberId, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.retry_at = Some(at);
        }
    }

    /// Handles that the store accepted a request of the circuit `id`.
    pub(in crate::fleet::driver) fn on_request_accepted(&mut self, id: MemberId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.retry_at = None;
        }
    }

    /// Returns whether the store still rejects a circuit's name, or what it has to publish.
    pub(in crate::fleet::driver) fn is_still_rejected(&self, name: &BulkheadName) -> bool {
        let ids = self.by_name.get(name).into_iter().flatten();
        let mut entries = ids.filter_map(|id| self.entries.get(id));
        entries.any(|entry| {
            entry.is_rejected || (entry.retry_at.is_some() && entry.member.has_unpublished())
        })
    }

    /// Sends each request alone until `until`.
    pub(in crate::fleet::driver) const fn isolate_requests(&mut self, until: Instant) {
        self.isolate_until = Some(until);
    }

    pub(in crate::fleet::driver) fn isolates_requests(&self, now: Instant) -> bool {
        is_later(self.isolate_until, now)
    }
}

impl MemberEntry {
    fn next_request(&self, now: Instant) -> Option<Request> {
        if is_later(self.retry_at, now) {
            return None;
        }
        self.member.next_request(now)
    }

    fn next_request_by(&self, now: Instant, due: Instant) -> Option<Request> {
        if is_later(self.retry_at, now) {
            return None;
        }
        self.member.next_request_by(now, due)
    }
}

fn is_later(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at > now)
}

/// By how much each other process extends the pause between rounds of requests for leases, at most.
const PAUSE_PER_PROCESS: Duration = Duration::from_millis(50);
