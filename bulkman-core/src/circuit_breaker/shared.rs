//! A circuit's handle for the synchroniser of its fleet.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::CircuitBreaker;
use super::shell::{Link, Shell};
pub(crate) use super::state::{Adopted, Gate, Observation, Verdict};
use crate::store::ProbePolicy;

/// Holds the circuit weakly: a synchroniser keeps none alive.
#[derive(Debug, Clone)]
pub(crate) struct SharedCircuit(Weak<Shell>);

impl CircuitBreaker {
    /// The circuit for a synchroniser, which `link` tells to look; `None` if it has one already.
    pub(crate) fn share(&self, link: Link) -> Option<SharedCircuit> {
        self.0
            .set_link(link)
            .then(|| SharedCircuit(Arc::downgrade(&self.0)))
    }
}

/// All but the first: `None` once the circuit is gone.
impl SharedCircuit {
    pub(crate) fn unlink(&self) {
        if let Some(shell) = self.0.upgrade() {
            shell.unlink();
        }
    }

    pub(crate) fn observe(&self) -> Option<Observation> {
        self.0
            .upgrade()
            .map(|shell| shell.change(|machine, now| machine.observe(now)))
    }

    /// The new generation; or `Err` if something has happened since the one `expected`.
    pub(crate) fn adopt(&self, expected: u64, adopted: Adopted) -> Option<Result<u64, ()>> {
        let shell = self.0.upgrade()?;
        Some(
            shell
                .change(|machine, now| machine.adopt(expected, adopted, now))
                .ok_or(()),
        )
    }

    pub(crate) fn set_gate(&self, gate: Gate) -> Option<()> {
        self.0
            .upgrade()
            .map(|shell| shell.change(|machine, now| machine.set_gate(gate, now)))
    }

    pub(crate) fn heed_again(&self) {
        if let Some(shell) = self.0.upgrade() {
            shell.change(|machine, _| machine.heed_again());
        }
    }

    pub(crate) fn next_isolation(&self) -> Option<Duration> {
        self.0
            .upgrade()
            .map(|shell| shell.change(|machine, _| machine.next_isolation()))
    }

    pub(crate) fn probe_plan(&self, limit: u16) -> Option<ProbePolicy> {
        self.0
            .upgrade()
            .map(|shell| shell.change(|machine, _| machine.probe_plan(limit)))
    }
}
