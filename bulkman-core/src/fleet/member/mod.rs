//! The protocol of one shared circuit, without I/O: no clock, no lock, no async; `now` is an
//! argument.
//!
//! Two sources of change are reconciled: the circuit (by its own rules, or manually) and the store
//! (by every process, or by operators). A decision of the circuit is *pending* until it is
//! published, superseded by a stored state, replaced by a newer decision of this process, or
//! expired. While none is pending, the circuit adopts the stored state.
//!
//! A [`Member`] has these groups of methods:
//!
//! * Input from the circuit, in `circuit_input.rs`, and from the store, in `store_input.rs`. Most
//!   names begin with `on_`. Input that resolves a pending decision returns its outcome.
//! * Output, in `output.rs`: what to change in the circuit, what to request from the store, and
//!   when to ask again. Call them in this order: [`expire`](Member::expire),
//!   [`next_update`](Member::next_update) until it returns `None`,
//!   [`next_request`](Member::next_request), [`next_deadline`](Member::next_deadline).
//! * Queries, in `output.rs`, too.

mod circuit_input;
mod decision;
mod output;
mod store_input;
mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use self::decision::Decision;
pub(super) use self::output::{CircuitUpdate, Request};
use self::stored::StoredState;
use super::shared::LastChange;
use crate::circuit_breaker::{CircuitState, Gate, ProbeOutcome};
use crate::store::{Epoch, OnOutage, OperationId, ProbeLease};

/// The settings that apply to a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberRules {
    pub(super) quorum: u16,
    pub(super) on_outage: OnOutage,
    /// A decision that waited longer for the store may concern only this process.
    pub(super) isolated_after: Duration,
    /// Whether the store counts votes.
    pub(super) votes: bool,
    /// Whether the store leases probes. If not, every process probes as in an outage.
    pub(super) probe_leases: bool,
    pub(super) lease_ttl: Duration,
    /// The delay after a request for a lease found none available.
    pub(super) acquire_retry_delay: Duration,
}

/// One circuit of this process and its state in the store.
#[derive(Debug)]
pub(super) struct Member {
    rules: MemberRules,
    /// The store accepts changes.
    connected: bool,
    /// The store is read, at least: its state is adopted.
    reads: bool,
    /// While no change is accepted: when that becomes an outage; `None` if it is one.
    outage_at: Option<Instant>,
    disconnected_since: Option<Instant>,
    stored: Option<StoredState>,
    /// The last change of the stored state; kept when the state is to be read again.
    last_change: Option<Arc<LastChange>>,
    /// The circuit is to adopt the stored state.
    needs_adopt: bool,
    /// The last observed generation of the circuit, and its state in it.
    generation: u64,
    local_state: CircuitState,
    /// Forced manually in this process. The fleet does not overrule that.
    forced_locally: bool,
    /// Open in this process only: below the quorum.
    local_only: bool,
    pending: Option<Decision>,
    /// The circuit's current gate.
    gate: Gate,
    lease: Option<HeldLease>,
    /// Probe outcomes to report, each as one operation.
    probe_outcomes: VecDeque<(ProbeOutcome, OperationId)>,
    /// When to request a lease, if calls demand one.
    acquire_at: Option<Instant>,
    acquire_not_before: Option<Instant>,
    /// This process has started probing, so that the lease is probably available.
    acquire_at_once: bool,
    /// How often a request for a lease is repeated without a further demand.
    acquire_retries: u8,
    /// Until when calls are expected, so that an unused lease is kept or requested again.
    demanded_until: Option<Instant>,
    /// How long the next lease may be unused before it is released for a while.
    unused_for: Duration,
    /// A lease that the circuit can no longer use, to be released.
    abandoned: Option<(Epoch, ProbeLease)>,
    /// When to check the circuit for demand, and how often to repeat that. After the last check
    /// the circuit notifies the driver of demand itself.
    check_demand_at: Option<Instant>,
    demand_checks_left: u8,
}

/// A probe lease that this process holds.
#[derive(Clone, Copy, Debug)]
struct HeldLease {
    lease: ProbeLease,
    epoch: Epoch,
    renew_at: Option<Instant>,
    /// When to release the lease for a while if no call has used it.
    yield_at: Option<Instant>,
    /// When the lease became available to calls.
    available_since: Instant,
    /// Calls are rare here: after an outcome, other processes can acquire the lease.
    passed_on: bool,
    /// No call can use the lease any more, and it is to be released.
    revoked: bool,
    /// Not renewed after this, so that a holder without calls does not block other processes.
    keep_until: Option<Instant>,
    /// Not later than in the store: computed from when the request was sent.
    expires_at: Option<Instant>,
}

impl Member {
    pub(super) const fn new(rules: MemberRules) -> Self {
        Self {
            rules,
            connected: false,
            reads: false,
            outage_at: None,
            disconnected_since: None,
            stored: None,
            last_change: None,
            needs_adopt: false,
            generation: 0,
            local_state: CircuitState::Closed,
            forced_locally: false,
            local_only: false,
            pending: None,
            gate: outage_gate(rules.on_outage),
            lease: None,
            probe_outcomes: VecDeque::new(),
            acquire_at: None,
            acquire_not_before: None,
            acquire_at_once: false,
            acquire_retries: 0,
            demanded_until: None,
            unused_for: FIRST_UNUSED,
            abandoned: None,
            check_demand_at: None,
            demand_checks_left: 0,
        }
    }
}

/// How long a lease may be unused before other processes can acquire it, at first.
const FIRST_UNUSED: Duration = Duration::from_secs(2);

/// Returns the gate of a circuit while the store is unavailable.
pub(super) const fn outage_gate(on_outage: OnOutage) -> Gate {
    match on_outage {
        OnOutage::ProbeLocally { probes } => Gate::Outage { probes },
        OnOutage::HoldOpen => Gate::Outage { probes: 0 },
    }
}

fn is_past(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
