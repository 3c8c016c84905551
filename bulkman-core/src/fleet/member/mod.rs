//! One circuit of a fleet, as this process sees it: what it has seen of the store, what it has to
//! tell, and what to do next. Pure: no clock, no lock, no async; `now` is an argument.
//!
//! Two things move: the circuit (by its own rules and by hand) and the store (by everybody's). A
//! decision of the circuit is *pending* until it is published, superseded by what the store says,
//! replaced by a newer one of this process, or over. While none is pending the circuit takes over
//! what the store says.
//!
//! `circuit.rs` takes in what the circuit says, `store.rs` what the store says; `next.rs` says what
//! follows. `known.rs` is the store's view, `pending.rs` a decision that is to be the fleet's.

mod circuit;
mod known;
mod next;
mod pending;
mod store;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::known::Known;
pub(super) use self::next::{Order, Step};
pub(super) use self::pending::Pending;
use super::handle::outage_gate;
use crate::circuit_breaker::{CircuitState, Gate, ProbeOutcome};
use crate::store::{Epoch, OnOutage, OperationId, ProbeLease};

/// What a member goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) quorum: u16,
    pub(super) on_outage: OnOutage,
    /// Whether the store leases probes; if not, everybody probes as in an outage.
    pub(super) leases: bool,
    pub(super) lease_ttl: Duration,
    /// How long to wait after all leases were found taken.
    pub(super) ask_again: Duration,
}

#[derive(Debug)]
pub(super) struct Member {
    rules: Rules,
    connected: bool,
    known: Option<Known>,
    /// The store's state is to be taken over.
    to_adopt: bool,
    /// The circuit's generation that is accounted for, and its state in it.
    seen: u64,
    local: CircuitState,
    /// Put there by a hand of this process, which the fleet does not overrule.
    held: bool,
    /// This process's opening is its own: below the quorum.
    own: bool,
    pending: Option<Pending>,
    /// The gate that the circuit has.
    gate: Gate,
    lease: Option<Lease>,
    /// Verdicts to report, each as one operation.
    verdicts: VecDeque<(ProbeOutcome, OperationId)>,
    /// A lease is wanted, and is to be asked for at this time.
    ask_at: Option<Instant>,
    ask_after: Option<Instant>,
    /// When to look whether a lease is wanted, and how often after that. Then calls say so.
    look_at: Option<Instant>,
    looks: u8,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    lease: ProbeLease,
    epoch: Epoch,
    renew_at: Option<Instant>,
    /// Not renewed beyond this: a holder without calls must not bar those that have some.
    keep_until: Option<Instant>,
    /// As the store sees it, or earlier: counted from when it was asked for.
    expires: Option<Instant>,
}

impl Member {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            connected: false,
            known: None,
            to_adopt: false,
            seen: 0,
            local: CircuitState::Closed,
            held: false,
            own: false,
            pending: None,
            gate: outage_gate(rules.on_outage),
            lease: None,
            verdicts: VecDeque::new(),
            ask_at: None,
            ask_after: None,
            look_at: None,
            looks: 0,
        }
    }
}

fn is_past(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
