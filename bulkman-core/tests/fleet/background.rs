//! A driver after its task has ended early.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{Fleet, FleetCircuit, FleetEvent};
use bulkman_core::runtime::{BoxFuture, Sleep};
use bulkman_core::store::{
    CircuitStore, FaultStore, FleetState, OnOutage, StoreCapabilities, StoreFuture, StoreSession,
    StoreSettings,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, Runtime};

use crate::world::{World, drain};

/// A runtime that can end: it then drops its tasks, and returns new ones until the next starts.
#[derive(Clone, Debug)]
struct Mortal {
    inner: ManualRuntime,
    /// Tasks of an earlier runtime are dropped at their next poll.
    generation: Arc<AtomicUsize>,
    /// At zero, the runtime has ended.
    polls_left: Arc<AtomicUsize>,
}

impl Mortal {
    fn new(inner: &ManualRuntime) -> Self {
        Self {
            inner: inner.clone(),
            generation: Arc::default(),
            polls_left: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    /// Ends the runtime after `polls` more polls of its tasks.
    fn end_after(&self, polls: usize) {
        self.polls_left.store(polls, Ordering::Relaxed);
    }

    /// Returns how often its tasks are polled while `code` runs.
    fn polls_during(&self, code: impl FnOnce()) -> usize {
        const LIMIT: usize = 1_000_000;
        self.end_after(LIMIT);
        code();
        LIMIT - self.polls_left.load(Ordering::Relaxed)
    }

    /// Starts another runtime, which takes tasks.
    fn start_next(&self) {
        self.polls_left.store(usize::MAX, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl Runtime for Mortal {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.inner.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        if self.polls_left.load(Ordering::Relaxed) == 0 {
            return Err(task);
        }
        let (mut task, shared) = (Some(task), self.clone());
        let generation = self.generation.load(Ordering::Relaxed);
        self.inner.spawn(Box::pin(poll_fn(move |cx| {
            let left = shared.polls_left.load(Ordering::Relaxed);
            if left == 0 || generation != shared.generation.load(Ordering::Relaxed) {
                task = None;
            } else if left != usize::MAX {
                shared.polls_left.store(left - 1, Ordering::Relaxed);
            }
            task.as_mut()
                .map_or(Poll::Ready(()), |task| task.as_mut().poll(cx))
        })))
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.inner.spawn_blocking(job);
    }
}

fn start(world: &World, runtime: &Mortal) -> (Fleet, Bulkhead) {
    let fleet = Fleet::new(world.memory.clone(), runtime.clone()).unwrap();
    let bulkhead = world.bulkhead("payments");
    fleet.attach(&bulkhead).unwrap();
    world.run();
    (fleet, bulkhead)
}

fn state(bulkhead: &Bulkhead) -> CircuitState {
    bulkhead.circuit_breaker().unwrap().state()
}

fn call(bulkhead: &Bulkhead, success: bool) -> bool {
    let outcome = if success { Ok(()) } else { Err("down") };
    futures_lite::future::block_on(bulkhead.execute(std::future::ready(outcome))).is_ok()
}

/// Fault F01.
#[test]
fn circuits_recover_after_the_drivers_task_was_dropped_anywhere() {
    for polls in 0..12 {
        let world = World::new();
        let runtime = Mortal::new(&world.runtime);
        let (fleet, bulkhead) = start(&world, &runtime);
        let mut events = fleet.events();
        runtime.end_after(polls);
        // Half-open with a demand for a lease: the state in which calls depend on the driver.
        for _ in 0..5 {
            call(&bulkhead, false);
        }
        world.advance(30);
        call(&bulkhead, true);
        world.advance(40);
        let snapshot = fleet.snapshot();
        assert!(!snapshot.connected, "{polls} polls: {snapshot:?}");
        assert!(snapshot.error.is_some() && snapshot.degraded_for.is_some());
        assert!(snapshot.staleness.unwrap() >= Duration::from_secs(30));
        let degraded = |event: &FleetEvent| matches!(event, FleetEvent::Degraded { .. });
        assert!(drain(&mut events).iter().any(degraded), "{polls} polls");
        for _ in 0..3 {
            assert!(call(&bulkhead, true), "{polls} polls: local rules apply");
        }
        assert_eq!(state(&bulkhead), CircuitState::Closed);

        runtime.start_next();
        assert!(!fleet.snapshot().connected, "this starts the driver");
        world.advance(5);
        assert!(fleet.snapshot().connected, "{polls} polls");
        world.command(bulkman_core::store::FleetAction::ForceOpen);
        world.advance(6);
        assert_eq!(state(&bulkhead), CircuitState::ForcedOpen);
    }
}

/// Fault F01.
#[test]
fn a_decision_made_without_a_driver_is_published_by_the_next() {
    let world = World::new();
    let runtime = Mortal::new(&world.runtime);
    let (fleet, bulkhead) = start(&world, &runtime);
    runtime.end_after(0);
    bulkhead.circuit_breaker().unwrap().open();
    world.run();
    runtime.start_next();
    assert_eq!(fleet.snapshot().pending, 0);
    world.advance(3);
    assert_eq!(world.store_view().0, FleetState::Open);
    // Waiting starts it as well.
    runtime.end_after(0);
    world.advance(6);
    runtime.start_next();
    let ready = fleet.wait_ready(Duration::from_secs(5));
    assert!(world.runtime.block_on(ready));
    // Without a runtime, a shutdown ends at once, and reports what is left.
    runtime.end_after(0);
    bulkhead.circuit_breaker().unwrap().close();
    world.run();
    let before = world.runtime.elapsed();
    assert!(!world.runtime.block_on(fleet.shutdown()));
    assert_eq!(world.runtime.elapsed(), before);
}

/// Fault F01.
#[test]
fn a_driver_starts_after_an_attempt_that_failed() {
    let world = World::new();
    let runtime = Mortal::new(&world.runtime);
    let (_fleet, bulkhead) = start(&world, &runtime);
    runtime.end_after(0);
    // The first change ends the task. The second starts no other, since there is no runtime.
    bulkhead.circuit_breaker().unwrap().open();
    world.run();
    bulkhead.circuit_breaker().unwrap().close();
    world.run();
    assert_eq!(world.store_view().0, FleetState::Closed);
    runtime.start_next();
    bulkhead.circuit_breaker().unwrap().open();
    world.advance(5);
    assert_eq!(world.store_view().0, FleetState::Open);
}

/// A store that panics when a session is opened, while `panics` is set.
#[derive(Debug)]
struct Panics {
    store: FaultStore,
    panics: Arc<AtomicBool>,
}

impl CircuitStore for Panics {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        let opening = self.store.open_session(circuits);
        Box::pin(async {
            assert!(!self.panics.load(Ordering::Relaxed), "expected by the test");
            opening.await
        })
    }
}

/// Fault F01.
#[test]
fn a_panic_of_the_store_ends_its_session_only() {
    let world = World::new();
    let store = world.store_of("x", StoreSettings::new());
    let panics = Arc::new(AtomicBool::new(false));
    let panicking = Panics {
        store: store.clone(),
        panics: panics.clone(),
    };
    let fleet = Fleet::new(panicking, world.runtime.clone()).unwrap();
    world.run();
    assert!(fleet.snapshot().connected);
    panics.store(true, Ordering::Relaxed);
    store.break_sessions();
    world.advance(20);
    let error = fleet.snapshot().error.unwrap();
    assert!(error.contains("panicked"), "{error}");
    panics.store(false, Ordering::Relaxed);
    world.advance(6);
    assert!(fleet.snapshot().connected);
}

/// Fault F01.
#[test]
fn a_circuit_whose_opening_was_missed_recovers() {
    for failures_seen in [false, true] {
        let world = World::new();
        let runtime = Mortal::new(&world.runtime);
        let (fleet, bulkhead) = start(&world, &runtime);
        runtime.end_after(usize::from(failures_seen));
        for _ in 0..5 {
            call(&bulkhead, false);
        }
        world.run();
        world.advance(31);
        assert_eq!(state(&bulkhead), CircuitState::HalfOpen);
        // Until now no driver has seen the circuit open.
        runtime.start_next();
        let _resumes = fleet.snapshot();
        world.advance(5);
        assert!(fleet.snapshot().connected);
        for _ in 0..10 {
            call(&bulkhead, true);
            world.advance(2);
        }
        assert_eq!(state(&bulkhead), CircuitState::Closed);
        assert_eq!(world.store_view().0, FleetState::Closed);
    }
}

/// While it is held open, no call changes the circuit: only a rejected call can start the driver.
///
/// Fault F01, C20.
#[test]
fn calls_of_a_circuit_that_is_held_open_start_the_driver() {
    let world = World::new();
    let runtime = Mortal::new(&world.runtime);
    let settings = StoreSettings::new().on_outage(OnOutage::HoldOpen);
    let store = world.memory.with_settings(settings);
    let fleet = Fleet::new(store, runtime.clone()).unwrap();
    let bulkhead = world.bulkhead("payments");
    fleet.attach(&bulkhead).unwrap();
    world.run();
    for _ in 0..5 {
        call(&bulkhead, false);
    }
    world.run();
    runtime.end_after(0);
    world.advance(31);
    assert_eq!(state(&bulkhead), CircuitState::HalfOpen);
    // There is no runtime: these attempts fail.
    for _ in 0..5 {
        assert!(!call(&bulkhead, true));
        world.advance(1);
    }
    runtime.start_next();
    for _ in 0..20 {
        call(&bulkhead, true);
        world.advance(1);
    }
    assert_eq!(state(&bulkhead), CircuitState::Closed);
}

/// Fault C20.
#[test]
fn changes_survive_a_task_that_ends_between_slices() {
    for polls in 1..4 {
        let world = World::new();
        let runtime = Mortal::new(&world.runtime);
        let (fleet, _bulkhead) = start(&world, &runtime);
        let others: Vec<_> = (0..800)
            .map(|index| world.bulkhead(&format!("c{index}")))
            .collect();
        for other in &others {
            fleet.attach(other).unwrap();
        }
        world.run();
        runtime.end_after(polls);
        for other in &others {
            other.circuit_breaker().unwrap().open();
        }
        world.run();
        assert!(!fleet.snapshot().connected, "{polls} polls");
        runtime.start_next();
        let _resumes = fleet.snapshot();
        world.advance(5);
        let snapshot = fleet.snapshot();
        assert!(snapshot.connected, "{polls} polls");
        let open = |circuit: &&FleetCircuit| circuit.state == Some(FleetState::Open);
        let open = snapshot.circuits.iter().filter(open).count();
        assert_eq!(open, others.len(), "{polls} polls");
    }
}

/// The driver checks for demand only at first: then the next call that needs a lease wakes it.
#[test]
fn a_half_open_circuit_without_calls_wakes_no_driver() {
    let world = World::new();
    let runtime = Mortal::new(&world.runtime);
    let (_fleet, bulkhead) = start(&world, &runtime);
    let closed = runtime.polls_during(|| world.advance(60));
    let other = world.start("other", StoreSettings::new());
    world.run();
    other.fail(5);
    world.advance(40);
    assert_eq!(state(&bulkhead), CircuitState::HalfOpen);
    let half_open = runtime.polls_during(|| world.advance(60));
    assert!(
        half_open < 2 * closed,
        "{half_open} polls, {closed} while closed"
    );
}
