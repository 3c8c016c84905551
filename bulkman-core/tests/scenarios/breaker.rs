//! Scenarios of kind `breaker`.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman::circuit_breaker::{
    Admission, CircuitEvent, CircuitEvents, CircuitSnapshot, CircuitState, HalfOpenTimeoutAction,
    IsolationBackoff, SlidingWindow,
};
use bulkman::error::{CircuitOpen, RejectionReason};
use bulkman::testing::ManualRuntime;
use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
use futures_lite::Stream;

use crate::Runner;
use crate::parse::{Expected, Step, millis, number, times};

/// The source of the time.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Clock {
    /// The circuit reads the clock of its runtime.
    Runtime,
    /// The time is passed to every method that accepts it.
    Argument,
}

/// Runs one scenario.
pub(crate) struct BreakerRunner {
    clock: Clock,
    runtime: ManualRuntime,
    breaker: &'static CircuitBreaker,
    events: CircuitEvents,
    in_flight: HashMap<String, Admission<'static>>,
    /// Admissions that lost their name to a later one and are still in flight.
    renamed: Vec<Admission<'static>>,
    result: Option<Result<(), CircuitOpen>>,
}

impl BreakerRunner {
    pub(crate) fn new(cfg: &[(String, String)], clock: Clock) -> Result<Self, String> {
        let runtime = ManualRuntime::new();
        let config = config(cfg)?;
        let breaker =
            CircuitBreaker::new("scenario", config, runtime.clone()).map_err(|e| e.to_string())?;
        // Leaked, so that its admissions can be stored in the same struct.
        let breaker: &'static _ = Box::leak(Box::new(breaker));
        let events = breaker.events();
        Ok(Self {
            clock,
            runtime,
            breaker,
            events,
            in_flight: HashMap::new(),
            renamed: Vec::new(),
            result: None,
        })
    }

    fn act(&mut self, op: &str, args: &[&str]) -> Result<(), String> {
        match (op, args) {
            ("acquire", [name]) => {
                let admitted = self.acquire();
                self.keep((*name).to_owned(), admitted);
            }
            ("acquire", [name, n]) => {
                for i in 0..times(n).ok_or_else(|| format!("unknown argument {n:?}"))?? {
                    let admitted = self.acquire();
                    self.keep(format!("{name}{i}"), admitted);
                }
            }
            ("ok" | "err" | "ign" | "drop" | "panic", [name, rest @ ..]) => {
                let options = Options::parse(rest, false)?;
                let admission = self
                    .in_flight
                    .remove(*name)
                    .ok_or_else(|| format!("{name} is not in flight"))?;
                self.record(admission, op, options.ran)?;
            }
            ("rec" | "call", [how, rest @ ..]) => {
                if *how == "ign" && op == "rec" {
                    return Err("rec takes ok or err".into());
                }
                let options = Options::parse(rest, true)?;
                for _ in 0..options.times {
                    if let Some(admission) = self.acquire() {
                        self.record(admission, how, options.ran)?;
                    }
                }
            }
            ("force", [state, rest @ ..]) => self.force(state, rest)?,
            ("reset", []) => self.breaker.close(),
            ("get", []) => {}
            _ => return Err(format!("unknown operation {op} {args:?}")),
        }
        Ok(())
    }

    fn acquire(&mut self) -> Option<Admission<'static>> {
        let result = match self.clock {
            Clock::Runtime => self.breaker.try_acquire(),
            Clock::Argument => self.breaker.try_acquire_at(self.runtime.now()),
        };
        match result {
            Ok(admission) => {
                self.result = Some(Ok(()));
                Some(admission)
            }
            Err(rejection) => {
                self.result = Some(Err(rejection));
                None
            }
        }
    }

    fn keep(&mut self, name: String, admission: Option<Admission<'static>>) {
        if let Some(admission) = admission {
            self.renamed.extend(self.in_flight.insert(name, admission));
        }
    }

    fn record(
        &self,
        admission: Admission<'static>,
        how: &str,
        ran: Option<Duration>,
    ) -> Result<(), String> {
        let outcome = match (how, ran) {
            ("ok", _) => Outcome::Success,
            ("err", _) => Outcome::Failure,
            ("ign", _) => Outcome::Ignored,
            ("drop", _) => {
                drop(admission);
                return Ok(());
            }
            ("panic", None) => {
                let unwound = catch_unwind(AssertUnwindSafe(|| {
                    let _admission = admission;
                    resume_unwind(Box::new("operation"));
                }));
                return unwound.err().map(drop).ok_or_else(|| "no panic".into());
            }
            // An admission dropped by a panic can't be given a duration.
            ("panic", Some(_)) => Outcome::Failure,
            _ => return Err(format!("unknown outcome {how:?}")),
        };
        match (ran, self.clock) {
            (Some(ran), Clock::Argument) => admission.record_at(outcome, ran, self.runtime.now()),
            (Some(ran), Clock::Runtime) => admission.record_with_duration(outcome, ran),
            (None, _) => admission.record(outcome),
        }
        Ok(())
    }

    fn force(&self, state: &str, rest: &[&str]) -> Result<(), String> {
        let breaker = self.breaker;
        match (state, rest) {
            ("open", [how]) => {
                let duration = match how.split_once('=') {
                    Some(("for", duration)) => millis(duration)?,
                    Some(("until", instant)) => {
                        millis(instant)?.saturating_sub(self.runtime.elapsed())
                    }
                    _ => return Err(format!("unknown argument {how:?}")),
                };
                breaker.open_for(duration);
            }
            ("open", []) => breaker.open(),
            ("closed", []) => breaker.close(),
            ("half_open", []) => breaker.half_open(),
            ("forced_open" | "isolated", []) => breaker.force_open(),
            ("disabled", []) => breaker.disable(),
            ("metrics_only", []) => breaker.metrics_only(),
            _ => return Err(format!("unknown state {state} {rest:?}")),
        }
        Ok(())
    }

    fn check(
        &self,
        snapshot: &CircuitSnapshot,
        events: &str,
        expected: &Expected,
    ) -> Result<(), String> {
        let Expected { key, value } = expected;
        let Some(value) = value else {
            let result = match &self.result {
                None => "no result",
                Some(Ok(())) => "ok",
                Some(Err(rejection)) => match rejection.reason {
                    RejectionReason::Open => "reject:open",
                    RejectionReason::ProbeLimit => "reject:probes",
                    RejectionReason::ForcedOpen if key == "reject:isolated" => "reject:isolated",
                    RejectionReason::ForcedOpen => "reject:forced",
                    _ => "reject:?",
                },
            };
            let known = [
                "ok",
                "reject:open",
                "reject:probes",
                "reject:forced",
                "reject:isolated",
            ];
            return if !known.contains(&key.as_str()) {
                Err(format!("unknown expectation {key:?}"))
            } else if result == key {
                Ok(())
            } else {
                Err(format!("expected {key}, got {result}"))
            };
        };
        let counts = &snapshot.counts;
        let percent = |rate: Option<f64>| rate.map_or(-1.0, |rate| rate * 100.0);
        match key.as_str() {
            "state" => same(key, value, state(value)?, snapshot.state),
            "n" => same(key, value, number(value)?, counts.calls),
            "f" => same(key, value, number(value)?, counts.failures),
            "s" => same(key, value, number(value)?, counts.successes),
            "slow_n" => same(key, value, number(value)?, counts.slow_calls),
            "rate" => near(key, value, percent(counts.failure_rate)),
            "slow" => near(key, value, percent(counts.slow_call_rate)),
            "np" => same(key, value, number(value)?, snapshot.rejected_calls),
            "cf" => same(key, value, number(value)?, counts.consecutive_failures),
            "retry_after" => {
                let got = snapshot.retry_after.unwrap_or_default();
                // Backoff is computed in floating point.
                let difference = got.abs_diff(millis(value)?);
                if difference < Duration::from_micros(1) {
                    Ok(())
                } else {
                    Err(format!("expected {key}={value}, got {got:?}"))
                }
            }
            "permits" => same(key, value, Some(number(value)?), snapshot.probes_remaining),
            "ev" => same(key, value, value.as_str(), events),
            _ => Err(format!("unknown expectation {key:?}")),
        }
    }

    /// Returns the transitions since the last step.
    fn take_events(&mut self) -> Result<String, String> {
        let mut transitions = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = pin!(&mut self.events).poll_next(&mut context) {
            match event {
                CircuitEvent::Transition(transition) => {
                    transitions.push(format!("state:{}->{}", transition.from, transition.to));
                }
                other => return Err(format!("unexpected event {other:?}")),
            }
        }
        Ok(if transitions.is_empty() {
            "none".into()
        } else {
            transitions.join(",")
        })
    }

    fn snapshot(&self) -> CircuitSnapshot {
        let now: Instant = self.runtime.now();
        let state = match self.clock {
            Clock::Runtime => self.breaker.state(),
            Clock::Argument => self.breaker.state_at(now),
        };
        let snapshot = match self.clock {
            Clock::Runtime => self.breaker.snapshot(),
            Clock::Argument => self.breaker.snapshot_at(now),
        };
        assert_eq!(snapshot.state, state, "state and snapshot differ");
        snapshot
    }
}

impl Runner for BreakerRunner {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.runtime.advance_to(step.at);
        let args: Vec<_> = step.args.iter().map(String::as_str).collect();
        self.act(&step.op, &args)?;
        let snapshot = self.snapshot();
        if let (Some(Err(rejection)), "acquire" | "call") = (&self.result, step.op.as_str()) {
            // A rejection and a snapshot have the same `retry_after`.
            same(
                "retry_after",
                "of the rejection",
                rejection.retry_after,
                snapshot.retry_after,
            )?;
        }
        let events = self.take_events()?;
        step.expected
            .iter()
            .try_for_each(|expected| self.check(&snapshot, &events, expected))
    }
}

/// Converts `cfg` to a configuration; absent rules are off.
fn config(cfg: &[(String, String)]) -> Result<CircuitBreakerConfig, String> {
    let mut config = CircuitBreakerConfig::new()
        .failure_threshold(None)
        .minimum_number_of_calls(1)
        .probe_timeout(Duration::MAX);
    for (key, value) in cfg {
        config = match key.as_str() {
            "window" if value == "cum" => config,
            "window" => config.sliding_window(sliding_window(value)?),
            "min_calls" => config.minimum_number_of_calls(number(value)?),
            "trip" => value.split('|').try_fold(config, rule)?,
            "slow_gt" => config.slow_call_duration_threshold(millis(value)?),
            "open_wait" => open_wait(config, value)?,
            "half_open" => match value.split_once(':') {
                Some(("rate", n)) => config.permitted_calls_in_half_open(number(n)?),
                Some(("consec", n)) => config.success_threshold(number(n)?),
                None if value == "one" => config.success_threshold(1),
                _ => return Err(format!("unknown half_open {value:?}")),
            },
            "half_open_max" => match value.split_once("->") {
                Some((max, "open")) => {
                    config.max_half_open_duration(millis(max)?, HalfOpenTimeoutAction::Open)
                }
                Some((max, "closed")) => {
                    config.max_half_open_duration(millis(max)?, HalfOpenTimeoutAction::Closed)
                }
                _ => return Err(format!("unknown half_open_max {value:?}")),
            },
            "probe_timeout" => config.probe_timeout(millis(value)?),
            "auto" if value == "1" => config.automatic_half_open(true),
            "initial" => config.initial_state(state(value)?),
            _ => return Err(format!("unknown key {key}={value}")),
        };
    }
    Ok(config)
}

/// Parses `count:N` or `time:BUCKETMSxN`.
pub(crate) fn sliding_window(value: &str) -> Result<SlidingWindow, String> {
    match value.split_once(':') {
        Some(("count", n)) => Ok(SlidingWindow::Count(number(n)?)),
        Some(("time", grid)) => {
            let (bucket, buckets) = grid
                .split_once('x')
                .ok_or_else(|| format!("unknown window {value:?}"))?;
            let buckets = number(buckets)?;
            Ok(SlidingWindow::Time {
                length: millis(bucket)? * buckets,
                buckets,
            })
        }
        _ => Err(format!("unknown window {value:?}")),
    }
}

fn rule(config: CircuitBreakerConfig, rule: &str) -> Result<CircuitBreakerConfig, String> {
    let rate = |percent: &str| number::<f64>(percent).map(|percent| percent / 100.0);
    match rule.split_once(">=") {
        Some(("fail_rate", percent)) => Ok(config.failure_rate_threshold(rate(percent)?)),
        Some(("slow_rate", percent)) => Ok(config.slow_call_rate_threshold(rate(percent)?)),
        Some(("consec_fail", n)) => Ok(config.failure_threshold(number::<u32>(n)?)),
        Some(("fails", n)) => Ok(config.failure_count_threshold(number::<u32>(n)?)),
        _ => Err(format!("unknown rule {rule:?}")),
    }
}

fn open_wait(config: CircuitBreakerConfig, value: &str) -> Result<CircuitBreakerConfig, String> {
    match value.split_once(':') {
        None => Ok(config.isolation_duration(millis(value)?)),
        Some(("exp", rest)) => {
            let (base, factor) = rest
                .split_once(',')
                .ok_or_else(|| format!("unknown open_wait {value:?}"))?;
            let backoff = IsolationBackoff::new(number(factor)?, Duration::MAX);
            Ok(config
                .isolation_duration(millis(base)?)
                .isolation_backoff(backoff))
        }
        Some(("list", list)) => {
            Ok(config
                .isolation_schedule(list.split(',').map(millis).collect::<Result<Vec<_>, _>>()?))
        }
        Some(_) => Err(format!("unknown open_wait {value:?}")),
    }
}

fn state(name: &str) -> Result<CircuitState, String> {
    Ok(match name {
        "closed" => CircuitState::Closed,
        "open" => CircuitState::Open,
        "half_open" => CircuitState::HalfOpen,
        // Two names of one state.
        "forced_open" | "isolated" => CircuitState::ForcedOpen,
        "disabled" => CircuitState::Disabled,
        "metrics_only" => CircuitState::MetricsOnly,
        _ => return Err(format!("unknown state {name:?}")),
    })
}

struct Options {
    ran: Option<Duration>,
    times: u32,
}

impl Options {
    fn parse(args: &[&str], repeatable: bool) -> Result<Self, String> {
        let mut options = Self {
            ran: None,
            times: 1,
        };
        for arg in args {
            match (arg.strip_prefix("d="), times(arg)) {
                (Some(ran), _) => options.ran = Some(millis(ran)?),
                (None, Some(n)) if repeatable => options.times = n?,
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        Ok(options)
    }
}

/// Checks an exact expectation.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    key: &str,
    value: &str,
    expected: T,
    got: T,
) -> Result<(), String> {
    if expected == got {
        Ok(())
    } else {
        Err(format!(
            "expected {key}={value}, got {}",
            format!("{got:?}").to_lowercase()
        ))
    }
}

/// Checks a percentage to two decimals.
pub(crate) fn near(key: &str, value: &str, got: f64) -> Result<(), String> {
    let expected: f64 = number(value)?;
    if (expected - got).abs() < 0.005 + 1e-9 {
        Ok(())
    } else {
        Err(format!("expected {key}={value}, got {got}"))
    }
}
