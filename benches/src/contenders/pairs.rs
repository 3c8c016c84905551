//! Combinations of a circuit breaker from one crate and a semaphore from another.
//!
//! And breaker-machines, where the circuit breaker has a built-in limit.

use breaker_machines::{CircuitBreaker, CircuitError, async_circuit::AsyncCircuitBreaker};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::breakers::{consecutive, recloser, synchronous_recloser};
use super::group::{BOTH, BREAKER, FULL, OPEN, SYNC, TIMEOUT};
use super::{FAILURES, Failed, ONE_HOUR, PERMITS, fails, ready, succeeds};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = combinations();
    cases.extend(synchronous());
    cases.extend(breaker_machines());
    cases
}

/// The fastest combination of peers, to which a target compares bulkman.
pub(crate) const BEST_PAIR: &str = "recloser over tokio: Semaphore";

fn combinations() -> Vec<Case> {
    let mut cases = Vec::new();
    let (breaker, semaphore) = (recloser(), Semaphore::new(PERMITS));
    cases.push(Case::new(BOTH, BEST_PAIR, move || {
        ready(breaker.call(async {
            let _permit = semaphore.acquire().await.expect("never closed");
            succeeds!().await
        }))
        .is_ok()
    }));
    let (breaker, semaphore) = (consecutive(), Semaphore::new(PERMITS));
    cases.push(Case::new(
        BOTH,
        "failsafe over tokio: Semaphore",
        move || {
            ready(failsafe::futures::CircuitBreaker::call(&breaker, async {
                let _permit = semaphore.acquire().await.expect("never closed");
                succeeds!().await
            }))
            .is_ok()
        },
    ));
    let (breaker, semaphore) = (recloser(), Semaphore::new(PERMITS));
    cases.push(Case::new(
        TIMEOUT,
        "recloser over tokio: Semaphore, timeout",
        move || {
            ready(timeout(
                ONE_HOUR,
                breaker.call(async {
                    let _permit = semaphore.acquire().await.expect("never closed");
                    succeeds!().await
                }),
            ))
            .is_ok()
        },
    ));
    cases
}

fn synchronous() -> Vec<Case> {
    let mut cases = Vec::new();
    let (breaker, semaphore) = (synchronous_recloser(), Semaphore::new(PERMITS));
    cases.push(Case::new(
        SYNC,
        "recloser over tokio: try_acquire",
        move || {
            breaker.call(|| {
                let _permit = semaphore.try_acquire().expect("a free permit");
                ready(succeeds!())
            })
        },
    ));
    let (breaker, semaphore) = (consecutive(), Semaphore::new(PERMITS));
    cases.push(Case::new(
        SYNC,
        "failsafe over tokio: try_acquire",
        move || {
            failsafe::CircuitBreaker::call(&breaker, || {
                let _permit = semaphore.try_acquire().expect("a free permit");
                ready(succeeds!())
            })
        },
    ));
    let mut breaker = CircuitBreaker::builder("sync")
        .max_concurrency(PERMITS)
        .build();
    cases.push(Case::new(SYNC, "breaker-machines", move || {
        breaker.call(|| ready(succeeds!())).is_ok()
    }));
    cases
}

fn breaker_machines() -> Vec<Case> {
    let mut cases = Vec::new();
    let breaker = builder().build_async();
    cases.push(Case::new(BREAKER, "breaker-machines", move || {
        ready(breaker.call(|| succeeds!())).is_ok()
    }));
    let breaker = builder().max_concurrency(PERMITS).build_async();
    cases.push(Case::new(BOTH, "breaker-machines", move || {
        ready(breaker.call(|| succeeds!())).is_ok()
    }));
    let breaker = builder().build_async();
    for _ in 0..FAILURES {
        assert!(ready(breaker.call(fails)).is_err());
    }
    assert!(breaker.is_open());
    cases.push(Case::new(OPEN, "breaker-machines", move || {
        ready(breaker.call(|| succeeds!())).is_err()
    }));
    cases.push(full());
    cases
}

fn full() -> Case {
    let breaker = std::sync::Arc::new(builder().max_concurrency(1).build_async());
    let mut held = Box::pin({
        let breaker = std::sync::Arc::clone(&breaker);
        async move {
            breaker
                .call(std::future::pending::<Result<u64, Failed>>)
                .await
        }
    });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(held.as_mut().poll(&mut context).is_pending());
    assert!(matches!(
        ready(breaker.call(|| succeeds!())),
        Err(CircuitError::BulkheadFull { .. })
    ));
    Case::new(FULL, "breaker-machines", move || {
        let _ = &held;
        ready(breaker.call(|| succeeds!())).is_err()
    })
}

fn builder() -> breaker_machines::CircuitBuilder {
    AsyncCircuitBreaker::builder("bench")
        .failure_threshold(FAILURES as usize)
        .half_open_timeout_secs(ONE_HOUR.as_secs_f64())
}
