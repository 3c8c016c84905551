//! Calls through a circuit breaker alone, without a bulkhead.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;

use thiserror::Error;

use super::CircuitBreaker;
use super::admission::Admission;
use crate::call::classifier::{Classifier, DefaultClassifier};
use crate::error::CircuitOpen;
use crate::sync::unwind::catch;

impl CircuitBreaker {
    /// Runs a closure if the circuit admits it.
    ///
    /// `Ok` is a success, `Err` a failure. A panic is a failure and continues to unwind.
    ///
    /// # Errors
    ///
    /// [`CircuitError::Open`] if the call was rejected; `operation` did not run.
    /// [`CircuitError::Operation`] with the error of `operation`.
    ///
    /// ```
    /// use bulkman::circuit_breaker::CircuitError;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    ///
    /// let config = CircuitBreakerConfig::new().failure_threshold(1);
    /// let breaker = CircuitBreaker::new("disk", config, ClockOnly)?;
    /// let failed = breaker.execute_sync(|| Err::<(), _>("full"));
    /// assert_eq!(failed, Err(CircuitError::Operation("full")));
    /// assert!(matches!(
    ///     breaker.execute_sync(|| Ok::<_, &str>(())),
    ///     Err(CircuitError::Open(_))
    /// ));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_sync<T, E>(
        &self,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, CircuitError<E>> {
        let admission = self.try_acquire().map_err(CircuitError::Open)?;
        let result = if admission.is_probe() {
            admission.run_probe(operation)
        } else {
            operation()
        };
        admission.record(DefaultClassifier.classify(&result));
        result.map_err(CircuitError::Operation)
    }

    /// Awaits a future if the circuit admits it.
    ///
    /// The circuit is checked when the returned future is first polled. `Ok` is a success, `Err` a
    /// failure. A panic of `operation` is a failure and continues to unwind.
    ///
    /// # Errors
    ///
    /// [`CircuitError::Open`] if the call was rejected; `operation` was not polled.
    /// [`CircuitError::Operation`] with the error of `operation`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future records nothing and releases its probe slot, even if a panic outside of
    /// `operation` drops it.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitError;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let config = CircuitBreakerConfig::new().failure_threshold(1);
    /// let breaker = CircuitBreaker::new("ldap", config, runtime.clone())?;
    /// # runtime.block_on(async {
    /// let failed = breaker.execute(async { Err::<(), _>("no route") }).await;
    /// assert_eq!(failed, Err(CircuitError::Operation("no route")));
    /// let rejected = breaker.execute(async { Ok::<_, &str>(()) }).await;
    /// assert!(matches!(rejected, Err(CircuitError::Open(_))));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn execute<T, E>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CircuitError<E>> {
        let mut admission = Some(
            self.try_acquire()
                .map_err(CircuitError::Open)?
                .ignoring_panics(),
        );
        let mut operation = pin!(operation);
        let result = poll_fn(|cx| {
            let _probe = match &admission {
                Some(admission) if admission.is_probe() => admission.enter_probe(),
                _ => None,
            };
            catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(cx))).unwrap_or_else(|panic| {
                catch(|| admission.take().map(Admission::fail));
                resume_unwind(panic)
            })
        })
        .await;
        if let Some(admission) = admission {
            admission.record(DefaultClassifier.classify(&result));
        }
        result.map_err(CircuitError::Operation)
    }
}

/// The error returned by calls through a circuit breaker.
///
/// ```
/// use bulkman::circuit_breaker::CircuitError;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
///
/// let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.force_open();
/// match breaker.execute_sync(|| Err::<(), _>("no such user")) {
///     Err(CircuitError::Open(rejected)) => {
///         assert_eq!(rejected.to_string(), "circuit is forced open");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CircuitError<E> {
    /// The circuit rejected the call; the operation did not run.
    #[error(transparent)]
    Open(CircuitOpen),
    /// The operation ran and returned an error.
    #[error("operation failed")]
    Operation(#[source] E),
}
