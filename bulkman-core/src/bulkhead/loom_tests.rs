//! Model checks of a shutdown that waits for the last call, on both sides.
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::adaptive::Enforcement;
use crate::runtime::ClockOnly;
use crate::sync::sides::{Woken, both_ways, both_ways_bounded};

/// A bulkhead with one permit, whose calls depend on no time.
fn bulkhead(enforcement: Enforcement) -> Bulkhead {
    let config = BulkheadConfig::new("loom")
        .max_concurrent_calls(1)
        .circuit_breaker_enabled(false)
        .enforcement(enforcement);
    Bulkhead::new(config, ClockOnly).unwrap()
}

/// Polls [`Bulkhead::drained`], and keeps the waker registered.
fn poll_drained(bulkhead: &Bulkhead, waker: &Waker) -> Poll<()> {
    let mut drained = ManuallyDrop::new(bulkhead.drained());
    Pin::new(&mut *drained).poll(&mut Context::from_waker(waker))
}

fn shut_down(waker: Waker) -> impl FnOnce(&Bulkhead) -> bool {
    move |bulkhead| {
        bulkhead.shutdown();
        poll_drained(bulkhead, &waker).is_ready()
    }
}

#[test]
fn end_of_the_last_call_racing_a_shutdown_wakes_its_task() {
    both_ways(|sides| {
        let bulkhead = bulkhead(Enforcement::Enforce);
        let permit = bulkhead.try_acquire().unwrap();
        let (woken, waker) = Woken::new();
        let end = move |_: &Bulkhead| permit.succeed();
        let ((), drained) = sides.run(&bulkhead, end, shut_down(waker));
        assert!(drained || woken.is_woken());
        assert!(bulkhead.inner.is_drained());
    });
}

#[test]
fn ends_of_calls_with_and_without_a_permit_wake_a_shutdown() {
    both_ways(|sides| {
        let bulkhead = bulkhead(Enforcement::Observe);
        let [with, without] = [(); 2].map(|()| bulkhead.try_acquire().unwrap());
        let (woken, waker) = Woken::new();
        assert!(!shut_down(waker)(&bulkhead));
        let ends = move |_: &Bulkhead| with.succeed();
        sides.run(&bulkhead, ends, move |_| without.succeed());
        assert!(woken.is_woken());
        assert!(bulkhead.inner.is_drained());
    });
}

/// The call counts itself for a moment before it is rejected.
#[test]
fn rejected_call_without_a_permit_wakes_a_shutdown() {
    both_ways_bounded(|sides| {
        let bulkhead = bulkhead(Enforcement::Observe);
        let last = bulkhead.try_acquire().unwrap();
        let (woken, waker) = Woken::new();
        let call = |bulkhead: &Bulkhead| {
            if let Ok(permit) = bulkhead.try_acquire() {
                assert!(!bulkhead.inner.is_drained());
                permit.succeed();
            }
        };
        let end = move |bulkhead: &Bulkhead| {
            last.succeed();
            shut_down(waker)(bulkhead)
        };
        let ((), drained) = sides.run(&bulkhead, call, end);
        assert!(drained || woken.is_woken());
        assert!(bulkhead.inner.is_drained());
    });
}
