//! Clocks, operations and payloads that panic.
//!
//! No permit leaks, every call returns the right result, and the process does not abort.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::CircuitState;
use bulkman::error::TimeoutPhase;
use bulkman::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman::testing::ManualRuntime;
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, CircuitBreaker, CircuitBreakerConfig, Runtime,
};

use crate::faulty_clock::FaultyClock;
use crate::poll_once;
use crate::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<u32, &'static str>;

fn one() -> BulkheadConfig {
    BulkheadConfig::new("edge").max_concurrent_calls(1)
}

fn bulkhead(config: BulkheadConfig, runtime: impl Runtime) -> Bulkhead {
    Bulkhead::new(config, runtime).unwrap()
}

/// Starts to wait for the only permit, with a deadline, so a release reads the clock.
fn enqueue(bulkhead: &Bulkhead) -> Pin<Box<bulkman::future::Acquire>> {
    let mut waiter = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    waiter
}

/// Polls a future until a thread completes it.
fn poll_until_ready<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    loop {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
        thread::yield_now();
    }
}

/// Hazard H35.
#[test]
fn clock_panic_while_a_permit_is_passed_on_leaks_no_permit() {
    let clock = FaultyClock::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = enqueue(&bulkhead);
    clock.while_faulty(.., || permit.succeed());
    assert!(
        matches!(poll_once(waiter.as_mut()), Poll::Ready(Ok(_))),
        "the permit was passed on"
    );
    drop(waiter);
    assert_eq!(
        (bulkhead.stats().permits_in_use, bulkhead.stats().active),
        (0, 0)
    );
}

/// Hazard H35.
#[test]
fn clock_panic_while_a_granted_waiter_drops_leaks_no_permit() {
    let clock = FaultyClock::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    let waiter = enqueue(&bulkhead);
    permit.succeed();
    clock.while_faulty(.., || drop(granted));
    drop(waiter);
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

/// Hazard H35.
#[test]
fn clock_panic_after_a_shutdown_does_not_prevent_draining() {
    let clock = FaultyClock::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let waiter = enqueue(&bulkhead);
    bulkhead.shutdown();
    clock.while_faulty(.., || permit.succeed());
    drop(waiter);
    assert!(poll_once(pin!(bulkhead.drained())).is_ready());
}

/// A panic in a `Drop` during another panic would abort the process, and this test with it.
#[test]
fn clock_panic_during_another_panic_does_not_abort() {
    let clock = FaultyClock::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let waiter = enqueue(&bulkhead);
    clock.while_faulty(.., || permit.fail());
    drop(waiter);
    let mut call = Box::pin(bulkhead.execute(poll_fn(|_| -> Poll<Answer> {
        panic!("the operation panics")
    })));
    let ended = clock.while_faulty(.., || poll_once(call.as_mut()).is_ready());
    assert!(ended.is_none());
    drop(call);
    let breaker = CircuitBreaker::new("edge", CircuitBreakerConfig::new(), clock.clone()).unwrap();
    let call = || breaker.execute_sync(|| -> Answer { panic!("the operation panics") });
    assert!(clock.while_faulty(.., call).is_none());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.panicked, stats.permits_in_use, stats.active),
        (1, 0, 0),
        "{stats:?}"
    );
}

#[test]
fn clock_panic_while_a_probe_is_recorded_frees_its_slot() {
    let clock = FaultyClock::new();
    let breaker = CircuitBreaker::new("edge", CircuitBreakerConfig::new(), clock.clone()).unwrap();
    breaker.half_open();
    let before = breaker.snapshot().probes_remaining;
    let probe = breaker.try_acquire().unwrap();
    assert_ne!(breaker.snapshot().probes_remaining, before);
    assert!(clock.while_faulty(.., || probe.succeed()).is_none());
    assert_eq!(breaker.snapshot().probes_remaining, before);
}

struct PanicsOnDropWaker;

impl Wake for PanicsOnDropWaker {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsOnDropWaker {
    fn drop(&mut self) {
        panic!("the waker panics on drop");
    }
}

#[test]
fn waker_panic_on_drop_leaks_nothing() {
    let bulkhead = bulkhead(one(), ManualRuntime::new());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = Box::pin(bulkhead.acquire());
    {
        let waker = Waker::from(Arc::new(PanicsOnDropWaker));
        assert!(
            waiter
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    drop(waiter);
    drop(permit);
    let stats = bulkhead.stats();
    assert_eq!((stats.waiting, stats.permits_in_use), (0, 0));
}

/// Never completes, and panics when it is dropped.
struct PanicsOnDropOperation;

impl Future for PanicsOnDropOperation {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Pending
    }
}

impl Drop for PanicsOnDropOperation {
    fn drop(&mut self) {
        panic!("the operation panics on drop");
    }
}

#[test]
fn operation_panic_on_drop_after_a_timeout_counts_as_a_timeout() {
    let runtime = ManualRuntime::new();
    let bulkhead = bulkhead(
        one().run_timeout(SECOND).failure_threshold(1),
        runtime.clone(),
    );
    let mut call = Box::pin(bulkhead.execute(PanicsOnDropOperation));
    assert!(poll_once(call.as_mut()).is_pending());
    runtime.advance(SECOND);
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call.as_mut()).is_ready())).is_err());
    drop(call);
    let stats = bulkhead.stats();
    assert_eq!(
        (
            stats.failed,
            stats.timed_out_running,
            stats.cancelled,
            stats.permits_in_use
        ),
        (1, 1, 0, 0)
    );
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);
}

#[test]
fn call_dropped_by_an_unrelated_panic_records_no_outcome() {
    let config = CircuitBreakerConfig::new().failure_threshold(1);
    let breaker = CircuitBreaker::new("edge", config, ClockOnly).unwrap();
    let mut call = Box::pin(breaker.execute(pending::<Answer>()));
    assert!(poll_once(call.as_mut()).is_pending());
    let sibling = AssertUnwindSafe(move || {
        let _dropped = call;
        panic!("another branch of a join")
    });
    assert!(catch_unwind(sibling).is_err());
    assert_eq!(breaker.state(), CircuitState::Closed);

    let mut call = Box::pin(breaker.execute(poll_fn(|_| -> Poll<Answer> {
        panic!("the operation panics")
    })));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call.as_mut()).is_ready())).is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

/// A runtime with a timer that fires just after the closure has ended.
#[derive(Clone, Debug)]
struct TimerAfterClosure {
    runtime: ManualRuntime,
    end: Arc<Mutex<Option<mpsc::Sender<()>>>>,
    ended: Arc<AtomicBool>,
}

impl Runtime for TimerAfterClosure {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        let runtime = self.clone();
        Box::pin(poll_fn(move |_| {
            let Some(end) = runtime.end.lock().unwrap().take() else {
                return Poll::Pending;
            };
            end.send(()).unwrap();
            while !runtime.ended.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            Poll::Ready(())
        }))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.runtime.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        let ended = Arc::clone(&self.ended);
        thread::spawn(move || {
            job();
            ended.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn blocking_result_wins_over_a_late_timeout() {
    watchdog(|| {
        let (end, ended) = mpsc::channel();
        let runtime = TimerAfterClosure {
            runtime: ManualRuntime::new(),
            end: Arc::new(Mutex::new(Some(end))),
            ended: Arc::default(),
        };
        let bulkhead = bulkhead(one().run_timeout(SECOND), runtime);
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            ended.recv().unwrap();
            Answer::Ok(7)
        }));
        assert_eq!(poll_until_ready(call.as_mut()), Ok(7));
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.successful, stats.failed, stats.timed_out_running),
            (1, 0, 0)
        );
    });
}

#[test]
fn blocking_closure_that_ran_is_never_reported_as_rejected() {
    watchdog(|| {
        let clock = FaultyClock::new();
        let bulkhead = bulkhead(one(), clock.clone());
        let inside = clock.clone();
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            inside.fail_at(..);
            Answer::Err("constraint violated")
        }));
        let answer = poll_until_ready(call.as_mut());
        clock.repair();
        assert_eq!(answer, Err(BulkheadError::Operation("constraint violated")));

        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("the payload panics on drop");
            }
        }
        let mut call = Box::pin(bulkhead.execute_blocking(|| -> Answer { panic_any(Payload) }));
        let answer = poll_until_ready(call.as_mut());
        assert!(
            matches!(answer, Err(BulkheadError::Panicked { .. })),
            "{answer:?}"
        );
        let stats = bulkhead.stats();
        assert_eq!(
            (
                stats.failed,
                stats.panicked,
                stats.cancelled,
                stats.permits_in_use
            ),
            (2, 1, 0, 0)
        );
    });
}

#[test]
fn runtime_without_threads_rejects_blocking_work_by_name() {
    let bulkhead = bulkhead(one(), ClockOnly);
    let mut call = Box::pin(bulkhead.execute_blocking(|| Answer::Ok(1)));
    let Poll::Ready(Err(error)) = poll_once(call.as_mut()) else {
        panic!("the runtime has no threads")
    };
    assert!(
        matches!(
            error,
            BulkheadError::Unsupported {
                setting: "execute_blocking",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_rejection());
}

#[test]
fn timeout_of_zero_needs_a_timer_unless_it_limits_the_wait() {
    let bulkhead = bulkhead(one(), ClockOnly);
    let calls = [
        ("timeout", bulkhead.call().timeout(Duration::ZERO)),
        ("run_timeout", bulkhead.call().run_timeout(Duration::ZERO)),
    ];
    for (name, call) in calls {
        let mut call = Box::pin(call.execute(pending::<Answer>()));
        let Poll::Ready(Err(error)) = poll_once(call.as_mut()) else {
            panic!("{name} hangs")
        };
        assert!(
            matches!(error, BulkheadError::Unsupported { setting, .. } if setting == name),
            "{error:?}"
        );
    }
    let permit = bulkhead.try_acquire().unwrap();
    let mut call = Box::pin(
        bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute(async { Answer::Ok(1) }),
    );
    assert!(matches!(
        poll_once(call.as_mut()),
        Poll::Ready(Err(BulkheadError::Full { .. }))
    ));
    drop(permit);
}

#[test]
fn timeout_of_zero_still_allows_the_first_poll() {
    let runtime = ManualRuntime::new();
    let bulkhead = bulkhead(one(), runtime.clone());
    let ready = bulkhead
        .call()
        .timeout(Duration::ZERO)
        .execute(async { Answer::Ok(1) });
    assert_eq!(runtime.block_on(ready), Ok(1));
    let slow = bulkhead
        .call()
        .run_timeout(Duration::ZERO)
        .execute(pending::<Answer>());
    let error = runtime.block_on(slow).unwrap_err();
    assert!(
        matches!(
            error,
            BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }
        ),
        "{error:?}"
    );
}
