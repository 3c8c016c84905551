//! Loom models: every interleaving of the concurrent steps, on both [`Sides`].
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::sync::Arc as StdArc;
use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::in_flight::CallsInFlight;
use super::*;
use crate::error::RejectionReason;
use crate::runtime::{BoxFuture, ClockOnly, RuntimeCapabilities, Sleep};
use crate::sync::sides::{Sides, both_ways};

const SECOND: Duration = Duration::from_secs(1);

/// A clock that never advances: loom replays runs, which must be deterministic.
#[derive(Clone, Copy, Debug)]
struct FixedClock(Instant);

impl Runtime for FixedClock {
    fn now(&self) -> Instant {
        self.0
    }
    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        Err(task)
    }
    fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {}
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::CLOCK
    }
}

fn breaker(config: CircuitBreakerConfig) -> (CircuitBreaker, Instant) {
    let now = ClockOnly.now();
    let runtime: StdArc<dyn Runtime> = StdArc::new(FixedClock(now));
    let name = BulkheadName::new("loom").unwrap();
    (
        CircuitBreaker(Shared::new(name, config.resolve(), 0, runtime)),
        now,
    )
}

fn transitions(breaker: &CircuitBreaker) -> Vec<(CircuitState, CircuitState)> {
    breaker
        .snapshot()
        .recent
        .iter()
        .map(|transition| (transition.from, transition.to))
        .collect()
}

#[test]
fn a_success_after_a_failure_resets_the_streak() {
    both_ways(|sides| {
        let (breaker, _) = breaker(CircuitBreakerConfig::new().failure_threshold(2));
        let failed = Arc::new(AtomicBool::new(false));
        let first = breaker.try_acquire().unwrap();
        first.fail();
        breaker.try_acquire().unwrap().succeed();

        let has_failed = failed.clone();
        let fail = move |breaker: &CircuitBreaker| {
            breaker.try_acquire().unwrap().fail();
            failed.store(true, Ordering::Release);
        };
        let succeed = move |breaker: &CircuitBreaker| {
            let after_failure = has_failed.load(Ordering::Acquire);
            breaker.try_acquire().unwrap().succeed();
            after_failure
        };
        let ((), after_failure) = sides.run(&breaker, fail, succeed);
        let streak = breaker.snapshot().counts.consecutive_failures;
        assert!(if after_failure {
            streak == 0
        } else {
            streak <= 1
        });
    });
}

#[test]
fn concurrent_failures_open_once_and_late_outcomes_are_dropped() {
    both_ways(|sides| {
        let (breaker, _) = breaker(CircuitBreakerConfig::new().failure_threshold(1));
        let call = |outcome| {
            move |breaker: &CircuitBreaker| match breaker.admit(None) {
                Ok(ticket) => breaker.record(ticket, outcome, None),
                Err(rejection) => assert_eq!(rejection.reason, RejectionReason::Open),
            }
        };
        let failure = call(Outcome::Failure);
        sides.run_three(&breaker, failure, call(Outcome::Success), failure);
        let snapshot = breaker.snapshot();
        assert_eq!(
            (snapshot.state, snapshot.open_count),
            (CircuitState::Open, 1)
        );
        assert_eq!(
            transitions(&breaker),
            [(CircuitState::Closed, CircuitState::Open)]
        );
    });
}

#[test]
fn one_probe_and_one_transition_when_the_isolation_elapses() {
    loom::model(|| {
        let config = CircuitBreakerConfig::new()
            .isolation_duration(SECOND)
            .success_threshold(1)
            .initial_state(CircuitState::Open);
        let (breaker, now) = breaker(config);
        let admit = move |breaker: &CircuitBreaker| breaker.0.admit(Some(now + SECOND)).is_ok();
        let (there, here) = Sides::AsWritten.run(&breaker, admit, admit);
        assert!(here != there, "one of the two is the probe");
        assert_eq!(
            transitions(&breaker),
            [(CircuitState::Open, CircuitState::HalfOpen)]
        );
        assert_eq!(
            (
                breaker.rejections().total(),
                breaker.rejections().probe_limit_reached
            ),
            (1, 1)
        );
    });
}

#[test]
fn no_call_is_rejected_while_probe_slots_remain() {
    loom::model(|| {
        let config = CircuitBreakerConfig::new()
            .isolation_duration(SECOND)
            .success_threshold(2)
            .initial_state(CircuitState::Open);
        let (breaker, now) = breaker(config);
        let admit = move |breaker: &CircuitBreaker| breaker.0.admit(Some(now + SECOND)).is_ok();
        let admitted = Sides::AsWritten.run(&breaker, admit, admit);
        assert_eq!(admitted, (true, true));
    });
}

#[test]
fn open_until_is_visible_with_open_state() {
    both_ways(|sides| {
        let (breaker, now) = breaker(CircuitBreakerConfig::new());
        breaker.open_for(100 * SECOND);
        let open = |breaker: &CircuitBreaker| breaker.open_for(10 * SECOND);
        // After the end of the second isolation, and long before that of the first.
        let admit = move |breaker: &CircuitBreaker| {
            if let Err(rejection) = breaker.0.admit(Some(now + 50 * SECOND)) {
                assert_eq!(rejection.retry_after(), Some(50 * SECOND));
            }
        };
        sides.run(&breaker, open, admit);
        // The second end is visible with its state: a rejection now would come from the first.
        assert_ne!(breaker.state_at(now + 50 * SECOND), CircuitState::Open);
    });
}

#[test]
fn open_until_is_never_older_than_the_state() {
    both_ways(|sides| {
        let (breaker, _) = breaker(CircuitBreakerConfig::new());
        let open_twice = |breaker: &CircuitBreaker| {
            breaker.open_for(10 * SECOND);
            breaker.open_for(5 * SECOND);
        };
        let read = |breaker: &CircuitBreaker| {
            let (state, until) = breaker.0.load_state_and_end();
            let seconds = until / 1_000_000_000;
            match state.generation() {
                1 => assert_eq!(state.state(), CircuitState::Closed),
                2 => assert!(seconds == 10 || seconds == 5, "{seconds}"),
                3 => assert_eq!(seconds, 5),
                generation => panic!("{generation}"),
            }
        };
        sides.run(&breaker, open_twice, read);
    });
}

#[test]
fn hooks_run_in_order_and_one_at_a_time() {
    both_ways(|sides| {
        let (breaker, _) = breaker(CircuitBreakerConfig::new());
        let seen = StdArc::new(std::sync::Mutex::new(Vec::new()));
        let recorder = seen.clone();
        breaker.on_transition(StdArc::new(move |transition| {
            recorder
                .try_lock()
                .expect("one at a time")
                .push(transition.generation);
            thread::yield_now();
        }));
        let open = |breaker: &CircuitBreaker| breaker.open();
        sides.run(&breaker, open, |breaker| breaker.disable());
        assert_eq!(*seen.lock().unwrap(), [2, 3]);
    });
}

/// The counts of calls in flight: a threshold of 8 ms, so that a bucket is a millisecond.
fn in_flight() -> Arc<CallsInFlight> {
    let calls = CallsInFlight::default();
    calls.set_threshold(Some(8 * MILLI), 1);
    Arc::new(calls)
}

const MILLI: u64 = 1_000_000;

/// Fault O3.
#[test]
fn a_call_in_flight_leaves_no_count_behind_a_transition() {
    both_ways(|sides| {
        let calls = in_flight();
        let old = |calls: &Arc<CallsInFlight>| {
            if let Some(stamp) = calls.begin(1, 0) {
                calls.end(stamp);
            }
        };
        let transition = |calls: &Arc<CallsInFlight>| {
            calls.begin_generation(2);
            assert_eq!(calls.hanging(2, 100 * MILLI), 0);
            calls.begin(2, 0).expect("the current generation")
        };
        let ((), young) = sides.run(&calls, old, transition);
        assert_eq!(calls.hanging(2, 100 * MILLI), 1);
        calls.end(young);
        assert_eq!(calls.hanging(2, 100 * MILLI), 0);
    });
}

/// Fault O4.
#[test]
fn an_end_and_the_reuse_of_its_bucket_subtract_one_call() {
    both_ways(|sides| {
        let calls = in_flight();
        let [first, second] = [0, 1].map(|time| calls.begin(1, time).unwrap());
        let end = move |calls: &Arc<CallsInFlight>| calls.end(first);
        let reuse = |calls: &Arc<CallsInFlight>| calls.begin(1, 16 * MILLI).unwrap();
        let ((), third) = sides.run(&calls, end, reuse);
        assert_eq!(calls.hanging(1, 20 * MILLI), 1);
        assert_eq!(calls.hanging(1, 30 * MILLI), 2);
        calls.end(second);
        calls.end(third);
        assert_eq!(calls.hanging(1, 60 * MILLI), 0);
    });
}

/// The first call of a bucket reuses the one with the hanging call, while another evaluates.
#[test]
fn a_hanging_call_is_counted_once_while_its_bucket_is_reused() {
    both_ways(|sides| {
        let calls = in_flight();
        calls.begin(1, 0).unwrap();
        let reuse = |calls: &Arc<CallsInFlight>| calls.begin(1, 16 * MILLI).unwrap();
        let read = |calls: &Arc<CallsInFlight>| calls.hanging(1, 16 * MILLI);
        let (_, hanging) = sides.run(&calls, reuse, read);
        assert!(hanging <= 1, "{hanging}");
        assert_eq!(calls.hanging(1, 16 * MILLI), 1);
    });
}

/// Fault O3.
#[test]
fn a_call_of_a_new_generation_is_not_lost_with_the_old_counts() {
    both_ways(|sides| {
        let calls = in_flight();
        let old = calls.begin(1, 0).unwrap();
        let transition = move |calls: &Arc<CallsInFlight>| {
            calls.begin_generation(2);
            calls.end(old);
        };
        let begin = |calls: &Arc<CallsInFlight>| calls.begin(2, 0).expect("the newest generation");
        let ((), young) = sides.run(&calls, transition, begin);
        assert_eq!(calls.hanging(2, 100 * MILLI), 1);
        calls.end(young);
        assert_eq!(calls.hanging(2, 100 * MILLI), 0);
    });
}

#[test]
fn a_change_of_the_threshold_mixes_no_scales() {
    both_ways(|sides| {
        let calls = in_flight();
        let begin = |calls: &Arc<CallsInFlight>| calls.begin(1, 90 * MILLI);
        let change = |calls: &Arc<CallsInFlight>| calls.set_threshold(Some(8_000 * MILLI), 1);
        let (begun, ()) = sides.run(&calls, begin, change);
        // Counted under the new threshold, or not at all.
        assert_eq!(calls.hanging(1, 8_000 * MILLI), 0);
        if let Some(stamp) = begun {
            calls.end(stamp);
        }
        assert_eq!(calls.hanging(1, 100_000 * MILLI), 0);
    });
}

/// Fault O3.
#[test]
fn a_call_that_races_with_a_transition_leaves_no_count() {
    both_ways(|sides| {
        let config = CircuitBreakerConfig::new()
            .slow_call_duration_threshold(8 * SECOND)
            .hanging_call_threshold(2);
        let (breaker, now) = breaker(config);
        let close = |breaker: &CircuitBreaker| breaker.close();
        // Admitted before the new generation or in it.
        let call = move |breaker: &CircuitBreaker| {
            let admission = breaker.try_acquire_at(now).unwrap();
            admission.record_at(Outcome::Success, SECOND, now);
        };
        sides.run(&breaker, close, call);
        let counts = breaker.snapshot_at(now + 100 * SECOND).counts;
        assert_eq!(counts.hanging_calls, 0);
    });
}
