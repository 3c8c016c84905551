//! The reason for which a circuit rejects a call.

use std::fmt;

/// The reason for which a circuit rejects a call.
///
/// ```
/// use bulkman::error::RejectionReason;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.force_open();
/// assert_eq!(
///     breaker.try_acquire().unwrap_err().reason,
///     RejectionReason::ForcedOpen
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// As wide as a register, as the other parts of an error: see `PackedRejection`.
#[repr(u64)]
#[non_exhaustive]
pub enum RejectionReason {
    /// The circuit is open and its isolation has not elapsed.
    Open,
    /// The circuit is half-open and its probe limit is reached.
    ProbeLimit,
    /// The circuit is forced open.
    ForcedOpen,
    /// The circuit is half-open in the fleet and this process holds no probe lease.
    NoProbeLease,
}

impl RejectionReason {
    /// Returns the name in lower case, as in logs and metrics, such as `circuit_open`.
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
            Self::ProbeLimit => "circuit is half-open and its probe limit is reached",
            Self::ForcedOpen => "circuit is forced open",
            Self::NoProbeLease => "circuit is half-open and other processes hold its probe leases",
        })
    }
}
