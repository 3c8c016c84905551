//! Random sequences of calls, changes of the circuit and reconfigurations.

use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement};
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreakerConfig, Outcome, Permit};
use proptest::prelude::*;

use crate::faults::{fill, with_runtime};

#[derive(Clone, Debug)]
enum Step {
    /// Starts up to this many calls.
    Start(usize),
    /// Ends this many calls, oldest first; `None` drops them.
    End(usize, Option<Outcome>),
    /// Passes this many milliseconds.
    Advance(u64),
    Reconfigure(Settings),
    Open,
    HalfOpen,
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    maximum: usize,
    adaptive: Option<Enforcement>,
    enforcement: Enforcement,
    /// Lists running calls.
    lists: bool,
    /// The circuit counts calls in flight that hang.
    counts: bool,
}

impl Settings {
    fn config(self) -> BulkheadConfig {
        let adaptive = self.adaptive.map(|enforcement| {
            AdaptiveLimit::new()
                .window(Duration::from_millis(20))
                .samples(10)
                .enforcement(enforcement)
        });
        let mut rules = CircuitBreakerConfig::new().failure_threshold(1_000_000);
        if self.counts {
            rules = rules
                .slow_call_duration_threshold(Duration::from_millis(80))
                .hanging_call_threshold(1_000_000);
        }
        BulkheadConfig::new("model")
            .max_concurrent_calls(self.maximum)
            .max_queue_size(5)
            .circuit_breaker(rules)
            .track_running_calls(self.lists)
            .adaptive_limit(adaptive)
            .enforcement(self.enforcement)
    }

    fn is_enforced(self) -> bool {
        self.enforcement == Enforcement::Enforce
    }
}

fn enforcement() -> impl Strategy<Value = Enforcement> {
    prop_oneof![Just(Enforcement::Enforce), Just(Enforcement::Observe)]
}

fn settings() -> impl Strategy<Value = Settings> {
    let adaptive = proptest::option::weighted(0.8, enforcement());
    let others = (any::<bool>(), any::<bool>());
    (1_usize..40, adaptive, enforcement(), others).prop_map(
        |(maximum, adaptive, enforcement, (lists, counts))| Settings {
            maximum,
            adaptive,
            enforcement,
            lists,
            counts,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        4 => Just(Some(Outcome::Success)),
        1 => Just(Some(Outcome::Failure)),
        1 => Just(Some(Outcome::Overloaded)),
        1 => Just(Some(Outcome::Ignored)),
        1 => Just(None),
    ];
    prop_oneof![
        8 => (1_usize..40).prop_map(Step::Start),
        8 => (1_usize..40, outcome).prop_map(|(calls, outcome)| Step::End(calls, outcome)),
        8 => (1_u64..50).prop_map(Step::Advance),
        1 => settings().prop_map(Step::Reconfigure),
        1 => Just(Step::Open),
        1 => Just(Step::HalfOpen),
        2 => Just(Step::Close),
    ]
}

fn check(bulkhead: &Bulkhead, running: &[Permit], settings: Settings) {
    let (stats, limit) = (bulkhead.stats(), bulkhead.limit());
    assert!((1..=settings.maximum).contains(&limit), "{limit}");
    assert_eq!(stats.max_concurrent_calls, limit);
    assert_eq!(stats.active as usize, running.len());
    assert!(stats.permits_in_use <= running.len());
    assert!(stats.overloaded <= stats.failed);
    let status = bulkhead.snapshot().limit;
    let has_status = settings.adaptive.is_some() || !settings.is_enforced();
    assert_eq!(status.is_some(), has_status);
    if let Some(status) = status {
        assert_eq!((status.limit, status.maximum), (limit, settings.maximum));
        assert!(status.estimate >= 1.0 && status.estimate <= settings.maximum as f64);
    }
}

proptest! {
    #[test]
    fn permits_follow_the_limit_whatever_happens(
        first in settings(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut settings = first;
        let (bulkhead, runtime) = with_runtime(settings.config());
        let circuit = bulkhead.circuit_breaker().unwrap().clone();
        let mut running: Vec<Permit> = Vec::new();
        check(&bulkhead, &running, settings);
        for step in steps {
            match step {
                Step::Start(calls) => for _ in 0..calls {
                    let (limit, in_use) = (bulkhead.limit(), bulkhead.stats().permits_in_use);
                    match bulkhead.try_acquire() {
                        Ok(permit) => {
                            running.push(permit);
                            // A permit beyond the limit in force is never granted.
                            prop_assert!(bulkhead.stats().permits_in_use <= limit.max(in_use));
                            prop_assert!(in_use < limit || !settings.is_enforced());
                        }
                        Err(_) => prop_assert!(in_use >= limit || !circuit.is_closed()),
                    }
                },
                Step::End(calls, outcome) => {
                    for permit in running.drain(..calls.min(running.len())) {
                        match outcome {
                            Some(outcome) => permit.record(outcome),
                            None => drop(permit),
                        }
                    }
                }
                Step::Advance(millis) => runtime.advance(Duration::from_millis(millis)),
                Step::Reconfigure(new) => {
                    settings = new;
                    bulkhead.reconfigure(new.config()).unwrap();
                }
                Step::Open => circuit.open(),
                Step::HalfOpen => circuit.half_open(),
                Step::Close => circuit.close(),
            }
            check(&bulkhead, &running, settings);
        }
        // Nothing is lost, and nothing is left.
        running.clear();
        prop_assert!(bulkhead.snapshot().oldest.is_empty());
        circuit.close();
        prop_assert_eq!(circuit.snapshot().counts.hanging_calls, 0);
        settings.enforcement = Enforcement::Enforce;
        bulkhead.reconfigure(settings.config()).unwrap();
        prop_assert_eq!(bulkhead.stats().permits_in_use, 0);
        prop_assert_eq!(fill(&bulkhead).len(), bulkhead.limit());
        let stats = bulkhead.stats();
        let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
        prop_assert_eq!(stats.started, ended + stats.active);
    }
}
