//! Calls through a circuit breaker alone, without a bulkhead.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;

use thiserror::Error;

use super::CircuitBreaker;
use super::admission::Admission;
use crate::call::outcome::Outcome;
use crate::error::CircuitOpen;
use crate::sync::unwind::catch;

impl CircuitBreaker {
    /// Runs `operation` if the circuit admits it: `Ok` is a success, `Err` a failure, and a panic
    /// is a failure that goes on unwinding.
    ///
    /// # Errors
    ///
    /// [`CircuitError::Open`] without running it, [`CircuitError::Operation`] with its error.
    ///
    /// ```
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// use bulkman::circuit_breaker::CircuitError;
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let config = CircuitBreakerConfig::new().failure_threshold(1);
    /// let breaker = CircuitBreaker::new("disk", config, ClockOnly)?;
    /// assert_eq!(breaker.execute_sync(|| Err::<(), _>("full")), Err(CircuitError::Operation("full")));
    /// assert!(matches!(breaker.execute_sync(|| Ok::<_, &str>(())), Err(CircuitError::Open(_))));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn execute_sync<T, E>(
        &self,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, CircuitError<E>> {
        let admission = self.try_acquire().map_err(CircuitError::Open)?;
        let result = operation();
        admission.record(outcome(&result));
        result.map_err(CircuitError::Operation)
    }

    /// Awaits `operation` if the circuit admits it, as [`call`](Self::call) does.
    ///
    /// The circuit is asked when the returned future is first polled.
    ///
    /// # Errors
    ///
    /// [`CircuitError::Open`] without polling it, [`CircuitError::Operation`] with its error.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped records nothing and gives its probe slot back, also if somebody
    /// else's panic drops it. A panic of the operation is a failure.
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
    /// let refused = breaker.execute(async { Ok::<_, &str>(()) }).await;
    /// assert!(matches!(refused, Err(CircuitError::Open(_))));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn execute<T, E>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CircuitError<E>> {
        let mut admission = Some(self.try_acquire().map_err(CircuitError::Open)?.watched());
        let mut operation = pin!(operation);
        let result = poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(cx))).unwrap_or_else(|panic| {
                catch(|| admission.take().map(Admission::fail));
                resume_unwind(panic)
            })
        })
        .await;
        if let Some(admission) = admission {
            admission.record(outcome(&result));
        }
        result.map_err(CircuitError::Operation)
    }
}

/// A call through a circuit breaker that did not bring back a value.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::CircuitError;
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.force_open();
/// match breaker.execute_sync(|| Err::<(), _>("no such user")) {
///     Err(CircuitError::Open(refused)) => assert_eq!(refused.to_string(), "circuit is forced open"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CircuitError<E> {
    /// The circuit refused; nothing ran.
    #[error(transparent)]
    Open(CircuitOpen),
    /// The operation ran and returned this error.
    #[error("operation failed")]
    Operation(#[source] E),
}

const fn outcome<T, E>(result: &Result<T, E>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}
