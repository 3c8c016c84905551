//! Health checks of a dependency while its circuit is open.

mod task;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use self::task::{Shared, Task};
use super::Bulkhead;
use crate::circuit_breaker::CircuitBreaker;
use crate::config_error::ConfigError;
use crate::sync::waker_set::WakerSet;
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
            shared: Arc::clone(task.shared()),
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
        Ok((checks, Task::new(self, interval)))
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
