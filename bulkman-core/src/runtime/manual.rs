//! A runtime with a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::runtime::{BoxFuture, ClockOnly, Runtime, Sleep};

/// A runtime with a virtual clock and a single-threaded executor, for tests.
///
/// The clock moves only in two cases: [`advance`](Self::advance) moves it and fires all timers on
/// the way, in the order of their deadlines; and [`block_on`](Self::block_on) moves it to the next
/// timer when no task can make progress. Clones share the clock. Blocking work runs on real
/// threads.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
/// use std::time::Duration;
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("slow").timeout(Duration::from_secs(3600));
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
///
/// let never = std::future::pending::<Result<(), ()>>();
/// let result = runtime.block_on(bulkhead.execute(never)); // returns immediately
/// assert!(matches!(result, Err(BulkheadError::Timeout { .. })));
/// assert_eq!(runtime.elapsed(), Duration::from_secs(3600));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ManualRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Instant,
    state: Mutex<State>,
    /// Notified when blocking work ends or a task is woken from another thread.
    changed: Condvar,
}

struct State {
    elapsed: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    ready: VecDeque<Arc<Task>>,
    blocking: usize,
    main_woken: bool,
    parked: Vec<(Duration, Thread)>,
}

struct Task {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    shared: Weak<Shared>,
}

impl ManualRuntime {
    /// Creates a runtime whose clock is at zero.
    ///
    /// ```
    /// use bulkman::testing::ManualRuntime;
    /// use std::time::Duration;
    ///
    /// let clock = ManualRuntime::new();
    /// assert_eq!(clock.elapsed(), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            elapsed: Duration::ZERO,
            timers: BTreeMap::new(),
            next_timer: 0,
            ready: VecDeque::new(),
            blocking: 0,
            main_woken: false,
            parked: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                origin: ClockOnly.now(),
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    /// Returns how far the clock has moved since the runtime was created.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let clock = ManualRuntime::new();
    /// clock.clone().advance(Duration::from_secs(5));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().elapsed
    }

    /// Moves the clock by `by`, and runs the tasks that each timer on the way wakes.
    ///
    /// # Panics
    ///
    /// Panics if the clock overflows an [`Instant`].
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use std::time::Duration;
    /// let clock = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), clock.clone())?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// clock.advance(Duration::from_secs(29));
    /// assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn advance(&self, by: Duration) {
        let target = self
            .elapsed()
            .checked_add(by)
            .expect("the virtual clock overflows");
        self.advance_to(target);
    }

    /// Moves the clock to `target`, counted from its start. It never moves back.
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let clock = ManualRuntime::new();
    /// clock.advance_to(Duration::from_secs(60));
    /// clock.advance_to(Duration::from_secs(30)); // no effect
    /// assert_eq!(clock.elapsed(), Duration::from_secs(60));
    /// ```
    pub fn advance_to(&self, target: Duration) {
        loop {
            self.run_until_stalled();
            let mut state = self.shared.lock();
            let Some(timer) = state.fire_next(target) else {
                // Under the lock under which no timer was found. Otherwise a timer that another
                // thread registers in between would be skipped.
                state.elapsed = state.elapsed.max(target);
                state.unpark_due();
                return;
            };
            drop(state);
            timer.wake();
        }
    }

    /// Runs background tasks until none of them can make progress without moving the clock.
    ///
    /// ```
    /// # use bulkman::Runtime;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::sync::mpsc;
    /// let runtime = ManualRuntime::new();
    /// let (sender, receiver) = mpsc::channel();
    /// runtime.spawn(Box::pin(async move { sender.send("hello").unwrap() })).ok();
    /// assert!(receiver.try_recv().is_err()); // not run yet
    /// runtime.run_until_stalled();
    /// assert_eq!(receiver.try_recv(), Ok("hello"));
    /// ```
    pub fn run_until_stalled(&self) {
        loop {
            let next = self.shared.lock().ready.pop_front();
            let Some(task) = next else { return };
            task.run();
        }
    }

    /// Runs `future` to completion, together with the background tasks.
    ///
    /// When no task can make progress, it waits for blocking work. If there is none, it moves the
    /// clock to the next timer.
    ///
    /// # Panics
    ///
    /// Panics if nothing is left that can wake the future.
    ///
    /// ```
    /// # use bulkman::Runtime;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let runtime = ManualRuntime::new();
    /// let answer = runtime.block_on(async {
    ///     runtime
    ///         .sleep_until(runtime.now() + Duration::from_secs(3600))
    ///         .await;
    ///     42
    /// });
    /// assert_eq!((answer, runtime.elapsed()), (42, Duration::from_secs(3600)));
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let waker = Waker::from(Arc::new(MainWaker(Arc::downgrade(&self.shared))));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            self.wait_until_woken();
        }
    }

    fn wait_until_woken(&self) {
        loop {
            self.run_until_stalled();
            let mut state = self.shared.lock();
            if std::mem::take(&mut state.main_woken) {
                return;
            }
            if !state.ready.is_empty() {
                continue;
            }
            if state.blocking > 0 {
                drop(
                    self.shared
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                );
                continue;
            }
            let timer = state.fire_next(Duration::MAX);
            drop(state);
            timer
                .expect("the future is pending, and nothing is left to wake it")
                .wake();
        }
    }
}

impl Runtime for ManualRuntime {
    fn now(&self) -> Instant {
        self.shared.origin + self.elapsed()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let deadline = deadline.saturating_duration_since(self.shared.origin);
        Box::pin(Timer {
            deadline,
            shared: Arc::clone(&self.shared),
            id: None,
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let task = Task {
            future: Mutex::new(Some(task)),
            shared: Arc::downgrade(&self.shared),
        };
        Arc::new(task).wake();
        Ok(())
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.shared.lock().blocking += 1;
        let ended = BlockingEnded(Arc::clone(&self.shared));
        thread::spawn(move || {
            let _ended = ended;
            job();
        });
    }

    fn park(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            let deadline = deadline.saturating_duration_since(self.shared.origin);
            let mut state = self.shared.lock();
            if state.elapsed >= deadline {
                return;
            }
            state.parked.push((deadline, thread::current()));
        }
        thread::park();
        let current = thread::current().id();
        self.shared
            .lock()
            .parked
            .retain(|(_, thread)| thread.id() != current);
    }
}

impl Default for ManualRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualRuntime")
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves the clock to the earliest timer not later than `limit`, and returns its waker.
    fn fire_next(&mut self, limit: Duration) -> Option<Waker> {
        let timer = self.timers.first_entry()?;
        let (deadline, _) = *timer.key();
        if deadline > limit {
            return None;
        }
        let waker = timer.remove();
        self.elapsed = self.elapsed.max(deadline);
        self.unpark_due();
        Some(waker)
    }

    fn unpark_due(&mut self) {
        let elapsed = self.elapsed;
        self.parked.retain(|(deadline, thread)| {
            let due = *deadline <= elapsed;
            if due {
                thread.unpark();
            }
            !due
        });
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut slot = self.future.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(future) = slot.as_mut() {
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                *slot = None;
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.lock();
            if !state.ready.iter().any(|task| Arc::ptr_eq(task, &self)) {
                state.ready.push_back(self);
            }
            shared.changed.notify_all();
        }
    }
}

struct MainWaker(Weak<Shared>);

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.lock().main_woken = true;
            shared.changed.notify_all();
        }
    }
}

struct Timer {
    deadline: Duration,
    shared: Arc<Shared>,
    id: Option<u64>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.elapsed >= self.deadline {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.deadline, id), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.shared.lock().timers.remove(&(self.deadline, id));
            drop(waker);
        }
    }
}

struct BlockingEnded(Arc<Shared>);

impl Drop for BlockingEnded {
    fn drop(&mut self) {
        self.0.lock().blocking -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_early() {
        let runtime = ManualRuntime::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        for seconds in [3_u64, 1, 2] {
            let (clock, log) = (runtime.clone(), Arc::clone(&log));
            let task = Box::pin(async move {
                clock
                    .sleep_until(clock.now() + Duration::from_secs(seconds))
                    .await;
                log.lock().unwrap().push((seconds, clock.elapsed()));
            });
            assert!(runtime.spawn(task).is_ok());
        }
        runtime.advance(Duration::from_millis(999));
        assert!(log.lock().unwrap().is_empty());
        runtime.advance(Duration::from_millis(1501));
        assert_eq!(
            *log.lock().unwrap(),
            [(1, Duration::from_secs(1)), (2, Duration::from_secs(2))]
        );
        runtime.advance(Duration::from_secs(10));
        assert_eq!(log.lock().unwrap().len(), 3);
    }

    /// A waker that records that it was woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn timer_registered_while_the_clock_moves_fires() {
        const SECOND: Duration = Duration::from_secs(1);
        let runtime = ManualRuntime::new();
        for round in 0..2_000 {
            let begin = std::sync::Barrier::new(2);
            let woken = Arc::new(Woken::default());
            let mut timer = runtime.sleep_until(runtime.now() + SECOND);
            let pending = thread::scope(|threads| {
                threads.spawn(|| {
                    begin.wait();
                    runtime.advance(SECOND);
                });
                begin.wait();
                let waker = Waker::from(Arc::clone(&woken));
                timer
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            });
            assert!(
                !pending || woken.0.load(std::sync::atomic::Ordering::SeqCst),
                "round {round}"
            );
        }
    }

    #[test]
    fn block_on_waits_for_blocking_work_before_moving_the_clock() {
        let runtime = ManualRuntime::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Arc::new(Mutex::new((false, None::<Waker>)));
        let job_done = Arc::clone(&done);
        runtime.spawn_blocking(Box::new(move || {
            receiver.recv().unwrap();
            let mut done = job_done.lock().unwrap();
            done.0 = true;
            if let Some(waker) = done.1.take() {
                waker.wake();
            }
        }));
        sender.send(()).unwrap();
        runtime.block_on(std::future::poll_fn(|cx| {
            let mut done = done.lock().unwrap();
            done.1 = Some(cx.waker().clone());
            if done.0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        assert_eq!(runtime.elapsed(), Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "nothing is left to wake it")]
    fn block_on_panics_if_nothing_can_wake_the_future() {
        ManualRuntime::new().block_on(std::future::pending::<()>());
    }
}
