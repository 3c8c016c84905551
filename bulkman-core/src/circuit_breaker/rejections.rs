//! Rejections, counted by reason.

use crate::error::RejectionReason;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The number of calls that a circuit has rejected since it was created, by reason.
///
/// The numbers only grow.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// breaker.half_open();
/// let probes: Vec<_> = (0..3).map(|_| breaker.try_acquire().unwrap()).collect();
/// assert!(breaker.try_acquire().is_err());
/// assert_eq!(breaker.rejections().probe_limit_reached, 1);
/// # drop(probes);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CircuitRejections {
    /// The circuit was open.
    #[cfg_attr(feature = "serde", serde(rename = "circuit_open"))]
    pub open: u64,
    /// The circuit was half-open and the limit of probes was reached.
    pub probe_limit_reached: u64,
    /// The circuit was forced open.
    pub forced_open: u64,
    /// The circuit was half-open in the fleet and this process held no probe lease.
    pub no_probe_lease: u64,
}

impl CircuitRejections {
    /// Returns the sum over all reasons.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::CircuitRejections;
    /// assert_eq!(CircuitRejections::default().total(), 0);
    /// ```
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.open + self.probe_limit_reached + self.forced_open + self.no_probe_lease
    }

    /// Returns the difference to an earlier reading.
    pub(crate) const fn since(&self, earlier: &Self) -> Self {
        Self {
            open: self.open.saturating_sub(earlier.open),
            probe_limit_reached: self
                .probe_limit_reached
                .saturating_sub(earlier.probe_limit_reached),
            forced_open: self.forced_open.saturating_sub(earlier.forced_open),
            no_probe_lease: self.no_probe_lease.saturating_sub(earlier.no_probe_lease),
        }
    }
}

/// The counters behind [`CircuitRejections`].
#[derive(Debug, Default)]
pub(crate) struct RejectionCounters {
    open: AtomicU64,
    probe_limit_reached: AtomicU64,
    forced_open: AtomicU64,
    no_probe_lease: AtomicU64,
}

impl RejectionCounters {
    // Relaxed, here and below: the counters order nothing.
    pub(crate) fn count(&self, reason: RejectionReason) {
        let counter = match reason {
            RejectionReason::Open => &self.open,
            RejectionReason::ProbeLimit => &self.probe_limit_reached,
            RejectionReason::ForcedOpen => &self.forced_open,
            RejectionReason::NoProbeLease => &self.no_probe_lease,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CircuitRejections {
        CircuitRejections {
            open: self.open.load(Ordering::Relaxed),
            probe_limit_reached: self.probe_limit_reached.load(Ordering::Relaxed),
            forced_open: self.forced_open.load(Ordering::Relaxed),
            no_probe_lease: self.no_probe_lease.load(Ordering::Relaxed),
        }
    }
}
