//! Calls that are cancelled, panic or are rejected.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Waker};

use bulkman_core::CircuitBreaker;
use bulkman_core::circuit_breaker::{CircuitError, CircuitState};
use bulkman_core::error::RejectionReason;

use super::{config, manual};

/// Hazard H05, H11.
#[test]
fn a_cancelled_probe_releases_its_slot() {
    let (breaker, _) = manual(config().success_threshold(1));
    breaker.half_open();
    let mut call = Box::pin(breaker.execute(std::future::pending::<Result<(), ()>>()));
    assert!(
        call.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(
        breaker.try_acquire().unwrap_err().reason,
        RejectionReason::ProbeLimit
    );
    drop(call);
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.probes_remaining, snapshot.counts.calls),
        (Some(1), 0)
    );
}

/// Hazard H03, H34.
#[test]
fn a_panic_is_a_failure_and_continues_to_unwind() {
    let (breaker, _) = manual(config().failure_threshold(2));
    let panics = || -> Result<(), ()> { panic!("operation") };
    let unwound = catch_unwind(AssertUnwindSafe(|| breaker.execute_sync(panics)));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"operation"));
    assert_eq!(breaker.snapshot().counts.consecutive_failures, 1);

    let call = pin!(breaker.execute(async move { panics() }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(catch_unwind(AssertUnwindSafe(|| call.poll(&mut context))).is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn an_unrelated_panic_records_no_failure() {
    struct Probes(CircuitBreaker);
    impl Drop for Probes {
        fn drop(&mut self) {
            drop(self.0.try_acquire());
        }
    }
    let (breaker, _) = manual(config().failure_threshold(1));
    let inner = breaker.clone();
    let unwound = catch_unwind(move || {
        let _probes = Probes(inner);
        panic!("elsewhere");
    });
    assert!(unwound.is_err());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn a_rejected_call_is_never_run() {
    let (breaker, _) = manual(config());
    breaker.force_open();
    let result = breaker.execute_sync(|| -> Result<(), ()> { unreachable!("rejected") });
    let Err(CircuitError::Open(rejection)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        (rejection.reason, rejection.retry_after),
        (RejectionReason::ForcedOpen, None)
    );
    let never = pin!(breaker.execute(std::future::pending::<Result<(), ()>>()));
    assert!(
        never
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    assert_eq!(breaker.rejections().forced_open, 2);
}
