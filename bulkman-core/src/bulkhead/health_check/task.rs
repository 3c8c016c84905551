//! The task of a health check.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::bulkhead::{Bulkhead, WeakBulkhead};
use crate::circuit_breaker::CircuitBreaker;
use crate::runtime::Runtime;
use crate::sync::waker_set::{WakerKey, WakerSet};

/// State shared by the handles and the background task.
pub(super) struct Shared {
    stopped: AtomicBool,
    /// Notified when the circuit changes its state, when the bulkhead ends, and by
    /// [`HealthCheck::stop`](super::HealthCheck::stop).
    changed: Arc<WakerSet>,
}

impl Shared {
    /// Stops the check, also if it runs now.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.wake_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// The task of one health check.
pub(super) struct Task {
    bulkhead: WeakBulkhead,
    shared: Arc<Shared>,
    runtime: Arc<dyn Runtime>,
    interval: Duration,
}

/// What the task has to do.
enum Status {
    /// The circuit is open, or half-open without a probe lease of its fleet: run the check.
    Open,
    /// There is nothing to check.
    Idle,
    /// The check was stopped, or the bulkhead is shut down or dropped.
    Ended,
}

impl Task {
    /// Creates the task of a check, which has to be [run](Self::run).
    pub(super) fn new(bulkhead: &Bulkhead, interval: Duration) -> Self {
        let inner = bulkhead.inner();
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            changed: Arc::clone(&inner.ended),
        });
        Self {
            bulkhead: bulkhead.downgrade(),
            shared,
            runtime: Arc::clone(&inner.runtime),
            interval,
        }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs `check` every interval while the circuit is open.
    pub(super) async fn run<F, Fut, T, E>(self, check: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        while self.until_open().await {
            if !self.pause().await {
                continue;
            }
            let Some(seen) = self.circuit().map(|circuit| circuit.version()) else {
                return;
            };
            if self.passes(&check).await && !self.shared.is_stopped() {
                // An opening during the check is newer information than its result.
                if let Some(circuit) = self.circuit().filter(|circuit| !circuit.opened_since(seen))
                {
                    circuit.half_open_early();
                }
            }
        }
    }

    /// Waits until the circuit is open. Returns `false` if the check has ended.
    async fn until_open(&self) -> bool {
        self.wait(|status| match status {
            Status::Open => Some(true),
            Status::Idle => None,
            Status::Ended => Some(false),
        })
        .await
    }

    /// Waits for one interval. Returns `false` if the circuit is no longer open.
    async fn pause(&self) -> bool {
        let Some(until) = self.runtime.now().checked_add(self.interval) else {
            // The interval overflows the clock and never elapses.
            return self
                .wait(|status| matches!(status, Status::Ended).then_some(false))
                .await;
        };
        let mut timer = self.runtime.sleep_until(until);
        let closed = self.wait(|status| (!matches!(status, Status::Open)).then_some(()));
        let mut closed = pin!(closed);
        std::future::poll_fn(move |cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            timer.as_mut().poll(cx).map(|()| true)
        })
        .await
    }

    /// Runs the check once, for at most one interval. A panic counts as a failed check.
    async fn passes<F, Fut, T, E>(&self, check: &F) -> bool
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let Ok(checking) = catch_unwind(AssertUnwindSafe(check)) else {
            return false;
        };
        let mut checking = pin!(checking);
        let mut timer = self
            .runtime
            .now()
            .checked_add(self.interval)
            .map(|at| self.runtime.sleep_until(at));
        let ended = self.wait(|status| matches!(status, Status::Ended).then_some(()));
        let mut ended = pin!(ended);
        std::future::poll_fn(move |cx| {
            match catch_unwind(AssertUnwindSafe(|| checking.as_mut().poll(cx))) {
                Ok(Poll::Ready(result)) => return Poll::Ready(result.is_ok()),
                Ok(Poll::Pending) => {}
                Err(_panic) => return Poll::Ready(false),
            }
            let late = timer
                .as_mut()
                .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
            if late || ended.as_mut().poll(cx).is_ready() {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Waits until `decide` returns a value for the current status.
    async fn wait<R>(&self, decide: impl Fn(Status) -> Option<R>) -> R {
        struct Registered<'a>(&'a WakerSet, Option<WakerKey>);

        impl Drop for Registered<'_> {
            fn drop(&mut self) {
                self.0.remove(&mut self.1);
            }
        }

        let mut registered = Registered(&self.shared.changed, None);
        std::future::poll_fn(|cx| {
            let Registered(changed, key) = &mut registered;
            changed.register(key, cx.waker());
            decide(self.status()).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The circuit is never held across an `.await`: a check that hangs must not keep the bulkhead
    /// alive.
    fn circuit(&self) -> Option<CircuitBreaker> {
        self.bulkhead
            .upgrade()
            .and_then(|bulkhead| bulkhead.circuit_breaker().cloned())
    }

    fn status(&self) -> Status {
        if self.shared.is_stopped() {
            return Status::Ended;
        }
        let Some(bulkhead) = self.bulkhead.upgrade() else {
            return Status::Ended;
        };
        if bulkhead.inner().queue.is_closed() {
            return Status::Ended;
        }
        match bulkhead.circuit_breaker() {
            Some(circuit) if circuit.wants_health_check() => Status::Open,
            _ => Status::Idle,
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}
