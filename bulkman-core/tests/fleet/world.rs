//! Simulated processes on one store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{DecisionOutcome, Fleet, FleetEvent, FleetEvents};
use bulkman_core::store::{
    CircuitStore, Fault, FaultStore, FleetAction, FleetCommand, FleetState, MemoryStore,
    OperationId, StoreSettings,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError};

/// The store, the time, and the operators.
pub(crate) struct World {
    pub(crate) runtime: ManualRuntime,
    pub(crate) memory: MemoryStore,
    /// The number of the next operator command.
    next_command: AtomicU64,
}

/// A process with one bulkhead, `payments`.
pub(crate) struct Process {
    pub(crate) store: FaultStore,
    pub(crate) fleet: Fleet,
    pub(crate) bulkhead: Bulkhead,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = ManualRuntime::new();
        let memory = MemoryStore::new(runtime.clone());
        Self {
            runtime,
            memory,
            next_command: AtomicU64::new(1 << 48),
        }
    }

    /// Starts `count` processes and lets them connect.
    pub(crate) fn start_processes(&self, count: usize) -> Vec<Process> {
        self.start_processes_with(count, &StoreSettings::new())
    }

    pub(crate) fn start_processes_with(
        &self,
        count: usize,
        settings: &StoreSettings,
    ) -> Vec<Process> {
        let processes = (0..count)
            .map(|i| self.start(&format!("p{i}"), settings.clone()))
            .collect();
        self.run();
        processes
    }

    pub(crate) fn start(&self, name: &str, settings: StoreSettings) -> Process {
        self.start_on(self.store_of(name, settings))
    }

    /// Starts a process with a store that never responds.
    pub(crate) fn start_hanging(&self, name: &str) -> Process {
        let store = self.store_of(name, StoreSettings::new());
        store.set(Fault::Hang);
        self.start_on(store)
    }

    pub(crate) fn store_of(&self, name: &str, settings: StoreSettings) -> FaultStore {
        let memory = self.memory.with_settings(settings.instance(name));
        FaultStore::new(memory, self.runtime.clone())
    }

    pub(crate) fn start_on(&self, store: FaultStore) -> Process {
        let fleet = Fleet::new(store.clone(), self.runtime.clone()).unwrap();
        let bulkhead = self.bulkhead("payments");
        fleet.attach(&bulkhead).unwrap();
        Process {
            store,
            fleet,
            bulkhead,
        }
    }

    pub(crate) fn bulkhead(&self, name: &str) -> Bulkhead {
        Bulkhead::new(BulkheadConfig::new(name), self.runtime.clone()).unwrap()
    }

    /// Runs all tasks until they wait, without advancing the time.
    pub(crate) fn run(&self) {
        self.runtime.run_until_stalled();
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.runtime.advance(Duration::from_secs(seconds));
        self.run();
    }

    /// Injects a fault for all processes, and lets the next poll find it.
    pub(crate) fn set_fault(&self, processes: &[Process], fault: &Fault) {
        for process in processes {
            process.store.set(fault.clone());
        }
        self.runtime.advance(Duration::from_secs(6));
    }

    pub(crate) fn clear_faults(&self, processes: &[Process]) {
        processes.iter().for_each(|process| process.store.clear());
    }

    /// Executes an operator's command on the circuit `payments`.
    pub(crate) fn command(&self, action: FleetAction) {
        self.command_on("payments", action);
    }

    pub(crate) fn command_on(&self, circuit: &str, action: FleetAction) {
        let name = BulkheadName::new(circuit).unwrap();
        let operation = OperationId(self.next_command.fetch_add(1, Ordering::Relaxed));
        let command = FleetCommand::new(name, action, operation, "ada", "a drill");
        self.runtime.block_on(async {
            let mut session = self.memory.open_session(&[]).await.unwrap();
            session.command(&command).await.unwrap();
        });
    }

    /// Returns the stored state and epoch of the first circuit.
    pub(crate) fn store_view(&self) -> (FleetState, u64) {
        self.runtime.block_on(async {
            let mut session = self.memory.open_session(&[]).await.unwrap();
            let view = session.snapshot(None).await.unwrap().circuits.remove(0);
            (view.state, view.epoch.0)
        })
    }
}

impl Process {
    /// Executes one call. It is polled once, because no call waits for the store.
    pub(crate) fn call(
        &self,
        outcome: Result<(), &'static str>,
    ) -> Result<(), BulkheadError<&'static str>> {
        futures_lite::future::block_on(futures_lite::future::poll_once(
            self.bulkhead.execute(std::future::ready(outcome)),
        ))
        .expect("no call waits for the store")
    }

    pub(crate) fn fail(&self, times: usize) {
        for _ in 0..times {
            let _failed = self.call(Err("down"));
        }
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.bulkhead.circuit_breaker().unwrap().state()
    }
}

/// Returns all events so far.
pub(crate) fn drain(events: &mut FleetEvents) -> Vec<FleetEvent> {
    std::iter::from_fn(|| events.try_next()).collect()
}

pub(crate) fn outcomes(events: &[FleetEvent]) -> Vec<DecisionOutcome> {
    let outcome = |event: &FleetEvent| match event {
        FleetEvent::DecisionResolved { outcome, .. } => Some(*outcome),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

/// Asserts that the circuit of each of these processes is in one state.
#[track_caller]
pub(crate) fn assert_all(processes: &[Process], expected: CircuitState) {
    let states: Vec<_> = processes.iter().map(Process::state).collect();
    assert!(states.iter().all(|state| *state == expected), "{states:?}");
}
