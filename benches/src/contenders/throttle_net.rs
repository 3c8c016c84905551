//! throttle-net: a bulkhead, and a circuit breaker that wraps a rate limiter.

use std::sync::Arc;

use throttle_net::{Bulkhead, CallError, CircuitBreaker, Decision, Limiter, Trip};

use super::group::{BOTH, BREAKER, BULKHEAD, FULL, OPEN};
use super::{
    ConcurrencyLimiter, FAILURES, ONE_HOUR, PERMITS, WINDOW, Work, fails, ready, succeeds,
};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let bulkhead = Bulkhead::new(PERMITS as u32);
    cases.push(Case::new(BULKHEAD, "throttle-net", move || {
        ready(bulkhead.call(|| succeeds!())).is_ok()
    }));
    let breaker = breaker(Trip::Consecutive(FAILURES));
    cases.push(Case::new(BREAKER, "throttle-net: consecutive", move || {
        ready(breaker.call(|| succeeds!())).is_ok()
    }));
    let breaker = self::breaker(Trip::Ratio {
        window: WINDOW as u32,
        ratio: 0.5,
        min_calls: 10,
    });
    cases.push(Case::new(
        BREAKER,
        "throttle-net: count window",
        move || ready(breaker.call(|| succeeds!())).is_ok(),
    ));

    let (breaker, bulkhead) = (
        self::breaker(Trip::Consecutive(FAILURES)),
        Bulkhead::new(PERMITS as u32),
    );
    cases.push(Case::new(BOTH, "throttle-net", move || {
        ready(async {
            breaker
                .call(|| async { bulkhead.call(|| succeeds!()).await.expect("a free permit") })
                .await
        })
    }));

    let breaker = self::breaker(Trip::Consecutive(FAILURES));
    while !matches!(ready(breaker.call(fails)), Err(CallError::Rejected(_))) {}
    cases.push(Case::new(OPEN, "throttle-net", move || {
        ready(breaker.call(|| succeeds!())).is_err()
    }));
    let bulkhead = Arc::new(Bulkhead::new(1));
    let held = bulkhead.try_acquire_owned().expect("a free permit");
    cases.push(Case::new(FULL, "throttle-net", move || {
        let _ = &held;
        ready(bulkhead.try_call(|| succeeds!())).is_err()
    }));
    cases
}

fn breaker(trip: Trip) -> CircuitBreaker<Unlimited> {
    CircuitBreaker::builder()
        .trip(trip)
        .cooldown(ONE_HOUR)
        .build(Unlimited)
}

/// A rate limiter without cost, since the circuit breaker requires one.
struct Unlimited;

impl Limiter for Unlimited {
    fn peek(&self, _: u32) -> Decision {
        Decision::Acquired
    }

    fn acquire_cost(&self, _: u32) -> Decision {
        Decision::Acquired
    }

    fn available(&self) -> u32 {
        u32::MAX
    }

    fn capacity(&self) -> u32 {
        u32::MAX
    }
}

#[derive(Clone)]
pub(crate) struct Limit(Arc<Bulkhead>);

impl ConcurrencyLimiter for Limit {
    const NAME: &'static str = "throttle-net bulkhead";

    fn new(permits: usize) -> Self {
        Self(Arc::new(Bulkhead::new(
            u32::try_from(permits).expect("a small number"),
        )))
    }

    async fn run(&mut self, work: Work) {
        self.0.call(|| work).await.expect("never closed");
    }
}
