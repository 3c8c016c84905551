//! Runs a behavior on an executor with a virtual clock, and checks that it leaks nothing.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bulkman::runtime::{BoxFuture, Sleep};
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, Runtime, SmolRuntime, TokioRuntime};
use futures_lite::future::{block_on, yield_now};

use crate::operations::{Answer, Outcome, Work, work};
use crate::watchdog::watchdog;

/// Instantiates behaviors as tests, for every runtime.
macro_rules! on_every_runtime {
    ($($behavior:ident),+ $(,)?) => {
        on_every_runtime!(@ tokio_multi_thread TokioMultiThread $($behavior)+);
        on_every_runtime!(@ tokio_current_thread TokioCurrentThread $($behavior)+);
        on_every_runtime!(@ smol Smol $($behavior)+);
    };
    (@ $module:ident $flavor:ident $($behavior:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $behavior() {
                    $crate::harness::Flavor::$flavor.run(super::$behavior);
                }
            )+
        }
    };
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Flavor {
    /// The multi-threaded scheduler of Tokio. It can't pause its clock: `ManualRuntime` provides
    /// one.
    TokioMultiThread,
    /// The current-thread scheduler of Tokio, with its clock paused.
    TokioCurrentThread,
    /// The executor of smol on two threads. It has no virtual clock: `ManualRuntime` provides one.
    Smol,
}

impl Flavor {
    /// Runs a behavior, and asserts that its bulkheads are idle once the executor is dropped.
    pub(crate) fn run<F: Future<Output = ()>>(
        self,
        behavior: impl FnOnce(Harness) -> F + Send + 'static,
    ) {
        watchdog(move || {
            let bulkheads = Bulkheads::default();
            match self {
                Self::TokioMultiThread => {
                    let tokio = tokio::runtime::Builder::new_multi_thread()
                        .worker_threads(2)
                        .build()
                        .unwrap();
                    let tasks = Tasks::Tokio(tokio.handle().clone());
                    tokio.block_on(behavior(Harness::manual(tasks, &bulkheads)));
                }
                Self::TokioCurrentThread => {
                    let tokio = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build()
                        .unwrap();
                    let _entered = tokio.enter();
                    let harness = Harness::tokio(tokio.handle().clone(), &bulkheads);
                    tokio.block_on(behavior(harness));
                }
                Self::Smol => {
                    let executor = Arc::new(smol::Executor::new());
                    let (stop, stopped) = smol::channel::bounded::<()>(1);
                    thread::scope(|threads| {
                        let stop = stop;
                        for _ in 0..2 {
                            threads.spawn(|| block_on(executor.run(stopped.recv())));
                        }
                        let tasks = Tasks::Smol(Arc::clone(&executor));
                        block_on(behavior(Harness::manual(tasks, &bulkheads)));
                        drop(stop);
                    });
                }
            }
            bulkheads.assert_idle();
        });
    }
}

/// The environment of a behavior: an executor, a clock, and the bulkheads it creates.
#[derive(Clone)]
pub(crate) struct Harness {
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    tasks: Tasks,
    timers: Timers,
    deferred_jobs: DeferredJobs,
    bulkheads: Bulkheads,
    started_at: Instant,
}

#[derive(Clone)]
enum Clock {
    Tokio,
    Manual(ManualRuntime),
}

#[derive(Clone)]
enum Tasks {
    Tokio(tokio::runtime::Handle),
    Smol(Arc<smol::Executor<'static>>),
}

impl Harness {
    fn tokio(handle: tokio::runtime::Handle, bulkheads: &Bulkheads) -> Self {
        let tokio = Arc::new(TokioRuntime::new());
        Self::new(
            tokio.clone(),
            tokio,
            Clock::Tokio,
            Tasks::Tokio(handle),
            bulkheads,
        )
    }

    fn manual(tasks: Tasks, bulkheads: &Bulkheads) -> Self {
        let clock = ManualRuntime::new();
        let executor: Arc<dyn Runtime> = match &tasks {
            Tasks::Tokio(handle) => Arc::new(TokioRuntime::from_handle(handle.clone())),
            Tasks::Smol(executor) => Arc::new(SmolRuntime::with_executor(Arc::clone(executor))),
        };
        Self::new(
            Arc::new(clock.clone()),
            executor,
            Clock::Manual(clock),
            tasks,
            bulkheads,
        )
    }

    fn new(
        time: Arc<dyn Runtime>,
        executor: Arc<dyn Runtime>,
        clock: Clock,
        tasks: Tasks,
        bulkheads: &Bulkheads,
    ) -> Self {
        let timers = Timers::default();
        let started_at = time.now();
        let deferred_jobs = DeferredJobs::default();
        let runtime = Arc::new(Composed {
            time,
            executor,
            timers: timers.clone(),
            deferred_jobs: deferred_jobs.clone(),
        });
        Self {
            runtime,
            clock,
            tasks,
            timers,
            deferred_jobs,
            bulkheads: bulkheads.clone(),
            started_at,
        }
    }

    /// Creates a bulkhead that must be idle when the behavior has ended.
    pub(crate) fn bulkhead(&self, config: BulkheadConfig) -> Bulkhead {
        let bulkhead = Bulkhead::new(config, self.runtime()).unwrap();
        self.bulkheads.0.lock().unwrap().push(bulkhead.clone());
        bulkhead
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    /// Returns the time since the behavior started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.runtime.now() - self.started_at
    }

    /// Advances the clock. Tasks that it wakes run once the behavior awaits something.
    pub(crate) async fn advance(&self, by: Duration) {
        match &self.clock {
            Clock::Tokio => tokio::time::advance(by).await,
            Clock::Manual(clock) => clock.advance(by),
        }
    }

    /// Returns the number of live timers, and of all timers created so far.
    pub(crate) fn timers(&self) -> (usize, usize) {
        let Timers { alive, created } = &self.timers;
        (alive.load(Ordering::SeqCst), created.load(Ordering::SeqCst))
    }

    /// Simulates that all threads for blocking work are in use.
    pub(crate) fn occupy_blocking_threads(&self) {
        *self.deferred_jobs.lock().unwrap() = Some(Vec::new());
    }

    /// Frees the threads again, and runs the jobs that waited for one.
    pub(crate) fn free_blocking_threads(&self) {
        let waiting = self.deferred_jobs.lock().unwrap().take();
        for job in waiting.unwrap_or_default() {
            self.runtime.spawn_blocking(job);
        }
    }

    /// Drops the blocking jobs that have not started, as a runtime does when it shuts down.
    pub(crate) fn drop_blocking_work(&self) {
        let jobs = self.deferred_jobs.lock().unwrap().replace(Vec::new());
        drop(jobs);
    }

    /// Spawns a task on the executor.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        match &self.tasks {
            Tasks::Tokio(handle) => Task::Tokio(handle.spawn(future)),
            Tasks::Smol(executor) => Task::Smol(executor.spawn(future)),
        }
    }

    /// Lets other tasks run until `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            yield_now().await;
            thread::yield_now();
        }
    }

    /// Starts a call that runs until its control ends it.
    pub(crate) async fn running(&self, bulkhead: &Bulkhead) -> (Work, Task<Outcome>) {
        let (control, task) = self.call(bulkhead);
        self.until(|| control.has_started()).await;
        (control, task)
    }

    /// Starts a call that waits for a permit, and then runs until its control ends it.
    pub(crate) async fn waiting(&self, bulkhead: &Bulkhead) -> (Work, Task<Outcome>) {
        let before = bulkhead.stats().waiting;
        let (control, task) = self.call(bulkhead);
        self.until(|| bulkhead.stats().waiting > before).await;
        (control, task)
    }

    fn call(&self, bulkhead: &Bulkhead) -> (Work, Task<Outcome>) {
        let (control, operation) = work();
        let bulkhead = bulkhead.clone();
        (
            control,
            self.spawn(async move { bulkhead.execute(operation).await }),
        )
    }

    /// Runs failing calls, one after another.
    pub(crate) async fn fail(&self, bulkhead: &Bulkhead, times: usize) {
        for _ in 0..times {
            let failed = bulkhead.execute(async { Answer::Err("down") }).await;
            assert_eq!(failed.unwrap_err().into_operation(), Some("down"));
        }
    }

    /// Runs successful calls, one after another.
    pub(crate) async fn succeed(&self, bulkhead: &Bulkhead, times: usize) {
        for _ in 0..times {
            assert_eq!(bulkhead.execute(async { Answer::Ok(7) }).await, Ok(7));
        }
    }
}

/// A spawned task.
///
/// With Tokio, dropping it does not cancel the task: see [`cancel`](Self::cancel).
#[must_use]
pub(crate) enum Task<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Smol(smol::Task<T>),
}

impl<T> Task<T> {
    /// Cancels the task, and waits until its future is dropped.
    pub(crate) async fn cancel(self) {
        match self {
            Self::Tokio(task) => {
                task.abort();
                assert!(
                    task.await.is_err_and(|error| error.is_cancelled()),
                    "the task had ended"
                );
            }
            Self::Smol(task) => assert!(task.cancel().await.is_none(), "the task had ended"),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Tokio(task) => task.is_finished(),
            Self::Smol(task) => task.is_finished(),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *self {
            Self::Tokio(task) => Pin::new(task)
                .poll(cx)
                .map(|joined| joined.expect("the task ran to its end")),
            Self::Smol(task) => Pin::new(task).poll(cx),
        }
    }
}

/// Polls a future once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// Returns the output of a future that is ready at its first poll.
#[track_caller]
pub(crate) fn now_or_never<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

/// The clock of one runtime and the tasks of another, with a count of timers.
struct Composed {
    time: Arc<dyn Runtime>,
    executor: Arc<dyn Runtime>,
    timers: Timers,
    deferred_jobs: DeferredJobs,
}

impl Runtime for Composed {
    fn now(&self) -> Instant {
        self.time.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.timers.created.fetch_add(1, Ordering::SeqCst);
        let mut sleep = self.time.sleep_until(deadline);
        let mut alive = LiveTimer {
            timers: self.timers.clone(),
            counted: false,
        };
        Box::pin(std::future::poll_fn(move |cx| {
            let polled = sleep.as_mut().poll(cx);
            // Counted once it is registered: the clock may be advanced from then on.
            if polled.is_pending() && !std::mem::replace(&mut alive.counted, true) {
                alive.timers.alive.fetch_add(1, Ordering::SeqCst);
            }
            polled
        }))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.executor.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        match &mut *self.deferred_jobs.lock().unwrap() {
            Some(jobs) => jobs.push(job),
            None => self.executor.spawn_blocking(job),
        }
    }

    fn park(&self, deadline: Option<Instant>) {
        self.time.park(deadline);
    }
}

/// Blocking jobs that wait for a thread; `None` while threads are available.
type DeferredJobs = Arc<Mutex<Option<Vec<Box<dyn FnOnce() + Send>>>>>;

impl fmt::Debug for Composed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Composed").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default)]
struct Timers {
    alive: Arc<AtomicUsize>,
    created: Arc<AtomicUsize>,
}

struct LiveTimer {
    timers: Timers,
    counted: bool,
}

impl Drop for LiveTimer {
    fn drop(&mut self) {
        if self.counted {
            self.timers.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Default)]
struct Bulkheads(Arc<Mutex<Vec<Bulkhead>>>);

impl Bulkheads {
    fn assert_idle(&self) {
        for bulkhead in &*self.0.lock().unwrap() {
            let stats = bulkhead.stats();
            assert_eq!(
                (stats.active, stats.permits_in_use, stats.waiting),
                (0, 0, 0),
                "the bulkhead is not idle: {stats:?}"
            );
            let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
            assert_eq!(stats.started, ended, "{stats:?}");
        }
    }
}
