//! What a server answers when its bulkhead refuses.

use std::time::Duration;

use crate::error::{BulkheadError, Phase};

impl<E> BulkheadError<E> {
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
    /// use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(refused.http_status(), 503);
    /// let header = ("Retry-After", refused.retry_after_seconds().to_string());
    /// assert_eq!(header.1, "30");
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::CircuitOpen { .. }
            | Self::Full { .. }
            | Self::Timeout { phase: Phase::Queued, .. }
            | Self::Shutdown { .. } => 503,
            Self::Timeout { phase: Phase::Running, .. } => 504,
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
    /// # use bulkman_core::{BulkheadError, Bulkhead, BulkheadConfig, testing::ManualRuntime};
    /// # use std::time::Duration;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open_for(Duration::from_millis(1500));
    /// let refused = bulkhead.execute_sync(|| Ok::<_, ()>(())).unwrap_err();
    /// assert_eq!(refused.retry_after_seconds(), 2);
    /// assert_eq!(BulkheadError::Operation(()).retry_after_seconds(), 1);
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    #[must_use]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub const fn retry_after_seconds(&self) -> u64 {
        let after = match self.retry_after() {
            Some(after) => after,
            None => Duration::ZERO,
        };
        let seconds = after.as_secs().saturating_add(if after.subsec_nanos() > 0 { 1 } else { 0 });
        if seconds == 0 { 1 } else { seconds }
    }
}
