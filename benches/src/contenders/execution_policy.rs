//! execution-policy: a pipeline with a concurrency limit, a circuit breaker and a timeout.

use std::convert::Infallible;
use std::sync::Arc;

use execution_policy::core::DefaultCore;
use execution_policy::{
    CircuitBreaker, ConcurrencyLimit, ExecutionPolicy, ExecutionPolicyBuilder, Retry,
};

use super::group::{BOTH, BREAKER, BULKHEAD, FULL, OPEN, TIMEOUT};
use super::{
    ConcurrencyLimiter, FAILURES, Failed, ONE_HOUR, PERMITS, Work, fails, infallible, ready,
    succeeds,
};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let builds = [
        (
            BULKHEAD,
            "execution-policy",
            plain().concurrency_limit(PERMITS),
        ),
        (
            BREAKER,
            "execution-policy: consecutive",
            plain().circuit_breaker(breaker()),
        ),
        (
            BREAKER,
            "execution-policy: time window",
            plain().circuit_breaker(ratio()),
        ),
        (
            BOTH,
            "execution-policy",
            plain()
                .circuit_breaker(breaker())
                .concurrency_limit(PERMITS),
        ),
        (
            TIMEOUT,
            "execution-policy",
            plain()
                .circuit_breaker(breaker())
                .concurrency_limit(PERMITS)
                .total_timeout(ONE_HOUR),
        ),
    ];
    for (group, name, builder) in builds {
        let policy = builder.build();
        cases.push(Case::new(group, name, move || {
            ready(policy.run(async || succeeds!().await)).is_ok()
        }));
    }

    let policy = plain().circuit_breaker(breaker()).build();
    for _ in 0..FAILURES {
        assert!(ready(policy.run(async || fails().await)).is_err());
    }
    assert!(ready(policy.run(async || succeeds!().await)).is_err());
    cases.push(Case::new(OPEN, "execution-policy", move || {
        ready(policy.run(async || succeeds!().await)).is_err()
    }));

    let policy = Arc::new(
        plain()
            .concurrency_limit(ConcurrencyLimit::operations(1).reject())
            .build(),
    );
    let holder = Arc::clone(&policy);
    let mut held = Box::pin(async move { holder.run(async || std::future::pending().await).await });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(held.as_mut().poll(&mut context).is_pending());
    cases.push(Case::new(FULL, "execution-policy", move || {
        let _ = &held;
        ready(policy.run(async || succeeds!().await)).is_err()
    }));
    cases
}

fn plain() -> ExecutionPolicyBuilder<u64, Failed> {
    ExecutionPolicyBuilder::new().retry(Retry::none())
}

fn breaker() -> CircuitBreaker<Failed> {
    CircuitBreaker::consecutive_failures(FAILURES).open_for(ONE_HOUR)
}

fn ratio() -> CircuitBreaker<Failed> {
    CircuitBreaker::failure_ratio()
        .ratio(0.5)
        .sampling_window(super::PERIOD)
        .open_for(ONE_HOUR)
}

#[derive(Clone)]
pub(crate) struct Limit(Arc<ExecutionPolicy<DefaultCore, (), Infallible>>);

impl ConcurrencyLimiter for Limit {
    const NAME: &'static str = "execution-policy limit";

    fn new(permits: usize) -> Self {
        let builder = ExecutionPolicyBuilder::new().retry(Retry::none());
        Self(Arc::new(builder.concurrency_limit(permits).build()))
    }

    async fn run(&mut self, work: Work) {
        let mut work = Some(work);
        let operation = || -> execution_policy::core::BoxFuture<'static, _> {
            Box::pin(infallible(work.take().expect("one attempt")))
        };
        // Boxed, since only this entry point returns a `Send` future in a generic function.
        assert!(
            self.0.run_boxed(operation).await.is_ok(),
            "the work can't fail"
        );
    }
}
