//! Wakers, runtimes and listeners that panic, or come back into the bulkhead.

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

/// A waker that uses everything the bulkhead has to offer; under any lock of it, that would hang.
struct Nosy {
    bulkhead: Bulkhead,
    woken: AtomicUsize,
}

impl Nosy {
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

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let bulkhead = &self.bulkhead;
        bulkhead.reconfigure(bulkhead.config()).unwrap();
        let _ = bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute_sync(|| Answer::Ok(1));
        let _ = bulkhead.try_acquire().map(bulkman::Permit::ignore);
        let mut waits = Box::pin(bulkhead.acquire());
        let _ = poll_once(waits.as_mut());
        drop(waits);
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

/// A waker that panics, which it must not, and which must harm nobody else.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a bug in the executor");
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

fn listens(
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
fn a_waker_may_use_the_bulkhead_whatever_wakes_it() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let circuit = bulkhead.circuit_breaker().unwrap();
        let nosy = Nosy::new(&bulkhead);
        let mut events = bulkhead.events();

        // A permit is handed over; cancelled; granted by growing.
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
            let before = nosy.woken();
            let mut waiter = Box::pin(bulkhead.acquire());
            assert!(poll_with(waiter.as_mut(), &nosy).is_pending());
            free(permit, &bulkhead);
            assert_eq!(nosy.woken(), before + 1);
            let Poll::Ready(Ok(permit)) = poll_once(waiter.as_mut()) else {
                panic!("not granted")
            };
            drop(permit);
        }

        // The circuit opens: by an outcome, by hand.
        for opens in [
            (|permit: bulkman::Permit, _| permit.fail()) as fn(bulkman::Permit, &Bulkhead),
            |_permit, bulkhead| bulkhead.circuit_breaker().unwrap().force_open(),
        ] {
            circuit.close();
            let permit = bulkhead.try_acquire().unwrap();
            let before = nosy.woken();
            let mut waiter = Box::pin(bulkhead.acquire());
            assert!(poll_with(waiter.as_mut(), &nosy).is_pending());
            listens(&mut events, &nosy);
            opens(permit, &bulkhead);
            assert!(nosy.woken() >= before + 2, "the waiter and the listener");
            let refused = poll_once(waiter.as_mut());
            assert!(
                matches!(refused, Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))),
                "{refused:?}"
            );
        }

        // Two of three probes are back when two become enough.
        circuit.half_open();
        bulkhead.try_acquire().unwrap().succeed();
        bulkhead.try_acquire().unwrap().succeed();
        listens(&mut events, &nosy);
        let before = nosy.woken();
        bulkhead
            .reconfigure(bulkhead.config().success_threshold(2))
            .unwrap();
        assert_eq!(nosy.woken(), before + 1);
        assert!(circuit.is_closed());

        // The end.
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiter = Box::pin(bulkhead.acquire());
        assert!(poll_with(waiter.as_mut(), &nosy).is_pending());
        let mut drained = Box::pin(bulkhead.drained());
        assert!(poll_with(drained.as_mut(), &nosy).is_pending());
        let before = nosy.woken();
        bulkhead.shutdown();
        assert!(nosy.woken() >= before + 2);
        assert!(poll_with(drained.as_mut(), &nosy).is_pending());
        drop(permit);
        assert!(poll_once(drained.as_mut()).is_ready());
    });
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let mut events = bulkhead.events();
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(bulkhead.acquire())).collect();
        for waiter in &mut waiters {
            assert!(poll_with(waiter.as_mut(), &Arc::new(Panics)).is_pending());
        }
        listens(&mut events, &Arc::new(Panics));
        permit.succeed();
        let Poll::Ready(Ok(first)) = poll_once(waiters.remove(0).as_mut()) else {
            panic!("not granted")
        };
        first.fail();
        for waiter in &mut waiters {
            let refused = poll_once(waiter.as_mut());
            assert!(
                matches!(refused, Poll::Ready(Err(BulkheadError::CircuitOpen { .. }))),
                "{refused:?}"
            );
        }
        assert!(bulkhead.circuit_breaker().unwrap().is_open());
        let mut drained = Box::pin(bulkhead.drained());
        assert!(poll_with(drained.as_mut(), &Arc::new(Panics)).is_pending());
        bulkhead.shutdown();
        assert!(poll_once(drained.as_mut()).is_ready());
    });
}

#[test]
fn a_panicking_waker_of_blocking_work_keeps_no_permit() {
    watchdog(|| {
        let runtime = ManualRuntime::new();
        let bulkhead = bulkhead(&runtime);
        let (end, ended) = channel::<()>();
        let mut call = Box::pin(bulkhead.execute_blocking(move || {
            ended.recv().unwrap();
            Answer::Ok(3)
        }));
        assert!(poll_with(call.as_mut(), &Arc::new(Panics)).is_pending());
        end.send(()).unwrap();
        bulkhead.shutdown();
        runtime.block_on(bulkhead.drained());
        assert_eq!(runtime.block_on(call), Ok(3));
    });
}

type Unwinding<'a> = Pin<Box<dyn Future<Output = Result<u32, BulkheadError<&'static str>>> + 'a>>;

/// The clock is the user's code as well.
/// Hazard H35.
#[test]
fn a_runtime_that_panics_leaks_no_permit() {
    #[derive(Debug, Clone)]
    struct Broken(ManualRuntime, Arc<AtomicUsize>);

    impl bulkman::Runtime for Broken {
        fn now(&self) -> std::time::Instant {
            match self.1.load(Ordering::SeqCst) {
                0 => self.0.now(),
                1 => panic!("no clock"),
                left => {
                    self.1.store(left - 1, Ordering::SeqCst);
                    self.0.now()
                }
            }
        }

        fn sleep_until(&self, deadline: std::time::Instant) -> bulkman::runtime::Sleep {
            assert_eq!(self.1.load(Ordering::SeqCst), 0, "no timers");
            self.0.sleep_until(deadline)
        }

        fn spawn(&self, task: bulkman::runtime::BoxFuture<'static, ()>) {
            self.0.spawn(task);
        }

        fn spawn_blocking(&self, _: Box<dyn FnOnce() + Send>) {
            panic!("no threads");
        }
    }

    watchdog(|| {
        let breaks = Arc::new(AtomicUsize::new(0));
        let runtime = Broken(ManualRuntime::new(), Arc::clone(&breaks));
        let config = BulkheadConfig::new("edge")
            .max_concurrent_calls(1)
            .timeout(Duration::from_secs(1));
        let bulkhead = Bulkhead::new(config, runtime).unwrap();
        let unwinds = |call: Unwinding<'_>| {
            let mut call = std::panic::AssertUnwindSafe(call);
            std::panic::catch_unwind(move || poll_once(call.as_mut()).is_ready()).is_err()
        };
        // At its beginning, at its first timer, when it ends: wherever it is, nothing is kept.
        let mut unwound = 0;
        for after in 1..6 {
            breaks.store(after, Ordering::SeqCst);
            unwound += usize::from(unwinds(Box::pin(bulkhead.execute(std::future::pending()))));
            breaks.store(after, Ordering::SeqCst);
            unwound += usize::from(unwinds(Box::pin(bulkhead.execute(async { Err("down") }))));
            breaks.store(0, Ordering::SeqCst);
            assert_eq!(bulkhead.stats().permits_in_use, 0, "after {after}");
        }
        assert!(unwound >= 3, "{unwound}");
        assert!(unwinds(Box::pin(bulkhead.execute_blocking(|| Ok(1)))));
        assert_eq!(
            (bulkhead.stats().permits_in_use, bulkhead.stats().active),
            (0, 0)
        );
    });
}
