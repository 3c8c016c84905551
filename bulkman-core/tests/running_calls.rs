//! The oldest running calls in snapshots: `track_running_calls` and labels.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::snapshot::RunningCall;
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{
    Bulkhead, BulkheadConfig, BulkheadError, CircuitBreakerConfig, Outcome, Permit, Priority,
    Runtime,
};

const SECOND: Duration = Duration::from_secs(1);

fn tracked(configure: impl FnOnce(BulkheadConfig) -> BulkheadConfig) -> (Bulkhead, ManualRuntime) {
    let runtime = ManualRuntime::new();
    let config = configure(BulkheadConfig::new("test").track_running_calls(true));
    (Bulkhead::new(config, runtime.clone()).unwrap(), runtime)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn start<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll(&mut future).is_pending());
    future
}

fn oldest(bulkhead: &Bulkhead) -> Vec<RunningCall> {
    bulkhead.snapshot().oldest
}

#[test]
fn the_list_has_age_label_and_priority_oldest_first() {
    let (bulkhead, runtime) = tracked(|config| config.max_concurrent_calls(30));
    let users = bulkhead.label("GET /users");
    let _first = start(
        bulkhead
            .call()
            .label(users)
            .priority(Priority::High)
            .execute(pending::<Result<(), ()>>()),
    );
    runtime.advance(SECOND);
    let _rest: Vec<_> = (0..20)
        .map(|_| {
            runtime.advance(SECOND);
            bulkhead.try_acquire().unwrap()
        })
        .collect();
    let calls = oldest(&bulkhead);
    assert_eq!(calls.len(), 16);
    assert_eq!(
        (calls[0].age, calls[0].priority),
        (21 * SECOND, Priority::High)
    );
    assert_eq!(calls[0].label.as_deref(), Some("GET /users"));
    assert_eq!(
        (calls[1].age, calls[1].priority),
        (19 * SECOND, Priority::Normal)
    );
    assert_eq!(
        (calls[1].label.as_deref(), calls[15].age),
        (None, 5 * SECOND)
    );
    let table = bulkhead.snapshot().to_string();
    let (_, oldest) = table.split_once('\n').unwrap();
    assert!(
        oldest.ends_with("\nOLDEST    test: 21s GET /users, 19s, 18s, 17s"),
        "{table}"
    );
}

#[test]
fn a_call_that_waited_is_as_old_as_its_run() {
    let (bulkhead, runtime) = tracked(|config| config.max_concurrent_calls(1));
    let first = bulkhead.try_acquire().unwrap();
    let low = bulkhead.call().priority(Priority::Low);
    let mut second = start(low.execute(pending::<Result<(), ()>>()));
    runtime.advance(5 * SECOND);
    drop(first);
    assert!(poll(&mut second).is_pending());
    runtime.advance(SECOND);
    let calls = oldest(&bulkhead);
    assert_eq!((calls.len(), calls[0].age), (1, SECOND));
    assert_eq!(calls[0].priority, Priority::Low);
}

/// Every end of a call, with and without what else a ticket carries.
///
/// Fault W1.
#[test]
fn every_end_of_a_call_leaves_no_slot() {
    type End = fn(&Bulkhead, &ManualRuntime);
    let ends: [(&str, End); 23] = [
        ("success", |bulkhead, runtime| {
            let call = bulkhead.execute(async { Ok::<_, ()>(()) });
            runtime.block_on(call).unwrap();
        }),
        ("failure", |bulkhead, runtime| {
            let call = bulkhead.execute(async { Err::<(), _>(()) });
            let _ = runtime.block_on(call);
        }),
        ("second poll", |bulkhead, runtime| {
            let call = bulkhead.execute(async {
                futures_lite::future::yield_now().await;
                Ok::<_, ()>(())
            });
            runtime.block_on(call).unwrap();
        }),
        ("sync", |bulkhead, _| {
            bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap();
        }),
        ("ignored", |bulkhead, _| {
            bulkhead.try_acquire().unwrap().ignore()
        }),
        ("dropped permit", |bulkhead, _| {
            drop(bulkhead.try_acquire().unwrap())
        }),
        ("cancelled", |bulkhead, _| {
            drop(start(bulkhead.execute(pending::<Result<(), ()>>())));
        }),
        ("panicked", |bulkhead, _| {
            let run = || bulkhead.execute_sync(|| -> Result<(), ()> { panic!("expected") });
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }),
        ("timed out", |bulkhead, runtime| {
            let limited = bulkhead.call().run_timeout(SECOND);
            let mut call = start(limited.execute(pending::<Result<(), ()>>()));
            runtime.advance(SECOND);
            assert!(poll(&mut call).is_ready());
        }),
        ("blocking", |bulkhead, runtime| {
            let call = bulkhead.execute_blocking(|| Ok::<_, ()>(()));
            runtime.block_on(call).unwrap();
        }),
        ("blocking, panicked", |bulkhead, runtime| {
            let call = bulkhead.execute_blocking(|| -> Result<(), ()> { panic!("expected") });
            assert!(runtime.block_on(call).is_err());
        }),
        ("acquired", |bulkhead, runtime| {
            runtime.block_on(bulkhead.acquire()).unwrap().fail();
        }),
        ("panicked at a later poll", |bulkhead, _| {
            let mut polls = 0;
            let mut call = start(bulkhead.execute(poll_fn(move |_| {
                polls += 1;
                assert_eq!(polls, 1, "expected");
                Poll::<Result<(), ()>>::Pending
            })));
            assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut call))).is_err());
        }),
        ("classifier panicked", |bulkhead, _| {
            let call = bulkhead
                .call()
                .classify(|_: &Result<(), ()>| panic!("expected"));
            let run = || call.execute_sync(|| Ok(()));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }),
        ("timed out in total", |bulkhead, runtime| {
            let limited = bulkhead.call().timeout(SECOND);
            let mut call = start(limited.execute(pending::<Result<(), ()>>()));
            runtime.advance(SECOND);
            assert!(poll(&mut call).is_ready());
        }),
        ("blocking, timed out", |bulkhead, runtime| {
            let (release, call) = blocking_call(bulkhead);
            runtime.advance(SECOND);
            assert!(runtime.block_on(call).is_err());
            release.send(()).unwrap();
        }),
        ("blocking, caller cancelled", |bulkhead, _| {
            let (release, call) = blocking_call(bulkhead);
            drop(call);
            release.send(()).unwrap();
        }),
        ("waited, ran", |bulkhead, _| {
            let (first, mut second) = waiting_call(bulkhead);
            drop(first);
            assert!(poll(&mut second).is_pending());
        }),
        ("waited, cancelled", |bulkhead, _| {
            let (first, second) = waiting_call(bulkhead);
            drop(second);
            drop(first);
        }),
        ("waited, cancelled with its permit", |bulkhead, _| {
            let (first, second) = waiting_call(bulkhead);
            drop(first);
            drop(second);
        }),
        ("ended in another generation", |bulkhead, _| {
            let permit = bulkhead.try_acquire().unwrap();
            if let Some(circuit) = bulkhead.circuit_breaker() {
                circuit.force_open();
                circuit.close();
            }
            permit.succeed();
        }),
        ("ended after the list was switched off", |bulkhead, _| {
            let permit = bulkhead.try_acquire().unwrap();
            let config = bulkhead.config().track_running_calls(false);
            bulkhead.reconfigure(config).unwrap();
            permit.succeed();
        }),
        ("rejected", |bulkhead, _| {
            bulkhead.shutdown();
            assert!(bulkhead.try_acquire().is_err());
        }),
    ];
    let slow = || CircuitBreakerConfig::new().slow_call_duration_threshold(SECOND);
    let rules = [
        Some(CircuitBreakerConfig::new()),
        Some(CircuitBreakerConfig::new().failure_rate_threshold(0.5)),
        Some(slow()),
        Some(slow().hanging_call_threshold(9)),
        Some(CircuitBreakerConfig::new().success_threshold(9)),
        None,
    ];
    for (name, end) in ends {
        for (number, rules) in rules.iter().enumerate() {
            let (bulkhead, runtime) = tracked(|config| match rules {
                Some(rules) => config.circuit_breaker(rules.clone()),
                None => config.circuit_breaker_enabled(false),
            });
            if let (4, Some(circuit)) = (number, bulkhead.circuit_breaker()) {
                circuit.half_open();
            }
            end(&bulkhead, &runtime);
            let idle = runtime.block_on(async {
                bulkhead.shutdown();
                bulkhead.drained().await;
                bulkhead.snapshot()
            });
            assert_eq!(idle.oldest, [], "{name}, rules {number}");
            assert_eq!((idle.stats.active, idle.untracked_calls), (0, 0));
        }
    }
}

type Call = Pin<Box<dyn Future<Output = Result<(), BulkheadError<()>>>>>;

/// A blocking call that runs until the channel is used, and whose caller waits for a second.
fn blocking_call(bulkhead: &Bulkhead) -> (mpsc::Sender<()>, Call) {
    let (release, released) = mpsc::channel();
    let (running, started) = mpsc::channel();
    let limited = bulkhead.call().run_timeout(SECOND);
    let call: Call = start(Box::pin(limited.execute_blocking(move || {
        running.send(()).unwrap();
        released.recv().unwrap();
        Ok(())
    })) as Call);
    started.recv().unwrap();
    assert_eq!(oldest(bulkhead).len(), 1);
    (release, call)
}

/// A permit, and a call that waits for it.
fn waiting_call(bulkhead: &Bulkhead) -> (Permit, Call) {
    let config = bulkhead.config().max_concurrent_calls(1);
    bulkhead.reconfigure(config).unwrap();
    let first = bulkhead.try_acquire().unwrap();
    let bulkhead = bulkhead.clone();
    let second = async move { bulkhead.execute(pending::<Result<(), ()>>()).await };
    (first, start(Box::pin(second) as Call))
}

/// Whatever the ticket carries is restored when the call ends.
#[test]
fn a_listed_call_is_recorded_like_any_other() {
    let rules = CircuitBreakerConfig::new()
        .slow_call_duration_threshold(SECOND)
        .hanging_call_threshold(5)
        .success_threshold(2)
        .failure_threshold(2);
    let (bulkhead, runtime) = tracked(|config| config.circuit_breaker(rules));
    let circuit = bulkhead.circuit_breaker().unwrap();
    let hanging = bulkhead.try_acquire().unwrap();
    runtime.advance(2 * SECOND);
    assert_eq!(circuit.snapshot().counts.hanging_calls, 1);
    hanging.succeed();
    let counts = circuit.snapshot().counts;
    assert_eq!((counts.hanging_calls, counts.slow_calls), (0, 1));
    for _ in 0..2 {
        bulkhead.try_acquire().unwrap().fail();
    }
    assert!(circuit.is_open());
    circuit.half_open();
    let probes = [
        bulkhead.try_acquire().unwrap(),
        bulkhead.try_acquire().unwrap(),
    ];
    assert!(bulkhead.try_acquire().is_err(), "two probes are running");
    assert_eq!(oldest(&bulkhead).len(), 2);
    for probe in probes {
        probe.record(Outcome::Success);
    }
    assert!(circuit.is_closed());
    assert_eq!(oldest(&bulkhead), []);
}

/// Fault W2.
#[test]
fn a_blocking_closure_is_listed_after_its_caller_left() {
    for dropped in [false, true] {
        let rules = CircuitBreakerConfig::new()
            .slow_call_duration_threshold(SECOND)
            .hanging_call_threshold(5);
        let (bulkhead, runtime) = tracked(|config| config.circuit_breaker(rules));
        let (release, released) = mpsc::channel::<()>();
        let (running, started) = mpsc::channel::<()>();
        let label = bulkhead.label("report");
        let call = bulkhead.call().label(label).run_timeout(SECOND);
        let mut call = start(call.execute_blocking(move || {
            running.send(()).unwrap();
            released.recv().unwrap();
            Ok::<_, ()>(())
        }));
        started.recv().unwrap();
        runtime.advance(2 * SECOND);
        if !dropped {
            let result = poll(&mut call);
            assert!(matches!(
                result,
                Poll::Ready(Err(BulkheadError::Timeout { .. }))
            ));
        }
        drop(call);
        let calls = oldest(&bulkhead);
        assert_eq!((calls.len(), calls[0].age), (1, 2 * SECOND));
        assert_eq!(calls[0].label.as_deref(), Some("report"));
        release.send(()).unwrap();
        bulkhead.shutdown();
        runtime.block_on(bulkhead.drained());
        assert_eq!(oldest(&bulkhead), []);
    }
}

#[test]
fn switched_on_and_off_in_place() {
    let (bulkhead, runtime) = tracked(|config| config.track_running_calls(false));
    let before = bulkhead.try_acquire().unwrap();
    let track = |on| {
        let config = bulkhead.config().track_running_calls(on);
        bulkhead.reconfigure(config).unwrap();
    };
    track(true);
    assert_eq!(oldest(&bulkhead), [], "only calls that begin from now on");
    let listed = bulkhead.try_acquire().unwrap();
    runtime.advance(SECOND);
    track(false);
    let after = bulkhead.try_acquire().unwrap();
    assert_eq!(oldest(&bulkhead).len(), 1);
    drop((before, listed, after));
    assert_eq!(oldest(&bulkhead), []);
    // More permits, more slots.
    track(true);
    let config = bulkhead.config().max_concurrent_calls(10_000);
    bulkhead.reconfigure(config).unwrap();
    let calls: Vec<_> = (0..10_000)
        .map(|_| bulkhead.try_acquire().unwrap())
        .collect();
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.oldest.len(), snapshot.untracked_calls), (16, 0));
    drop(calls);
    assert_eq!(oldest(&bulkhead), []);
}

#[test]
fn a_call_without_a_slot_is_counted_and_runs() {
    let (bulkhead, _runtime) = tracked(|config| config.max_concurrent_calls(70_000));
    let calls: Vec<_> = (0..66_000)
        .map(|_| bulkhead.try_acquire().unwrap())
        .collect();
    assert_eq!(bulkhead.snapshot().untracked_calls, 66_000 - 65_536);
    calls.into_iter().for_each(|call| call.succeed());
    let snapshot = bulkhead.snapshot();
    assert_eq!(
        (snapshot.oldest.len(), snapshot.stats.successful),
        (0, 66_000)
    );
}

/// Threads that begin and end calls while the list is read.
#[test]
fn the_list_shows_no_call_that_does_not_exist() {
    let (bulkhead, _runtime) = tracked(|config| config.max_concurrent_calls(64).max_queue_size(0));
    let known = bulkhead.label("known");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let call = bulkhead.call().label(known);
                    call.execute_sync(|| Ok::<_, ()>(())).unwrap();
                }
            });
        }
        for _ in 0..2_000 {
            let calls = oldest(&bulkhead);
            // A thread may end a call and begin another one while the slots are read.
            assert!(calls.len() <= 16, "{calls:?}");
            for call in calls {
                assert_eq!(
                    (call.label.as_deref(), call.age),
                    (Some("known"), Duration::ZERO)
                );
            }
        }
    });
    assert_eq!(
        (oldest(&bulkhead).len(), bulkhead.snapshot().untracked_calls),
        (0, 0)
    );
}

/// Fault W4.
#[test]
fn only_a_listed_call_reads_the_clock_and_only_once() {
    #[derive(Debug, Default)]
    struct CountingClock(AtomicU64);

    impl Runtime for CountingClock {
        fn now(&self) -> Instant {
            self.0.fetch_add(1, Ordering::Relaxed);
            ClockOnly.now()
        }

        fn sleep_until(&self, deadline: Instant) -> Sleep {
            ClockOnly.sleep_until(deadline)
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
            ClockOnly.spawn(task)
        }

        fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
            ClockOnly.spawn_blocking(job);
        }
    }

    for (listed, readings) in [(false, 0), (true, 1)] {
        let clock = Arc::new(CountingClock::default());
        let config = BulkheadConfig::new("test").track_running_calls(listed);
        let bulkhead = Bulkhead::new(config, Arc::clone(&clock)).unwrap();
        let calls: [fn(&Bulkhead); 3] = [
            |bulkhead| bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap(),
            |bulkhead| bulkhead.try_acquire().unwrap().succeed(),
            |bulkhead| {
                let mut call = Box::pin(bulkhead.execute(async { Ok::<_, ()>(()) }));
                assert!(poll(&mut call).is_ready());
            },
        ];
        for (number, call) in calls.iter().enumerate() {
            let before = clock.0.load(Ordering::Relaxed);
            call(&bulkhead);
            let read = clock.0.load(Ordering::Relaxed) - before;
            assert_eq!(read, readings, "call {number}, listed: {listed}");
        }
    }
}
