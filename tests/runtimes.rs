//! The runtimes with their real timers and threads, and their shutdown.
//!
//! Only these tests wait for real time, for a few milliseconds.

#[path = "../bulkman-core/tests/support/watchdog.rs"]
mod watchdog;

use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::CircuitEvent;
use bulkman::error::TimeoutPhase;
use bulkman::fleet::FleetEvent;
use bulkman::metrics::MetricsPublisher;
use bulkman::store::MemoryStore;
use bulkman::tower::{BoxError, BulkheadLayer};
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreakerConfig, Permit,
    Runtime, SmolRuntime, TokioRuntime,
};
use futures_lite::future::{block_on, poll_once};
use tokio::runtime::Builder;
use tower::{Layer, Service, service_fn};
use watchdog::watchdog;

type Answer = Result<u32, &'static str>;

const SOON: Duration = Duration::from_millis(5);

fn config() -> BulkheadConfig {
    BulkheadConfig::new("real")
        .max_concurrent_calls(1)
        .failure_threshold(1)
}

fn on_tokio(multi_thread: bool, test: impl Future<Output = ()> + Send + 'static) {
    watchdog(move || {
        let mut builder = if multi_thread {
            Builder::new_multi_thread()
        } else {
            Builder::new_current_thread()
        };
        builder.enable_time().build().unwrap().block_on(test);
    });
}

#[test]
fn tokio_multi_thread_times_out() {
    on_tokio(true, times_out(TokioRuntime::new()));
}

#[test]
fn tokio_current_thread_times_out() {
    on_tokio(false, times_out(TokioRuntime::new()));
}

#[test]
fn smol_times_out() {
    watchdog(|| smol::block_on(times_out(SmolRuntime::new())));
}

/// More calls than Tokio's tasks have budget for in one poll, by far.
const MANY: u32 = 10_000;

/// Each way to make calls that are ready at once. They return how they ended: all in the same way.
#[derive(Clone, Copy, Debug)]
enum HotLoop {
    Succeed,
    Fail,
    Limited,
    Full,
    CircuitOpen,
    Acquire,
    Wrapped,
    Tower,
}

impl HotLoop {
    const ALL: [Self; 8] = [
        Self::Succeed,
        Self::Fail,
        Self::Limited,
        Self::Full,
        Self::CircuitOpen,
        Self::Acquire,
        Self::Wrapped,
        Self::Tower,
    ];

    /// Makes calls until `stop` returns true, at most [`MANY`]. Returns how many it made.
    async fn run(self, stop: impl Fn() -> bool) -> u32 {
        let config = BulkheadConfig::new("hot")
            .max_concurrent_calls(1)
            .failure_threshold(u32::MAX);
        let config = match self {
            Self::Limited => config.timeout(Duration::from_secs(60)),
            Self::Full => config.max_queue_size(0),
            _ => config,
        };
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        let _held = matches!(self, Self::Full).then(|| bulkhead.try_acquire().unwrap());
        if matches!(self, Self::CircuitOpen) {
            bulkhead.circuit_breaker().unwrap().force_open();
        }
        let wrapped = bulkhead.wrap(|()| ready(Ok::<_, ()>(())));
        let mut service = BulkheadLayer::new(bulkhead.clone())
            .layer(service_fn(|()| ready(Ok::<_, BoxError>(()))));
        for made in 0..MANY {
            if stop() {
                return made;
            }
            let succeeded = match self {
                Self::Fail => bulkhead.execute(ready(Err::<(), _>(()))).await.is_ok(),
                Self::Acquire => bulkhead.acquire().await.map(Permit::succeed).is_ok(),
                Self::Wrapped => wrapped(()).await.is_ok(),
                Self::Tower => service.call(()).await.is_ok(),
                _ => bulkhead.execute(ready(Ok::<_, ()>(()))).await.is_ok(),
            };
            let expected = !matches!(self, Self::Fail | Self::Full | Self::CircuitOpen);
            assert_eq!(succeeded, expected, "{self:?}");
        }
        MANY
    }
}

/// Fault GAP06.
#[test]
fn loop_of_ready_calls_lets_other_tokio_tasks_run() {
    on_tokio(false, async {
        for kind in HotLoop::ALL {
            let ran = Arc::new(AtomicBool::new(false));
            let neighbor = tokio::spawn({
                let ran = ran.clone();
                async move { ran.store(true, Ordering::SeqCst) }
            });
            let made = kind.run(|| ran.load(Ordering::SeqCst)).await;
            assert!(made < MANY, "{kind:?}: the neighbor never ran");
            neighbor.await.unwrap();
        }
    });
}

/// Fault GAP06.
#[test]
fn timeout_around_a_loop_of_ready_calls_fires() {
    on_tokio(false, async {
        for kind in HotLoop::ALL {
            // Already elapsed: it fires as soon as the loop yields.
            let looped = tokio::time::timeout(Duration::ZERO, kind.run(|| false)).await;
            assert!(looped.is_err(), "{kind:?}: the timeout never fired");
        }
    });
}

/// Fault GAP06.
#[test]
fn calls_on_an_uncooperative_runtime_consume_no_budget() {
    on_tokio(false, async {
        let runtime = TokioRuntime::new().cooperative(false);
        let bulkhead = Bulkhead::new(config(), runtime).unwrap();
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        for _ in 0..MANY {
            let mut call = Box::pin(bulkhead.execute(ready(Ok::<_, ()>(()))));
            assert!(poll_once(&mut call).await.is_some());
        }
        assert_eq!(bulkhead.stats().successful, u64::from(MANY));
    });
}

/// Fault GAP06.
#[test]
fn queue_fills_within_one_poll_of_a_task() {
    on_tokio(false, async {
        let bulkhead = Bulkhead::new(config().max_queue_size(1_000), TokioRuntime::new()).unwrap();
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiting: Vec<_> = (0..1_000)
            .map(|_| Box::pin(bulkhead.execute(ready(Ok::<_, ()>(())))))
            .collect();
        for call in &mut waiting {
            assert!(poll_once(call).await.is_none());
        }
        // All of them are queued by one poll of this task.
        assert_eq!(bulkhead.stats().waiting, 1_000);
        permit.succeed();
        for call in waiting {
            call.await.unwrap();
        }
        assert_eq!(bulkhead.stats().successful, 1_001);
    });
}

/// Fault GAP06.
#[test]
fn call_without_budget_holds_nothing_and_keeps_its_time() {
    on_tokio(false, async {
        let config = config().run_timeout(Duration::from_secs(60));
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        // Some of the next calls are not charged.
        let mut made = 0;
        let call = loop {
            let mut call = Box::pin(bulkhead.execute(ready(Ok::<_, ()>(()))));
            match poll_once(&mut call).await {
                Some(result) => result.unwrap(),
                None => break call,
            }
            made += 1;
            assert!(made < 100, "no call was charged");
        };
        let stats = bulkhead.stats();
        assert_eq!(
            (stats.started, stats.waiting, stats.permits_in_use),
            (made, 0, 0)
        );
        // The task was woken, and has a new budget.
        call.await.unwrap();
        // A call on another executor's task has no budget to use up.
        watchdog(move || {
            block_on(async {
                for _ in 0..MANY {
                    bulkhead.execute(ready(Ok::<_, ()>(()))).await.unwrap();
                }
                assert_eq!(bulkhead.stats().successful, u64::from(MANY) + made + 1);
            });
        });
    });
}

/// Tests real timers, while running and while queued, and real threads.
async fn times_out(runtime: impl Runtime) {
    let bulkhead = Bulkhead::new(config().timeout(SOON).failure_threshold(9), runtime).unwrap();
    let running = bulkhead
        .call()
        .execute_with_report(pending::<Answer>())
        .await;
    assert!(matches!(
        running.result,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        })
    ));
    assert!(running.ran >= SOON, "{:?}", running.ran);
    let permit = bulkhead.try_acquire().unwrap();
    let queued = bulkhead
        .call()
        .execute_with_report(pending::<Answer>())
        .await;
    assert!(matches!(
        queued.result,
        Err(BulkheadError::Timeout {
            phase: TimeoutPhase::Queued,
            ..
        })
    ));
    assert!(queued.queued >= SOON, "{:?}", queued.queued);
    drop(permit);
    // On a busy machine the thread may start later than the timeout. Then the closure never runs,
    // and another attempt is made.
    let end = loop {
        let (end, ended) = channel::<()>();
        let blocked = bulkhead
            .execute_blocking(move || ended.recv().map_err(|_| "sender dropped"))
            .await;
        match blocked {
            Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }) => break end,
            Err(BulkheadError::Timeout {
                phase: TimeoutPhase::Queued,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bulkhead.stats().permits_in_use, 1);
    bulkhead.shutdown();
    drop(end);
    bulkhead.drained().await;
}

#[test]
fn tokio_multi_thread_recovers_without_calls() {
    on_tokio(true, recovers(TokioRuntime::new()));
}

#[test]
fn tokio_current_thread_recovers_without_calls() {
    on_tokio(false, recovers(TokioRuntime::new()));
}

#[test]
fn smol_recovers_without_calls() {
    watchdog(|| smol::block_on(recovers(SmolRuntime::new())));
}

/// Tests background tasks: half-open by a timer, and by a health check.
async fn recovers(runtime: impl Runtime + Clone) {
    let rules = CircuitBreakerConfig::new()
        .failure_threshold(1)
        .automatic_half_open(true);
    let timed = Bulkhead::new(
        config().circuit_breaker(rules.isolation_duration(SOON)),
        runtime.clone(),
    )
    .unwrap();
    let checked = Bulkhead::new(config().isolation_duration(Duration::MAX), runtime).unwrap();
    checked
        .health_check(SOON, || async { Ok::<_, ()>(()) })
        .unwrap();
    for bulkhead in [timed, checked] {
        let mut events = bulkhead.events();
        assert!(
            bulkhead
                .execute(async { Answer::Err("down") })
                .await
                .is_err()
        );
        // The events are sent although the state is never read.
        for _ in ["open", "half-open"] {
            assert!(matches!(
                events.next().await,
                Some(CircuitEvent::Transition(_))
            ));
        }
        assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    }
}

/// Hazard H62.
#[test]
fn tokio_accepts_the_longest_timers() {
    on_tokio(false, accepts_longest_timers(TokioRuntime::new()));
}

/// Hazard H62.
#[test]
fn smol_accepts_the_longest_timers() {
    watchdog(|| smol::block_on(accepts_longest_timers(SmolRuntime::new())));
}

async fn accepts_longest_timers(runtime: impl Runtime + Clone) {
    for seconds in [u64::MAX, 1 << 62, 1 << 52, 1 << 40] {
        let long = Duration::from_secs(seconds);
        let bulkhead = Bulkhead::new(config(), runtime.clone()).unwrap();
        let mut polls = 0;
        let ready_at_third_poll = std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls > 2 {
                Poll::Ready(Answer::Ok(1))
            } else {
                Poll::Pending
            }
        });
        let call = bulkhead
            .call()
            .timeout(long)
            .run_timeout(long)
            .max_wait(long)
            .execute(ready_at_third_poll);
        assert_eq!(call.await, Ok(1), "{long:?}");
    }
}

#[test]
fn dropping_tokio_releases_queued_calls_and_blocking_work() {
    watchdog(|| {
        let tokio = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let limits = BulkheadConfig::new("real").max_concurrent_calls(3);
        let bulkhead = Bulkhead::new(limits, TokioRuntime::new()).unwrap();
        let (end, ended) = channel::<()>();
        let (started, has_started) = channel();
        let spawn =
            |call: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| drop(tokio.spawn(call));
        // One call runs, one has the only thread, one waits for that thread, two are queued.
        let inside = bulkhead.clone();
        spawn(Box::pin(async move {
            drop(inside.execute(pending::<Answer>()).await)
        }));
        let inside = bulkhead.clone();
        let work = move || {
            started.send(()).unwrap();
            ended.recv().map_err(|_| "sender dropped")
        };
        spawn(Box::pin(async move {
            drop(inside.execute_blocking(work).await)
        }));
        has_started.recv().unwrap();
        let inside = bulkhead.clone();
        spawn(Box::pin(async move {
            drop(inside.execute_blocking(|| Answer::Ok(1)).await)
        }));
        wait_for(|| bulkhead.stats().active == 3);
        for _ in 0..2 {
            let inside = bulkhead.clone();
            spawn(Box::pin(async move {
                drop(inside.execute(pending::<Answer>()).await)
            }));
        }
        wait_for(|| bulkhead.stats().waiting == 2);
        tokio.shutdown_background();
        // Only the closure that a thread runs continues. The end of a call is counted right before
        // its permit is released, so all three numbers are awaited.
        wait_for(|| {
            let stats = bulkhead.stats();
            (stats.active, stats.waiting, stats.permits_in_use) == (1, 0, 1)
        });
        drop(end);
        wait_for(|| bulkhead.stats().permits_in_use == 0);
        let stats = bulkhead.stats();
        assert_eq!(
            (
                stats.started,
                stats.cancelled + stats.failed,
                stats.cancelled_in_queue
            ),
            (3, 3, 2)
        );
        // The bulkhead works on another runtime.
        let other = Builder::new_current_thread().build().unwrap();
        assert_eq!(
            other.block_on(bulkhead.execute(async { Answer::Ok(1) })),
            Ok(1)
        );
    });
}

#[test]
fn calls_without_a_timer_work_outside_of_a_runtime() {
    watchdog(|| {
        let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
        // A call that needs no timer works without a runtime, and on another executor.
        assert_eq!(block_on(bulkhead.execute(async { Answer::Ok(1) })), Ok(1));
        assert_eq!(
            smol::block_on(bulkhead.execute(async { Answer::Ok(1) })),
            Ok(1)
        );
        let tokio = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let pinned = TokioRuntime::from_handle(tokio.handle().clone());
        let bulkhead = Bulkhead::new(config().failure_threshold(9), pinned).unwrap();
        let late = block_on(bulkhead.call().timeout(SOON).execute(pending::<Answer>()));
        assert!(
            matches!(late, Err(BulkheadError::Timeout { .. })),
            "{late:?}"
        );
        assert_eq!(block_on(bulkhead.execute_blocking(|| Answer::Ok(3))), Ok(3));
    });
}

/// Yields to other threads until `condition` holds. The watchdog ends a test that hangs.
fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Fault F01.
#[test]
fn fleet_driver_starts_again_after_its_runtime_has_ended() {
    watchdog(|| {
        let (manager, mut events) = Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(async {
                let store = MemoryStore::new(TokioRuntime::new());
                let manager = BulkheadManager::new(TokioRuntime::new());
                manager.share_through(store).unwrap();
                let config = config().success_threshold(1).isolation_duration(SOON);
                manager.create_bulkhead(config).unwrap();
                let fleet = manager.fleet().unwrap();
                assert!(fleet.wait_ready(Duration::from_secs(10)).await);
                let events = fleet.events();
                (manager, events)
            });
        let fleet = manager.fleet().unwrap();
        assert!(!fleet.snapshot().connected && fleet.snapshot().error.is_some());
        assert!(matches!(
            events.try_next(),
            Some(FleetEvent::Degraded { .. })
        ));
        let real = manager.get_bulkhead("real").unwrap();
        let next = Builder::new_current_thread().enable_time().build().unwrap();
        next.block_on(async {
            let _failed = real.execute(async { Err::<(), _>("down") }).await;
            while real.execute(async { Ok::<_, &str>(()) }).await.is_err() {
                tokio::time::sleep(SOON).await;
            }
            assert!(fleet.wait_ready(Duration::from_secs(10)).await);
        });
    });
}

/// Fault F05.
#[test]
fn constructors_fail_where_no_runtime_takes_their_task() {
    let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
    let health_check = bulkhead.health_check(SOON, || async { Ok::<_, ()>(()) });
    let error = health_check.unwrap_err();
    assert!(error.to_string().contains("health_check"), "{error}");
    let manager = BulkheadManager::new(TokioRuntime::new());
    let error = manager
        .share_through(MemoryStore::new(TokioRuntime::new()))
        .unwrap_err();
    assert!(error.to_string().contains("store"), "{error}");
    let error = MetricsPublisher::new(&manager)
        .publish_every(SOON)
        .unwrap_err();
    assert!(error.to_string().contains("publish_every"), "{error}");
    // A runtime that has ended accepts a task and drops it.
    let ended = Builder::new_current_thread().enable_time().build().unwrap();
    let runtime = TokioRuntime::from_handle(ended.handle().clone());
    drop(ended);
    let manager = BulkheadManager::new(runtime.clone());
    manager
        .share_through(MemoryStore::new(runtime))
        .unwrap_err();
}

/// Waits for a permit on this thread, while another thread holds it for a while.
fn waits_in_execute_sync(bulkhead: &Bulkhead) -> Result<u32, BulkheadError<&'static str>> {
    let holder = bulkhead.try_acquire().unwrap();
    let releasing = std::thread::spawn({
        let bulkhead = bulkhead.clone();
        move || {
            while bulkhead.stats().waiting == 0 {
                std::thread::yield_now();
            }
            holder.succeed();
        }
    });
    let result = bulkhead.execute_sync(|| Answer::Ok(7));
    releasing.join().unwrap();
    result
}

/// Fault D12.
#[test]
fn execute_sync_that_waits_in_a_task_panics() {
    for multi_thread in [true, false] {
        on_tokio(multi_thread, async {
            let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
            let holder = bulkhead.try_acquire().unwrap();
            let inner = bulkhead.clone();
            let task = tokio::spawn(async move { inner.execute_sync(|| Answer::Ok(1)) });
            let panic = task.await.unwrap_err().into_panic();
            let message = panic.downcast_ref::<&str>().copied().map(String::from);
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            let message = message.unwrap();
            assert!(message.contains("block the current thread"), "{message}");
            // Nothing is lost, and a call that need not wait works.
            holder.succeed();
            assert_eq!(bulkhead.execute_sync(|| Answer::Ok(1)), Ok(1));
            let stats = bulkhead.stats();
            assert_eq!((stats.waiting, stats.permits_in_use), (0, 0));
        });
    }
}

/// Fault D12.
#[test]
fn execute_sync_waits_where_blocking_is_allowed() {
    on_tokio(true, async {
        let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
        let inner = bulkhead.clone();
        let blocking = tokio::task::spawn_blocking(move || waits_in_execute_sync(&inner));
        assert_eq!(blocking.await.unwrap(), Ok(7));
        let inner = bulkhead.clone();
        let in_place =
            tokio::spawn(
                async move { tokio::task::block_in_place(|| waits_in_execute_sync(&inner)) },
            );
        assert_eq!(in_place.await.unwrap(), Ok(7));
        let thread = std::thread::spawn(move || waits_in_execute_sync(&bulkhead));
        assert_eq!(thread.join().unwrap(), Ok(7));
    });
    // The thread of no runtime, with the handle of one.
    watchdog(|| {
        let tokio = Builder::new_current_thread().enable_time().build().unwrap();
        let runtime = TokioRuntime::from_handle(tokio.handle().clone());
        let bulkhead = Bulkhead::new(config(), runtime).unwrap();
        assert_eq!(waits_in_execute_sync(&bulkhead), Ok(7));
    });
}

/// Fault API03.
#[test]
fn blocking_work_without_a_runtime_is_unsupported() {
    watchdog(|| {
        let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
        let error = block_on(bulkhead.execute_blocking(|| Answer::Ok(1))).unwrap_err();
        assert!(
            matches!(
                error,
                BulkheadError::Unsupported {
                    setting: "execute_blocking",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.is_rejection());
        assert!(error.to_string().contains("no running executor"), "{error}");
        let stats = bulkhead.stats();
        assert_eq!((stats.started, stats.cancelled), (0, 0));
        // It works once there is one.
        let tokio = Builder::new_current_thread().build().unwrap();
        assert_eq!(
            tokio.block_on(bulkhead.execute_blocking(|| Answer::Ok(1))),
            Ok(1)
        );
    });
}

/// Fault F09.
#[test]
fn circuit_never_stays_open_longer_than_its_isolation() {
    watchdog(|| {
        let bulkhead = Bulkhead::new(config(), TokioRuntime::new()).unwrap();
        let isolation = Duration::from_secs(30);
        let paused = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        paused.unwrap().block_on(async {
            tokio::time::advance(Duration::from_secs(86_400)).await;
            let _ = bulkhead.execute(async { Answer::Err("down") }).await;
            assert_eq!(bulkhead.retry_after(), Some(isolation));
        });
        // Another runtime, with the real clock.
        let real = Builder::new_current_thread().enable_time().build();
        real.unwrap().block_on(async {
            let rejected = bulkhead.execute(async { Answer::Ok(1) }).await.unwrap_err();
            assert!(rejected.retry_after() <= Some(isolation), "{rejected}");
            assert!(bulkhead.retry_after() <= Some(isolation));
        });
    });
}
