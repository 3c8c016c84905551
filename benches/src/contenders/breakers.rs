//! Circuit breakers without a bulkhead: failsafe, recloser, seatbelt.

use std::time::Duration;

use failsafe::futures::CircuitBreaker as _;
use failsafe::{Config, StateMachine, backoff, failure_policy};
use layered::{Execute, Service, Stack};
use recloser::{AsyncRecloser, Recloser};
use seatbelt::breaker::Breaker;
use seatbelt::{RecoveryInfo, ResilienceContext};

use super::group::{BREAKER, OPEN};
use super::{FAILURES, Failed, ONE_HOUR, PERIOD, WINDOW, fails, ready, succeeds};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let breaker = Config::new().build();
    cases.push(Case::new(BREAKER, "failsafe: default policy", move || {
        ready(breaker.call(succeeds!())).is_ok()
    }));
    let breaker = consecutive();
    cases.push(Case::new(BREAKER, "failsafe: consecutive", move || {
        ready(breaker.call(succeeds!())).is_ok()
    }));
    let breaker = recloser();
    cases.push(Case::new(BREAKER, "recloser: count window", move || {
        ready(breaker.call(succeeds!())).is_ok()
    }));
    let service = seatbelt(|| succeeds!());
    cases.push(Case::new(BREAKER, "seatbelt: time window", move || {
        ready(service.execute(())).is_ok()
    }));

    let breaker = consecutive();
    for _ in 0..FAILURES {
        assert!(ready(breaker.call(fails())).is_err());
    }
    assert!(!breaker.is_call_permitted());
    cases.push(Case::new(OPEN, "failsafe: consecutive", move || {
        ready(breaker.call(succeeds!())).is_err()
    }));
    let breaker = recloser();
    while !matches!(ready(breaker.call(fails())), Err(recloser::Error::Rejected)) {}
    cases.push(Case::new(OPEN, "recloser", move || {
        ready(breaker.call(succeeds!())).is_err()
    }));
    let service = seatbelt(fails);
    while ready(service.execute(())) != Err(SeatbeltError::Rejected) {}
    cases.push(Case::new(OPEN, "seatbelt", move || {
        ready(service.execute(())).is_err()
    }));
    cases
}

pub(crate) type Failsafe =
    StateMachine<failure_policy::ConsecutiveFailures<std::iter::Repeat<Duration>>, ()>;

pub(crate) fn consecutive() -> Failsafe {
    let policy = failure_policy::consecutive_failures(FAILURES, backoff::constant(ONE_HOUR));
    Config::new().failure_policy(policy).build()
}

pub(crate) fn recloser() -> AsyncRecloser {
    synchronous_recloser().into()
}

pub(crate) fn synchronous_recloser() -> Recloser {
    Recloser::custom()
        .error_rate(0.5)
        .closed_len(WINDOW)
        .open_wait(ONE_HOUR)
        .build()
}

/// The error of a call through seatbelt, which has one type for the operation and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatbeltError {
    Rejected,
    Operation(Failed),
}

fn seatbelt<F>(
    operation: impl Fn() -> F + Send + Sync + 'static,
) -> impl Service<(), Out = Result<u64, SeatbeltError>>
where
    F: Future<Output = Result<u64, Failed>> + Send + 'static,
{
    let context =
        ResilienceContext::<(), Result<u64, SeatbeltError>>::new(tick::Clock::new_tokio());
    let breaker = Breaker::layer("breaker", &context)
        .failure_threshold(0.5)
        .sampling_duration(PERIOD)
        .break_duration(ONE_HOUR)
        .recovery_with(|result: &Result<u64, SeatbeltError>, _| match result {
            Ok(_) => RecoveryInfo::never(),
            Err(_) => RecoveryInfo::retry(),
        })
        .rejected_input_error(|(), _| SeatbeltError::Rejected);
    let operation = Execute::new(move |()| {
        let called = operation();
        async move { called.await.map_err(SeatbeltError::Operation) }
    });
    (breaker, operation).into_service()
}
