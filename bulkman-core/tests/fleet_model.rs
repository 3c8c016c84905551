//! Random interleavings of a fleet's life: calls, time, outages, lost answers and announcements,
//! operators. Whatever happens: no call waits, every decision comes to one end, and when all is
//! well again every process stands where the store does.

use std::time::Duration;

use bulkman_core::fleet::{Ending, FleetEvent, FleetEvents};
use bulkman_core::store::{
    CircuitStore, Fault, FaultStore, FleetAction, FleetCommand, FleetState, MemoryBackup, OperationId, Share,
    StoreSettings,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitState, Fleet, MemoryStore, Name};
use futures_lite::{StreamExt, future};
use proptest::collection::vec;
use proptest::prelude::*;

const PROCESSES: usize = 3;

#[derive(Clone, Debug)]
enum Input {
    /// So many calls of a process, failed or not.
    Calls {
        process: usize,
        count: u8,
        fail: bool,
    },
    /// A health check of a process found the dependency well: half-open by hand, say.
    HalfOpen {
        process: usize,
    },
    Open {
        process: usize,
    },
    Close {
        process: usize,
    },
    Pass {
        millis: u64,
    },
    Fault {
        process: usize,
        fault: u8,
    },
    Deaf {
        process: usize,
    },
    Break {
        process: usize,
    },
    Heal {
        process: usize,
    },
    Command(u8),
    /// What the store has now is kept, or comes back in its place.
    Backup,
    Restore,
}

fn input() -> impl Strategy<Value = Input> {
    let process = 0..PROCESSES;
    prop_oneof![
        6 => (process.clone(), 1..7_u8, any::<bool>())
            .prop_map(|(process, count, fail)| Input::Calls { process, count, fail }),
        1 => process.clone().prop_map(|process| Input::HalfOpen { process }),
        1 => process.clone().prop_map(|process| Input::Open { process }),
        1 => process.clone().prop_map(|process| Input::Close { process }),
        5 => (0..12_000_u64).prop_map(|millis| Input::Pass { millis }),
        3 => (process.clone(), 0..5_u8).prop_map(|(process, fault)| Input::Fault { process, fault }),
        1 => process.clone().prop_map(|process| Input::Deaf { process }),
        1 => process.clone().prop_map(|process| Input::Break { process }),
        3 => process.prop_map(|process| Input::Heal { process }),
        1 => (0..4_u8).prop_map(Input::Command),
        1 => Just(Input::Backup),
        1 => Just(Input::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_life_of_a_fleet_ends_in_agreement(
        inputs in vec(input(), 1..60),
        quorum in 1..=2_u16,
    ) {
        let mut world = World::new(quorum);
        for input in &inputs {
            world.put_in(input);
        }
        world.end_in_agreement()?;
    }
}

struct World {
    runtime: ManualRuntime,
    memory: MemoryStore,
    processes: Vec<Process>,
    operations: u64,
    backup: Option<MemoryBackup>,
}

struct Process {
    store: FaultStore,
    fleet: Fleet,
    bulkhead: Bulkhead,
    events: FleetEvents,
}

impl World {
    fn new(quorum: u16) -> Self {
        let runtime = ManualRuntime::new();
        let share = Share::quorum(quorum, Duration::from_secs(60));
        let memory = MemoryStore::new(runtime.clone()).with_settings(StoreSettings::new().share(share));
        let processes = (0..PROCESSES)
            .map(|_| {
                let store = FaultStore::new(memory.clone(), runtime.clone());
                let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
                let config = BulkheadConfig::new("payments").isolation_duration(Duration::from_secs(10));
                let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
                fleet.attach(&bulkhead).unwrap();
                let events = fleet.events();
                Process { store, fleet, bulkhead, events }
            })
            .collect();
        runtime.run_until_stalled();
        Self { runtime, memory, processes, operations: 0, backup: None }
    }

    fn put_in(&mut self, input: &Input) {
        match *input {
            Input::Calls { process, count, fail } => self.call(process, count, fail),
            Input::HalfOpen { process } => self.circuit(process, |circuit| circuit.half_open()),
            Input::Open { process } => self.circuit(process, |circuit| circuit.open()),
            Input::Close { process } => self.circuit(process, |circuit| circuit.close()),
            Input::Pass { millis } => self.runtime.advance(Duration::from_millis(millis)),
            Input::Fault { process, fault } => self.processes[process].store.set(match fault {
                0 => Fault::Down,
                1 => Fault::Frozen,
                2 => Fault::AnswerLost,
                3 => Fault::BreakAfter,
                _ => Fault::Slow(Duration::from_millis(700)),
            }),
            Input::Deaf { process } => self.processes[process].store.set_deaf(true),
            Input::Break { process } => self.processes[process].store.break_sessions(),
            Input::Heal { process } => self.processes[process].store.heal(),
            Input::Command(action) => self.command(match action {
                0 => FleetAction::ForceOpen,
                1 => FleetAction::Disable,
                2 => FleetAction::Close,
                _ => FleetAction::Reset,
            }),
            Input::Backup => self.backup = Some(self.memory.backup()),
            Input::Restore => self.backup.iter().for_each(|backup| self.memory.restore(backup)),
        }
        self.runtime.run_until_stalled();
    }

    /// Calls never wait, whatever the store does.
    fn call(&self, process: usize, count: u8, fail: bool) {
        for _ in 0..count {
            let operation = std::future::ready(if fail { Err(()) } else { Ok(()) });
            let call = future::poll_once(self.processes[process].bulkhead.execute(operation));
            assert!(future::block_on(call).is_some(), "no call waits for the store");
        }
    }

    fn circuit(&self, process: usize, act: impl Fn(&bulkman_core::CircuitBreaker)) {
        act(self.processes[process].bulkhead.circuit_breaker().unwrap());
    }

    fn command(&mut self, action: FleetAction) {
        self.operations += 1;
        let operation = OperationId(u64::MAX - self.operations);
        let command = FleetCommand::new(Name::new("payments").unwrap(), action, operation, "ada", "");
        self.runtime.block_on(async {
            self.memory.connect(&[]).await.unwrap().command(&command).await.unwrap();
        });
    }

    fn store_state(&self) -> (FleetState, u64) {
        self.runtime.block_on(async {
            let mut session = self.memory.connect(&[]).await.unwrap();
            let view = session.snapshot(None).await.unwrap().circuits.remove(0);
            (view.state, view.epoch.0)
        })
    }

    fn end_in_agreement(&mut self) -> Result<(), TestCaseError> {
        for process in &self.processes {
            process.store.heal();
        }
        // Time for every operation to be given up, every backoff, look and announcement.
        self.runtime.advance(Duration::from_secs(30));
        self.runtime.run_until_stalled();
        let (state, epoch) = self.store_state();
        for process in &mut self.processes {
            let snapshot = process.fleet.snapshot();
            prop_assert!(snapshot.connected, "{snapshot:?}");
            prop_assert_eq!(snapshot.pending, 0, "nothing is left over: {:?}", snapshot);
            prop_assert_eq!(snapshot.circuits[0].epoch.0, epoch, "no stale view: {:?}", snapshot);
            let local = process.bulkhead.circuit_breaker().unwrap().state();
            let agrees = match state {
                // Below a quorum a process may be open for itself; it is half-open by now.
                FleetState::Closed => matches!(local, CircuitState::Closed | CircuitState::HalfOpen),
                // Openings last ten seconds, and read as half-open when they are over.
                FleetState::Open | FleetState::HalfOpen => local == CircuitState::HalfOpen,
                FleetState::ForcedOpen => local == CircuitState::ForcedOpen,
                _ => local == CircuitState::Disabled,
            };
            prop_assert!(agrees, "{local:?} in a fleet that is {state:?}: {snapshot:?}");
            prop_assert_eq!(snapshot.superseded, superseded(&mut process.events) as u64);
        }
        Ok(())
    }
}

fn superseded(events: &mut FleetEvents) -> usize {
    let mut count = 0;
    while let Some(Some(event)) = future::block_on(future::poll_once(events.next())) {
        match event {
            FleetEvent::Settled { ending: Ending::Superseded, .. } => count += 1,
            FleetEvent::Missed(_) => panic!("more events than a life of this length has"),
            _ => {}
        }
    }
    count
}
