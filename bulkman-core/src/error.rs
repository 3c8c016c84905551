//! The errors: one enum per public operation, nothing formatted before somebody asks.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::bulkhead::BulkheadName;

/// A call that did not bring back a value.
///
/// Everything but [`Operation`](Self::Operation) is the bulkhead's own: see
/// [`is_rejection`](Self::is_rejection) for the cases in which the operation never began.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("mail"), ClockOnly)?;
/// match bulkhead.execute_sync(|| Err::<(), _>("no such user")) {
///     Ok(()) => {}
///     Err(BulkheadError::Operation(error)) => assert_eq!(error, "no such user"),
///     Err(refused) => println!("try again in {:?}: {refused}", refused.retry_after()),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BulkheadError<E> {
    /// The circuit refuses calls; nothing was queued and nothing ran.
    #[error("bulkhead {bulkhead:?} refused the call: {reason}{}", RetryAfter(*.retry_after))]
    CircuitOpen {
        /// The bulkhead that refused.
        bulkhead: BulkheadName,
        /// Why.
        reason: RejectionReason,
        /// When to come back; `None` when nobody can say (forced open, or all probes are out).
        retry_after: Option<Duration>,
    },

    /// All permits are taken and no place in the queue is free.
    #[error(
        "bulkhead {bulkhead:?} is full: {max_concurrent_calls} running, \
         room for {max_queue_size} waiting"
    )]
    Full {
        /// The bulkhead that refused.
        bulkhead: BulkheadName,
        /// Its limit of running calls when it refused.
        max_concurrent_calls: usize,
        /// Its limit of waiting calls when it refused.
        max_queue_size: usize,
    },

    /// A deadline passed: see `phase` for where.
    #[error(
        "call timed out while {phase} in bulkhead {bulkhead:?} (queued {}, ran {})",
        Rounded(*.queued),
        Rounded(*.ran)
    )]
    Timeout {
        /// The bulkhead in which it waited or ran.
        bulkhead: BulkheadName,
        /// Where the call was when its time was over.
        phase: TimeoutPhase,
        /// How long it waited for a permit, and if it was blocking work that never began, for a
        /// thread.
        queued: Duration,
        /// How long its operation ran; zero when it never began.
        ran: Duration,
    },

    /// The bulkhead was shut down, or the runtime dropped the call's blocking work before it began.
    #[error("bulkhead {bulkhead:?} is shut down")]
    Shutdown {
        /// The bulkhead that refused.
        bulkhead: BulkheadName,
    },

    /// The closure given to `execute_blocking` panicked.
    #[error("blocking work in bulkhead {bulkhead:?} panicked: {message}")]
    Panicked {
        /// The bulkhead in which it ran.
        bulkhead: BulkheadName,
        /// The panic's message, if it was text.
        message: Box<str>,
    },

    /// The call asks for something that the bulkhead's runtime cannot do.
    #[error("bulkhead {bulkhead:?} can't honour `{setting}`: its runtime has no {needs}")]
    Unsupported {
        /// The bulkhead that was asked.
        bulkhead: BulkheadName,
        /// The setting of the call or of the configuration.
        setting: &'static str,
        /// What it needs from the runtime.
        needs: &'static str,
    },

    /// The manager has no bulkhead of this name.
    #[error("no bulkhead is named {name:?}")]
    NotFound {
        /// The name that was asked for.
        name: Box<str>,
    },

    /// The operation ran and returned this error.
    #[error("operation failed")]
    Operation(#[source] E),
}

impl<E> BulkheadError<E> {
    /// Whether the operation never began: refused, or timed out in the queue.
    ///
    /// Trying again (elsewhere, or after [`retry_after`](Self::retry_after)) can't repeat an effect.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ClockOnly)?;
    /// let failed = bulkhead.execute_sync(|| Err::<(), _>("connection reset")).unwrap_err();
    /// assert!(!failed.is_rejection());       // it may have been paid, or not
    ///
    /// bulkhead.shutdown();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, &str>(())).unwrap_err();
    /// assert!(refused.is_rejection());       // not paid: another provider can be asked
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        match self {
            Self::CircuitOpen { .. }
            | Self::Full { .. }
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

    /// When to come back, if the bulkhead knows: only an open circuit does.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, &str>(())).unwrap_err();
    /// assert_eq!(refused.retry_after(), Some(Duration::from_secs(30)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The HTTP status for an answer to a caller further out. With the feature `tower`.
    ///
    /// | error | status |
    /// | --- | --- |
    /// | refused: circuit open, full, timed out in the queue, shut down | 503 Service Unavailable |
    /// | timed out while running | 504 Gateway Timeout |
    /// | the operation's own error | 502 Bad Gateway |
    /// | anything else: a panic, a bulkhead that is not there or not able | 500 Internal Server Error |
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(refused.http_status(), 503);
    /// let header = ("Retry-After", refused.retry_after_seconds().to_string());
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
            Self::Panicked { .. } | Self::Unsupported { .. } | Self::NotFound { .. } => 500,
        }
    }

    /// The value of the header `Retry-After`: whole seconds, rounded up, at least 1. With the
    /// feature `tower`.
    ///
    /// 1 also where the bulkhead can't know: a full one may have room at any moment.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open_for(Duration::from_millis(1500));
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(refused.retry_after_seconds(), 2);
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

    /// The operation's own error, if it is one.
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

    /// The same error with the operation's part converted.
    ///
    /// ```
    /// # use bulkman::BulkheadError;
    /// let error = BulkheadError::Operation(404);
    /// let error = error.map_operation(|status| format!("the server answered {status}"));
    /// assert_eq!(error, BulkheadError::Operation(String::from("the server answered 404")));
    /// ```
    #[must_use]
    pub fn map_operation<F>(self, convert: impl FnOnce(E) -> F) -> BulkheadError<F> {
        match self {
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
            Self::Operation(error) => BulkheadError::Operation(convert(error)),
        }
    }
}

impl BulkheadError<Infallible> {
    /// The same error for any operation: what [`acquire`](crate::Bulkhead::acquire) returns has none
    /// of its own.
    ///
    /// ```
    /// use bulkman::{Bulkhead, BulkheadError};
    ///
    /// async fn upload(ftp: &Bulkhead) -> Result<(), BulkheadError<std::io::Error>> {
    ///     let permit = ftp.acquire().await.map_err(BulkheadError::cast)?;
    ///     // .. transfer ..
    ///     permit.succeed();
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn cast<E>(self) -> BulkheadError<E> {
        self.map_operation(|never| match never {})
    }
}

/// Where a call was when its time was over.
///
/// ```
/// use bulkman::error::TimeoutPhase;
///
/// assert_eq!(TimeoutPhase::Queued.to_string(), "queued");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// A word, as all else in an error: see `Denied`.
#[repr(u64)]
#[non_exhaustive]
pub enum TimeoutPhase {
    /// Waiting for a permit, or with a permit for a thread that does blocking work: the operation
    /// never began.
    Queued,
    /// The operation was running.
    Running,
}

impl fmt::Display for TimeoutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
        })
    }
}

/// Why a circuit refuses a call.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::error::RejectionReason;
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.force_open();
/// assert_eq!(breaker.try_acquire().unwrap_err().reason, RejectionReason::ForcedOpen);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// A word, as all else in an error: see `Denied`.
#[repr(u64)]
#[non_exhaustive]
pub enum RejectionReason {
    /// The circuit is open and its isolation is not over.
    Open,
    /// The circuit is half-open and all its probes are out.
    ProbeLimit,
    /// The circuit is held open by hand.
    ForcedOpen,
    /// The circuit is half-open in the fleet and this process holds no probe lease (yet).
    NoProbeLease,
}

impl RejectionReason {
    /// The name in lower case, as in logs and metrics: `circuit_open`.
    ///
    /// ```
    /// # use bulkman::error::RejectionReason;
    /// assert_eq!(RejectionReason::ProbeLimit.as_str(), "probe_limit_reached");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "circuit_open",
            Self::ProbeLimit => "probe_limit_reached",
            Self::ForcedOpen => "forced_open",
            Self::NoProbeLease => "no_probe_lease",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "circuit is open",
            Self::ProbeLimit => "circuit is half-open and all probes are out",
            Self::ForcedOpen => "circuit is forced open",
            Self::NoProbeLease => "circuit is half-open and the fleet's probes are elsewhere",
        })
    }
}

/// A refusal by a circuit breaker.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::error::RejectionReason;
/// use bulkman::testing::ManualRuntime;
/// use std::time::Duration;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ManualRuntime::new())?;
/// breaker.open();
/// let refused = breaker.try_acquire().unwrap_err();
/// assert_eq!(refused.reason, RejectionReason::Open);
/// assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
/// assert_eq!(refused.to_string(), "circuit is open, retry in 30s");
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason}{}", RetryAfter(*.retry_after))]
#[non_exhaustive]
pub struct CircuitOpen {
    /// Why the circuit refuses.
    pub reason: RejectionReason,
    /// When to come back; `None` when nobody can say (forced open, or all probes are out).
    pub retry_after: Option<Duration>,
}

impl CircuitOpen {
    pub(crate) const fn new(reason: RejectionReason, retry_after: Option<Duration>) -> Self {
        Self {
            reason,
            retry_after,
        }
    }
}

/// A [`CircuitOpen`] in two words, to be handed from step to step in registers.
///
/// A duration is stored as two parts and loaded as one, which a processor can't forward: each step
/// that passes it on through memory costs as much as counting the refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denied {
    pub(crate) reason: RejectionReason,
    retry_after: u64,
}

impl Denied {
    /// As `retry_after`: nobody can say.
    const NEVER: u64 = u64::MAX;

    pub(crate) const fn new(reason: RejectionReason) -> Self {
        Self {
            reason,
            retry_after: Self::NEVER,
        }
    }

    /// Come back in so many nanoseconds.
    pub(crate) const fn retry_in(reason: RejectionReason, nanos: u64) -> Self {
        Self {
            reason,
            retry_after: if nanos == Self::NEVER {
                nanos - 1
            } else {
                nanos
            },
        }
    }

    pub(crate) const fn retry_after(self) -> Option<Duration> {
        if self.retry_after == Self::NEVER {
            None
        } else {
            Some(Duration::from_nanos(self.retry_after))
        }
    }
}

/// What lies more than 584 years ahead is said to be 584 years ahead.
impl From<CircuitOpen> for Denied {
    fn from(
        CircuitOpen {
            reason,
            retry_after,
        }: CircuitOpen,
    ) -> Self {
        match retry_after {
            Some(after) => {
                Self::retry_in(reason, u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
            }
            None => Self::new(reason),
        }
    }
}

impl From<Denied> for CircuitOpen {
    #[inline]
    fn from(denied: Denied) -> Self {
        Self {
            reason: denied.reason,
            retry_after: denied.retry_after(),
        }
    }
}

/// Writes ", retry in 1.5s", or nothing.
struct RetryAfter(Option<Duration>);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(after) => write!(f, ", retry in {}", Rounded(after)),
            None => Ok(()),
        }
    }
}

/// Writes a duration in whole milliseconds. It is rounded up: who comes back after the time in a
/// message must not be too early.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = Duration::from_millis(u64::from(self.0.subsec_nanos().div_ceil(1_000_000)));
        write!(
            f,
            "{:?}",
            Duration::from_secs(self.0.as_secs()).saturating_add(millis)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_messages_are_rounded_up_to_milliseconds() {
        let text = |duration| Rounded(duration).to_string();
        assert_eq!(text(Duration::ZERO), "0ns");
        assert_eq!(text(Duration::from_nanos(1)), "1ms");
        assert_eq!(text(Duration::from_micros(1500)), "2ms");
        assert_eq!(text(Duration::from_nanos(29_999_980_704)), "30s");
        assert_eq!(text(Duration::MAX), format!("{:?}", Duration::MAX));
    }
}
