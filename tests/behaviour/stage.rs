//! Where a behaviour plays: an executor, a virtual clock, and a look at what was left behind.

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

use crate::watchdog::watchdog;
use crate::work::{Answer, Outcome, Work, work};

/// Instantiates behaviours for every runtime.
macro_rules! on_every_runtime {
    ($($behaviour:ident),+ $(,)?) => {
        on_every_runtime!(@ tokio_multi_thread TokioMultiThread $($behaviour)+);
        on_every_runtime!(@ tokio_current_thread TokioCurrentThread $($behaviour)+);
        on_every_runtime!(@ smol Smol $($behaviour)+);
    };
    (@ $module:ident $flavour:ident $($behaviour:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $behaviour() {
                    $crate::stage::Flavour::$flavour.play(super::$behaviour);
                }
            )+
        }
    };
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Flavour {
    /// Tokio can't pause the clock of this scheduler, so that the clock is a `ManualRuntime`'s.
    TokioMultiThread,
    /// All of it Tokio's, the clock paused.
    TokioCurrentThread,
    /// smol's executor on two threads; async-io has no virtual clock, so it is a `ManualRuntime`'s.
    Smol,
}

impl Flavour {
    /// Plays a behaviour, and looks whether its bulkheads are at rest once the executor is gone.
    pub(crate) fn play<F: Future<Output = ()>>(
        self,
        behaviour: impl FnOnce(Stage) -> F + Send + 'static,
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
                    tokio.block_on(behaviour(Stage::manual(tasks, &bulkheads)));
                }
                Self::TokioCurrentThread => {
                    let tokio = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build()
                        .unwrap();
                    let _entered = tokio.enter();
                    let stage = Stage::tokio(tokio.handle().clone(), &bulkheads);
                    tokio.block_on(behaviour(stage));
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
                        block_on(behaviour(Stage::manual(tasks, &bulkheads)));
                        drop(stop);
                    });
                }
            }
            bulkheads.must_be_at_rest();
        });
    }
}

/// What a behaviour is given.
#[derive(Clone)]
pub(crate) struct Stage {
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    tasks: Tasks,
    timers: Timers,
    busy: Busy,
    bulkheads: Bulkheads,
    began: Instant,
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

impl Stage {
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
        let began = time.now();
        let busy = Busy::default();
        let runtime = Arc::new(Composed {
            time,
            executor,
            timers: timers.clone(),
            busy: busy.clone(),
        });
        Self {
            runtime,
            clock,
            tasks,
            timers,
            busy,
            bulkheads: bulkheads.clone(),
            began,
        }
    }

    /// A bulkhead that must be at rest when the behaviour has ended.
    pub(crate) fn bulkhead(&self, config: BulkheadConfig) -> Bulkhead {
        let bulkhead = Bulkhead::new(config, self.runtime()).unwrap();
        self.bulkheads.0.lock().unwrap().push(bulkhead.clone());
        bulkhead
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    /// How far the clock has come.
    pub(crate) fn elapsed(&self) -> Duration {
        self.runtime.now() - self.began
    }

    /// Moves the clock; what it wakes runs while the behaviour waits for something.
    pub(crate) async fn advance(&self, by: Duration) {
        match &self.clock {
            Clock::Tokio => tokio::time::advance(by).await,
            Clock::Manual(clock) => clock.advance(by),
        }
    }

    /// How many timers there are, and how many there have been.
    pub(crate) fn timers(&self) -> (usize, usize) {
        let Timers { alive, made } = &self.timers;
        (alive.load(Ordering::SeqCst), made.load(Ordering::SeqCst))
    }

    /// All threads for blocking work are taken, by others.
    pub(crate) fn take_threads(&self) {
        *self.busy.lock().unwrap() = Some(Vec::new());
    }

    /// There are threads again: what has waited for them runs.
    pub(crate) fn free_threads(&self) {
        let waiting = self.busy.lock().unwrap().take();
        for job in waiting.unwrap_or_default() {
            self.runtime.spawn_blocking(job);
        }
    }

    /// The runtime goes away with the blocking work that it has not begun.
    pub(crate) fn drop_blocking_work(&self) {
        let jobs = self.busy.lock().unwrap().replace(Vec::new());
        drop(jobs);
    }

    /// A task of the executor's.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        match &self.tasks {
            Tasks::Tokio(handle) => Task::Tokio(handle.spawn(future)),
            Tasks::Smol(executor) => Task::Smol(executor.spawn(future)),
        }
    }

    /// Lets the others run until `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            yield_now().await;
            thread::yield_now();
        }
    }

    /// A call that runs until it is told how to end.
    pub(crate) async fn running(&self, bulkhead: &Bulkhead) -> (Work, Task<Outcome>) {
        let (control, task) = self.call(bulkhead);
        self.until(|| control.has_begun()).await;
        (control, task)
    }

    /// A call that waits for a permit, and then runs until it is told how to end.
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

    /// One failed call after the other.
    pub(crate) async fn fail(&self, bulkhead: &Bulkhead, times: usize) {
        for _ in 0..times {
            let failed = bulkhead.execute(async { Answer::Err("down") }).await;
            assert_eq!(failed.unwrap_err().into_operation(), Some("down"));
        }
    }

    /// One successful call after the other.
    pub(crate) async fn succeed(&self, bulkhead: &Bulkhead, times: usize) {
        for _ in 0..times {
            assert_eq!(bulkhead.execute(async { Answer::Ok(7) }).await, Ok(7));
        }
    }
}

/// A spawned task. Dropping it cancels nothing under Tokio: see [`cancel`](Self::cancel).
#[must_use]
pub(crate) enum Task<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Smol(smol::Task<T>),
}

impl<T> Task<T> {
    /// Drops the future, and waits until that is done.
    pub(crate) async fn cancel(self) {
        match self {
            Self::Tokio(task) => {
                task.abort();
                assert!(
                    task.await.is_err_and(|error| error.is_cancelled()),
                    "it had ended"
                );
            }
            Self::Smol(task) => assert!(task.cancel().await.is_none(), "it had ended"),
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

/// The answer of a future that has one at its first poll.
#[track_caller]
pub(crate) fn now_or_never<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

/// The clock of one runtime, the tasks of another, and a count of the timers.
struct Composed {
    time: Arc<dyn Runtime>,
    executor: Arc<dyn Runtime>,
    timers: Timers,
    busy: Busy,
}

impl Runtime for Composed {
    fn now(&self) -> Instant {
        self.time.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.timers.made.fetch_add(1, Ordering::SeqCst);
        let mut sleep = self.time.sleep_until(deadline);
        let mut alive = Alive {
            timers: self.timers.clone(),
            counted: false,
        };
        Box::pin(std::future::poll_fn(move |cx| {
            let polled = sleep.as_mut().poll(cx);
            // Counted once it is armed, so that moving the clock does not come too early for it.
            if polled.is_pending() && !std::mem::replace(&mut alive.counted, true) {
                alive.timers.alive.fetch_add(1, Ordering::SeqCst);
            }
            polled
        }))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        match &mut *self.busy.lock().unwrap() {
            Some(jobs) => jobs.push(job),
            None => self.executor.spawn_blocking(job),
        }
    }

    fn park(&self, deadline: Option<Instant>) {
        self.time.park(deadline);
    }
}

/// The blocking work that waits for a thread; `None` while there are threads enough.
type Busy = Arc<Mutex<Option<Vec<Box<dyn FnOnce() + Send>>>>>;

impl fmt::Debug for Composed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Composed").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default)]
struct Timers {
    alive: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
}

struct Alive {
    timers: Timers,
    counted: bool,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.counted {
            self.timers.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Default)]
struct Bulkheads(Arc<Mutex<Vec<Bulkhead>>>);

impl Bulkheads {
    fn must_be_at_rest(&self) {
        for bulkhead in &*self.0.lock().unwrap() {
            let stats = bulkhead.stats();
            assert_eq!(
                (stats.active, stats.permits_in_use, stats.waiting),
                (0, 0, 0),
                "left behind: {stats:?}"
            );
            let ended = stats.successful + stats.failed + stats.ignored + stats.cancelled;
            assert_eq!(stats.started, ended, "{stats:?}");
        }
    }
}
