//! Looks after a dependency while its circuit is open.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::bulkhead::{Bulkhead, WeakBulkhead};
use crate::circuit_breaker::CircuitBreaker;
use crate::config_error::ConfigError;
use crate::runtime::Runtime;
use crate::sync::waker_set::{WakerKey, WakerSet};

/// Starts the task behind [`Bulkhead::health_check`].
pub(crate) fn start<F, Fut, T, E>(
    bulkhead: &Bulkhead,
    interval: Duration,
    check: F,
) -> Result<(), ConfigError>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: 'static,
    E: 'static,
{
    let inner = bulkhead.inner();
    if interval.is_zero() {
        return Err(ConfigError::out_of_range(
            "health_check interval",
            "0ns",
            "more than zero",
        ));
    }
    if !(inner.capabilities.tasks && inner.capabilities.timers) {
        return Err(ConfigError::Unsupported {
            setting: "health_check",
            needs: "tasks and timers",
        });
    }
    let Some(circuit) = &inner.circuit else {
        let needs = "a circuit breaker: `circuit_breaker_enabled` is false";
        return Err(ConfigError::Requires {
            setting: "health_check",
            needs,
        });
    };
    let changed = Arc::clone(&inner.ended);
    let hook = Arc::clone(&changed);
    circuit.on_transition(Arc::new(move |_| hook.wake_all()));
    let task = Task {
        bulkhead: bulkhead.downgrade(),
        changed,
        runtime: Arc::clone(&inner.runtime),
        interval,
    };
    inner.runtime.spawn(Box::pin(task.run(check)));
    Ok(())
}

struct Task {
    bulkhead: WeakBulkhead,
    /// Notified when the circuit changes its state, and when the bulkhead ends.
    changed: Arc<WakerSet>,
    runtime: Arc<dyn Runtime>,
    interval: Duration,
}

/// What the task should do next.
enum Look {
    /// The circuit is open, or half-open for whoever has its fleet's lease: count the interval.
    Open,
    /// Nothing to check.
    Idle,
    /// The bulkhead is gone or shut down.
    Ended,
}

impl Task {
    async fn run<F, Fut, T, E>(self, check: F)
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
            if self.passes(&check).await {
                // What opened the circuit again meanwhile is newer than the check.
                if let Some(circuit) = self.circuit().filter(|circuit| !circuit.opened_since(seen))
                {
                    circuit.half_open_early();
                }
            }
        }
    }

    /// Waits until the circuit is open; `false`: the bulkhead has ended.
    async fn until_open(&self) -> bool {
        self.wait(|look| match look {
            Look::Open => Some(true),
            Look::Idle => None,
            Look::Ended => Some(false),
        })
        .await
    }

    /// Waits for one interval; `false` if the circuit is no longer open by then.
    async fn pause(&self) -> bool {
        let Some(until) = self.runtime.now().checked_add(self.interval) else {
            // An interval beyond the end of time: only the bulkhead's end matters.
            return self
                .wait(|look| matches!(look, Look::Ended).then_some(false))
                .await;
        };
        let mut timer = self.runtime.sleep_until(until);
        let closed = self.wait(|look| (!matches!(look, Look::Open)).then_some(()));
        let mut closed = pin!(closed);
        std::future::poll_fn(move |cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            timer.as_mut().poll(cx).map(|()| true)
        })
        .await
    }

    /// Runs the check once, within one interval. A panic is a failed check.
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
        let ended = self.wait(|look| matches!(look, Look::Ended).then_some(()));
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

    /// Waits until `decide` has an answer to what it sees.
    async fn wait<R>(&self, decide: impl Fn(Look) -> Option<R>) -> R {
        struct Registered<'a>(&'a WakerSet, Option<WakerKey>);

        impl Drop for Registered<'_> {
            fn drop(&mut self) {
                self.0.remove(&mut self.1);
            }
        }

        let mut registered = Registered(&self.changed, None);
        std::future::poll_fn(|cx| {
            let Registered(changed, place) = &mut registered;
            changed.register(place, cx.waker());
            decide(self.look()).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Held only while it is looked at: a check that hangs must not keep the bulkhead alive.
    fn circuit(&self) -> Option<CircuitBreaker> {
        self.bulkhead
            .upgrade()
            .and_then(|bulkhead| bulkhead.circuit_breaker().cloned())
    }

    fn look(&self) -> Look {
        let Some(bulkhead) = self.bulkhead.upgrade() else {
            return Look::Ended;
        };
        if bulkhead.inner().queue.is_closed() {
            return Look::Ended;
        }
        match bulkhead.circuit_breaker() {
            Some(circuit) if circuit.wants_health_check() => Look::Open,
            _ => Look::Idle,
        }
    }
}
