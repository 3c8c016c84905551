//! Scenarios of kind `window`, run on a circuit breaker in the metrics-only state.

use std::time::Duration;

use bulkman::circuit_breaker::CircuitState;
use bulkman::testing::ManualRuntime;
use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};

use crate::Runner;
use crate::breaker::{near, same, sliding_window};
use crate::parse::{Step, millis, number, times};

/// Runs one scenario.
pub(crate) struct WindowRunner {
    runtime: ManualRuntime,
    breaker: CircuitBreaker,
}

impl WindowRunner {
    pub(crate) fn new(cfg: &[(String, String)]) -> Result<Self, String> {
        let mut config = CircuitBreakerConfig::new()
            .initial_state(CircuitState::MetricsOnly)
            // Longer than any `d`: only calls marked `slow` are slow.
            .slow_call_duration_threshold(Duration::MAX - Duration::from_nanos(1));
        for (key, value) in cfg {
            config = match key.as_str() {
                "window" => config.sliding_window(sliding_window(value)?),
                "slow_gt" => config.slow_call_duration_threshold(millis(value)?),
                _ => return Err(format!("unknown key {key}={value}")),
            };
        }
        let runtime = ManualRuntime::new();
        let breaker =
            CircuitBreaker::new("window", config, runtime.clone()).map_err(|e| e.to_string())?;
        Ok(Self { runtime, breaker })
    }

    fn record(&self, how: &str, args: &[&str]) -> Result<(), String> {
        let outcome = match how {
            "ok" => Outcome::Success,
            "err" => Outcome::Failure,
            _ => return Err(format!("unknown outcome {how:?}")),
        };
        let (mut ran, mut slow, mut n) = (Duration::ZERO, false, 1);
        for arg in args {
            match (*arg, arg.strip_prefix("d="), times(arg)) {
                ("slow", _, _) => slow = true,
                (_, Some(duration), _) => ran = millis(duration)?,
                (_, _, Some(count)) => n = count?,
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        let ran = if slow { Duration::MAX } else { ran };
        for _ in 0..n {
            self.breaker
                .try_acquire()
                .map_err(|rejection| rejection.to_string())?
                .record_with_duration(outcome, ran);
        }
        Ok(())
    }
}

impl Runner for WindowRunner {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.runtime.advance_to(step.at);
        let args: Vec<_> = step.args.iter().map(String::as_str).collect();
        match (step.op.as_str(), args.as_slice()) {
            ("rec", [how, rest @ ..]) => self.record(how, rest)?,
            ("reset", []) => {
                self.breaker.close();
                self.breaker.metrics_only();
            }
            ("get", []) => {}
            (op, args) => return Err(format!("unknown operation {op} {args:?}")),
        }
        let counts = self.breaker.snapshot().counts;
        // Plain percentages: there is no minimum number of calls.
        let percent = |part: u64| {
            if counts.calls == 0 {
                0.0
            } else {
                part as f64 * 100.0 / counts.calls as f64
            }
        };
        for expected in &step.expected {
            let key = &expected.key;
            let value = expected
                .value
                .as_deref()
                .ok_or_else(|| format!("unknown expectation {key:?}"))?;
            match key.as_str() {
                "n" => same(key, value, number(value)?, counts.calls)?,
                "f" => same(key, value, number(value)?, counts.failures)?,
                "s" => same(key, value, number(value)?, counts.successes)?,
                "slow_n" => same(key, value, number(value)?, counts.slow_calls)?,
                "rate" => near(key, value, percent(counts.failures))?,
                "slow" => near(key, value, percent(counts.slow_calls))?,
                _ => return Err(format!("unknown expectation {key:?}")),
            }
        }
        Ok(())
    }
}
