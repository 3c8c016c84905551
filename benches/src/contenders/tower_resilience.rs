//! tower-resilience: bulkhead and circuit breaker as layers, alone and together.

use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tower::limit::ConcurrencyLimit;
use tower::timeout::Timeout;
use tower::{Layer, Service, ServiceExt};
use tower_resilience_bulkhead::{Bulkhead, BulkheadLayer};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use super::group::{BOTH, BREAKER, BULKHEAD, FULL, OPEN, TIMEOUT};
use super::tower::{Worker, call};
use super::{
    ConcurrencyLimiter, FAILURES, ONE_HOUR, PERIOD, PERMITS, WINDOW, Work, fails, ready, succeeds,
};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = bulkheads();
    cases.extend(breakers());
    cases.extend(pairs());
    cases.push(open());
    cases.push(full());
    cases
}

fn bulkheads() -> Vec<Case> {
    [
        ("tower-resilience: waiting", waiting(PERMITS)),
        ("tower-resilience: backpressure", backpressure(PERMITS)),
        ("tower-resilience: rejecting", rejecting(PERMITS)),
    ]
    .into_iter()
    .map(|(name, layer)| {
        let mut service = layer.layer(tower::service_fn(|()| succeeds!()));
        Case::new(BULKHEAD, name, move || ready(call(&mut service)).is_ok())
    })
    .collect()
}

fn breakers() -> Vec<Case> {
    [
        ("tower-resilience: consecutive", consecutive()),
        ("tower-resilience: count window", count_window()),
        // Its time window stores every call of the period, and each call reads all of them. With a
        // longer window, this case would take too long.
        (
            "tower-resilience: time window of 1 ms",
            time_window(Duration::from_millis(1)),
        ),
    ]
    .into_iter()
    .map(|(name, layer)| {
        let mut service = layer.layer(tower::service_fn(|()| succeeds!()));
        Case::new(BREAKER, name, move || ready(call(&mut service)).is_ok())
    })
    .collect()
}

fn pairs() -> Vec<Case> {
    let mut service = consecutive().layer(ConcurrencyLimit::new(
        tower::service_fn(|()| succeeds!()),
        PERMITS,
    ));
    let mut cases = vec![Case::new(
        BOTH,
        "tower-resilience over tower: ConcurrencyLimit",
        move || ready(call(&mut service)).is_ok(),
    )];
    for (name, layer) in [
        ("tower-resilience, waiting", waiting(PERMITS)),
        ("tower-resilience, backpressure", backpressure(PERMITS)),
        ("tower-resilience, rejecting", rejecting(PERMITS)),
    ] {
        let mut service = consecutive().layer(layer.layer(tower::service_fn(|()| succeeds!())));
        cases.push(Case::new(BOTH, name, move || {
            ready(call(&mut service)).is_ok()
        }));
    }
    let guarded = consecutive().layer(waiting(PERMITS).layer(tower::service_fn(|()| succeeds!())));
    let mut service = Timeout::new(guarded, ONE_HOUR);
    cases.push(Case::new(
        TIMEOUT,
        "tower-resilience, waiting, under tower: Timeout",
        move || ready(call(&mut service)).is_ok(),
    ));
    cases
}

fn open() -> Case {
    let mut service = consecutive().layer(tower::service_fn(|()| fails()));
    for _ in 0..FAILURES {
        assert!(ready(call(&mut service)).is_err());
    }
    assert!(service.is_open());
    Case::new(OPEN, "tower-resilience", move || {
        ready(call(&mut service)).is_err()
    })
}

/// Needs an executor, since a rejection waits for a timer tick.
fn full() -> Case {
    let mut service = rejecting(1).layer(tower::service_fn(|hold: bool| async move {
        if hold {
            std::future::pending::<()>().await;
        }
        succeeds!().await
    }));
    let mut holder = service.clone();
    let mut held = Box::pin(async move { holder.ready().await.expect("ready").call(true).await });
    assert!(
        held.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let handle = Handle::current();
    Case::new(FULL, "tower-resilience: rejecting", move || {
        let _ = &held;
        handle
            .block_on(async { service.ready().await.expect("ready").call(false).await })
            .is_err()
    })
}

fn waiting(permits: usize) -> BulkheadLayer {
    BulkheadLayer::builder()
        .max_concurrent_calls(permits)
        .build()
        .expect("a valid configuration")
}

fn backpressure(permits: usize) -> BulkheadLayer {
    let builder = BulkheadLayer::builder()
        .max_concurrent_calls(permits)
        .backpressure();
    builder.build().expect("a valid configuration")
}

fn rejecting(permits: usize) -> BulkheadLayer {
    let builder = BulkheadLayer::builder()
        .max_concurrent_calls(permits)
        .reject_when_full();
    builder.build().expect("a valid configuration")
}

fn consecutive() -> CircuitBreakerLayer {
    let builder = CircuitBreakerLayer::builder().consecutive_failures(FAILURES as usize);
    builder
        .wait_duration_in_open(ONE_HOUR)
        .build()
        .expect("a valid configuration")
}

fn count_window() -> CircuitBreakerLayer {
    let builder = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(WINDOW);
    builder
        .wait_duration_in_open(ONE_HOUR)
        .build()
        .expect("a valid configuration")
}

fn time_window(length: Duration) -> CircuitBreakerLayer {
    let builder = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(length.min(PERIOD));
    builder
        .wait_duration_in_open(ONE_HOUR)
        .build()
        .expect("a valid configuration")
}

#[derive(Clone)]
pub(crate) struct Limit(Bulkhead<Worker>);

impl ConcurrencyLimiter for Limit {
    const NAME: &'static str = "tower-resilience bulkhead";

    fn new(permits: usize) -> Self {
        Self(waiting(permits).layer(Worker))
    }

    async fn run(&mut self, work: Work) {
        let service = self.0.ready().await.expect("never closed");
        service.call(work).await.expect("the work can't fail");
    }
}
