//! A weak handle to a circuit, for the driver of its fleet.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::machine::{FleetTarget, Gate, Observation};
use super::resolved::ResolvedCircuitBreakerConfig;
use super::shared::{Shared, WakeDriver};
use super::{CircuitBreaker, Machine};

/// A handle that does not keep the circuit alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakCircuit(Weak<Shared>);

impl CircuitBreaker {
    /// Attaches the driver that `wake` wakes. Returns `None` if there is one already.
    pub(crate) fn attach_driver(&self, wake: WakeDriver) -> Option<WeakCircuit> {
        self.0
            .attach_driver(wake)
            .then(|| WeakCircuit(Arc::downgrade(&self.0)))
    }
}

/// Methods with a result return `None` once the circuit has been dropped.
impl WeakCircuit {
    pub(crate) fn detach_driver(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.detach_driver();
        }
    }

    pub(crate) fn observe(&self) -> Option<Observation> {
        let shared = self.0.upgrade()?;
        Some(shared.change(Machine::observe))
    }

    /// Adopts a state of the fleet and returns the new generation.
    ///
    /// Returns `Err` if the generation is no longer `expected`.
    pub(crate) fn adopt(&self, expected: u64, target: FleetTarget) -> Option<Result<u64, ()>> {
        let shared = self.0.upgrade()?;
        let generation = shared.change(|machine, now| machine.adopt(expected, target, now));
        Some(generation.ok_or(()))
    }

    pub(crate) fn set_gate(&self, gate: Gate) -> Option<()> {
        let shared = self.0.upgrade()?;
        shared.change(|machine, now| machine.set_gate(gate, now));
        Some(())
    }

    /// Revokes an unused lease. Returns `false` if a probe runs under it.
    pub(crate) fn revoke_lease(&self) -> Option<bool> {
        let shared = self.0.upgrade()?;
        Some(shared.change(|machine, _| machine.revoke_lease()))
    }

    pub(crate) fn stop_polling_demand(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.change(|machine, _| machine.stop_polling_demand());
        }
    }

    pub(crate) fn next_isolation(&self) -> Option<Duration> {
        let shared = self.0.upgrade()?;
        Some(shared.change(|machine, _| machine.next_isolation()))
    }

    pub(crate) fn resolved_config(&self) -> Option<ResolvedCircuitBreakerConfig> {
        Some(self.0.upgrade()?.resolved_config())
    }
}
