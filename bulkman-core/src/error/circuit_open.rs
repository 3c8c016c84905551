//! The error of a circuit that rejects a call.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::not_started::NotStarted;
use super::rejection_reason::RejectionReason;
use super::text::RetryAfter;

/// The error returned by a circuit breaker that rejects a call.
///
/// ```
/// use bulkman::error::RejectionReason;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use std::time::Duration;
///
/// let breaker =
///     CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ManualRuntime::new())?;
/// breaker.open();
/// let rejected = breaker.try_acquire().unwrap_err();
/// assert_eq!(rejected.reason, RejectionReason::Open);
/// assert_eq!(rejected.retry_after, Some(Duration::from_secs(30)));
/// assert_eq!(rejected.to_string(), "circuit is open, retry in 30s");
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "CallNotPermitted")]
#[doc(alias = "BrokenCircuit")]
#[non_exhaustive]
pub struct CircuitOpen {
    /// The reason for which the circuit rejects the call.
    pub reason: RejectionReason,
    /// The time until the next attempt may succeed.
    ///
    /// `None` if it is unknown: the circuit is forced open, or its probe limit is reached.
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

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.reason, RetryAfter(self.retry_after))
    }
}

impl Error for CircuitOpen {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(NotStarted::new())
    }
}

/// A [`CircuitOpen`] in two words, which is passed in registers.
///
/// A duration is stored as two parts and loaded as one, which a processor can't forward. Each
/// function that passes it on through memory costs as much as counting the rejection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRejection {
    pub(crate) reason: RejectionReason,
    /// In nanoseconds.
    retry_after: u64,
}

impl PackedRejection {
    /// The value of `retry_after` if the time is unknown.
    const UNKNOWN: u64 = u64::MAX;

    pub(crate) const fn new(reason: RejectionReason) -> Self {
        Self {
            reason,
            retry_after: Self::UNKNOWN,
        }
    }

    /// The next attempt may succeed in `nanos` nanoseconds.
    pub(crate) const fn retry_in(reason: RejectionReason, nanos: u64) -> Self {
        Self {
            reason,
            retry_after: if nanos == Self::UNKNOWN {
                nanos - 1
            } else {
                nanos
            },
        }
    }

    pub(crate) const fn retry_after(self) -> Option<Duration> {
        if self.retry_after == Self::UNKNOWN {
            None
        } else {
            Some(Duration::from_nanos(self.retry_after))
        }
    }
}

/// A time of more than 584 years is cut to 584 years.
impl From<CircuitOpen> for PackedRejection {
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

impl From<PackedRejection> for CircuitOpen {
    #[inline]
    fn from(rejection: PackedRejection) -> Self {
        Self {
            reason: rejection.reason,
            retry_after: rejection.retry_after(),
        }
    }
}
