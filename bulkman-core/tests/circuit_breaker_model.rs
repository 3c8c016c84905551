//! Random operations on a circuit breaker and on a plain model of it.
//!
//! The model keeps lists of outcomes and counts them again for every query.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulkman_core::circuit_breaker::{
    Admission, CircuitEvent, CircuitEvents, CircuitState, HalfOpenTimeoutAction, IsolationBackoff,
    SlidingWindow,
};
use bulkman_core::error::RejectionReason;
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, CircuitBreakerConfig, Outcome};
use futures_core::Stream;
use proptest::prelude::*;

/// The rules, in whole milliseconds and percent.
#[derive(Clone, Debug)]
struct Rules {
    streak: Option<u32>,
    failures: Option<u32>,
    failure_percent: Option<u64>,
    slow_percent: Option<u64>,
    slow_after: u64,
    minimum: u32,
    window: Window,
    half_open_policy: HalfOpenPolicy,
    isolation: u64,
    factor: u64,
    max: u64,
    probe_timeout: Option<u64>,
    max_half_open: Option<(u64, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Window {
    Count(u32),
    Time { bucket: u64, buckets: u32 },
}

#[derive(Clone, Copy, Debug)]
enum HalfOpenPolicy {
    Consecutive(u32),
    Sample(u32),
}

impl Rules {
    fn config(&self) -> CircuitBreakerConfig {
        let rate = |percent: u64| percent as f64 / 100.0;
        let mut config = CircuitBreakerConfig::new()
            .failure_threshold(self.streak)
            .failure_count_threshold(self.failures)
            .failure_rate_threshold(self.failure_percent.map(rate))
            .slow_call_rate_threshold(self.slow_percent.map(rate))
            .slow_call_duration_threshold(millis(self.slow_after))
            .minimum_number_of_calls(self.minimum)
            .sliding_window(match self.window {
                Window::Count(size) => SlidingWindow::Count(size),
                Window::Time { bucket, buckets } => SlidingWindow::Time {
                    length: millis(bucket) * buckets,
                    buckets,
                },
            })
            .isolation_duration(millis(self.isolation))
            .isolation_backoff(IsolationBackoff::new(self.factor as f64, millis(self.max)))
            .probe_timeout(self.probe_timeout.map_or(Duration::MAX, millis));
        config = match self.half_open_policy {
            HalfOpenPolicy::Consecutive(successes) => config.success_threshold(successes),
            HalfOpenPolicy::Sample(calls) => config.permitted_calls_in_half_open(calls),
        };
        if let Some((max, closes)) = self.max_half_open {
            let then = if closes {
                HalfOpenTimeoutAction::Closed
            } else {
                HalfOpenTimeoutAction::Open
            };
            config = config.max_half_open_duration(millis(max), then);
        }
        config
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Call {
    at: u64,
    failed: bool,
    slow: bool,
}

/// The expected behavior. Admissions are identified by numbers.
struct Model {
    rules: Rules,
    now: u64,
    state: CircuitState,
    since: u64,
    generation: u64,
    open_count: u32,
    until: Option<u64>,
    calls: Vec<Call>,
    /// Whether each outcome since the state began failed; while open, of the state before.
    failed: Vec<bool>,
    calls_at_open: Vec<Call>,
    rated_at_open: bool,
    probes: BTreeMap<usize, u64>,
    rejected: u64,
    transitions: Vec<(CircuitState, CircuitState, u64)>,
}

impl Model {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 0,
            state: CircuitState::Closed,
            since: 0,
            generation: 0,
            open_count: 0,
            until: None,
            calls: Vec::new(),
            failed: Vec::new(),
            calls_at_open: Vec::new(),
            rated_at_open: false,
            probes: BTreeMap::new(),
            rejected: 0,
            transitions: Vec::new(),
        }
    }

    /// Returns the calls that are counted, oldest first.
    fn counted(&self) -> Vec<Call> {
        match (self.state, self.rules.window) {
            (CircuitState::Open, _) => self.calls_at_open.clone(),
            (CircuitState::HalfOpen, _) => self.calls.clone(),
            (_, Window::Count(size)) => {
                let skipped = self.calls.len().saturating_sub(size as usize);
                self.calls[skipped..].to_vec()
            }
            (_, Window::Time { bucket, buckets }) => {
                let in_window =
                    |call: &&Call| call.at / bucket + u64::from(buckets) > self.now / bucket;
                self.calls.iter().filter(in_window).copied().collect()
            }
        }
    }

    fn minimum(&self) -> usize {
        match self.rules.window {
            Window::Count(size) => self.rules.minimum.min(size) as usize,
            Window::Time { .. } => self.rules.minimum as usize,
        }
    }

    fn rated(&self) -> bool {
        let enough = match (self.state, self.rules.half_open_policy) {
            (CircuitState::Open, _) => return self.rated_at_open,
            (CircuitState::HalfOpen, HalfOpenPolicy::Sample(calls)) => calls as usize,
            (CircuitState::HalfOpen, HalfOpenPolicy::Consecutive(calls)) => {
                self.minimum().min(calls as usize)
            }
            _ => self.minimum(),
        };
        let calls = self.counted().len();
        calls > 0 && calls >= enough
    }

    /// Returns the number of failures since the last success, in the window or not.
    fn streak(&self) -> usize {
        self.failed
            .iter()
            .rev()
            .take_while(|failed| **failed)
            .count()
    }

    fn trips(&self, calls: &[Call], streak: usize, cap: usize) -> bool {
        let failed = calls.iter().filter(|call| call.failed).count();
        let slow = calls.iter().filter(|call| call.slow).count();
        let reaches =
            |threshold: Option<u32>, n| threshold.is_some_and(|t| n >= (t as usize).min(cap));
        let rate = |percent: Option<u64>, n: usize| {
            calls.len() >= self.minimum().min(cap)
                && percent.is_some_and(|percent| n as u64 * 100 >= percent * calls.len() as u64)
        };
        reaches(self.rules.streak, streak)
            || reaches(self.rules.failures, failed)
            || rate(self.rules.failure_percent, failed)
            || rate(self.rules.slow_percent, slow)
    }

    fn enter(&mut self, state: CircuitState, until: Option<u64>, at: u64) {
        (self.calls_at_open, self.rated_at_open, self.until) =
            (self.counted(), self.rated(), until);
        if self.state != state {
            self.transitions.push((self.state, state, at));
        }
        (self.state, self.since, self.generation) = (state, at, self.generation + 1);
        if state == CircuitState::Closed {
            self.open_count = 0;
        }
        self.calls.clear();
        if state != CircuitState::Open {
            self.failed.clear();
        }
        self.probes.clear();
        self.rejected = 0;
    }

    fn open(&mut self, automatic: bool, at: u64) {
        let openings = if automatic {
            self.open_count
        } else {
            self.open_count.saturating_sub(1)
        };
        let grown = self
            .rules
            .isolation
            .saturating_mul(self.rules.factor.saturating_pow(openings));
        self.open_count += u32::from(automatic);
        self.enter(CircuitState::Open, Some(at + grown.min(self.rules.max)), at);
    }

    fn advance(&mut self) {
        loop {
            match self.state {
                CircuitState::Open if self.until.is_some_and(|until| until <= self.now) => {
                    self.enter(CircuitState::HalfOpen, None, self.now);
                }
                CircuitState::HalfOpen => {
                    let timeout = self.rules.probe_timeout.and_then(|timeout| {
                        self.probes
                            .iter()
                            .map(|(id, since)| (since + timeout, *id))
                            .min()
                    });
                    let expiry = self
                        .rules
                        .max_half_open
                        .map(|(max, closes)| (self.since + max, closes));
                    match (timeout, expiry) {
                        (Some((due, id)), expiry)
                            if due <= self.now && expiry.is_none_or(|expiry| due <= expiry.0) =>
                        {
                            self.probes.remove(&id);
                            let slow = self.rules.probe_timeout > Some(self.rules.slow_after);
                            self.probe_completed(Call {
                                at: due,
                                failed: true,
                                slow,
                            });
                        }
                        (_, Some((due, true))) if due <= self.now => {
                            self.enter(CircuitState::Closed, None, due);
                        }
                        (_, Some((due, false))) if due <= self.now => self.open(false, due),
                        _ => return,
                    }
                }
                _ => return,
            }
        }
    }

    fn probe_completed(&mut self, call: Call) {
        self.record(call);
        self.evaluate(call.at);
    }

    fn record(&mut self, call: Call) {
        self.calls.push(call);
        self.failed.push(call.failed);
    }

    fn evaluate(&mut self, at: u64) {
        let completed = self.calls.clone();
        match self.rules.half_open_policy {
            HalfOpenPolicy::Consecutive(_) if completed.iter().any(|call| call.failed) => {
                self.open(true, at)
            }
            HalfOpenPolicy::Consecutive(n) if completed.len() >= n as usize => {
                self.enter(CircuitState::Closed, None, at)
            }
            HalfOpenPolicy::Sample(n) if completed.len() >= n as usize => {
                let streak = completed
                    .split(|call| !call.failed)
                    .map(<[_]>::len)
                    .max()
                    .unwrap_or(0);
                if self.trips(&completed, streak, n as usize) {
                    self.open(true, at);
                } else {
                    self.enter(CircuitState::Closed, None, at);
                }
            }
            _ => {}
        }
    }

    fn slots(&self) -> usize {
        let (HalfOpenPolicy::Consecutive(n) | HalfOpenPolicy::Sample(n)) =
            self.rules.half_open_policy;
        (n as usize).saturating_sub(self.calls.len() + self.probes.len())
    }

    /// Admits a call and returns the generation, or the reason of the rejection as a letter.
    fn acquire(&mut self, id: usize) -> Result<u64, char> {
        self.advance();
        let reason = match self.state {
            CircuitState::Open => 'o',
            CircuitState::ForcedOpen => 'f',
            CircuitState::HalfOpen if self.slots() == 0 => 'p',
            CircuitState::HalfOpen => {
                self.probes.insert(id, self.now);
                return Ok(self.generation);
            }
            _ => return Ok(self.generation),
        };
        self.rejected += 1;
        Err(reason)
    }

    fn record_outcome(&mut self, id: usize, generation: u64, outcome: Outcome, ran: u64) {
        self.advance();
        if generation != self.generation {
            return;
        }
        let was_in_flight = self.probes.remove(&id).is_some();
        if matches!(outcome, Outcome::Ignored | Outcome::Overloaded) {
            return;
        }
        let call = Call {
            at: self.now,
            failed: outcome == Outcome::Failure,
            slow: ran > self.rules.slow_after,
        };
        match self.state {
            CircuitState::HalfOpen if was_in_flight => self.probe_completed(call),
            CircuitState::MetricsOnly => self.record(call),
            CircuitState::Closed => {
                self.record(call);
                if self.trips(&self.counted(), self.streak(), usize::MAX) {
                    self.open(true, self.now);
                }
            }
            _ => {}
        }
    }

    fn reconfigure(&mut self, rules: Rules) {
        self.advance();
        if matches!(self.state, CircuitState::Closed | CircuitState::MetricsOnly) {
            // A window that grows does not restore dropped outcomes. One that shrinks keeps its
            // newest part, and one that changes its kind keeps nothing.
            self.calls = self.counted();
            let same =
                std::mem::discriminant(&self.rules.window) == std::mem::discriminant(&rules.window);
            self.rules.window = rules.window;
            self.calls = if same { self.counted() } else { Vec::new() };
        }
        self.rules = rules;
        if self.state == CircuitState::HalfOpen {
            self.evaluate(self.now);
            self.advance();
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    Acquire,
    /// The index of the call in flight, its outcome and its duration.
    Record(usize, Outcome, u64),
    /// Admits a call and records its outcome.
    Call(Outcome, u64),
    Query,
    TransitionTo(CircuitState),
    OpenFor(u64),
    Reconfigure(Box<Rules>),
}

struct Pair<'a> {
    runtime: ManualRuntime,
    breaker: &'a CircuitBreaker,
    events: CircuitEvents,
    model: Model,
    in_flight: Vec<(usize, u64, Admission<'a>)>,
    admitted: usize,
    start: std::time::Instant,
}

impl<'a> Pair<'a> {
    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Wait(by) => {
                self.runtime.advance(millis(by));
                self.model.now += by;
            }
            Op::Acquire => {
                self.acquire()?;
            }
            Op::Record(which, outcome, ran) => {
                if !self.in_flight.is_empty() {
                    let which = which % self.in_flight.len();
                    self.record_outcome(which, outcome, ran);
                }
            }
            Op::Call(outcome, ran) => {
                if self.acquire()? {
                    self.record_outcome(self.in_flight.len() - 1, outcome, ran);
                }
            }
            Op::Query => {
                self.model.advance();
                prop_assert_eq!(self.breaker.state(), self.model.state);
            }
            Op::TransitionTo(state) => self.transition_to(state),
            Op::OpenFor(time) => {
                self.breaker.open_for(millis(time));
                self.model.advance();
                self.model.enter(
                    CircuitState::Open,
                    Some(self.model.now + time),
                    self.model.now,
                );
            }
            Op::Reconfigure(rules) => {
                self.breaker.reconfigure(&rules.config()).unwrap();
                self.model.reconfigure(*rules);
            }
        }
        Ok(())
    }

    fn acquire(&mut self) -> Result<bool, TestCaseError> {
        self.admitted += 1;
        let expected = self.model.acquire(self.admitted);
        match (self.breaker.try_acquire(), expected) {
            (Ok(admission), Ok(generation)) => {
                self.in_flight.push((self.admitted, generation, admission));
                Ok(true)
            }
            (Err(rejection), Err(expected)) => {
                let reason = match rejection.reason {
                    RejectionReason::Open => 'o',
                    RejectionReason::ProbeLimit => 'p',
                    RejectionReason::ForcedOpen => 'f',
                    _ => '?',
                };
                prop_assert_eq!(reason, expected);
                Ok(false)
            }
            (got, expected) => Err(TestCaseError::fail(format!(
                "expected {expected:?}, got {got:?}"
            ))),
        }
    }

    fn record_outcome(&mut self, which: usize, outcome: Outcome, ran: u64) {
        let (id, generation, admission) = self.in_flight.swap_remove(which);
        if outcome == Outcome::Ignored && ran % 2 == 0 {
            drop(admission);
        } else {
            admission.record_with_duration(outcome, millis(ran));
        }
        self.model.record_outcome(id, generation, outcome, ran);
    }

    fn transition_to(&mut self, state: CircuitState) {
        let model = &mut self.model;
        model.advance();
        match state {
            CircuitState::Open => model.open(false, model.now),
            state => model.enter(state, None, model.now),
        }
        match state {
            CircuitState::Closed => self.breaker.close(),
            CircuitState::Open => self.breaker.open(),
            CircuitState::HalfOpen => self.breaker.half_open(),
            CircuitState::ForcedOpen => self.breaker.force_open(),
            CircuitState::Disabled => self.breaker.disable(),
            _ => self.breaker.metrics_only(),
        }
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        let model = &mut self.model;
        model.advance();
        let snapshot = self.breaker.snapshot();
        let counts = snapshot.counts;
        prop_assert_eq!(snapshot.state, model.state);
        prop_assert_eq!(snapshot.age, millis(model.now - model.since));
        prop_assert_eq!(snapshot.open_count, model.open_count);
        prop_assert_eq!(snapshot.rejected_calls, model.rejected);
        prop_assert_eq!(
            snapshot.retry_after,
            model.until.map(|until| millis(until - model.now))
        );
        let half_open = model.state == CircuitState::HalfOpen;
        prop_assert_eq!(
            snapshot.probes_remaining,
            half_open.then(|| model.slots() as u32)
        );

        let calls = match model.state {
            CircuitState::Disabled | CircuitState::ForcedOpen => Vec::new(),
            _ => model.counted(),
        };
        let failed = calls.iter().filter(|call| call.failed).count() as u64;
        let slow = calls.iter().filter(|call| call.slow).count() as u64;
        prop_assert_eq!(
            (counts.calls, counts.failures, counts.slow_calls),
            (calls.len() as u64, failed, slow)
        );
        prop_assert_eq!(counts.consecutive_failures as usize, model.streak());
        prop_assert_eq!(counts.successes, counts.calls - counts.failures);
        let rated = model.rated() && !calls.is_empty();
        prop_assert_eq!(
            counts.failure_rate,
            rated.then(|| failed as f64 / calls.len() as f64)
        );
        prop_assert_eq!(
            counts.slow_call_rate,
            rated.then(|| slow as f64 / calls.len() as f64)
        );

        let mut transitions = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = pin!(&mut self.events).poll_next(&mut context) {
            let CircuitEvent::Transition(transition) = event else {
                return Err(TestCaseError::fail("a reader that keeps up loses no event"));
            };
            let at = transition.at.duration_since(self.start).as_millis() as u64;
            transitions.push((transition.from, transition.to, at));
        }
        prop_assert_eq!(transitions, std::mem::take(&mut model.transitions));
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_circuit_breaker_matches_the_model(
        rules in rules(),
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let runtime = ManualRuntime::new();
        let breaker = CircuitBreaker::new("model", rules.config(), runtime.clone()).unwrap();
        let mut pair = Pair {
            start: bulkman_core::Runtime::now(&runtime),
            runtime,
            breaker: &breaker,
            events: breaker.events(),
            model: Model::new(rules),
            in_flight: Vec::new(),
            admitted: 0,
        };
        for op in ops {
            pair.apply(op)?;
            pair.compare()?;
        }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let window = prop_oneof![
        (1_u32..12).prop_map(Window::Count),
        (1_u32..6).prop_map(|buckets| Window::Time {
            bucket: 10,
            buckets
        }),
    ];
    let half_open_policy = prop_oneof![
        (1_u32..4).prop_map(HalfOpenPolicy::Consecutive),
        (1_u32..5).prop_map(HalfOpenPolicy::Sample)
    ];
    let percent = || proptest::option::of(1_u64..=100);
    let thresholds = (
        proptest::option::weighted(0.3, 1_u32..6),
        proptest::option::weighted(0.3, 1_u32..6),
        percent(),
        percent(),
        0_u64..3,
        1_u32..8,
    );
    let times = (
        1_u64..40,
        1_u64..4,
        40_u64..200,
        proptest::option::weighted(0.7, 1_u64..40),
        proptest::option::weighted(0.3, (1_u64..60, any::<bool>())),
    );
    (thresholds, window, half_open_policy, times).prop_map(
        |(thresholds, window, half_open_policy, times)| {
            let (streak, mut failures, failure_percent, slow_percent, slow_after, minimum) =
                thresholds;
            let (isolation, factor, max, probe_timeout, max_half_open) = times;
            if let Window::Count(size) = window {
                failures = failures.map(|failures| failures.min(size));
            }
            Rules {
                streak,
                failures,
                failure_percent,
                slow_percent,
                slow_after: 10 * (slow_after + 1),
                minimum,
                window,
                half_open_policy,
                isolation,
                factor,
                max,
                probe_timeout,
                max_half_open,
            }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = || {
        prop_oneof![
            4 => Just(Outcome::Failure),
            5 => Just(Outcome::Success),
            1 => Just(Outcome::Ignored),
            1 => Just(Outcome::Overloaded),
        ]
    };
    let state = prop_oneof![
        Just(CircuitState::Closed),
        Just(CircuitState::Open),
        Just(CircuitState::HalfOpen),
        Just(CircuitState::ForcedOpen),
        Just(CircuitState::Disabled),
        Just(CircuitState::MetricsOnly),
    ];
    prop_oneof![
        6 => (0_u64..25).prop_map(Op::Wait),
        6 => Just(Op::Acquire),
        6 => (any::<usize>(), outcome(), 0_u64..50).prop_map(|(which, o, ran)| Op::Record(which, o, ran)),
        8 => (outcome(), 0_u64..50).prop_map(|(outcome, ran)| Op::Call(outcome, ran)),
        1 => Just(Op::Query),
        2 => state.prop_map(Op::TransitionTo),
        1 => (0_u64..60).prop_map(Op::OpenFor),
        1 => rules().prop_map(|rules| Op::Reconfigure(Box::new(rules))),
    ]
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
