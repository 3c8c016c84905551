//! Wakers, runtimes and listeners that panic or reenter the bulkhead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
use futures_lite::Stream;

use crate::poll_once;
use crate::watchdog::watchdog;

type Answer = Result<u32, &'static str>;

/// A waker that uses the whole API of the bulkhead. Under a lock, that would deadlock.
struct ReentrantWaker {
    bulkhead: Bulkhead,
    woken: AtomicUsize,
}

impl ReentrantWaker {
    fn new(bulkhead: &Bulkhead) -> Arc<Self> {
        Arc::new(Self {
            bulkhead: bulkhead.clone(),
            woken: AtomicUsize::new(0),
        })
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }
}

impl Wake for ReentrantWaker {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let bulkhead = &self.bulkhead;
        bulkhead.reconfigure(bulkhead.config()).unwrap();
        let _ = bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute_sync(|| Answer::Ok(1));
        let _ = bulkhead.try_acquire().map(bulkman::Permit::ignore);
        let mut waiter = Box::pin(bulkhead.acquire());
        let _ = poll_once(waiter.as_mut());
        drop(waiter);
        let _ = (
            bulkhead.stats(),
            bulkhead.state(),
            bulkhead.snapshot(),
            format!("{bulkhead:?}"),
        );
        bulkhead.reset_stats();
        let circuit = bulkhead.circuit_breaker().unwrap();
        let _ = (
            circuit.snapshot(),
            circuit.resolved_config(),
            circuit.events(),
        );
        let _ = poll_once(std::pin::pin!(bulkhead.drained()));
    }
}

/// A waker that panics.
struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("the waker panics");
    }
}

fn bulkhead(runtime: &ManualRuntime) -> Bulkhead {
    let config = BulkheadConfig::new("edge")
        .max_concurrent_calls(1)
        .failure_threshold(1)
        .success_threshold(3);
    Bulkhead::new(config, runtime.clone()).unwrap()
}

fn poll_with<F: Future>(
    future: Pin<&mut F>,
    waker: &Arc<impl Wake + Send + Sync + 'static>,
) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

fn subscribe_waker(
    events: &mut bulkman::circuit_breaker::CircuitEvents,
    waker: &Arc<impl Wake + Send + Sync + 'static>,
) {
    let waker = Waker::from(Arc::clone(waker));
    while Pin::new(&mut *events)
        .poll_next(&mut Context::from_waker(&waker))
        .is_ready()
    {}
}

/// Hazard H78, H79, H80.
#[test]
fn wakers_may_reenter_the_bulkhead() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let circuit = bulkhead.circuit_breaker().unwrap();
        let waker = ReentrantWaker::new(&bulkhead);
        let mut events = bulkhead.events();

        // A permit is released by a cancellation, by an outcome, and by a larger limit.
        for free in [
            (|permit, _| drop(permit)) as fn(bulkman::Permit, &Bulkhead),
            |permit, _| permit.succeed(),
            |permit, bulkhead| {
                bulkhead
                    .reconfigure(bulkhead.config().max_concurrent_calls(2))
                    .unwrap();
                bulkhead
                    .reconfigure(bulkhead.config().max_concurrent_calls(1))
                    .unwrap();
                drop(permit);
            },
        ] {
            let permit = bulkhead.try_acquire().unwrap();
            let before = waker.woken();
            let mut waiter = Box::pin(bulkhead.acquire());
            assert!(poll_with(waiter.as_mut(), &waker).is_pending());
            free(permit, &bulkhead);
            assert_eq!(waker.woken(), before + 1);
            let Poll::Ready(Ok(permit)) = poll_once(waiter.as_mut()) else {
                panic!("not granted")
            };
            drop(permit);
        }

        // The circuit opens: by an outcome, manually.
        for opens in [
            (|permit: bulkman::Permit, _| permit.fail()) as fn(bulkman::Permit, &Bulkhead),
            |_permit, bulkhead| bulkhead.circuit_breaker().unwrap().force_open(),
        ] {
            circuit.close();
            let permit = bulkhead.try_acquire().unwrap();
            let before = waker.woken();
            let mut waiter = Box::pin(bulkhead.acquire());
            assert!(poll_with(waiter.as_mut(), &waker).is_pending());
            subscribe_waker(&mut events, &waker);
            opens(permit, &bulkhead);
            assert!(waker.woken() >= before + 2, "the waiter and the listener");
            let rejected = poll_once(waiter.as_mut());
            assert!(
                matches!(
                    rejected,
                    Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))
                ),
                "{rejected:?}"
            );
        }

        // Two of three probes have completed when the threshold becomes two.
        circuit.half_open();
        bulkhead.try_acquire().unwrap().succeed();
        bulkhead.try_acquire().unwrap().succeed();
        subscribe_waker(&mut events, &waker);
        let before = waker.woken();
        bulkhead
            .reconfigure(bulkhead.config().success_threshold(2))
            .unwrap();
        assert_eq!(waker.woken(), before + 1);
        assert!(circuit.is_closed());

        // The bulkhead shuts down.
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiter = Box::pin(bulkhead.acquire());
        assert!(poll_with(waiter.as_mut(), &waker).is_pending());
        let mut drained = Box::pin(bulkhead.drained());
        assert!(poll_with(drained.as_mut(), &waker).is_pending());
        let before = waker.woken();
        bulkhead.shutdown();
        assert!(waker.woken() >= before + 2);
        assert!(poll_with(drained.as_mut(), &waker).is_pending());
        drop(permit);
        assert!(poll_once(drained.as_mut()).is_ready());
    });
}

#[test]
fn panicking_wakers_do_not_affect_other_calls() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let mut events = bulkhead.events();
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(bulkhead.acquire())).collect();
        for waiter in &mut waiters {
            assert!(poll_with(waiter.as_mut(), &Arc::new(PanickingWaker)).is_pending());
        }
        subscribe_waker(&mut events, &Arc::new(PanickingWaker));
        permit.succeed();
        let Poll::Ready(Ok(first)) = poll_once(waiters.remove(0).as_mut()) else {
            panic!("not granted")
        };
        first.fail();
        for waiter in &mut waiters {
            let rejected = poll_once(waiter.as_mut());
            assert!(
                matches!(
                    rejected,
                    Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))
                ),
                "{rejected:?}"
            );
        }
        assert!(bulkhead.circuit_breaker().unwrap().is_open());
        let mut drained = Box::pin(bulkhead.drained());
        assert!(poll_with(drained.as_mut(), &Arc::new(PanickingWaker)).is_pending());
        bulkhead.shutdown();
        assert!(poll_once(drained.as_mut()).is_ready());
    });
}

#[test]
fn panicking_waker_of_blocking_work_leaks_no_permit() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let (end, ended) = channel::<()>();
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            ended.recv().unwrap();
            Answer::Ok(3)
        }));
        assert!(poll_with(call.as_mut(), &Arc::new(PanickingWaker)).is_pending());
        end.send(()).unwrap();
        bulkhead.shutdown();
        runtime.block_on(bulkhead.drained());
        assert_eq!(runtime.block_on(call), Ok(3));
    });
}

type BoxedCall<'a> = Pin<Box<dyn Future<Output = Result<u32, BulkheadError<&'static str>>> + 'a>>;

/// The clock is user code as well.
///
/// Hazard H35.
#[test]
fn panicking_runtime_leaks_no_permit() {
    #[derive(Debug, Clone)]
    struct FaultyRuntime(ManualRuntime, Arc<AtomicUsize>);

    impl bulkman::Runtime for FaultyRuntime {
        fn now(&self) -> std::time::Instant {
            match self.1.load(Ordering::SeqCst) {
                0 => self.0.now(),
                1 => panic!("the clock panics"),
                left => {
                    self.1.store(left - 1, Ordering::SeqCst);
                    self.0.now()
                }
            }
        }

        fn sleep_until(&self, deadline: std::time::Instant) -> bulkman::runtime::Sleep {
            assert_eq!(self.1.load(Ordering::SeqCst), 0, "the timer panics");
            self.0.sleep_until(deadline)
        }

        fn spawn(
            &self,
            task: bulkman::runtime::BoxFuture<'static, ()>,
        ) -> Result<(), bulkman::runtime::BoxFuture<'static, ()>> {
            self.0.spawn(task)
        }

        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {
            panic!("spawning panics");
        }
    }

    watchdog(|| {
        let calls_until_panic = Arc::new(AtomicUsize::new(0));
        let runtime = FaultyRuntime(ManualRuntime::new(), Arc::clone(&calls_until_panic));
        let config = BulkheadConfig::new("edge")
            .max_concurrent_calls(1)
            .timeout(Duration::from_secs(1));
        let bulkhead = Bulkhead::new(config, runtime).unwrap();
        let panics = |call: BoxedCall<'_>| {
            let mut call = std::panic::AssertUnwindSafe(call);
            std::panic::catch_unwind(move || poll_once(call.as_mut()).is_ready()).is_err()
        };
        // Panics at the start, at the first timer, and at the end leak nothing.
        let mut panicked = 0;
        for after in 1..6 {
            calls_until_panic.store(after, Ordering::SeqCst);
            panicked += usize::from(panics(Box::pin(bulkhead.execute(std::future::pending()))));
            calls_until_panic.store(after, Ordering::SeqCst);
            panicked += usize::from(panics(Box::pin(bulkhead.execute(async { Err("down") }))));
            calls_until_panic.store(0, Ordering::SeqCst);
            assert_eq!(bulkhead.stats().permits_in_use, 0, "after {after}");
        }
        assert!(panicked >= 3, "{panicked}");
        assert!(panics(Box::pin(bulkhead.execute_blocking(|| Ok(1)))));
        assert_eq!(
            (bulkhead.stats().permits_in_use, bulkhead.stats().active),
            (0, 0)
        );
    });
}
