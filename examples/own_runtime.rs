//! A custom runtime: four methods on the standard library.
//!
//! One thread drives all timers; each task and each blocking closure runs on its own thread. This
//! suits a service without an executor, and is a pattern for adapters.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bulkman::bulkhead::BulkheadState;
use bulkman::circuit_breaker::CircuitEvent;
use bulkman::runtime::{BoxFuture, Sleep};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
use futures_lite::StreamExt;
use futures_lite::future::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    let config = BulkheadConfig::new("printer")
        .failure_threshold(1)
        .isolation_duration(Duration::from_secs(3600));
    let bulkhead = Bulkhead::new(config, Threads::new())?;
    let mut events = bulkhead.events();

    // `sleep_until`
    let never = std::future::pending::<Result<(), Infallible>>();
    let slow = bulkhead
        .call()
        .timeout(Duration::from_millis(20))
        .execute(never);
    let error = block_on(slow).expect_err("it never completes");
    println!("a timer ends the call: {error}");
    assert!(matches!(error, BulkheadError::Timeout { .. }));
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);

    // `spawn`
    bulkhead.health_check(Duration::from_millis(20), || async {
        Ok::<_, Infallible>(())
    })?;
    let seen: Vec<_> = block_on((&mut events).take(2).collect());
    for event in &seen {
        let CircuitEvent::Transition(transition) = event else {
            panic!("too slow: {event:?}")
        };
        println!(
            "the circuit: {} -> {} ({})",
            transition.from, transition.to, transition.cause
        );
    }
    assert_eq!(bulkhead.state(), BulkheadState::Degraded);

    // `spawn_blocking`
    let here = thread::current().id();
    let there =
        block_on(bulkhead.execute_blocking(|| Ok::<_, Infallible>(thread::current().id())))?;
    println!("blocking work ran on {there:?}, its caller waited on {here:?}");
    assert_ne!(here, there);
    Ok(())
}

/// Timers, tasks and blocking work on plain threads. Dropping it ends the timer thread.
#[derive(Debug)]
struct Threads {
    timers: Arc<Timers>,
}

impl Threads {
    fn new() -> Self {
        let timers = Arc::new(Timers::default());
        let kept = Arc::clone(&timers);
        thread::spawn(move || kept.run());
        Self { timers }
    }
}

impl Runtime for Threads {
    fn now(&self) -> Instant {
        now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let timers = Arc::clone(&self.timers);
        let id = timers.next_id.fetch_add(1, Ordering::Relaxed);
        Box::pin(Timer {
            timers,
            key: (deadline, id),
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        thread::spawn(move || block_on(task));
        Ok(())
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        thread::spawn(job);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.timers.lock().closed = true;
        self.timers.changed.notify_one();
    }
}

#[derive(Debug, Default)]
struct Timers {
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Timers by deadline. The number distinguishes timers with equal deadlines.
    wakers: BTreeMap<(Instant, u64), Waker>,
    closed: bool,
}

impl Timers {
    fn run(&self) {
        let mut waiting = self.lock();
        while !waiting.closed {
            let Some(next) = waiting.wakers.first_entry() else {
                waiting = self
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let pause = next.key().0.saturating_duration_since(now());
            if pause.is_zero() {
                let waker = next.remove();
                // A waker is foreign code: do not call it under the lock.
                drop(waiting);
                waker.wake();
                waiting = self.lock();
            } else {
                let waited = self.changed.wait_timeout(waiting, pause);
                waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Timer {
    timers: Arc<Timers>,
    key: (Instant, u64),
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if now() >= self.key.0 {
            return Poll::Ready(());
        }
        let replaced = self
            .timers
            .lock()
            .wakers
            .insert(self.key, context.waker().clone());
        drop(replaced);
        self.timers.changed.notify_one();
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let forgotten = self.timers.lock().wakers.remove(&self.key);
        drop(forgotten);
    }
}

#[allow(clippy::disallowed_methods, reason = "a runtime is the source of time")]
fn now() -> Instant {
    Instant::now()
}
