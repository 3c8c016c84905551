//! The state machine: no lock, no clock, no async. `now` is an argument.

mod shared;

use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::config::HalfOpenTimeoutAction;
use super::counts::{CircuitCounts, Sample, Tally};
use super::probes::{ProbeId, Probes};
use super::settings::{HalfOpenPolicy, ResolvedCircuitBreakerConfig};
use super::transition::{Change, TransitionCause};
use super::window::{Recorded, Window};
use super::word::{Flags, Word};
use crate::call::outcome::Outcome;
use crate::error::{CircuitOpen, RejectionReason};
use crate::random::Random;

use self::shared::FleetPart;
pub(crate) use self::shared::{Adopted, Gate, Observation, Verdict};

/// One circuit.
///
/// Every input first performs what has become due: an isolation that is over, a probe that is
/// lost, a half-open that lasted too long. The last two count from their due time, so that it
/// makes no difference when somebody looks; half-open begins when it is observed, because its
/// time is for probes, and nobody was there to send one.
///
/// Each state entered is a new generation. Outcomes carry the generation of their admission, and
/// those of an older one are dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: ResolvedCircuitBreakerConfig,
    phase: Stage,
    since: Instant,
    generation: u64,
    /// The grid of time windows: when the circuit was made.
    origin: Instant,
    window: Option<Window>,
    consecutive_failures: u32,
    /// The rules have not been asked about the tally since they or it changed.
    unjudged: bool,
    /// What opened the circuit, readable while it is open.
    frozen: Option<Box<CircuitCounts>>,
    /// Automatic openings since the last close.
    open_count: u32,
    random: Random,
    changes: Vec<Change>,
    /// Whether the word, or what becomes due when, may have changed.
    dirty: bool,
    share: FleetPart,
}

#[derive(Debug)]
enum Stage {
    Closed,
    /// `None`: never by itself.
    Open {
        until: Option<Instant>,
    },
    HalfOpen(Probes),
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Settled {
    /// Recorded or dropped, for good.
    Done,
    /// Recorded, and a rule wants to open: to be followed by [`Machine::trip`] with the time.
    Trips(TransitionCause),
    /// Not recorded: the time is needed.
    NeedsClock,
}

/// A state to enter by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StateTarget {
    Closed,
    Open,
    OpenFor(Duration),
    HalfOpen,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

impl Machine {
    pub(crate) fn new(settings: ResolvedCircuitBreakerConfig, seed: u64, now: Instant) -> Self {
        let initial = settings.initial_state;
        let mut machine = Self {
            settings,
            phase: Stage::Disabled,
            since: now,
            generation: 0,
            origin: now,
            window: None,
            consecutive_failures: 0,
            unjudged: false,
            frozen: None,
            open_count: 0,
            random: Random::new(seed),
            changes: Vec::new(),
            dirty: true,
            share: FleetPart::default(),
        };
        machine.enter_by_hand(StateTarget::from(initial), TransitionCause::Manual, now);
        machine.changes = Vec::new();
        machine
    }

    /// Performs what has become due.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((due, step)) = self.next_step() {
            if now < due {
                return;
            }
            match step {
                Step::HalfOpen => {
                    self.enter(
                        Stage::HalfOpen(Probes::default()),
                        TransitionCause::IsolationElapsed,
                        now,
                    );
                }
                Step::Lose(probe) => self.lose(probe, due),
                Step::Expire(HalfOpenTimeoutAction::Open) => {
                    self.reopen(TransitionCause::HalfOpenExpired, due)
                }
                Step::Expire(HalfOpenTimeoutAction::Closed) => {
                    self.enter(Stage::Closed, TransitionCause::HalfOpenExpired, due);
                }
            }
        }
    }

    /// Whether a call would be admitted now.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), CircuitOpen> {
        self.advance(now);
        match &self.phase {
            Stage::Closed | Stage::Disabled | Stage::MetricsOnly => Ok(()),
            Stage::Open { until } => Err(CircuitOpen::new(
                RejectionReason::Open,
                until.map(|until| until.saturating_duration_since(now)),
            )),
            Stage::ForcedOpen => Err(CircuitOpen::new(RejectionReason::ForcedOpen, None)),
            Stage::HalfOpen(probes) if self.free_probes(probes) > 0 => Ok(()),
            Stage::HalfOpen(_) => Err(self.refuse_probe()),
        }
    }

    /// Admits a call; while half-open, as a probe.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Option<ProbeId>, CircuitOpen> {
        self.check(now)?;
        match &mut self.phase {
            Stage::HalfOpen(probes) => {
                self.dirty = true;
                Ok(Some(probes.admit(now)))
            }
            _ => Ok(None),
        }
    }

    /// Takes the outcome of a call that was admitted in `generation`.
    ///
    /// `now` may be left out where it costs too much: see [`Settled`].
    #[inline]
    pub(crate) fn settle(
        &mut self,
        generation: u64,
        probe: Option<ProbeId>,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) -> Settled {
        if let Some(now) = now {
            self.advance(now);
        }
        if generation != self.generation {
            return Settled::Done;
        }
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored => {
                self.give_back(probe);
                return Settled::Done;
            }
        };
        let sample = Sample {
            failed,
            slow: self.settings.is_slow(ran),
        };
        match (&self.phase, now) {
            (Stage::Closed | Stage::MetricsOnly, _) => self.record(sample, now),
            (Stage::HalfOpen(_), Some(now)) => {
                if self.give_back(probe) {
                    self.record_probe(sample, TransitionCause::ProbeFailed, now);
                }
                Settled::Done
            }
            (Stage::HalfOpen(_), None) => Settled::NeedsClock,
            (Stage::Open { .. } | Stage::ForcedOpen | Stage::Disabled, _) => Settled::Done,
        }
    }

    /// Opens after [`Settled::Trips`], unless something else has happened since.
    pub(crate) fn trip(&mut self, generation: u64, cause: TransitionCause, now: Instant) {
        if generation == self.generation && matches!(self.phase, Stage::Closed) {
            self.open_by_rule(cause, now);
        }
    }

    /// Goes to a state by hand; into the same state, starts it again without a transition.
    pub(crate) fn go(&mut self, target: StateTarget, now: Instant) {
        self.advance(now);
        self.enter_by_hand(target, TransitionCause::Manual, now);
    }

    /// A sign from outside that the dependency is back: half-open before its time. Says whether
    /// the circuit was open.
    pub(crate) fn half_open_early(&mut self, now: Instant) -> bool {
        self.advance(now);
        let open = matches!(self.phase, Stage::Open { .. });
        if open {
            self.enter(
                Stage::HalfOpen(Probes::default()),
                TransitionCause::HealthCheck,
                now,
            );
        } else {
            self.probe_from_outside(now);
        }
        open
    }

    /// Changes the rules and keeps the state, a running isolation, and the window.
    pub(crate) fn reconfigure(&mut self, settings: ResolvedCircuitBreakerConfig, now: Instant) {
        self.advance(now);
        self.dirty = true;
        self.unjudged = true;
        self.settings = settings;
        let kind = self.settings.sliding_window;
        if let Some(window) = &mut self.window {
            window.advance(now);
            window.reshape(kind, self.origin);
        }
        self.fit_window(now);
        // With fewer probes to wait for, those that are back may be enough.
        self.judge(TransitionCause::ProbeFailed, now);
        self.advance(now);
    }

    /// What is counted, at `now`.
    pub(crate) fn counts(&mut self, now: Instant) -> CircuitCounts {
        match &self.phase {
            Stage::Closed | Stage::MetricsOnly => {
                let tally = self.window.as_mut().map_or_else(Tally::default, |window| {
                    window.advance(now);
                    window.tally()
                });
                let rated = tally.calls >= u64::from(self.settings.minimum_number_of_calls);
                CircuitCounts::new(tally, self.consecutive_failures, rated)
            }
            Stage::HalfOpen(probes) => {
                let calls = probes.back().calls;
                let rated = match self.settings.half_open_policy {
                    HalfOpenPolicy::Sample { calls: all } => calls >= u64::from(all),
                    HalfOpenPolicy::Consecutive { successes } => {
                        calls >= u64::from(self.settings.minimum_number_of_calls.min(successes))
                    }
                };
                CircuitCounts::new(probes.back(), probes.failures_in_a_row(), rated)
            }
            Stage::Open { .. } => self.frozen.as_deref().copied().unwrap_or_default(),
            Stage::ForcedOpen | Stage::Disabled => CircuitCounts::default(),
        }
    }

    pub(crate) fn state(&self) -> CircuitState {
        match self.phase {
            Stage::Closed => CircuitState::Closed,
            Stage::Open { .. } => CircuitState::Open,
            Stage::HalfOpen(_) => CircuitState::HalfOpen,
            Stage::ForcedOpen => CircuitState::ForcedOpen,
            Stage::Disabled => CircuitState::Disabled,
            Stage::MetricsOnly => CircuitState::MetricsOnly,
        }
    }

    /// The state as calls see it.
    pub(crate) fn word(&self) -> Word {
        let counts = matches!(self.phase, Stage::Closed | Stage::MetricsOnly);
        let half_open = matches!(self.phase, Stage::HalfOpen(_));
        let flags = Flags {
            records_success: half_open || counts && self.hears_success(),
            needs_duration: (counts || half_open)
                && self.settings.slow_call_duration_threshold.is_some(),
            needs_clock: half_open || counts && matches!(self.window, Some(Window::Time(_))),
        };
        Word::new(self.state(), self.generation, flags)
    }

    /// When the isolation is over; `None` when the circuit is not open, or stays so.
    pub(crate) fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Stage::Open { until } => until,
            _ => None,
        }
    }

    /// When something becomes due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next_step().map(|(due, _)| due)
    }

    /// Probes that may still go out; `None` when the circuit is not half-open.
    pub(crate) fn slots(&self) -> Option<u32> {
        match &self.phase {
            Stage::HalfOpen(probes) => Some(self.free_probes(probes)),
            _ => None,
        }
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn open_count(&self) -> u32 {
        self.open_count
    }

    pub(crate) fn settings(&self) -> &ResolvedCircuitBreakerConfig {
        &self.settings
    }

    /// Whether something that others see may have changed since the last call.
    #[inline]
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The transitions since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn next_step(&self) -> Option<(Instant, Step)> {
        match &self.phase {
            Stage::Open { until } => until.map(|until| (until, Step::HalfOpen)),
            Stage::HalfOpen(probes) => {
                let lost = probes
                    .first_lost(self.settings.probe_timeout)
                    .map(|(due, probe)| (due, Step::Lose(probe)));
                let expiry = self
                    .settings
                    .max_half_open_duration
                    .and_then(|(duration, then)| {
                        self.since
                            .checked_add(duration)
                            .map(|due| (due, Step::Expire(then)))
                    });
                match (lost, expiry) {
                    (Some(lost), Some(expiry)) => {
                        Some(if lost.0 <= expiry.0 { lost } else { expiry })
                    }
                    (lost, expiry) => lost.or(expiry),
                }
            }
            _ => None,
        }
    }

    /// Whether a success that is not slow would be news, while outcomes are counted.
    #[inline]
    fn hears_success(&self) -> bool {
        self.consecutive_failures > 0 || self.window.as_ref().is_some_and(Window::hears_success)
    }

    #[inline]
    fn record(&mut self, sample: Sample, now: Option<Instant>) -> Settled {
        let recorded = self
            .window
            .as_mut()
            .map_or(Recorded::InPlaceOfItsLike, |it| it.record(sample, now));
        if recorded == Recorded::NeedsTime {
            return Settled::NeedsClock;
        }
        let run = if sample.failed {
            self.consecutive_failures.saturating_add(1)
        } else {
            0
        };
        // Whether a success would be news may be another matter now.
        self.dirty |= recorded == Recorded::Count || (run == 0) != (self.consecutive_failures == 0);
        self.consecutive_failures = run;
        let same = recorded == Recorded::InPlaceOfItsLike && run == 0 && !self.unjudged;
        if same || !matches!(self.phase, Stage::Closed) {
            return Settled::Done;
        }
        self.unjudged = false;
        let tally = self
            .window
            .as_ref()
            .map_or_else(Tally::default, Window::tally);
        match (
            self.settings
                .broken_rule(tally, self.consecutive_failures, u32::MAX),
            now,
        ) {
            (Some(cause), Some(now)) => {
                self.open_by_rule(cause, now);
                Settled::Done
            }
            (Some(cause), None) => {
                self.unjudged = true;
                Settled::Trips(cause)
            }
            (None, _) => Settled::Done,
        }
    }

    fn record_probe(&mut self, sample: Sample, failure: TransitionCause, at: Instant) {
        if let Stage::HalfOpen(probes) = &mut self.phase {
            probes.record(sample);
        }
        if !self.hand_on(sample) {
            self.judge(failure, at);
        }
    }

    /// Ends half-open if the probes that are back decide it.
    fn judge(&mut self, failure: TransitionCause, at: Instant) {
        let Stage::HalfOpen(probes) = &self.phase else {
            return;
        };
        if self.awaits_fleet() {
            return;
        }
        let back = probes.back();
        let limit = self.settings.half_open_policy.probes();
        let verdict = match self.settings.half_open_policy {
            HalfOpenPolicy::Consecutive { .. } if back.failures > 0 => Err(failure),
            _ if back.calls < u64::from(limit) => return,
            HalfOpenPolicy::Consecutive { .. } => Ok(()),
            HalfOpenPolicy::Sample { .. } => self
                .settings
                .broken_rule(back, probes.longest_run(), limit)
                .map_or(Ok(()), Err),
        };
        match verdict {
            Ok(()) => self.enter(Stage::Closed, TransitionCause::ProbesSucceeded, at),
            Err(cause) => self.open_by_rule(cause, at),
        }
    }

    fn lose(&mut self, probe: ProbeId, at: Instant) {
        self.give_back(Some(probe));
        let slow = self.settings.is_slow(Some(self.settings.probe_timeout));
        self.record_probe(
            Sample { failed: true, slow },
            TransitionCause::ProbeLost,
            at,
        );
    }

    fn give_back(&mut self, probe: Option<ProbeId>) -> bool {
        match (&mut self.phase, probe) {
            (Stage::HalfOpen(probes), Some(probe)) => {
                self.dirty = true;
                probes.give_back(probe)
            }
            _ => false,
        }
    }

    /// An opening that the circuit decided on: the next one will be longer.
    fn open_by_rule(&mut self, cause: TransitionCause, at: Instant) {
        let isolation = self.isolation(self.open_count);
        self.open_count = self.open_count.saturating_add(1);
        self.enter(open_for(isolation, at), cause, at);
    }

    /// An opening that says nothing new about the dependency: as long as the last one.
    fn reopen(&mut self, cause: TransitionCause, at: Instant) {
        let isolation = self.isolation(self.open_count.saturating_sub(1));
        self.enter(open_for(isolation, at), cause, at);
    }

    fn isolation(&mut self, openings: u32) -> Duration {
        let random = &mut self.random;
        self.settings
            .isolation
            .duration(openings, || random.next_f64())
    }

    fn enter_by_hand(&mut self, target: StateTarget, cause: TransitionCause, at: Instant) {
        let phase = match target {
            StateTarget::Open => return self.reopen(cause, at),
            StateTarget::OpenFor(duration) => open_for(duration, at),
            StateTarget::Closed => Stage::Closed,
            StateTarget::HalfOpen => Stage::HalfOpen(Probes::default()),
            StateTarget::ForcedOpen => Stage::ForcedOpen,
            StateTarget::Disabled => Stage::Disabled,
            StateTarget::MetricsOnly => Stage::MetricsOnly,
        };
        self.enter(phase, cause, at);
    }

    fn enter(&mut self, phase: Stage, cause: TransitionCause, at: Instant) {
        let from = self.state();
        let counts = self.counts(at);
        self.phase = phase;
        self.since = at;
        self.generation += 1;
        self.begin_share(cause);
        self.dirty = true;
        self.frozen = matches!(self.phase, Stage::Open { .. }).then(|| Box::new(counts));
        self.consecutive_failures = 0;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        self.fit_window(at);
        if matches!(self.phase, Stage::Closed) {
            self.open_count = 0;
        }
        if self.state() != from {
            self.changes.push(Change {
                from,
                to: self.state(),
                cause,
                counts,
                at,
                generation: self.generation,
                isolation: self
                    .open_until()
                    .map(|until| until.saturating_duration_since(at)),
                open_count: self.open_count,
            });
        }
    }

    /// Has a window exactly where outcomes are put into one.
    fn fit_window(&mut self, now: Instant) {
        let wanted = match self.phase {
            Stage::Closed => self.settings.window_in_use,
            // There for its counts, whatever rules there are.
            Stage::MetricsOnly => true,
            // Kept, empty, for when the circuit closes.
            Stage::Open { .. } | Stage::HalfOpen(_) | Stage::ForcedOpen | Stage::Disabled => return,
        };
        if !wanted {
            self.window = None;
            return;
        }
        let (kind, origin) = (self.settings.sliding_window, self.origin);
        self.window
            .get_or_insert_with(|| Window::new(kind, origin))
            .advance(now);
    }
}

impl From<CircuitState> for StateTarget {
    fn from(state: CircuitState) -> Self {
        match state {
            CircuitState::Closed => Self::Closed,
            CircuitState::Open => Self::Open,
            CircuitState::HalfOpen => Self::HalfOpen,
            CircuitState::ForcedOpen => Self::ForcedOpen,
            CircuitState::Disabled => Self::Disabled,
            CircuitState::MetricsOnly => Self::MetricsOnly,
        }
    }
}

/// What becomes due.
enum Step {
    HalfOpen,
    Lose(ProbeId),
    Expire(HalfOpenTimeoutAction),
}

/// An isolation that overflows the clock never ends by itself.
fn open_for(isolation: Duration, at: Instant) -> Stage {
    Stage::Open {
        until: at.checked_add(isolation),
    }
}
