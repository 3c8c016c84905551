//! The state machine of a circuit: no lock, no clock, no async. The time is an argument.

mod fleet;
mod lease_demand;

use std::time::{Duration, Instant};

use super::circuit_state::CircuitState;
use super::config::HalfOpenTimeoutAction;
use super::counts::{CircuitCounts, Sample, Tally};
use super::packed_state::{Flags, PackedState};
use super::probes::{ProbeId, Probes};
use super::resolved::{HalfOpenPolicy, ResolvedCircuitBreakerConfig};
use super::transition::{Change, TransitionCause};
use super::window::{Window, WindowChange};
use crate::call::outcome::Outcome;
use crate::error::{CircuitOpen, RejectionReason};
use crate::random::Random;

use self::fleet::FleetSync;
pub(crate) use self::fleet::{FleetTarget, Gate, Observation, ProbeOutcome};

/// The state machine of one circuit.
///
/// Its methods fall into four groups:
///
/// * *Queries* read the state and take no time: [`state`](Self::state),
///   [`open_until`](Self::open_until), [`next_due`](Self::next_due),
///   [`probes_remaining`](Self::probes_remaining) and others.
///   [`packed_state`](Self::packed_state) is what calls read without a lock. Only
///   [`counts`](Self::counts) takes `now`, to drop outcomes that have left a time window.
/// * *Inputs* take `now`. Calls: [`check`](Self::check), [`admit`](Self::admit),
///   [`record`](Self::record), [`open_by_rule`](Self::open_by_rule),
///   [`observe_hanging`](Self::observe_hanging). Changes:
///   [`transition_to`](Self::transition_to), [`half_open_early`](Self::half_open_early),
///   [`reconfigure`](Self::reconfigure). Time: [`advance`](Self::advance).
/// * *Fleet inputs* are called by the driver of a fleet: [`observe`](Self::observe),
///   [`adopt`](Self::adopt), [`set_gate`](Self::set_gate) and others; see `fleet.rs`.
/// * *Outputs* return what has accumulated and clear it: [`take_dirty`](Self::take_dirty),
///   [`take_notification`](Self::take_notification), [`take_changes`](Self::take_changes).
///
/// The order of calls: any number of inputs; then `take_dirty`. If it returns `true`, call
/// `take_notification`, then `next_due` to set the timer, then read `packed_state`, and call
/// `take_changes` if the generation has changed.
///
/// Every input first performs the transitions that are due: an isolation that has elapsed, a probe
/// that has timed out, a half-open state that has lasted too long. The last two take effect at
/// their due time, whenever they are detected. Half-open begins when the end of the isolation is
/// detected: its duration is meant for probes, and before that there were none.
///
/// Every state entered begins a new generation. An outcome carries the generation of its admission
/// and is dropped if that is not the current one.
#[derive(Debug)]
pub(crate) struct Machine {
    config: ResolvedCircuitBreakerConfig,
    state: MachineState,
    since: Instant,
    pub(super) generation: u64,
    /// When the circuit was created; the grid of time windows starts here.
    origin: Instant,
    window: Option<Window>,
    consecutive_failures: u32,
    /// The number of calls in flight that were slow when it was observed last.
    hanging: u32,
    /// The rules or the tally have changed since the rules were evaluated.
    needs_evaluation: bool,
    /// The counts that opened the circuit, readable while it is open.
    counts_at_open: Option<Box<CircuitCounts>>,
    /// Automatic openings since the last close.
    open_count: u32,
    random: Random,
    changes: Vec<Change>,
    /// Whether the packed state or the next due time may have changed.
    dirty: bool,
    fleet: FleetSync,
}

/// A [`CircuitState`] with the data that belongs to it.
#[derive(Debug)]
enum MachineState {
    Closed,
    /// `until` is `None` if the isolation never elapses.
    Open {
        until: Option<Instant>,
    },
    HalfOpen(Probes),
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

/// The result of [`Machine::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Recorded {
    /// The outcome was recorded or dropped.
    Done,
    /// The outcome was recorded and tripped a rule: call [`Machine::open_by_rule`] with the time.
    RuleTripped(TransitionCause),
    /// The outcome was not recorded: call again with the time.
    NeedsClock,
}

/// A state to enter on request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ManualTarget {
    Closed,
    Open,
    OpenFor(Duration),
    HalfOpen,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

impl Machine {
    pub(crate) fn new(config: ResolvedCircuitBreakerConfig, seed: u64, now: Instant) -> Self {
        let initial = config.initial_state;
        let mut machine = Self {
            config,
            state: MachineState::Disabled,
            since: now,
            generation: 0,
            origin: now,
            window: None,
            consecutive_failures: 0,
            hanging: 0,
            needs_evaluation: false,
            counts_at_open: None,
            open_count: 0,
            random: Random::new(seed),
            changes: Vec::new(),
            dirty: true,
            fleet: FleetSync::default(),
        };
        machine.enter_manually(ManualTarget::from(initial), TransitionCause::Manual, now);
        machine.changes = Vec::new();
        machine
    }

    /// Performs all transitions that are due.
    pub(crate) fn advance(&mut self, now: Instant) {
        if now < self.since {
            self.step_back(now);
        }
        while let Some((due, step)) = self.next_step() {
            if now < due {
                return;
            }
            match step {
                Step::HalfOpen => {
                    self.enter(
                        MachineState::HalfOpen(Probes::default()),
                        TransitionCause::IsolationElapsed,
                        now,
                    );
                }
                Step::ExpireProbe(probe) => self.expire_probe(probe, due),
                Step::ExpireHalfOpen(HalfOpenTimeoutAction::Open) => {
                    self.open_without_backoff(TransitionCause::HalfOpenTimedOut, due)
                }
                Step::ExpireHalfOpen(HalfOpenTimeoutAction::Closed) => {
                    self.enter(MachineState::Closed, TransitionCause::HalfOpenTimedOut, due);
                }
            }
        }
    }

    /// The clock is behind the beginning of the state: it stepped back, or is another one.
    ///
    /// What was to last for some time after the beginning lasts for as long from now on. Otherwise
    /// the difference between the clocks would be added to it.
    #[cold]
    fn step_back(&mut self, now: Instant) {
        match &mut self.state {
            MachineState::Open { until: Some(until) } => {
                *until = now
                    .checked_add(until.saturating_duration_since(self.since))
                    .unwrap_or(*until);
            }
            MachineState::HalfOpen(probes) => probes.not_after(now),
            // Nothing depends on when it began.
            _ => return,
        }
        self.since = now;
        self.dirty = true;
    }

    /// Checks whether a call would be admitted now.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), CircuitOpen> {
        self.advance(now);
        match &self.state {
            MachineState::Closed | MachineState::Disabled | MachineState::MetricsOnly => Ok(()),
            MachineState::Open { until } => Err(CircuitOpen::new(
                RejectionReason::Open,
                until.map(|until| until.saturating_duration_since(now)),
            )),
            MachineState::ForcedOpen => Err(CircuitOpen::new(RejectionReason::ForcedOpen, None)),
            MachineState::HalfOpen(probes) if self.available_probes(probes) > 0 => Ok(()),
            MachineState::HalfOpen(_) => Err(self.reject_probe(now)),
        }
    }

    /// Admits a call; while half-open, as a probe.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Option<ProbeId>, CircuitOpen> {
        self.check(now)?;
        match &mut self.state {
            MachineState::HalfOpen(probes) => {
                self.dirty = true;
                Ok(Some(probes.admit(now)))
            }
            _ => Ok(None),
        }
    }

    /// The time with which this probe was admitted was an argument.
    pub(crate) fn set_given_time(&mut self, probe: Option<ProbeId>) {
        if let (MachineState::HalfOpen(probes), Some(probe)) = (&mut self.state, probe) {
            probes.set_given_time(probe);
        }
    }

    /// Records the outcome of a call that was admitted in `generation`.
    ///
    /// `now` may be `None` to save a reading of the clock: see [`Recorded`].
    #[inline]
    pub(crate) fn record(
        &mut self,
        generation: u64,
        probe: Option<ProbeId>,
        outcome: Outcome,
        ran: Option<Duration>,
        now: Option<Instant>,
    ) -> Recorded {
        if let Some(now) = now {
            self.advance(now);
        }
        if generation != self.generation {
            return Recorded::Done;
        }
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored | Outcome::Overloaded => {
                self.release_probe(probe);
                return Recorded::Done;
            }
        };
        let sample = Sample {
            failed,
            slow: self.config.is_slow(ran),
        };
        match (&self.state, now) {
            (MachineState::Closed | MachineState::MetricsOnly, _) => self.record_call(sample, now),
            (MachineState::HalfOpen(_), Some(now)) => {
                if self.release_probe(probe) {
                    self.record_probe(sample, TransitionCause::ProbeFailed, now);
                }
                Recorded::Done
            }
            (MachineState::HalfOpen(_), None) => Recorded::NeedsClock,
            (MachineState::Open { .. } | MachineState::ForcedOpen | MachineState::Disabled, _) => {
                Recorded::Done
            }
        }
    }

    /// Ends a probe that was cancelled. It has no outcome and releases its slot.
    ///
    /// Probes that are cancelled one after another, because their callers time out before the
    /// dependency responds, count together as one that timed out.
    ///
    /// This does not hold for probes whose time was an argument: `now` is that of the runtime.
    pub(crate) fn cancel_probe(&mut self, generation: u64, probe: ProbeId, now: Instant) {
        if let MachineState::HalfOpen(probes) = &self.state {
            if generation == self.generation && probes.is_at_given_time(probe) {
                self.release_probe(Some(probe));
                return;
            }
        }
        self.advance(now);
        let MachineState::HalfOpen(probes) = &mut self.state else {
            return;
        };
        if generation != self.generation {
            return;
        }
        let Some(ran) = probes.cancel(probe, now) else {
            return;
        };
        self.dirty = true;
        if probes.cancelled_too_long(self.config.probe_timeout) {
            let slow = self.config.is_slow(Some(ran));
            let failed = Sample { failed: true, slow };
            self.record_probe(failed, TransitionCause::ProbeTimedOut, now);
        }
    }

    /// Opens after [`Recorded::RuleTripped`], unless the state has changed since.
    pub(crate) fn open_by_rule(&mut self, generation: u64, cause: TransitionCause, now: Instant) {
        if generation == self.generation && matches!(self.state, MachineState::Closed) {
            self.open_automatically(cause, now);
        }
    }

    /// Sets the number of calls in flight that are slow, and evaluates the rules that count them.
    ///
    /// The caller counts calls of the current generation only.
    pub(crate) fn observe_hanging(&mut self, hanging: u32, now: Instant) {
        self.hanging = hanging;
        if !matches!(self.state, MachineState::Closed) {
            return;
        }
        let threshold = self.config.hanging_call_threshold;
        if threshold.is_some_and(|threshold| hanging >= threshold) {
            self.open_automatically(TransitionCause::HangingCalls, now);
        } else if hanging > 0 && self.config.count_calls_in_flight {
            if let Some(window) = &mut self.window {
                window.advance(now);
            }
            let tally = self.tally_with_hanging();
            let rate = self.config.slow_call_rate_threshold;
            if self.is_rated(tally) && rate.is_some_and(|rate| tally.slow_reach(rate)) {
                self.open_automatically(TransitionCause::SlowCallRate, now);
            }
        }
    }

    /// Enters a state on request. Entering the current state restarts it, without a transition.
    pub(crate) fn transition_to(&mut self, target: ManualTarget, now: Instant) {
        self.advance(now);
        self.enter_manually(target, TransitionCause::Manual, now);
    }

    /// Begins half-open before the isolation has elapsed, because a health check succeeded.
    ///
    /// Returns `true` if the circuit was open. If it is half-open in a fleet, the success counts as
    /// a probe.
    pub(crate) fn half_open_early(&mut self, now: Instant) -> bool {
        self.advance(now);
        let open = matches!(self.state, MachineState::Open { .. });
        if open {
            self.enter(
                MachineState::HalfOpen(Probes::default()),
                TransitionCause::HealthCheck,
                now,
            );
        } else {
            self.probe_by_health_check(now);
        }
        open
    }

    /// Replaces the rules. Keeps the state, a running isolation and the window.
    pub(crate) fn reconfigure(&mut self, config: ResolvedCircuitBreakerConfig, now: Instant) {
        self.advance(now);
        self.dirty = true;
        self.needs_evaluation = true;
        self.config = config;
        self.hanging = 0;
        let kind = self.config.sliding_window;
        if let Some(window) = &mut self.window {
            window.advance(now);
            window.reshape(kind, self.origin);
        }
        self.fit_window(now);
        // If fewer probes are required now, those that have completed may be enough.
        self.evaluate_probes(TransitionCause::ProbeFailed, now);
        self.advance(now);
    }

    /// Returns the counts at `now`.
    pub(crate) fn counts(&mut self, now: Instant) -> CircuitCounts {
        match &self.state {
            MachineState::Closed | MachineState::MetricsOnly => {
                let tally = self.window.as_mut().map_or_else(Tally::default, |window| {
                    window.advance(now);
                    window.tally()
                });
                let rated = self.is_rated(tally);
                let mut counts = CircuitCounts::new(tally, self.consecutive_failures, rated);
                counts.hanging_calls = u64::from(self.hanging);
                if self.hanging > 0 && self.config.count_calls_in_flight {
                    let tally = self.tally_with_hanging();
                    counts.slow_call_rate = self.is_rated(tally).then(|| tally.slow_rate());
                }
                counts
            }
            MachineState::HalfOpen(probes) => {
                let calls = probes.completed().calls;
                let rated = match self.config.half_open_policy {
                    HalfOpenPolicy::Sample { calls: all } => calls >= u64::from(all),
                    HalfOpenPolicy::Consecutive { successes } => {
                        calls >= u64::from(self.config.minimum_number_of_calls.min(successes))
                    }
                };
                CircuitCounts::new(probes.completed(), probes.streak(), rated)
            }
            MachineState::Open { .. } => {
                self.counts_at_open.as_deref().copied().unwrap_or_default()
            }
            MachineState::ForcedOpen | MachineState::Disabled => CircuitCounts::default(),
        }
    }

    pub(crate) fn state(&self) -> CircuitState {
        match self.state {
            MachineState::Closed => CircuitState::Closed,
            MachineState::Open { .. } => CircuitState::Open,
            MachineState::HalfOpen(_) => CircuitState::HalfOpen,
            MachineState::ForcedOpen => CircuitState::ForcedOpen,
            MachineState::Disabled => CircuitState::Disabled,
            MachineState::MetricsOnly => CircuitState::MetricsOnly,
        }
    }

    /// Returns the state as calls read it.
    pub(crate) fn packed_state(&self) -> PackedState {
        let counts = matches!(self.state, MachineState::Closed | MachineState::MetricsOnly);
        let half_open = matches!(self.state, MachineState::HalfOpen(_));
        let needs_duration =
            (counts || half_open) && self.config.slow_call_duration_threshold.is_some();
        let flags = Flags {
            records_success: half_open || counts && self.success_matters(),
            needs_duration,
            needs_clock: half_open || counts && matches!(self.window, Some(Window::Time(_))),
            counts_in_flight: needs_duration && counts && self.config.counts_in_flight(),
        };
        PackedState::new(self.state(), self.generation, flags)
    }

    /// Returns the end of the isolation; `None` unless the circuit is open, or if it has no end.
    pub(crate) fn open_until(&self) -> Option<Instant> {
        match self.state {
            MachineState::Open { until } => until,
            _ => None,
        }
    }

    /// Returns how long the circuit stays open in total; zero unless it is open until an instant.
    pub(crate) fn isolation_in_force(&self) -> Duration {
        self.open_until().map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(self.since)
        })
    }

    /// Returns when the next transition is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next_step().map(|(due, _)| due)
    }

    /// Returns the number of probes that can be admitted now; `None` unless half-open.
    pub(crate) fn probes_remaining(&self) -> Option<u32> {
        match &self.state {
            MachineState::HalfOpen(probes) => Some(self.available_probes(probes)),
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

    pub(crate) fn config(&self) -> &ResolvedCircuitBreakerConfig {
        &self.config
    }

    /// Returns `true` if something that others read may have changed since the last call.
    #[inline]
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Returns the transitions since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Returns the counts as if the calls that hang ended now.
    fn tally_with_hanging(&self) -> Tally {
        self.window
            .as_ref()
            .map_or_else(Tally::default, |it| it.tally_with_slow(self.hanging))
    }

    /// Returns `true` if there are enough calls in the window to compute rates.
    fn is_rated(&self, tally: Tally) -> bool {
        tally.calls >= u64::from(self.config.minimum_number_of_calls)
    }

    fn next_step(&self) -> Option<(Instant, Step)> {
        match &self.state {
            MachineState::Open { until } => until.map(|until| (until, Step::HalfOpen)),
            MachineState::HalfOpen(probes) => {
                let probe = probes
                    .next_timeout(self.config.probe_timeout)
                    .map(|(due, probe)| (due, Step::ExpireProbe(probe)));
                let half_open = self
                    .config
                    .max_half_open_duration
                    .and_then(|(duration, then)| {
                        self.since
                            .checked_add(duration)
                            .map(|due| (due, Step::ExpireHalfOpen(then)))
                    });
                match (probe, half_open) {
                    (Some(probe), Some(half_open)) => Some(if probe.0 <= half_open.0 {
                        probe
                    } else {
                        half_open
                    }),
                    (probe, half_open) => probe.or(half_open),
                }
            }
            _ => None,
        }
    }

    /// Returns `true` if a success that is not slow has an effect while outcomes are counted.
    #[inline]
    fn success_matters(&self) -> bool {
        self.consecutive_failures > 0 || self.window.as_ref().is_some_and(Window::records_success)
    }

    /// Records an outcome while closed or metrics-only.
    #[inline]
    fn record_call(&mut self, sample: Sample, now: Option<Instant>) -> Recorded {
        let change = self
            .window
            .as_mut()
            .map_or(WindowChange::Unchanged, |it| it.record(sample, now));
        if change == WindowChange::NeedsTime {
            return Recorded::NeedsClock;
        }
        let streak = if sample.failed {
            self.consecutive_failures.saturating_add(1)
        } else {
            0
        };
        // This may change whether the next success has an effect.
        self.dirty |=
            change == WindowChange::Count || (streak == 0) != (self.consecutive_failures == 0);
        self.consecutive_failures = streak;
        let same = change == WindowChange::Unchanged && streak == 0 && !self.needs_evaluation;
        if same || !matches!(self.state, MachineState::Closed) {
            return Recorded::Done;
        }
        self.needs_evaluation = false;
        let tally = self
            .window
            .as_ref()
            .map_or_else(Tally::default, Window::tally);
        match (
            self.config
                .tripped_rule(tally, self.consecutive_failures, u32::MAX),
            now,
        ) {
            (Some(cause), Some(now)) => {
                self.open_automatically(cause, now);
                Recorded::Done
            }
            (Some(cause), None) => {
                self.needs_evaluation = true;
                Recorded::RuleTripped(cause)
            }
            (None, _) => Recorded::Done,
        }
    }

    fn record_probe(&mut self, sample: Sample, failure: TransitionCause, at: Instant) {
        if let MachineState::HalfOpen(probes) = &mut self.state {
            probes.record(sample);
        }
        if !self.forward_outcome(sample) {
            self.evaluate_probes(failure, at);
        }
    }

    /// Ends half-open if the completed probes decide it.
    fn evaluate_probes(&mut self, failure: TransitionCause, at: Instant) {
        let MachineState::HalfOpen(probes) = &self.state else {
            return;
        };
        if self.is_decided_by_fleet() {
            return;
        }
        let completed = probes.completed();
        let policy = self.config.half_open_policy;
        let decision = policy.decide(completed.calls, completed.failures, failure, || {
            self.config
                .tripped_rule(completed, probes.max_streak(), policy.probes())
        });
        match decision {
            None => {}
            Some(Ok(())) => {
                self.enter(MachineState::Closed, TransitionCause::ProbesSucceeded, at);
            }
            Some(Err(cause)) => self.open_automatically(cause, at),
        }
    }

    fn expire_probe(&mut self, probe: ProbeId, at: Instant) {
        self.release_probe(Some(probe));
        let slow = self.config.is_slow(Some(self.config.probe_timeout));
        self.record_probe(
            Sample { failed: true, slow },
            TransitionCause::ProbeTimedOut,
            at,
        );
    }

    /// Releases the slot of a probe; `false` if it holds none (any more).
    fn release_probe(&mut self, probe: Option<ProbeId>) -> bool {
        match (&mut self.state, probe) {
            (MachineState::HalfOpen(probes), Some(probe)) => {
                self.dirty = true;
                probes.release(probe)
            }
            _ => false,
        }
    }

    /// Opens by decision of the circuit, which raises the next isolation.
    fn open_automatically(&mut self, cause: TransitionCause, at: Instant) {
        let isolation = self.isolation(self.open_count);
        self.open_count = self.open_count.saturating_add(1);
        self.enter(open_for(isolation, at), cause, at);
    }

    /// Opens for the isolation in force, because nothing new is known about the dependency.
    fn open_without_backoff(&mut self, cause: TransitionCause, at: Instant) {
        let isolation = self.isolation(self.open_count.saturating_sub(1));
        self.enter(open_for(isolation, at), cause, at);
    }

    fn isolation(&mut self, openings: u32) -> Duration {
        let random = &mut self.random;
        self.config
            .isolation
            .duration(openings, || random.next_f64())
    }

    fn enter_manually(&mut self, target: ManualTarget, cause: TransitionCause, at: Instant) {
        let state = match target {
            ManualTarget::Open => return self.open_without_backoff(cause, at),
            ManualTarget::OpenFor(duration) => open_for(duration, at),
            ManualTarget::Closed => MachineState::Closed,
            ManualTarget::HalfOpen => MachineState::HalfOpen(Probes::default()),
            ManualTarget::ForcedOpen => MachineState::ForcedOpen,
            ManualTarget::Disabled => MachineState::Disabled,
            ManualTarget::MetricsOnly => MachineState::MetricsOnly,
        };
        self.enter(state, cause, at);
    }

    fn enter(&mut self, state: MachineState, cause: TransitionCause, at: Instant) {
        let from = self.state();
        let counts = self.counts(at);
        self.state = state;
        self.since = at;
        self.generation = PackedState::next_generation(self.generation);
        self.on_state_entered(cause);
        self.dirty = true;
        self.counts_at_open =
            matches!(self.state, MachineState::Open { .. }).then(|| Box::new(counts));
        self.consecutive_failures = 0;
        self.hanging = 0;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        self.fit_window(at);
        if matches!(self.state, MachineState::Closed) {
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

    /// Creates or drops the window, depending on whether the state counts outcomes in one.
    fn fit_window(&mut self, now: Instant) {
        let wanted = match self.state {
            MachineState::Closed => self.config.window_in_use,
            // Metrics-only exists for its counts, whatever the rules are.
            MachineState::MetricsOnly => true,
            // Kept, empty, until the circuit closes.
            MachineState::Open { .. }
            | MachineState::HalfOpen(_)
            | MachineState::ForcedOpen
            | MachineState::Disabled => return,
        };
        if !wanted {
            self.window = None;
            return;
        }
        let (kind, origin) = (self.config.sliding_window, self.origin);
        self.window
            .get_or_insert_with(|| Window::new(kind, origin))
            .advance(now);
    }
}

impl From<CircuitState> for ManualTarget {
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

/// A transition that becomes due.
enum Step {
    HalfOpen,
    ExpireProbe(ProbeId),
    ExpireHalfOpen(HalfOpenTimeoutAction),
}

/// Returns the open state; an isolation that overflows the clock never elapses.
fn open_for(isolation: Duration, at: Instant) -> MachineState {
    MachineState::Open {
        until: at.checked_add(isolation),
    }
}
