//! Tests of the circuit breaker without a bulkhead, beyond the tables of `tests/scenarios`.

mod abandoned_calls;
mod clocks;
mod events;
mod probes;
mod reconfiguring;
mod threads;
mod timer;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bulkman_core::circuit_breaker::{
    Admission, CircuitError, CircuitEvent, CircuitEvents, Transition,
};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{CircuitBreaker, CircuitBreakerConfig};
use futures_core::Stream;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new()
}

fn manual(config: CircuitBreakerConfig) -> (CircuitBreaker, ManualRuntime) {
    let runtime = ManualRuntime::new();
    (
        CircuitBreaker::new("test", config, runtime.clone()).unwrap(),
        runtime,
    )
}

fn fail(breaker: &CircuitBreaker, times: u32) {
    (0..times).for_each(|_| breaker.try_acquire().unwrap().fail());
}

fn try_next(events: &mut CircuitEvents) -> Option<CircuitEvent> {
    match pin!(events).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}

fn transition(events: &mut CircuitEvents) -> Transition {
    match try_next(events) {
        Some(CircuitEvent::Transition(transition)) => transition,
        other => panic!("no transition: {other:?}"),
    }
}

#[test]
fn handles_are_small_and_send_and_sync() {
    fn is_send_sync_unpin<T: Send + Sync + Unpin>() {}
    is_send_sync_unpin::<CircuitBreaker>();
    is_send_sync_unpin::<Admission<'_>>();
    is_send_sync_unpin::<CircuitEvents>();
    is_send_sync_unpin::<CircuitError<std::io::Error>>();
    fn is_send<T: Send>(_: &T) {}
    let (breaker, _) = manual(config());
    let call = breaker.execute(std::future::ready(Ok::<(), ()>(())));
    is_send(&call);
    assert_eq!(size_of::<CircuitBreaker>(), size_of::<usize>());
    let overhead = size_of_val(&call) - size_of::<std::future::Ready<Result<(), ()>>>();
    assert!(overhead <= 128, "{overhead} bytes");
}
