//! The concurrent shell around the state machine.
//!
//! A call that finds the circuit closed loads one word; one that finds it open loads two, reads
//! the clock and adds to a counter. Whatever changes the state goes through one short mutex, and
//! what user code must hear of (listeners, wakers, hooks, the runtime) happens after it.

use std::collections::VecDeque;
use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::admission::Ticket;
use super::alarm::{self, Alarm};
use super::circuit_state::CircuitState;
use super::probes::ProbeId;
use super::refusals::{CircuitRejections, RefusalCounters};
use super::settings::ResolvedCircuitBreakerConfig;
use super::snapshot::CircuitSnapshot;
use super::state::{Machine, Settled};
use super::transition::Transition;
use super::word::Word;
use crate::call::outcome::Outcome;
use crate::error::{CircuitOpen, Denied, RejectionReason};
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::broadcast::Broadcast;
use crate::sync::unwind::contain;
use crate::sync::{Mutex, lock};

/// Called after each transition, outside every lock.
pub(crate) type Hook = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Called when a synchroniser should look at the circuit, outside every lock. Must not panic.
pub(crate) type Link = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Shell {
    hot: Hot,
    /// What `open_until` counts from.
    base: Instant,
    runtime: Arc<dyn Runtime>,
    core: Mutex<Core>,
    name: BulkheadName,
    events: Arc<Broadcast<Transition>>,
    /// For the alarm's task, which must not keep the circuit alive.
    me: Weak<Self>,
}

/// What every call reads, on a cache line of its own: the mutex and the counts of the handle
/// would otherwise take it away from the other cores.
#[derive(Debug)]
#[repr(align(64))]
struct Hot {
    word: AtomicU64,
    /// The end of the isolation in nanoseconds since `base`, or [`NEVER`], or [`FAR`].
    ///
    /// Stored before the word that says open, so that who reads that word reads this isolation's
    /// end or that of a later one: wrong for the word, perhaps, but not for the circuit. Left as
    /// it is by every other state, for those who have read the word and not yet the end.
    open_until: AtomicU64,
    /// Nanoseconds: longer calls are slow.
    slow_above: AtomicU64,
    refused: RefusalCounters,
}

/// What the mutex guards.
struct Core {
    machine: Machine,
    /// The refusals before the current state began.
    refused_before: u64,
    hooks: Vec<Hook>,
    /// Told when the synchroniser should look.
    link: Option<Link>,
    /// Transitions that the hooks have yet to hear of.
    outbox: VecDeque<Transition>,
    /// Somebody is calling the hooks and will empty the outbox: this keeps them in order.
    delivering: bool,
    alarm: Option<Alarm>,
    alarms: u64,
}

/// What is left to do once the mutex is free.
#[derive(Default)]
struct After {
    transitions: bool,
    alarm: Option<Alarm>,
    link: Option<Link>,
}

impl Shell {
    pub(crate) fn new(
        name: BulkheadName,
        settings: ResolvedCircuitBreakerConfig,
        seed: u64,
        runtime: Arc<dyn Runtime>,
    ) -> Arc<Self> {
        let now = runtime.now();
        let machine = Machine::new(settings, seed, now);
        let shell = Arc::new_cyclic(|me| Self {
            hot: Hot {
                word: AtomicU64::new(machine.word().bits()),
                open_until: AtomicU64::new(nanos_until(now, machine.open_until())),
                slow_above: AtomicU64::new(slow_above(machine.settings())),
                refused: RefusalCounters::default(),
            },
            base: now,
            runtime,
            core: Mutex::new(Core {
                machine,
                refused_before: 0,
                hooks: Vec::new(),
                link: None,
                outbox: VecDeque::new(),
                delivering: false,
                alarm: None,
                alarms: 0,
            }),
            name,
            events: Arc::new(Broadcast::new(EVENTS_KEPT, HISTORY)),
            me: me.clone(),
        });
        // An initial state may have an end.
        shell.with(|_| ());
        shell
    }

    /// Would a call be refused? Takes nothing; a refusal is counted.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Denied> {
        let word = self.word();
        if word.admits_all() {
            Ok(())
        } else {
            self.check_refusing(word)
        }
    }

    /// Admits a call if all calls pass.
    #[inline]
    pub(crate) fn admit_if_all_pass(&self) -> Option<Ticket> {
        let word = self.word();
        word.admits_all().then_some(Ticket { word, probe: None })
    }

    /// Admits a call; `now` is read if it is needed and not given.
    #[inline]
    pub(crate) fn admit(&self, now: Option<Instant>) -> Result<Ticket, Denied> {
        let word = self.word();
        if word.admits_all() {
            Ok(Ticket { word, probe: None })
        } else {
            self.admit_refusing(word, now)
        }
    }

    /// Whether an outcome would change anything: one load, or two where slow calls count.
    #[inline]
    pub(crate) fn hears(&self, ticket: Ticket, outcome: Outcome, ran: Option<Duration>) -> bool {
        // A failure that is being recorded right now may as well come after this success.
        let word = self.word();
        let same = word.generation() == ticket.word.generation();
        // Relaxed: rules that change right now may as well have changed a little later.
        let slow = |ran| nanos(ran) > self.hot.slow_above.load(Ordering::Relaxed);
        same && (outcome != Outcome::Success || word.records_success() || ran.is_some_and(slow))
    }

    /// Takes the outcome of an admitted call.
    #[inline]
    pub(crate) fn settle(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) {
        if self.hears(ticket, outcome, ran) {
            self.settle_recorded(ticket, outcome, ran, now);
        }
    }

    /// The packed word: equal to an earlier one as long as nothing has changed.
    #[inline]
    pub(crate) fn seen(&self) -> u64 {
        self.word().bits()
    }

    /// Open or forced open, whatever the time.
    #[inline]
    pub(crate) fn refuses(&self) -> bool {
        self.word().rejects_all()
    }

    /// The state at `now`, a due transition performed.
    pub(crate) fn state(&self, now: Option<Instant>) -> CircuitState {
        let state = self.word().state();
        match state {
            CircuitState::Open | CircuitState::HalfOpen => {
                let now = self.time(now);
                self.with(|machine| {
                    machine.advance(now);
                    machine.state()
                })
            }
            _ => state,
        }
    }

    pub(crate) fn snapshot(&self, now: Option<Instant>) -> CircuitSnapshot {
        let now = self.time(now);
        self.with(|machine| machine.advance(now));
        let mut core = lock(&self.core);
        let counts = core.machine.counts(now);
        let rejections = self.hot.refused.read();
        let machine = &core.machine;
        CircuitSnapshot {
            name: self.name.clone(),
            state: machine.state(),
            age: now.saturating_duration_since(machine.since()),
            counts,
            rejected_calls: rejections.total().saturating_sub(core.refused_before),
            rejections,
            retry_after: machine
                .open_until()
                .map(|until| until.saturating_duration_since(now)),
            probes_remaining: machine.slots(),
            generation: machine.generation(),
            open_count: machine.open_count(),
            // Pushed under this lock, so it agrees with the rest.
            recent: self
                .events
                .newest(HISTORY)
                .into_iter()
                .map(|transition| transition.with_age(now))
                .collect(),
        }
    }

    /// How long the isolation still lasts.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let now = self.runtime.now();
        self.with(|machine| {
            machine.advance(now);
            machine
                .open_until()
                .map(|until| until.saturating_duration_since(now))
        })
    }

    /// Changes something by hand, at the current time.
    pub(crate) fn change<R>(&self, act: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = self.runtime.now();
        self.with(|machine| act(machine, now))
    }

    pub(crate) fn add_hook(&self, hook: Hook) {
        lock(&self.core).hooks.push(hook);
    }

    /// Makes this circuit's state a fleet's too; `false` if it is one's already.
    pub(crate) fn set_link(&self, link: Link) -> bool {
        let mut core = lock(&self.core);
        let free = core.link.is_none();
        if free {
            core.link = Some(link);
        }
        free
    }

    /// The circuit belongs to no fleet any more.
    pub(crate) fn unlink(&self) {
        let link = lock(&self.core).link.take();
        drop(link);
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
        lock(&self.core).machine.settings().clone()
    }

    pub(crate) fn rejections(&self) -> CircuitRejections {
        self.hot.refused.read()
    }

    pub(crate) fn events(&self) -> &Arc<Broadcast<Transition>> {
        &self.events
    }

    /// The alarm `number` went off: performs what is due and says when to come again.
    pub(super) fn alarm_rings(&self, number: u64) -> Option<Instant> {
        let now = self.runtime.now();
        let mut core = lock(&self.core);
        if core.alarm.is_none_or(|alarm| alarm.number != number) {
            return None;
        }
        core.machine.advance(now);
        core.machine.take_dirty();
        let next = core.machine.next_due();
        core.alarm = next.map(|at| Alarm { number, at });
        let after = self.publish(&mut core);
        drop(core);
        self.follow_up(after);
        next
    }

    /// The alarm `number` will never go off.
    pub(super) fn alarm_lost(&self, number: u64) {
        let mut core = lock(&self.core);
        if core.alarm.is_some_and(|alarm| alarm.number == number) {
            core.alarm = None;
        }
    }

    /// What a refusal looks at, in its order.
    #[cfg(all(test, bulkman_loom))]
    pub(super) fn word_and_end(&self) -> (Word, u64) {
        let word = self.word();
        (word, self.hot.open_until.load(Ordering::Relaxed))
    }

    fn check_refusing(&self, word: Word) -> Result<(), Denied> {
        let now = match word.state() {
            CircuitState::HalfOpen => self.runtime.now(),
            // A call that goes on may still be refused for lack of a permit, so the transition
            // that is due is left to its admission.
            _ => match self.refuse_unless_due(word, None) {
                Ok(_) => return Ok(()),
                Err(refusal) => return Err(refusal),
            },
        };
        self.with(|machine| machine.check(now))
            .map_err(|refusal| self.refuse(refusal.into()))
    }

    fn admit_refusing(&self, word: Word, now: Option<Instant>) -> Result<Ticket, Denied> {
        let now = match word.state() {
            CircuitState::HalfOpen => self.time(now),
            _ => self.refuse_unless_due(word, now)?,
        };
        self.with(|machine| {
            let probe = machine.admit(now)?;
            Ok(Ticket {
                word: machine.word(),
                probe,
            })
        })
        .map_err(|refusal: CircuitOpen| self.refuse(refusal.into()))
    }

    /// Refuses for an open circuit, without a lock; or says what time it is: late enough.
    fn refuse_unless_due(&self, word: Word, now: Option<Instant>) -> Result<Instant, Denied> {
        if word.state() == CircuitState::ForcedOpen {
            return Err(self.refuse(Denied::new(RejectionReason::ForcedOpen)));
        }
        // Relaxed: the word was loaded with Acquire.
        let until = self.hot.open_until.load(Ordering::Relaxed);
        if until == NEVER {
            return Err(self.refuse(Denied::new(RejectionReason::Open)));
        }
        let now = self.time(now);
        match until.checked_sub(nanos(now.saturating_duration_since(self.base))) {
            None | Some(0) => Ok(now),
            // The machine knows better.
            Some(_) if until == FAR => Ok(now),
            Some(left) => Err(self.refuse(Denied::retry_in(RejectionReason::Open, left))),
        }
    }

    pub(crate) fn refuse(&self, refusal: Denied) -> Denied {
        self.hot.refused.count(refusal.reason);
        refusal
    }

    // Not inlined: the way of a success that is no news must stay short.
    #[inline(never)]
    fn settle_recorded(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) {
        let word = self.word();
        let nothing_taken = outcome == Outcome::Ignored && ticket.probe.is_none();
        if nothing_taken || word.state() == CircuitState::Disabled {
            return;
        }
        let generation = ticket.word.generation();
        // A failure may open; a success that does is rare enough to come twice.
        let timed = word.needs_clock() || outcome == Outcome::Failure;
        let _slot = ticket.probe.map(|probe| GivenBack {
            shell: self,
            generation,
            probe,
        });
        let now = now.or_else(|| timed.then(|| self.runtime.now()));
        match self.with(|machine| machine.settle(generation, ticket.probe, outcome, ran, now)) {
            Settled::Done => {}
            Settled::Trips(cause) => {
                self.change(|machine, now| machine.trip(generation, cause, now))
            }
            Settled::NeedsClock => {
                let settled = self.change(|machine, now| {
                    machine.settle(generation, ticket.probe, outcome, ran, Some(now))
                });
                debug_assert_eq!(settled, Settled::Done);
            }
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        let mut core = lock(&self.core);
        let result = act(&mut core.machine);
        if core.machine.take_dirty() {
            let after = self.publish(&mut core);
            drop(core);
            self.follow_up(after);
        }
        result
    }

    /// Makes what the machine says visible to calls that take no lock.
    fn publish(&self, core: &mut Core) -> After {
        let before = self.word();
        let word = core.machine.word();
        let mut after = After::default();
        if core.link.is_some() && core.machine.take_news() {
            after.link.clone_from(&core.link);
        }
        self.hot
            .slow_above
            .store(slow_above(core.machine.settings()), Ordering::Relaxed);
        if core.machine.settings().automatic_half_open {
            after.alarm = core.set_alarm();
        }
        if word == before {
            return after;
        }
        if word.generation() != before.generation() {
            core.refused_before = self.hot.refused.read().total();
            if word.state() == CircuitState::Open {
                let until = nanos_until(self.base, core.machine.open_until());
                self.hot.open_until.store(until, Ordering::Relaxed);
            }
            for change in core.machine.take_changes() {
                let transition = change.named(self.name.clone());
                if !core.hooks.is_empty() {
                    core.outbox.push_back(transition.clone());
                }
                self.events.push(transition);
                after.transitions = true;
            }
        }
        self.hot.word.store(word.bits(), Ordering::Release);
        after
    }

    fn follow_up(&self, after: After) {
        if after.transitions {
            self.events.wake_readers();
            self.deliver();
        }
        if let Some(link) = after.link {
            link();
        }
        if let Some(alarm) = after.alarm {
            alarm::start(alarm, self.me.clone(), &self.runtime);
        }
    }

    /// Calls the hooks for what is in the outbox, one transition at a time and in order. A
    /// transition made meanwhile, by a hook or by another thread, is left to who is at it.
    fn deliver(&self) {
        loop {
            let (transition, hooks) = {
                let mut core = lock(&self.core);
                if core.delivering {
                    return;
                }
                let Some(transition) = core.outbox.pop_front() else {
                    return;
                };
                core.delivering = true;
                (transition, core.hooks.clone())
            };
            for hook in hooks {
                // A hook has no part in the circuit's state, so there is none to be broken.
                contain(|| hook(&transition));
            }
            lock(&self.core).delivering = false;
        }
    }

    fn time(&self, given: Option<Instant>) -> Instant {
        given.unwrap_or_else(|| self.runtime.now())
    }

    /// Acquire: for who goes on to read `open_until`.
    #[inline]
    fn word(&self) -> Word {
        Word::from_bits(self.hot.word.load(Ordering::Acquire))
    }
}

/// Gives a probe's slot back when the clock panics before its outcome is recorded. Afterwards there
/// is nothing to give back.
struct GivenBack<'a> {
    shell: &'a Shell,
    generation: u64,
    probe: ProbeId,
}

impl Drop for GivenBack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                shell,
                generation,
                probe,
            } = *self;
            let settled = shell.with(|machine| {
                machine.settle(generation, Some(probe), Outcome::Ignored, None, None)
            });
            debug_assert_eq!(settled, Settled::Done);
        }
    }
}

impl Core {
    /// An alarm to start, if something becomes due before the one that is set.
    fn set_alarm(&mut self) -> Option<Alarm> {
        let at = self.machine.next_due()?;
        if self.alarm.is_some_and(|alarm| alarm.at <= at) {
            return None;
        }
        self.alarms += 1;
        self.alarm = Some(Alarm {
            number: self.alarms,
            at,
        });
        self.alarm
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.events.close();
    }
}

// A runtime and hooks are all that is not unwind-safe by itself; neither is called with anything
// of the circuit's half done.
impl RefUnwindSafe for Shell {}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name)
            .field("state", &word.state())
            .field("generation", &word.generation())
            .finish_non_exhaustive()
    }
}

/// Transitions that a slow reader may be behind.
const EVENTS_KEPT: usize = 128;
/// Transitions kept for snapshots.
const HISTORY: usize = 8;
/// As `open_until`: no end.
const NEVER: u64 = u64::MAX;
/// As `open_until`: an end 584 years or more ahead, which takes more than 64 bits.
const FAR: u64 = u64::MAX - 1;

/// An end before `base`, from a time that was given, reads as the base: due, says the fast path,
/// and leaves it to the machine.
fn nanos_until(base: Instant, until: Option<Instant>) -> u64 {
    until.map_or(NEVER, |until| {
        nanos(until.saturating_duration_since(base)).min(FAR)
    })
}

fn slow_above(settings: &ResolvedCircuitBreakerConfig) -> u64 {
    settings
        .slow_call_duration_threshold
        .map_or(u64::MAX, nanos)
}

/// Cheaper than going through 128 bits, and called for every refusal.
#[inline]
fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}
