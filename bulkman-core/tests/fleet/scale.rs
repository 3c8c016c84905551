//! Processes with thousands of circuits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use bulkman_core::fleet::Fleet;
use bulkman_core::runtime::{BoxFuture, Sleep};
use bulkman_core::store::{Fault, FaultStore, FleetState, MemoryStore, Push, StoreSettings};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, Runtime};

use crate::world::World;

/// Counts how often its tasks are polled.
#[derive(Clone, Debug)]
struct CountingPolls(ManualRuntime, Arc<AtomicUsize>);

impl Runtime for CountingPolls {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, mut task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let polls = Arc::clone(&self.1);
        self.0.spawn(Box::pin(std::future::poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(cx)
        })))
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(job);
    }
}

struct Process {
    store: FaultStore,
    fleet: Fleet,
    circuits: Vec<CircuitBreaker>,
    polls: Arc<AtomicUsize>,
}

impl Process {
    fn start(memory: &MemoryStore, runtime: &ManualRuntime, circuits: usize) -> Self {
        let polls = Arc::<AtomicUsize>::default();
        let store = FaultStore::new(memory.clone(), runtime.clone());
        let counting = CountingPolls(runtime.clone(), Arc::clone(&polls));
        let fleet = Fleet::new(store.clone(), counting).unwrap();
        let circuits = (0..circuits).map(|index| {
            let config = CircuitBreakerConfig::new();
            let circuit = CircuitBreaker::new(format!("c{index}"), config, runtime.clone());
            let circuit = circuit.unwrap();
            fleet.attach_circuit(&circuit).unwrap();
            circuit
        });
        let circuits = circuits.collect();
        runtime.run_until_stalled();
        Self {
            store,
            fleet,
            circuits,
            polls,
        }
    }

    fn all_are(&self, state: CircuitState) -> bool {
        self.circuits.iter().all(|circuit| circuit.state() == state)
    }

    /// Returns how often the driver was polled during `act`.
    fn polls_during(&self, act: impl FnOnce()) -> usize {
        let before = self.polls.load(Ordering::Relaxed);
        act();
        self.polls.load(Ordering::Relaxed) - before
    }
}

/// Fault C04.
#[test]
fn thousands_of_circuits_are_handled_in_slices() {
    const CIRCUITS: usize = 5_000;
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone());
    let [first, second] = [(); 2].map(|()| Process::start(&memory, &runtime, CIRCUITS));
    // Observing: at least one poll for each slice of 256.
    let polls = first.polls_during(|| {
        first.circuits.iter().for_each(CircuitBreaker::open);
        runtime.run_until_stalled();
    });
    assert!(polls >= CIRCUITS / 256, "{polls}");
    runtime.advance(Duration::from_secs(6));
    runtime.run_until_stalled();
    assert!(second.all_are(CircuitState::Open));
    // Reconnecting: merging and adopting what has changed meanwhile.
    second.store.set(Fault::Down);
    runtime.advance(Duration::from_secs(7));
    first.circuits.iter().for_each(CircuitBreaker::close);
    runtime.run_until_stalled();
    second.store.clear();
    let polls = second.polls_during(|| runtime.advance(Duration::from_secs(10)));
    assert!(polls >= 2 * (CIRCUITS / 256), "{polls}");
    assert!(first.all_are(CircuitState::Closed) && second.all_are(CircuitState::Closed));
    let snapshot = second.fleet.snapshot();
    assert_eq!((snapshot.circuits.len(), snapshot.pending), (CIRCUITS, 0));
    let closed = |state: Option<FleetState>| state == Some(FleetState::Closed);
    assert!(
        snapshot
            .circuits
            .iter()
            .all(|circuit| closed(circuit.state))
    );
}

/// The status of a process is part of a read.
#[test]
fn idle_processes_only_read_once_per_interval() {
    for (push, at_most) in [(Push::Auto, 14), (Push::Off, 68)] {
        let world = World::new();
        let processes = world.start_processes_with(2, &StoreSettings::new().push(push));
        let before = processes[0].store.operations();
        world.advance(60);
        let operations = processes[0].store.operations() - before;
        assert!(operations <= at_most, "{operations} operations a minute");
    }
}

/// Fault C06.
#[test]
fn outcomes_are_reported_in_batches() {
    const CIRCUITS: usize = 450;
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone());
    let processes = [(); 2].map(|()| Process::start(&memory, &runtime, CIRCUITS));
    let [process, other] = &processes;
    process.circuits.iter().for_each(CircuitBreaker::open);
    runtime.advance(Duration::from_secs(30));
    let succeed = || {
        let permits = process.circuits.iter().map(CircuitBreaker::try_acquire);
        let permits: Vec<_> = permits.filter_map(Result::ok).collect();
        let admitted = permits.len();
        permits.into_iter().for_each(|permit| permit.succeed());
        admitted
    };
    succeed();
    runtime.advance(Duration::from_secs(2));
    for round in 1..=3 {
        let before = process.store.operations();
        assert_eq!(succeed(), CIRCUITS, "round {round}: all leases are held");
        runtime.run_until_stalled();
        // The outcomes are reported at once, in three operations of at most 200.
        let operations = process.store.operations() - before;
        assert!(operations <= 4, "round {round}: {operations} operations");
        assert_eq!(process.fleet.snapshot().pending, 0);
    }
    assert!(process.all_are(CircuitState::Closed) && other.all_are(CircuitState::Closed));
}

#[test]
fn a_rejected_outcome_does_not_block_others() {
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone());
    let process = Process::start(&memory, &runtime, 20);
    process.circuits.iter().for_each(CircuitBreaker::open);
    runtime.advance(Duration::from_secs(30));
    let succeed = || {
        let permits = process.circuits.iter().map(CircuitBreaker::try_acquire);
        let permits: Vec<_> = permits.filter_map(Result::ok).collect();
        permits.into_iter().for_each(|permit| permit.succeed());
        runtime.advance(Duration::from_secs(1));
    };
    succeed();
    let rejected = process.circuits[7].name().clone();
    process.store.reject_circuit(rejected.clone(), false);
    (0..5).for_each(|_| succeed());
    for circuit in &process.circuits {
        let closed = circuit.state() == CircuitState::Closed;
        assert_eq!(closed, *circuit.name() != rejected, "{}", circuit.name());
    }
    process.store.clear();
    runtime.advance(Duration::from_secs(60));
    (0..8).for_each(|_| succeed());
    assert!(process.all_are(CircuitState::Closed));
}

/// Fault C06.
#[test]
fn leases_are_requested_in_batches() {
    const CIRCUITS: usize = 150;
    let runtime = ManualRuntime::new();
    let memory = MemoryStore::new(runtime.clone());
    let processes = [(); 4].map(|()| Process::start(&memory, &runtime, CIRCUITS));
    processes[0].circuits.iter().for_each(CircuitBreaker::open);
    runtime.advance(Duration::from_secs(30));
    let call_all = || {
        for process in &processes {
            for circuit in &process.circuits {
                let _rejected = circuit.try_acquire().map(drop);
            }
        }
    };
    let before = processes
        .each_ref()
        .map(|process| process.store.operations());
    for _ in 0..40 {
        call_all();
        runtime.advance(Duration::from_millis(50));
    }
    for (process, before) in processes.iter().zip(before) {
        // Every half second at most, beside the transitions, renewals and polls.
        let operations = process.store.operations() - before;
        assert!(operations <= 20, "{operations} operations in 2 s");
    }
    let mut probing = 0;
    for process in &processes {
        let leased = |circuit: &&CircuitBreaker| circuit.try_acquire().is_ok();
        probing += process.circuits.iter().filter(leased).count();
    }
    assert_eq!(probing, CIRCUITS, "each circuit has one lease");
}
