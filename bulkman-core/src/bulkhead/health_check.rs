//! Health checks of a dependency while its circuit is open.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::{Bulkhead, WeakBulkhead};
use crate::circuit_breaker::CircuitBreaker;
use crate::config_error::ConfigError;
use crate::runtime::Runtime;
use crate::sync::waker_set::{WakerKey, WakerSet};
use crate::sync::{Mutex, lock};

impl Bulkhead {
    /// Runs `check` every `interval` while the circuit is open, to detect an early recovery.
    ///
    /// A check that returns `Ok` moves the circuit to half-open before the isolation has elapsed.
    /// A check that returns `Err` changes nothing: it does not extend the isolation. A check that
    /// takes longer than `interval`, or panics, has failed.
    ///
    /// The check replaces the one that an earlier call of this method started. To run several
    /// checks, use [`add_health_check`](Self::add_health_check). To spawn the check yourself, use
    /// [`run_health_check`](Self::run_health_check).
    ///
    /// The returned handle can stop the check. Dropping the handle detaches it: the check then
    /// continues until the bulkhead is shut down or dropped. The check does not keep the bulkhead
    /// alive.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] if `interval` is zero.
    /// * [`ConfigError::Unsupported`] if the runtime has no timers or no tasks, or does not run
    ///   one.
    /// * [`ConfigError::Requires`] if the bulkhead has no circuit breaker.
    ///
    /// After an error, the earlier check continues.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// bulkhead.health_check(Duration::from_secs(5), || ping())?;
    /// # bulkhead.circuit_breaker().unwrap().open();
    /// // The circuit opens for 30 s, but the dependency recovers sooner.
    /// # runtime.run_until_stalled();
    /// # runtime.advance(Duration::from_secs(5));
    /// assert_eq!(bulkhead.state(), BulkheadState::Degraded);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn health_check<F, Fut, T, E>(
        &self,
        interval: Duration,
        check: F,
    ) -> Result<HealthCheck, ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        let (checks, started) = self.start_health_check(interval, check)?;
        let replaced = lock(&checks.current).replace(started.clone());
        if let Some(replaced) = replaced {
            replaced.stop();
        }
        Ok(started)
    }

    /// Runs `check` as [`health_check`](Self::health_check) does, beside the existing checks.
    ///
    /// The circuit moves to half-open as soon as one of the checks returns `Ok`. A later call of
    /// `health_check` does not replace this check.
    ///
    /// # Errors
    ///
    /// As [`health_check`](Self::health_check).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # async fn ping(_host: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// bulkhead.health_check(Duration::from_secs(5), || ping("search-1"))?;
    /// bulkhead.add_health_check(Duration::from_secs(30), || ping("search-2"))?;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn add_health_check<F, Fut, T, E>(
        &self,
        interval: Duration,
        check: F,
    ) -> Result<HealthCheck, ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        self.start_health_check(interval, check)
            .map(|(_, started)| started)
    }

    /// Returns a future that runs `check` as [`health_check`](Self::health_check) does.
    ///
    /// Spawn it yourself, for example on the executor of the current thread: neither the check nor
    /// its future need be `Send`. The runtime needs timers and no tasks. The check runs beside the
    /// existing ones, as that of [`add_health_check`](Self::add_health_check).
    ///
    /// The future ends when the bulkhead is shut down or dropped. It does not keep the bulkhead
    /// alive.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] if `interval` is zero.
    /// * [`ConfigError::Unsupported`] if the runtime has no timers.
    /// * [`ConfigError::Requires`] if the bulkhead has no circuit breaker.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future stops the check.
    ///
    /// ```
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use std::rc::Rc;
    /// use std::time::Duration;
    ///
    /// # struct Client;
    /// # impl Client { async fn ping(&self) -> Result<(), std::io::Error> { Ok(()) } }
    /// # async fn serve(_bulkhead: &Bulkhead) {}
    /// # let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let client = Rc::new(Client);           // belongs to this thread
    /// let checks = bulkhead.run_health_check(Duration::from_secs(5), move || {
    ///     let client = Rc::clone(&client);
    ///     async move { client.ping().await }
    /// })?;
    /// // Here beside the service. Or pass it to `tokio::task::spawn_local`.
    /// let service = futures_lite::future::or(checks, serve(&bulkhead));
    /// # runtime.block_on(service);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn run_health_check<F, Fut, T, E>(
        &self,
        interval: Duration,
        check: F,
    ) -> Result<impl Future<Output = ()> + use<F, Fut, T, E>, ConfigError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let unsupported = (!self.inner().capabilities.timers).then_some("timers");
        let (_, task) = self.health_check_task("run_health_check", interval, unsupported)?;
        Ok(task.run(check))
    }

    fn start_health_check<F, Fut, T, E>(
        &self,
        interval: Duration,
        check: F,
    ) -> Result<(&HealthChecks, HealthCheck), ConfigError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: 'static,
    {
        let capabilities = self.inner().capabilities;
        let supported = capabilities.tasks && capabilities.timers;
        let unsupported = (!supported).then_some("tasks and timers");
        let (checks, task) = self.health_check_task("health_check", interval, unsupported)?;
        let handle = HealthCheck {
            shared: Arc::clone(&task.shared),
        };
        let spawned = self.inner().runtime.spawn(Box::pin(task.run(check)));
        spawned.map_err(|_dropped| ConfigError::not_spawned("health_check"))?;
        Ok((checks, handle))
    }

    /// Returns the task of a new check, which is not spawned yet.
    ///
    /// `unsupported` is what the method needs and the runtime does not have.
    fn health_check_task(
        &self,
        method: &'static str,
        interval: Duration,
        unsupported: Option<&'static str>,
    ) -> Result<(&HealthChecks, Task), ConfigError> {
        let inner = self.inner();
        if interval.is_zero() {
            return Err(ConfigError::out_of_range(
                "health_check interval",
                "0ns",
                "more than zero",
            ));
        }
        if let Some(needs) = unsupported {
            return Err(ConfigError::Unsupported {
                setting: method,
                needs,
            });
        }
        let Some(circuit) = &inner.circuit else {
            return Err(ConfigError::Requires {
                setting: method,
                needs: "a circuit breaker: `circuit_breaker_enabled` is false",
            });
        };
        let checks: &HealthChecks = inner
            .optional_parts()
            .health_checks
            .get_or_init(|| HealthChecks::new(circuit, &inner.ended));
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            changed: Arc::clone(&inner.ended),
        });
        let task = Task {
            bulkhead: self.downgrade(),
            shared,
            runtime: Arc::clone(&inner.runtime),
            interval,
        };
        Ok((checks, task))
    }
}

/// A handle to a health check.
///
/// Returned by [`Bulkhead::health_check`] and [`Bulkhead::add_health_check`]. Dropping the handle
/// detaches it: the check continues. Clones refer to the same check.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use std::time::Duration;
///
/// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
/// let check = bulkhead.health_check(Duration::from_secs(5), || ping())?;
/// check.stop();
/// assert!(check.is_stopped());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct HealthCheck {
    shared: Arc<Shared>,
}

impl HealthCheck {
    /// Stops the check.
    ///
    /// Does not wait: a check that is in progress is cancelled by the background task, and its
    /// result is discarded. Calling this method again has no effect.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// let check = bulkhead.health_check(Duration::from_secs(5), || ping())?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// # runtime.run_until_stalled();
    /// check.stop();
    /// runtime.advance(Duration::from_secs(5));
    /// assert_eq!(bulkhead.state(), BulkheadState::Isolated);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn stop(&self) {
        self.shared.stop();
        self.shared.changed.wake_all();
    }

    /// Returns `true` if the check was stopped or replaced, or its bulkhead has ended.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// let first = bulkhead.health_check(Duration::from_secs(5), || ping())?;
    /// let second = bulkhead.health_check(Duration::from_secs(1), || ping())?;
    /// assert!(first.is_stopped() && !second.is_stopped());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}

/// The part of a bulkhead that is created with its first health check.
pub(super) struct HealthChecks {
    /// The check that the next call of [`Bulkhead::health_check`] replaces.
    current: Mutex<Option<HealthCheck>>,
}

impl HealthChecks {
    /// Boxed, since most bulkheads have no health check.
    fn new(circuit: &CircuitBreaker, changed: &Arc<WakerSet>) -> Box<Self> {
        let changed = Arc::clone(changed);
        circuit.on_transition(Arc::new(move |_| changed.wake_all()));
        Box::new(Self {
            current: Mutex::new(None),
        })
    }
}

/// State shared by the handles and the background task.
struct Shared {
    stopped: AtomicBool,
    /// Notified when the circuit changes its state, when the bulkhead ends, and by
    /// [`HealthCheck::stop`].
    changed: Arc<WakerSet>,
}

impl Shared {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// The task of one health check.
struct Task {
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
        self.shared.stop();
    }
}
