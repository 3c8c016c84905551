//! The concurrent layer around the state machine.
//!
//! A call that finds the circuit closed loads one word. A call that finds it open loads two words,
//! reads the clock and increments a counter. Every change of the state takes one short mutex. User
//! code (listeners, wakers, hooks, the runtime) runs after the mutex has been released.

mod in_flight;

use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::enclosing::{ProbeScope, is_within_probe};
use super::hooks::{Hooks, TransitionHook};
use super::in_flight::{CallsInFlight, Stamp};
use super::machine::{Machine, Recorded};
use super::packed_state::{PackedState, Ticket};
use super::probes::ProbeId;
use super::rejections::{CircuitRejections, RejectionCounters};
use super::resolved::ResolvedCircuitBreakerConfig;
use super::snapshot::CircuitSnapshot;
use super::timer::{self, OnTimer, Timer, TimerState};
use super::transition::Transition;
use crate::call::outcome::Outcome;
use crate::error::{CircuitOpen, PackedRejection, RejectionReason};
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::broadcast::Broadcast;
use crate::sync::unwind::catch;
use crate::sync::{Mutex, lock};

/// Wakes the driver of a fleet, which then reads the circuit.
///
/// Called outside of every lock. Must not panic.
pub(crate) type WakeDriver = Arc<dyn Fn() + Send + Sync>;

/// A circuit that is shared between threads.
pub(crate) struct Shared {
    fast_path: FastPath,
    /// The origin of `open_until`.
    base: Instant,
    runtime: Arc<dyn Runtime>,
    /// Created when a rule first counts calls in flight. Changed under the mutex.
    in_flight: OnceLock<Box<CallsInFlight>>,
    locked: Mutex<Locked>,
    name: BulkheadName,
    events: Arc<Broadcast<Transition>>,
    /// For the timer's task, which must not keep the circuit alive.
    this: Weak<Self>,
}

/// What every call reads.
///
/// On its own cache line, so that other cores keep it when the mutex or the reference count of the
/// handle changes.
#[derive(Debug)]
#[repr(align(64))]
struct FastPath {
    state: AtomicU64,
    /// The end of the isolation in nanoseconds since `base`, or [`NEVER`], or [`FAR`].
    ///
    /// Stored before the state that is open. A reader of that state therefore reads the end of
    /// this isolation or of a later one, which may not fit the state but does fit the circuit.
    /// Every other state leaves the value alone, for threads that have read the state only.
    open_until: AtomicU64,
    /// The isolation in nanoseconds. More can't be left of it, unless the clock has stepped back.
    isolation: AtomicU64,
    /// Calls that take more nanoseconds than this are slow.
    slow_above: AtomicU64,
    rejected: RejectionCounters,
}

/// What the mutex guards.
struct Locked {
    machine: Machine,
    /// The number of rejections before the current state began.
    rejected_before: u64,
    hooks: Hooks,
    wake_driver: Option<WakeDriver>,
    timer: TimerState,
}

/// What remains to be done once the mutex is released.
#[derive(Default)]
struct Effects {
    transitions: bool,
    timer: Option<Timer>,
    wake_driver: Option<WakeDriver>,
}

impl Shared {
    pub(crate) fn new(
        name: BulkheadName,
        config: ResolvedCircuitBreakerConfig,
        seed: u64,
        runtime: Arc<dyn Runtime>,
    ) -> Arc<Self> {
        let now = runtime.now();
        let machine = Machine::new(config, seed, now);
        let shared = Arc::new_cyclic(|this| Self {
            fast_path: FastPath {
                state: AtomicU64::new(machine.packed_state().bits()),
                open_until: AtomicU64::new(nanos_until(now, machine.open_until())),
                isolation: AtomicU64::new(nanos(machine.isolation_in_force())),
                slow_above: AtomicU64::new(slow_above(machine.config())),
                rejected: RejectionCounters::default(),
            },
            base: now,
            runtime,
            in_flight: OnceLock::new(),
            locked: Mutex::new(Locked {
                machine,
                rejected_before: 0,
                hooks: Hooks::default(),
                wake_driver: None,
                timer: TimerState::default(),
            }),
            name,
            events: Arc::new(Broadcast::new(EVENTS_KEPT, HISTORY)),
            this: this.clone(),
        });
        // The initial state may need a timer.
        shared.with_machine(|machine| shared.update_in_flight(machine));
        shared
    }

    /// Checks whether a call would be rejected, and counts the rejection. Takes no probe slot.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), PackedRejection> {
        let state = self.load_state();
        if state.admits_all() {
            Ok(())
        } else {
            self.check_slow(state)
        }
    }

    /// Admits a call if the state admits every call.
    #[inline]
    pub(crate) fn try_admit_fast(&self) -> Option<Ticket> {
        let state = self.load_state();
        state
            .admits_all_fast()
            .then_some(Ticket { state, id: None })
    }

    /// Admits a call; reads the clock only if the time is needed and `now` is `None`.
    ///
    /// If calls in flight are counted, evaluates their rules first. The caller then counts this
    /// call: see [`begin_in_flight`](Self::begin_in_flight).
    #[inline]
    pub(crate) fn admit(&self, now: Option<Instant>) -> Result<Ticket, PackedRejection> {
        let state = self.load_state();
        if state.admits_all_fast() {
            Ok(Ticket { state, id: None })
        } else {
            self.admit_slow(state, now, false)
        }
    }

    /// Like [`admit`](Self::admit), with a time that may be that of another clock.
    pub(crate) fn admit_at(&self, now: Instant) -> Result<Ticket, PackedRejection> {
        let state = self.load_state();
        if state.admits_all_fast() {
            Ok(Ticket { state, id: None })
        } else {
            self.admit_slow(state, Some(now), true)
        }
    }

    /// Returns `true` if an outcome may change the circuit, or if it is of another generation.
    ///
    /// Costs one load, or two if slow calls are counted.
    #[inline]
    pub(crate) fn affects_state(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) -> bool {
        // A failure that is being recorded concurrently is ordered after this success.
        let state = self.load_state();
        let other = state.generation() != ticket.state.generation();
        // An outcome of another generation is dropped where a probe's scope is left.
        other
            || outcome != Outcome::Success
            || state.records_all()
            || ran.is_some_and(|ran| self.is_slow(ran))
    }

    #[inline]
    fn is_slow(&self, ran: Duration) -> bool {
        // Relaxed: a concurrent change of the rules may take effect a little later.
        nanos(ran) > self.fast_path.slow_above.load(Ordering::Relaxed)
    }

    /// Records the outcome of an admitted call.
    #[inline]
    pub(crate) fn record(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) {
        if self.affects_state(ticket, outcome, ran) {
            self.record_slow(ticket, outcome, ran, now);
        }
    }

    /// Ends an admission without an outcome.
    ///
    /// Reads the clock only for a probe.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let generation = ticket.state.generation();
        let Some(id) = ticket.id else { return };
        if self.load_state().generation() != generation {
            return;
        }
        if ticket.state.counts_in_flight() {
            if let Some(in_flight) = self.in_flight.get() {
                in_flight.end(Stamp::from_bits(id));
            }
            return;
        }
        let probe = ProbeId::from_bits(id);
        let _release = ReleaseOnPanic {
            shared: self,
            generation,
            probe,
        };
        self.change(|machine, now| machine.cancel_probe(generation, probe, now));
    }

    /// Returns the packed state as a number that is equal as long as nothing has changed.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.load_state().bits()
    }

    /// Returns `true` if the state admits every call, without reading the clock.
    pub(crate) fn admits_all(&self) -> bool {
        self.load_state().admits_all()
    }

    /// Returns `true` if the circuit is open or forced open, without reading the clock.
    #[inline]
    pub(crate) fn rejects_all(&self) -> bool {
        self.load_state().rejects_all()
    }

    /// Returns the state at `now`, after performing transitions that are due.
    pub(crate) fn state(&self, now: Option<Instant>) -> CircuitState {
        let mut state = self.load_state();
        if state.counts_in_flight() {
            self.evaluate_in_flight(self.time(now));
            state = self.load_state();
        }
        match state.state() {
            CircuitState::Open | CircuitState::HalfOpen => {
                let now = self.time(now);
                self.with_machine(|machine| {
                    machine.advance(now);
                    machine.state()
                })
            }
            state => state,
        }
    }

    pub(crate) fn snapshot(&self, now: Option<Instant>) -> CircuitSnapshot {
        let now = self.time(now);
        self.with_machine(|machine| {
            machine.advance(now);
            self.observe_hanging(machine, now);
        });
        let mut locked = lock(&self.locked);
        let counts = locked.machine.counts(now);
        let rejections = self.fast_path.rejected.read();
        let machine = &locked.machine;
        CircuitSnapshot {
            name: self.name.clone(),
            state: machine.state(),
            age: now.saturating_duration_since(machine.since()),
            counts,
            rejected_calls: rejections.total().saturating_sub(locked.rejected_before),
            rejections,
            retry_after: machine
                .open_until()
                .map(|until| until.saturating_duration_since(now)),
            probes_remaining: machine.probes_remaining(),
            generation: machine.generation(),
            open_count: machine.open_count(),
            // Pushed under this lock, so it is consistent with the rest.
            recent: self
                .events
                .newest(HISTORY)
                .into_iter()
                .map(|transition| transition.with_age(now))
                .collect(),
        }
    }

    /// Returns the remaining isolation.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let now = self.runtime.now();
        self.with_machine(|machine| {
            machine.advance(now);
            machine
                .open_until()
                .map(|until| until.saturating_duration_since(now))
        })
    }

    /// Applies a change at the current time.
    pub(crate) fn change<R>(&self, act: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = self.runtime.now();
        self.with_machine(|machine| act(machine, now))
    }

    /// Replaces the rules.
    pub(crate) fn reconfigure(&self, config: ResolvedCircuitBreakerConfig) {
        self.change(|machine, now| {
            machine.reconfigure(config, now);
            self.update_in_flight(machine);
        });
    }

    pub(crate) fn add_hook(&self, hook: TransitionHook) {
        lock(&self.locked).hooks.add(hook);
    }

    /// Attaches the driver of a fleet. Returns `false` if there is one already.
    pub(crate) fn attach_driver(&self, wake: WakeDriver) -> bool {
        let mut locked = lock(&self.locked);
        let free = locked.wake_driver.is_none();
        if free {
            locked.wake_driver = Some(wake);
        }
        free
    }

    /// Detaches the driver: the circuit belongs to no fleet any more.
    pub(crate) fn detach_driver(&self) {
        let wake = lock(&self.locked).wake_driver.take();
        drop(wake);
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    pub(crate) fn name(&self) -> &BulkheadName {
        &self.name
    }

    pub(crate) fn resolved_config(&self) -> ResolvedCircuitBreakerConfig {
        lock(&self.locked).machine.config().clone()
    }

    pub(crate) fn rejections(&self) -> CircuitRejections {
        self.fast_path.rejected.read()
    }

    pub(crate) fn events(&self) -> &Arc<Broadcast<Transition>> {
        &self.events
    }

    /// Counts a rejection and returns it.
    pub(crate) fn reject(&self, rejection: PackedRejection) -> PackedRejection {
        self.fast_path.rejected.count(rejection.reason);
        rejection
    }

    /// Returns what a rejection reads, in the order in which it reads it.
    #[cfg(all(test, bulkman_loom))]
    pub(super) fn load_state_and_end(&self) -> (PackedState, u64) {
        let state = self.load_state();
        (state, self.fast_path.open_until.load(Ordering::Relaxed))
    }

    #[inline]
    fn nanos_since_base(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.base))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn enter_probe(&self, ticket: Ticket) -> Option<ProbeScope> {
        ticket
            .is_probe()
            .then(|| ProbeScope::enter(self, ticket.state.generation()))
            .flatten()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn leave_probe(&self, ticket: Ticket) {
        ProbeScope::leave(self, ticket.state.generation());
    }

    /// Returns `true` if the current call is made by the operation of a probe of this circuit.
    fn is_nested(&self, state: PackedState) -> bool {
        state.state() == CircuitState::HalfOpen && is_within_probe(self, state.generation())
    }

    fn check_slow(&self, state: PackedState) -> Result<(), PackedRejection> {
        if self.is_nested(state) {
            return Ok(());
        }
        let now = match state.state() {
            CircuitState::HalfOpen => self.runtime.now(),
            // The call may still be rejected for lack of a permit, so a transition that is due is
            // left to its admission.
            _ => match self.reject_unless_due(state, None) {
                Ok(_) => return Ok(()),
                Err(rejection) => return Err(rejection),
            },
        };
        self.with_machine(|machine| machine.check(now))
            .map_err(|rejection| self.reject(rejection.into()))
    }

    fn admit_slow(
        &self,
        mut state: PackedState,
        mut now: Option<Instant>,
        is_given: bool,
    ) -> Result<Ticket, PackedRejection> {
        if self.is_nested(state) {
            // It takes no probe slot, and its outcome is not recorded.
            return Ok(Ticket { state, id: None });
        }
        if state.counts_in_flight() {
            let time = self.time(now);
            now = Some(time);
            self.evaluate_in_flight(time);
            state = self.load_state();
        }
        if state.admits_all() {
            return Ok(Ticket { state, id: None });
        }
        let now = match state.state() {
            CircuitState::HalfOpen => self.time(now),
            _ => self.reject_unless_due(state, now)?,
        };
        self.with_machine(|machine| {
            let probe = machine.admit(now)?;
            if is_given {
                machine.set_given_time(probe);
            }
            Ok(Ticket::new(machine.packed_state(), probe))
        })
        .map_err(|rejection: CircuitOpen| self.reject(rejection.into()))
    }

    /// Rejects a call without the lock, or returns the time if the isolation has elapsed.
    fn reject_unless_due(
        &self,
        state: PackedState,
        now: Option<Instant>,
    ) -> Result<Instant, PackedRejection> {
        if state.state() == CircuitState::ForcedOpen {
            return Err(self.reject(PackedRejection::new(RejectionReason::ForcedOpen)));
        }
        // Relaxed: the state was loaded with Acquire.
        let until = self.fast_path.open_until.load(Ordering::Relaxed);
        if until == NEVER {
            return Err(self.reject(PackedRejection::new(RejectionReason::Open)));
        }
        let now = self.time(now);
        let Some(elapsed) = now.checked_duration_since(self.base) else {
            // The clock has stepped back: the machine decides.
            return Ok(now);
        };
        match until.checked_sub(nanos(elapsed)) {
            None | Some(0) => Ok(now),
            // Only the machine has the exact end.
            Some(_) if until == FAR => Ok(now),
            // As above, or another thread is opening the circuit.
            Some(left) if left > self.fast_path.isolation.load(Ordering::Relaxed) => Ok(now),
            Some(left) => Err(self.reject(PackedRejection::retry_in(RejectionReason::Open, left))),
        }
    }

    // Not inlined: the path of a success that changes nothing must stay short.
    #[inline(never)]
    fn record_slow(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) {
        let state = self.load_state();
        let nothing_to_record = !outcome.counts_for_circuit() && ticket.id.is_none();
        let stale = state.generation() != ticket.state.generation();
        if nothing_to_record || stale || state.state() == CircuitState::Disabled {
            return;
        }
        let generation = ticket.state.generation();
        // A failure may open the circuit. A success that does is rare enough to be retried.
        let timed = state.needs_clock() || outcome == Outcome::Failure;
        let probe = match ticket.id {
            Some(id) if ticket.state.counts_in_flight() => {
                let stamp = Stamp::from_bits(id);
                return self.record_counted(ticket, stamp, outcome, ran, now);
            }
            id => id.map(ProbeId::from_bits),
        };
        let _release = probe.map(|probe| ReleaseOnPanic {
            shared: self,
            generation,
            probe,
        });
        let now = now.or_else(|| timed.then(|| self.runtime.now()));
        let recorded =
            self.with_machine(|machine| machine.record(generation, probe, outcome, ran, now));
        match recorded {
            Recorded::Done => {}
            Recorded::RuleTripped(cause) => {
                self.change(|machine, now| machine.open_by_rule(generation, cause, now))
            }
            Recorded::NeedsClock => {
                let recorded = self.change(|machine, now| {
                    machine.record(generation, probe, outcome, ran, Some(now))
                });
                debug_assert_eq!(recorded, Recorded::Done);
            }
        }
    }

    fn with_machine<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        let mut locked = lock(&self.locked);
        let result = act(&mut locked.machine);
        if locked.machine.take_dirty() {
            let effects = self.update_fast_path(&mut locked);
            drop(locked);
            self.run_effects(effects);
        }
        result
    }

    /// Publishes the state of the machine to calls that take no lock.
    fn update_fast_path(&self, locked: &mut Locked) -> Effects {
        let before = self.load_state();
        let state = locked.machine.packed_state();
        let mut effects = Effects::default();
        if locked.wake_driver.is_some() && locked.machine.take_notification() {
            effects.wake_driver.clone_from(&locked.wake_driver);
        }
        self.fast_path
            .slow_above
            .store(slow_above(locked.machine.config()), Ordering::Relaxed);
        if locked.machine.config().automatic_half_open {
            let due = locked.machine.next_due();
            effects.timer = due.and_then(|due| locked.timer.set(due));
        }
        if state.state() == CircuitState::Open {
            // Also after the clock has stepped back, which changes no more than this.
            let until = nanos_until(self.base, locked.machine.open_until());
            self.fast_path.open_until.store(until, Ordering::Relaxed);
            let isolation = nanos(locked.machine.isolation_in_force());
            self.fast_path.isolation.store(isolation, Ordering::Relaxed);
        }
        if state == before {
            return effects;
        }
        if state.generation() != before.generation() {
            if let Some(in_flight) = self.in_flight.get() {
                in_flight.begin_generation(state.generation());
            }
            locked.rejected_before = self.fast_path.rejected.read().total();
            for change in locked.machine.take_changes() {
                let transition = change.named(self.name.clone());
                locked.hooks.push(&transition);
                self.events.push(transition);
                effects.transitions = true;
            }
        }
        self.fast_path.state.store(state.bits(), Ordering::Release);
        effects
    }

    fn run_effects(&self, effects: Effects) {
        if effects.transitions {
            self.events.wake_readers();
            self.run_hooks();
        }
        if let Some(wake) = effects.wake_driver {
            wake();
        }
        if let Some(timer) = effects.timer {
            timer::start(timer, self.this.clone(), &self.runtime);
        }
    }

    /// Runs the hooks for the pending transitions, unless another thread is running them.
    fn run_hooks(&self) {
        loop {
            let Some((transition, hooks)) = lock(&self.locked).hooks.start() else {
                return;
            };
            for hook in hooks {
                // A hook holds no part of the circuit's state, so its panic can't break any.
                catch(|| hook(&transition));
            }
            lock(&self.locked).hooks.finish();
        }
    }

    pub(super) fn time(&self, given: Option<Instant>) -> Instant {
        given.unwrap_or_else(|| self.runtime.now())
    }

    /// Loads the state; Acquire, because `open_until` may be read after it.
    #[inline]
    fn load_state(&self) -> PackedState {
        PackedState::from_bits(self.fast_path.state.load(Ordering::Acquire))
    }
}

impl OnTimer for Shared {
    fn timer_fired(&self, id: u64) -> Option<Instant> {
        let now = self.runtime.now();
        let mut locked = lock(&self.locked);
        if !locked.timer.is_current(id) {
            return None;
        }
        locked.machine.advance(now);
        locked.machine.take_dirty();
        let next = locked.machine.next_due();
        locked.timer.reset(id, next);
        let effects = self.update_fast_path(&mut locked);
        drop(locked);
        self.run_effects(effects);
        next
    }

    fn timer_dropped(&self, id: u64) {
        lock(&self.locked).timer.dropped(id);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.events.close();
    }
}

// A runtime and hooks are all that is not unwind-safe by itself. Neither is called while a change
// of the circuit is half done.
impl RefUnwindSafe for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.load_state();
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name)
            .field("state", &state.state())
            .field("generation", &state.generation())
            .finish_non_exhaustive()
    }
}

/// Releases a probe slot if the clock panics before the outcome is recorded.
///
/// Once the outcome is recorded there is no slot left to release.
struct ReleaseOnPanic<'a> {
    shared: &'a Shared,
    generation: u64,
    probe: ProbeId,
}

impl Drop for ReleaseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                shared,
                generation,
                probe,
            } = *self;
            let recorded = shared.with_machine(|machine| {
                machine.record(generation, Some(probe), Outcome::Ignored, None, None)
            });
            debug_assert_eq!(recorded, Recorded::Done);
        }
    }
}

/// The number of transitions that a slow reader may lag behind.
const EVENTS_KEPT: usize = 128;
/// The number of transitions kept for snapshots.
const HISTORY: usize = 8;
/// A value of `open_until`: the isolation does not end.
const NEVER: u64 = u64::MAX;
/// A value of `open_until`: the end is 584 years or more ahead, which does not fit in 64 bits.
const FAR: u64 = u64::MAX - 1;

/// An end before `base`, from a time that was passed in, is stored as the base. It is then due, and
/// the machine decides.
fn nanos_until(base: Instant, until: Option<Instant>) -> u64 {
    until.map_or(NEVER, |until| {
        nanos(until.saturating_duration_since(base)).min(FAR)
    })
}

fn slow_above(config: &ResolvedCircuitBreakerConfig) -> u64 {
    config.slow_call_duration_threshold.map_or(u64::MAX, nanos)
}

/// Cheaper than a conversion through 128 bits, and called for every rejection.
#[inline]
fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}
