//! The errors of calls. No message is formatted before it is requested.

mod boxed;
mod circuit_open;
mod nested;
mod not_started;
mod rejection_reason;
mod text;
mod timeout_phase;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use self::boxed::{BoxError, BoxedError};
pub use self::circuit_open::CircuitOpen;
pub(crate) use self::circuit_open::PackedRejection;
pub(crate) use self::nested::{is_nested_rejection, note_rejection};
pub use self::not_started::NotStarted;
pub use self::rejection_reason::RejectionReason;
use self::text::{RetryAfter, Rounded};
pub use self::timeout_phase::TimeoutPhase;
use crate::name::BulkheadName;

/// The error returned by calls through a bulkhead.
///
/// [`Operation`](Self::Operation) is the error of the operation; all other variants are errors of
/// the bulkhead. [`is_rejection`](Self::is_rejection) returns whether the operation was started.
/// The [`source`](std::error::Error::source) of a rejection is [`NotStarted`].
///
/// It implements `Error` if the operation's error does. To return it as `anyhow::Error`,
/// `eyre::Report` or `Box<dyn Error + Send + Sync>`, whatever that error is, use
/// [`boxed`](Self::boxed).
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), ClockOnly)?;
/// match bulkhead.execute_sync(|| Err::<(), _>("no such user")) {
///     Ok(()) => {}
///     Err(BulkheadError::Operation(error)) => assert_eq!(error, "no such user"),
///     Err(rejected) => println!("retry in {:?}: {rejected}", rejected.retry_after()),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkheadError<E> {
    /// The circuit rejects calls. The operation was not started.
    CircuitOpen {
        /// The bulkhead that rejected the call.
        bulkhead: BulkheadName,
        /// The reason for which the circuit rejected it.
        reason: RejectionReason,
        /// The time until the next attempt may succeed.
        ///
        /// `None` if it is unknown: the circuit is forced open, or its probe limit is reached.
        retry_after: Option<Duration>,
    },

    /// All permits are in use and the queue is full.
    Full {
        /// The bulkhead that rejected the call.
        bulkhead: BulkheadName,
        /// The limit of running calls when the call was rejected.
        max_concurrent_calls: usize,
        /// The capacity of the queue when the call was rejected.
        max_queue_size: usize,
    },

    /// A deadline of the call has passed.
    Timeout {
        /// The bulkhead of the call.
        bulkhead: BulkheadName,
        /// The phase of the call when the deadline passed.
        phase: TimeoutPhase,
        /// How long the call waited for a permit.
        ///
        /// For blocking work that was never started, this includes the wait for a thread.
        queued: Duration,
        /// How long the operation ran; zero if it was never started.
        ran: Duration,
    },

    /// The bulkhead was shut down, or the runtime dropped blocking work before it was started.
    Shutdown {
        /// The bulkhead that rejected the call.
        bulkhead: BulkheadName,
    },

    /// The weight of the call is above the configured maximum, so it can never run.
    WeightTooLarge {
        /// The bulkhead that rejected the call.
        bulkhead: BulkheadName,
        /// The [weight](crate::call::Call::weight) of the call.
        weight: u32,
        /// The largest weight that the configuration admits.
        max: u32,
    },

    /// The closure given to `execute_blocking` panicked.
    Panicked {
        /// The bulkhead of the call.
        bulkhead: BulkheadName,
        /// The message of the panic, if it is a string.
        message: Box<str>,
    },

    /// The runtime does not support a setting of the call.
    Unsupported {
        /// The bulkhead of the call.
        bulkhead: BulkheadName,
        /// The setting of the call or of the configuration.
        setting: &'static str,
        /// The capability that the runtime lacks.
        needs: &'static str,
    },

    /// The manager has no bulkhead of this name.
    NotFound {
        /// The requested name.
        name: Box<str>,
    },

    /// The operation ran and returned this error.
    Operation(E),
}

impl<E> BulkheadError<E> {
    /// Returns `true` if the operation was never started: rejected, or timed out in the queue.
    ///
    /// It is safe to retry such a call, elsewhere or after [`retry_after`](Self::retry_after),
    /// because it had no effect. Only [`WeightTooLarge`](Self::WeightTooLarge) can't succeed later.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
    /// let failed = bulkhead
    ///     .execute_sync(|| Err::<(), _>("connection reset"))
    ///     .unwrap_err();
    /// assert!(!failed.is_rejection()); // the payment may have been made
    ///
    /// bulkhead.shutdown();
    /// let rejected = bulkhead.execute_sync(|| Ok::<_, &str>(())).unwrap_err();
    /// assert!(rejected.is_rejection()); // not paid: another provider can be used
    ///     
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        match self {
            Self::CircuitOpen { .. }
            | Self::Full { .. }
            | Self::WeightTooLarge { .. }
            | Self::Unsupported { .. }
            | Self::NotFound { .. }
            | Self::Timeout {
                phase: TimeoutPhase::Queued,
                ..
            }
            | Self::Shutdown { .. } => true,
            Self::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }
            | Self::Panicked { .. }
            | Self::Operation(_) => false,
        }
    }

    /// Returns the time until the next attempt may succeed, if it is known.
    ///
    /// Only [`CircuitOpen`](Self::CircuitOpen) has one.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// let rejected = bulkhead.execute_sync(|| Ok::<_, &str>(())).unwrap_err();
    /// assert_eq!(rejected.retry_after(), Some(Duration::from_secs(30)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the suggested HTTP status for a response to an upstream caller.
    ///
    /// | error | status |
    /// | --- | --- |
    /// | circuit open, full, timed out in the queue, shut down | 503 Service Unavailable |
    /// | timed out while running | 504 Gateway Timeout |
    /// | error of the operation | 502 Bad Gateway |
    /// | weight too large | 413 Content Too Large |
    /// | panicked, unsupported, not found | 500 Internal Server Error |
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// let rejected = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(rejected.http_status(), 503);
    /// let header = ("Retry-After", rejected.retry_after_seconds().to_string());
    /// assert_eq!(header.1, "30");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::CircuitOpen { .. }
            | Self::Full { .. }
            | Self::Timeout {
                phase: TimeoutPhase::Queued,
                ..
            }
            | Self::Shutdown { .. } => 503,
            Self::Timeout {
                phase: TimeoutPhase::Running,
                ..
            } => 504,
            Self::Operation(_) => 502,
            Self::WeightTooLarge { .. } => 413,
            Self::Panicked { .. } | Self::Unsupported { .. } | Self::NotFound { .. } => 500,
        }
    }

    /// Returns the value of the header `Retry-After`: whole seconds, rounded up, at least 1.
    ///
    /// It is 1 if [`retry_after`](Self::retry_after) is unknown: a full bulkhead may have a permit
    /// at any moment.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open_for(Duration::from_millis(1500));
    /// let rejected = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(rejected.retry_after_seconds(), 2);
    /// assert_eq!(BulkheadError::Operation(()).retry_after_seconds(), 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retry_after_seconds(&self) -> u64 {
        let after = match self.retry_after() {
            Some(after) => after,
            None => Duration::ZERO,
        };
        let seconds = after
            .as_secs()
            .saturating_add(if after.subsec_nanos() > 0 { 1 } else { 0 });
        if seconds == 0 { 1 } else { seconds }
    }

    /// Returns the error of the operation, if it is one.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// let error = BulkheadError::Operation("no such user");
    /// assert_eq!(error.into_operation(), Some("no such user"));
    /// ```
    #[must_use]
    pub fn into_operation(self) -> Option<E> {
        match self {
            Self::Operation(error) => Some(error),
            _ => None,
        }
    }

    /// Converts the error of the operation.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// let error = BulkheadError::Operation(404);
    /// let error = error.map_operation(|status| format!("the server answered {status}"));
    /// assert_eq!(
    ///     error,
    ///     BulkheadError::Operation(String::from("the server answered 404"))
    /// );
    /// ```
    #[must_use]
    pub fn map_operation<F>(self, convert: impl FnOnce(E) -> F) -> BulkheadError<F> {
        match self.split() {
            Ok(own) => own,
            Err(error) => BulkheadError::Operation(convert(error)),
        }
    }

    /// Returns the bulkhead's own error, or that of the operation.
    fn split<F>(self) -> Result<BulkheadError<F>, E> {
        Ok(match self {
            Self::CircuitOpen {
                bulkhead,
                reason,
                retry_after,
            } => BulkheadError::CircuitOpen {
                bulkhead,
                reason,
                retry_after,
            },
            Self::Full {
                bulkhead,
                max_concurrent_calls,
                max_queue_size,
            } => BulkheadError::Full {
                bulkhead,
                max_concurrent_calls,
                max_queue_size,
            },
            Self::Timeout {
                bulkhead,
                phase,
                queued,
                ran,
            } => BulkheadError::Timeout {
                bulkhead,
                phase,
                queued,
                ran,
            },
            Self::Shutdown { bulkhead } => BulkheadError::Shutdown { bulkhead },
            Self::WeightTooLarge {
                bulkhead,
                weight,
                max,
            } => BulkheadError::WeightTooLarge {
                bulkhead,
                weight,
                max,
            },
            Self::Panicked { bulkhead, message } => BulkheadError::Panicked { bulkhead, message },
            Self::Unsupported {
                bulkhead,
                setting,
                needs,
            } => BulkheadError::Unsupported {
                bulkhead,
                setting,
                needs,
            },
            Self::NotFound { name } => BulkheadError::NotFound { name },
            Self::Operation(error) => return Err(error),
        })
    }
}

impl BulkheadError<Infallible> {
    /// Converts the error to one for any operation.
    ///
    /// The error of [`acquire`](crate::Bulkhead::acquire) has no operation.
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadError};
    ///
    /// async fn upload(ftp: &Bulkhead) -> Result<(), BulkheadError<std::io::Error>> {
    ///     let permit = ftp.acquire().await.map_err(BulkheadError::cast)?;
    ///     // ... transfer ...
    ///     permit.succeed();
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn cast<E>(self) -> BulkheadError<E> {
        self.map_operation(|error| match error {})
    }
}

impl<E> fmt::Display for BulkheadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen {
                bulkhead,
                reason,
                retry_after,
            } => {
                let retry_after = RetryAfter(*retry_after);
                write!(
                    f,
                    "bulkhead {bulkhead:?} rejected the call: {reason}{retry_after}"
                )
            }
            Self::Full {
                bulkhead,
                max_concurrent_calls,
                max_queue_size,
            } => write!(
                f,
                "bulkhead {bulkhead:?} is full: \
                 at most {max_concurrent_calls} running and {max_queue_size} queued calls"
            ),
            Self::Timeout {
                bulkhead,
                phase,
                queued,
                ran,
            } => {
                let (queued, ran) = (Rounded(*queued), Rounded(*ran));
                write!(
                    f,
                    "call timed out while {phase} in bulkhead {bulkhead:?} \
                     (queued {queued}, ran {ran})"
                )
            }
            Self::Shutdown { bulkhead } => write!(f, "bulkhead {bulkhead:?} is shut down"),
            Self::WeightTooLarge {
                bulkhead,
                weight,
                max,
            } => write!(
                f,
                "bulkhead {bulkhead:?} has {max} permits: a call that needs {weight} can never run"
            ),
            Self::Panicked { bulkhead, message } => {
                write!(
                    f,
                    "blocking work in bulkhead {bulkhead:?} panicked: {message}"
                )
            }
            Self::Unsupported {
                bulkhead,
                setting,
                needs,
            } => write!(
                f,
                "bulkhead {bulkhead:?} does not support `{setting}`: its runtime has no {needs}"
            ),
            Self::NotFound { name } => write!(f, "no bulkhead is named {name:?}"),
            Self::Operation(_) => f.write_str("operation failed"),
        }
    }
}

impl<E: Error + 'static> Error for BulkheadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Operation(error) => Some(error),
            rejection if rejection.is_rejection() => Some(NotStarted::new()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> BulkheadName {
        BulkheadName::new("search").unwrap()
    }

    fn open(retry_after: Option<Duration>) -> BulkheadError<&'static str> {
        BulkheadError::CircuitOpen {
            bulkhead: name(),
            reason: RejectionReason::Open,
            retry_after,
        }
    }

    fn timeout(phase: TimeoutPhase) -> BulkheadError<&'static str> {
        BulkheadError::Timeout {
            bulkhead: name(),
            phase,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
        }
    }

    #[test]
    fn http_status_depends_on_whether_the_operation_was_started() {
        let full = BulkheadError::Full {
            bulkhead: name(),
            max_concurrent_calls: 1,
            max_queue_size: 0,
        };
        let too_heavy = BulkheadError::WeightTooLarge {
            bulkhead: name(),
            weight: 11,
            max: 10,
        };
        let panicked = BulkheadError::Panicked {
            bulkhead: name(),
            message: "".into(),
        };
        let unsupported = BulkheadError::Unsupported {
            bulkhead: name(),
            setting: "timeout",
            needs: "timers",
        };
        let not_found = BulkheadError::NotFound {
            name: "search".into(),
        };
        let statuses = [
            (open(None), 503),
            (full, 503),
            (timeout(TimeoutPhase::Queued), 503),
            (BulkheadError::Shutdown { bulkhead: name() }, 503),
            (timeout(TimeoutPhase::Running), 504),
            (BulkheadError::Operation("no route"), 502),
            (too_heavy, 413),
            (panicked, 500),
            (unsupported, 500),
            (not_found, 500),
        ];
        for (error, status) in statuses {
            assert_eq!(error.http_status(), status, "{error:?}");
        }
    }

    #[test]
    fn retry_after_seconds_are_rounded_up_and_at_least_one() {
        let seconds = |after| open(after).retry_after_seconds();
        assert_eq!(seconds(None), 1);
        assert_eq!(seconds(Some(Duration::ZERO)), 1);
        assert_eq!(seconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(seconds(Some(Duration::from_secs(1))), 1);
        assert_eq!(seconds(Some(Duration::new(1, 1))), 2);
        assert_eq!(seconds(Some(Duration::from_secs(30))), 30);
        assert_eq!(seconds(Some(Duration::MAX)), u64::MAX);
        assert_eq!(timeout(TimeoutPhase::Queued).retry_after_seconds(), 1);
        assert_eq!(
            BulkheadError::Operation("no route").retry_after_seconds(),
            1
        );
    }
}
