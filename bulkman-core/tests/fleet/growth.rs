//! The recovery of a growing fleet: how long it takes, and how many operations.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkman_core::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use bulkman_core::fleet::Fleet;
use bulkman_core::store::{FaultStore, FleetState, MemoryStore};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, Runtime};

struct Process {
    store: FaultStore,
    fleet: Fleet,
    circuits: Vec<CircuitBreaker>,
}

/// Processes that call each circuit once a second, at a different time in each process.
struct Fleets {
    runtime: ManualRuntime,
    processes: Vec<Process>,
    /// The circuits to call, by process and index, at each tick of a second.
    calls: BTreeMap<u32, Vec<(usize, usize)>>,
    ticks: u32,
}

impl Fleets {
    fn start(processes: usize, circuits: usize) -> Self {
        let runtime = ManualRuntime::new();
        let memory = MemoryStore::new(runtime.clone());
        let start = |_| {
            let store = FaultStore::new(memory.clone(), runtime.clone());
            let fleet = Fleet::new(store.clone(), runtime.clone()).unwrap();
            let circuit = |index| {
                let config = CircuitBreakerConfig::new()
                    .failure_threshold(3)
                    .success_threshold(3)
                    .isolation_duration(ISOLATION);
                let circuit = CircuitBreaker::new(format!("c{index}"), config, runtime.clone());
                let circuit = circuit.unwrap();
                fleet.attach_circuit(&circuit).unwrap();
                circuit
            };
            let circuits = (0..circuits).map(circuit).collect();
            Process {
                store,
                fleet,
                circuits,
            }
        };
        let processes: Vec<_> = (0..processes).map(start).collect();
        let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (process, circuits) in processes.iter().map(|it| it.circuits.len()).enumerate() {
            for circuit in 0..circuits {
                let spread = process as f64 * 0.381_966 + circuit as f64 * 0.618_034;
                let tick = (spread.fract() * f64::from(TICKS)) as u32;
                calls.entry(tick).or_default().push((process, circuit));
            }
        }
        runtime.run_until_stalled();
        Self {
            runtime,
            processes,
            calls,
            ticks: 0,
        }
    }

    fn open_all(&self) {
        for circuit in self.processes.iter().flat_map(|process| &process.circuits) {
            while let Ok(permit) = circuit.try_acquire() {
                permit.fail();
            }
        }
        self.runtime.run_until_stalled();
    }

    /// Runs the calls of one tick, then lets it pass.
    fn tick(&mut self) {
        for (process, circuit) in self.calls.get(&(self.ticks % TICKS)).into_iter().flatten() {
            if let Ok(permit) = self.processes[*process].circuits[*circuit].try_acquire() {
                permit.succeed();
            }
        }
        self.ticks += 1;
        self.runtime.advance(TICK);
    }

    fn all_are_closed(&self) -> bool {
        let mut circuits = self.processes.iter().flat_map(|process| &process.circuits);
        circuits.all(|circuit| circuit.state() == CircuitState::Closed)
    }

    fn operations(&self) -> usize {
        self.processes.iter().map(|it| it.store.operations()).sum()
    }
}

/// The fewer requests each process sends, the more of them there are.
#[test]
fn operations_of_a_recovery_grow_less_than_the_fleet() {
    // With four rounds a second in each process, 100 of them need more than 700 operations.
    for (processes, at_most) in [(20, 250), (100, 550)] {
        let mut operations = 0;
        let mut took = Duration::ZERO;
        for _ in 0..RUNS {
            let mut fleets = Fleets::start(processes, 10);
            // Every process counts all others as of its next report.
            fleets.runtime.advance(Duration::from_secs(6));
            fleets.open_all();
            let isolation_ends = fleets.runtime.now() + ISOLATION;
            while fleets.runtime.now() < isolation_ends {
                fleets.tick();
            }
            let before = fleets.operations();
            while !fleets.all_are_closed() {
                fleets.tick();
                assert!(fleets.runtime.now() < isolation_ends + ISOLATION);
            }
            operations += fleets.operations() - before;
            took += fleets.runtime.now() - isolation_ends;
        }
        let (operations, took) = (operations / RUNS as usize, took / RUNS);
        assert!(
            operations <= at_most,
            "{processes}: {operations} operations"
        );
        assert!(took < Duration::from_millis(3_300), "{processes}: {took:?}");
    }
}

/// Circuits that opened together become half-open in one operation of one process.
#[test]
fn probing_starts_in_all_circuits_together() {
    let mut fleets = Fleets::start(5, 150);
    fleets.open_all();
    fleets.runtime.advance(ISOLATION);
    let before = fleets.operations();
    let half_open = |fleets: &Fleets| {
        let snapshots = fleets.processes.iter().map(|it| it.fleet.snapshot());
        let circuits = snapshots.flat_map(|snapshot| snapshot.circuits);
        let half_open = Some(FleetState::HalfOpen);
        circuits.filter(|it| it.state == half_open).count()
    };
    assert_eq!(half_open(&fleets), 0, "no call, no probe");
    // One call in the fleet.
    let _rejected = fleets.processes[0].circuits[0].try_acquire().map(drop);
    fleets.runtime.advance(Duration::from_millis(900));
    assert_eq!(half_open(&fleets), 5 * 150);
    let operations = fleets.operations() - before;
    // A transition, a lease, and reads.
    assert!(operations <= 10, "{operations}");
    // Without a call nothing more happens, and each of them closes by calls.
    for _ in 0..6 * TICKS {
        fleets.tick();
    }
    assert!(fleets.all_are_closed());
}

const ISOLATION: Duration = Duration::from_secs(8);
const TICK: Duration = Duration::from_millis(5);
/// The ticks of a second.
const TICKS: u32 = 200;
const RUNS: u32 = 3;
