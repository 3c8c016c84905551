//! Random interleavings of calls, time, outages, lost responses and notifications, and operators.
//!
//! In each of them, no call waits, every decision has one outcome, and after the last fault is
//! cleared all processes agree with the store.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::Fleet;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent, FleetEvents};
use bulkman_core::store::MemoryStore;
use bulkman_core::store::{
    CircuitStore, Epoch, Fault, FaultStore, FleetAction, FleetCommand, FleetState, MemoryBackup,
    OperationId, SharingMode, StoreSettings,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreaker};
use futures_lite::future;
use proptest::collection::vec;
use proptest::prelude::*;

const PROCESSES: usize = 3;
const CIRCUITS: [&str; 2] = ["payments", "search"];

#[derive(Clone, Debug)]
enum Input {
    /// `count` calls in a process, which fail or succeed.
    Calls {
        process: usize,
        circuit: usize,
        count: u8,
        fail: bool,
    },
    /// A manual change to half-open, as by a health check.
    HalfOpen {
        process: usize,
        circuit: usize,
    },
    Open {
        process: usize,
        circuit: usize,
    },
    Close {
        process: usize,
        circuit: usize,
    },
    /// Opens all circuits of a process at the same time.
    OpenAll {
        process: usize,
    },
    Advance {
        millis: u64,
    },
    Fault {
        process: usize,
        fault: u8,
    },
    DropNotifications {
        process: usize,
    },
    Disconnect {
        process: usize,
    },
    ClearFaults {
        process: usize,
    },
    Command {
        action: u8,
        circuit: usize,
    },
    /// Backs up the store.
    Backup,
    /// Restores the last backup.
    Restore,
}

fn input() -> impl Strategy<Value = Input> {
    let process = 0..PROCESSES;
    let target = || (0..PROCESSES, 0..CIRCUITS.len());
    prop_oneof![
        6 => (target(), 1..7_u8, any::<bool>())
            .prop_map(|((process, circuit), count, fail)| Input::Calls { process, circuit, count, fail }),
        1 => target().prop_map(|(process, circuit)| Input::HalfOpen { process, circuit }),
        1 => target().prop_map(|(process, circuit)| Input::Open { process, circuit }),
        1 => target().prop_map(|(process, circuit)| Input::Close { process, circuit }),
        1 => process.clone().prop_map(|process| Input::OpenAll { process }),
        5 => (0..12_000_u64).prop_map(|millis| Input::Advance { millis }),
        3 => (process.clone(), 0..5_u8).prop_map(|(process, fault)| Input::Fault { process, fault }),
        1 => process.clone().prop_map(|process| Input::DropNotifications { process }),
        1 => process.clone().prop_map(|process| Input::Disconnect { process }),
        3 => process.prop_map(|process| Input::ClearFaults { process }),
        1 => (0..4_u8, 0..CIRCUITS.len()).prop_map(|(action, circuit)| Input::Command { action, circuit }),
        1 => Just(Input::Backup),
        1 => Just(Input::Restore),
    ]
}

/// Twice the usual number, also of that in `PROPTEST_CASES`.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: 2 * config.cases,
        ..config
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn all_processes_agree_with_the_store_in_the_end(
        inputs in vec(input(), 1..60),
        quorum in 1..=2_u16,
    ) {
        let mut world = World::new(quorum);
        for input in &inputs {
            world.apply(input);
        }
        world.check_agreement()?;
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
    bulkheads: Vec<Bulkhead>,
    events: FleetEvents,
}

impl World {
    fn new(quorum: u16) -> Self {
        let runtime = ManualRuntime::new();
        let share = SharingMode::quorum(quorum, Duration::from_secs(60));
        let memory =
            MemoryStore::new(runtime.clone()).with_settings(StoreSettings::new().share(share));
        let processes = (0..PROCESSES)
            .map(|_| {
                let store = FaultStore::new(memory.clone(), runtime.clone());
                let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
                let bulkheads = CIRCUITS.map(|name| {
                    let config =
                        BulkheadConfig::new(name).isolation_duration(Duration::from_secs(10));
                    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
                    fleet.attach(&bulkhead).unwrap();
                    bulkhead
                });
                let events = fleet.events();
                Process {
                    store,
                    fleet,
                    bulkheads: bulkheads.into(),
                    events,
                }
            })
            .collect();
        runtime.run_until_stalled();
        Self {
            runtime,
            memory,
            processes,
            operations: 0,
            backup: None,
        }
    }

    fn apply(&mut self, input: &Input) {
        match *input {
            Input::Calls {
                process,
                circuit,
                count,
                fail,
            } => self.call(process, circuit, count, fail),
            Input::HalfOpen { process, circuit } => self.circuit(process, circuit).half_open(),
            Input::Open { process, circuit } => self.circuit(process, circuit).open(),
            Input::Close { process, circuit } => self.circuit(process, circuit).close(),
            Input::OpenAll { process } => {
                (0..CIRCUITS.len()).for_each(|circuit| self.circuit(process, circuit).open());
            }
            Input::Advance { millis } => self.runtime.advance(Duration::from_millis(millis)),
            Input::Fault { process, fault } => self.processes[process].store.set(match fault {
                0 => Fault::Down,
                1 => Fault::Hang,
                2 => Fault::ResponseLost,
                3 => Fault::DisconnectAfterApply,
                _ => Fault::Slow(Duration::from_millis(700)),
            }),
            Input::DropNotifications { process } => {
                self.processes[process].store.drop_notifications(true)
            }
            Input::Disconnect { process } => self.processes[process].store.break_sessions(),
            Input::ClearFaults { process } => self.processes[process].store.clear(),
            Input::Command { action, circuit } => {
                let action = match action {
                    0 => FleetAction::ForceOpen,
                    1 => FleetAction::Disable,
                    2 => FleetAction::Close,
                    _ => FleetAction::Reset,
                };
                self.command(CIRCUITS[circuit], action);
            }
            Input::Backup => self.backup = Some(self.memory.backup()),
            Input::Restore => self
                .backup
                .iter()
                .for_each(|backup| self.memory.restore(backup)),
        }
        self.runtime.run_until_stalled();
    }

    /// Executes calls. None of them waits for the store.
    fn call(&self, process: usize, circuit: usize, count: u8, fail: bool) {
        for _ in 0..count {
            let operation = std::future::ready(if fail { Err(()) } else { Ok(()) });
            let call =
                future::poll_once(self.processes[process].bulkheads[circuit].execute(operation));
            assert!(
                future::block_on(call).is_some(),
                "no call waits for the store"
            );
        }
    }

    fn circuit(&self, process: usize, circuit: usize) -> &CircuitBreaker {
        self.processes[process].bulkheads[circuit]
            .circuit_breaker()
            .unwrap()
    }

    fn command(&mut self, circuit: &str, action: FleetAction) {
        self.operations += 1;
        // Operation ids must be random, because fingerprints combine them by XOR. With consecutive
        // ids `4 ^ 2` equals `3 ^ 5`, and two histories would have the same fingerprint.
        let mixed = self.operations.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let operation = OperationId((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) | 1);
        let command = FleetCommand::new(
            BulkheadName::new(circuit).unwrap(),
            action,
            operation,
            "ada",
            "",
        );
        self.runtime.block_on(async {
            self.memory
                .open_session(&[])
                .await
                .unwrap()
                .command(&command)
                .await
                .unwrap();
        });
    }

    fn store_view(&self) -> BTreeMap<BulkheadName, (FleetState, Epoch)> {
        self.runtime.block_on(async {
            let mut session = self.memory.open_session(&[]).await.unwrap();
            let circuits = session.snapshot(None).await.unwrap().circuits;
            circuits
                .into_iter()
                .map(|view| (view.circuit, (view.state, view.epoch)))
                .collect()
        })
    }

    fn check_agreement(&mut self) -> Result<(), TestCaseError> {
        for process in &self.processes {
            process.store.clear();
        }
        // Enough time for every timeout, backoff and poll.
        self.runtime.advance(Duration::from_secs(30));
        self.runtime.run_until_stalled();
        let store = self.store_view();
        for process in &mut self.processes {
            let snapshot = process.fleet.snapshot();
            prop_assert!(snapshot.connected, "{snapshot:?}");
            prop_assert_eq!(
                snapshot.pending,
                0,
                "everything is published: {:?}",
                snapshot
            );
            let known = snapshot
                .circuits
                .iter()
                .map(|it| (it.name.clone(), (it.state.unwrap(), it.epoch)));
            prop_assert_eq!(
                &known.collect::<BTreeMap<_, _>>(),
                &store,
                "no stale state: {:?}",
                snapshot
            );
            for bulkhead in &process.bulkheads {
                let local = bulkhead.circuit_breaker().unwrap().state();
                let (state, _) = store[bulkhead.name()];
                let agrees = match state {
                    // Below the quorum a process may be open locally, and is half-open by now.
                    FleetState::Closed => {
                        matches!(local, CircuitState::Closed | CircuitState::HalfOpen)
                    }
                    // Every isolation, of ten seconds, has elapsed.
                    FleetState::Open | FleetState::HalfOpen => local == CircuitState::HalfOpen,
                    FleetState::ForcedOpen => local == CircuitState::ForcedOpen,
                    _ => local == CircuitState::Disabled,
                };
                prop_assert!(
                    agrees,
                    "{local:?} in a fleet that is {state:?}: {snapshot:?}"
                );
            }
            prop_assert_eq!(snapshot.superseded, superseded(&mut process.events) as u64);
        }
        Ok(())
    }
}

fn superseded(events: &mut FleetEvents) -> usize {
    let mut count = 0;
    while let Some(event) = events.try_next() {
        match event {
            FleetEvent::DecisionResolved {
                outcome: DecisionOutcome::Superseded,
                ..
            } => count += 1,
            FleetEvent::Lagged(_) => panic!("more events than a receiver keeps"),
            _ => {}
        }
    }
    count
}
