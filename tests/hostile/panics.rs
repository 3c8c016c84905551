//! Clocks, operations and payloads that panic at the worst moment: no permit is lost, no call is
//! told a lie, and the process lives.

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

use crate::poll_once;
use crate::watchdog::watchdog;

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<u32, &'static str>;

/// A virtual clock that panics while `breaks` is set.
#[derive(Clone, Debug)]
struct Broken {
    runtime: ManualRuntime,
    breaks: Arc<AtomicBool>,
}

impl Broken {
    fn new() -> Self {
        Self {
            runtime: ManualRuntime::new(),
            breaks: Arc::default(),
        }
    }

    /// Runs `code` while the clock panics; the panic may come through or not.
    fn while_broken<R>(&self, code: impl FnOnce() -> R) -> Option<R> {
        self.breaks.store(true, Ordering::SeqCst);
        let ended = catch_unwind(AssertUnwindSafe(code)).ok();
        self.breaks.store(false, Ordering::SeqCst);
        ended
    }
}

impl Runtime for Broken {
    fn now(&self) -> Instant {
        assert!(!self.breaks.load(Ordering::SeqCst), "a clock that fails");
        self.runtime.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.runtime.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(job);
    }
}

fn one() -> BulkheadConfig {
    BulkheadConfig::new("edge").max_concurrent_calls(1)
}

fn bulkhead(config: BulkheadConfig, runtime: impl Runtime) -> Bulkhead {
    Bulkhead::new(config, runtime).unwrap()
}

/// A caller who waits behind the only permit, with a deadline, so that a release reads the clock.
fn waits(bulkhead: &Bulkhead) -> Pin<Box<bulkman::future::Acquire>> {
    let mut waiter = Box::pin(bulkhead.call().max_wait(SECOND).acquire());
    assert!(poll_once(waiter.as_mut()).is_pending());
    waiter
}

/// Polls until a thread has done its work.
fn finished<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    loop {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return output;
        }
        thread::yield_now();
    }
}

/// Hazard H35.
#[test]
fn a_clock_that_panics_while_a_permit_is_handed_on_costs_no_permit() {
    let clock = Broken::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = waits(&bulkhead);
    clock.while_broken(|| permit.succeed());
    assert!(
        matches!(poll_once(waiter.as_mut()), Poll::Ready(Ok(_))),
        "the permit was handed on"
    );
    drop(waiter);
    assert_eq!(
        (bulkhead.stats().permits_in_use, bulkhead.stats().active),
        (0, 0)
    );
}

/// Hazard H35.
#[test]
fn the_same_when_a_granted_waiter_goes_away() {
    let clock = Broken::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let mut granted = Box::pin(bulkhead.acquire());
    assert!(poll_once(granted.as_mut()).is_pending());
    let waiter = waits(&bulkhead);
    permit.succeed();
    clock.while_broken(|| drop(granted));
    drop(waiter);
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

/// Hazard H35.
#[test]
fn the_same_before_a_shutdown_is_drained() {
    let clock = Broken::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let waiter = waits(&bulkhead);
    bulkhead.shutdown();
    clock.while_broken(|| permit.succeed());
    drop(waiter);
    assert!(poll_once(pin!(bulkhead.drained())).is_ready());
}

/// A panic in a `Drop` while another goes on would end the process, and this test with it.
#[test]
fn a_clock_that_panics_during_a_panic_ends_nothing_else() {
    let clock = Broken::new();
    let bulkhead = bulkhead(one(), clock.clone());
    let permit = bulkhead.try_acquire().unwrap();
    let waiter = waits(&bulkhead);
    clock.while_broken(|| permit.fail());
    drop(waiter);
    let breaks = Arc::clone(&clock.breaks);
    let mut call = Box::pin(bulkhead.execute(async move {
        breaks.store(true, Ordering::SeqCst);
        if breaks.load(Ordering::SeqCst) {
            panic!("a bug of the user's");
        }
        Answer::Ok(1)
    }));
    assert!(
        clock
            .while_broken(|| poll_once(call.as_mut()).is_ready())
            .is_none()
    );
    drop(call);
    let breaker = CircuitBreaker::new("edge", CircuitBreakerConfig::new(), clock.clone()).unwrap();
    let breaks = Arc::clone(&clock.breaks);
    let call = || {
        breaker.execute_sync(|| -> Answer {
            breaks.store(true, Ordering::SeqCst);
            panic!("a bug of the user's")
        })
    };
    assert!(clock.while_broken(call).is_none());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.panicked, stats.permits_in_use, stats.active),
        (1, 0, 0),
        "{stats:?}"
    );
}

#[test]
fn a_probe_whose_outcome_finds_no_clock_gives_its_slot_back() {
    let clock = Broken::new();
    let breaker = CircuitBreaker::new("edge", CircuitBreakerConfig::new(), clock.clone()).unwrap();
    breaker.half_open();
    let before = breaker.snapshot().probes_remaining;
    let probe = breaker.try_acquire().unwrap();
    assert_ne!(breaker.snapshot().probes_remaining, before);
    assert!(clock.while_broken(|| probe.succeed()).is_none());
    assert_eq!(breaker.snapshot().probes_remaining, before);
}

struct WakerBomb;

impl Wake for WakerBomb {
    fn wake(self: Arc<Self>) {}
}

impl Drop for WakerBomb {
    fn drop(&mut self) {
        panic!("the waker's drop");
    }
}

#[test]
fn a_waker_that_panics_when_it_is_dropped_takes_nothing_with_it() {
    let bulkhead = bulkhead(one(), ManualRuntime::new());
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiter = Box::pin(bulkhead.acquire());
    {
        let waker = Waker::from(Arc::new(WakerBomb));
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

/// Never ends, and panics when it is given up.
struct Stubborn;

impl Future for Stubborn {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Pending
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        panic!("the operation's drop");
    }
}

#[test]
fn an_operation_that_panics_when_it_is_given_up_has_timed_out_all_the_same() {
    let runtime = ManualRuntime::new();
    let bulkhead = bulkhead(
        one().run_timeout(SECOND).failure_threshold(1),
        runtime.clone(),
    );
    let mut call = Box::pin(bulkhead.execute(Stubborn));
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
fn a_call_that_somebody_elses_panic_drops_says_nothing_of_the_dependency() {
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

    let mut call = Box::pin(breaker.execute(poll_fn(|_| -> Poll<Answer> { panic!("its own") })));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call.as_mut()).is_ready())).is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

/// A runtime whose timer fires at the very moment at which the closure has ended.
#[derive(Clone, Debug)]
struct Neck {
    runtime: ManualRuntime,
    end: Arc<Mutex<Option<mpsc::Sender<()>>>>,
    ended: Arc<AtomicBool>,
}

impl Runtime for Neck {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        let neck = self.clone();
        Box::pin(poll_fn(move |_| {
            let Some(end) = neck.end.lock().unwrap().take() else {
                return Poll::Pending;
            };
            end.send(()).unwrap();
            while !neck.ended.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            Poll::Ready(())
        }))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
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
fn a_closure_that_ended_before_its_timeout_was_seen_is_told_and_counted_as_it_ended() {
    watchdog(|| {
        let (end, ended) = mpsc::channel();
        let runtime = Neck {
            runtime: ManualRuntime::new(),
            end: Arc::new(Mutex::new(Some(end))),
            ended: Arc::default(),
        };
        let bulkhead = bulkhead(one().run_timeout(SECOND), runtime);
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            ended.recv().unwrap();
            Answer::Ok(7)
        }));
        assert_eq!(finished(call.as_mut()), Ok(7));
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.successful, stats.failed, stats.timed_out_running),
            (1, 0, 0)
        );
    });
}

#[test]
fn a_closure_that_ran_is_never_told_as_a_refusal() {
    watchdog(|| {
        let clock = Broken::new();
        let bulkhead = bulkhead(one(), clock.clone());
        let breaks = Arc::clone(&clock.breaks);
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            breaks.store(true, Ordering::SeqCst);
            Answer::Err("constraint violated")
        }));
        let answer = finished(call.as_mut());
        clock.breaks.store(false, Ordering::SeqCst);
        assert_eq!(answer, Err(BulkheadError::Operation("constraint violated")));

        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("the payload's drop");
            }
        }
        let mut call = Box::pin(bulkhead.execute_blocking(|| -> Answer { panic_any(Payload) }));
        let answer = finished(call.as_mut());
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
fn a_runtime_without_threads_refuses_blocking_work_by_name() {
    let bulkhead = bulkhead(one(), ClockOnly);
    let mut call = Box::pin(bulkhead.execute_blocking(|| Answer::Ok(1)));
    let Poll::Ready(Err(error)) = poll_once(call.as_mut()) else {
        panic!("it can't be run")
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
fn a_limit_of_zero_needs_a_timer_unless_it_is_for_waiting() {
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
fn a_limit_of_zero_leaves_the_time_of_the_first_poll() {
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
