//! HTTP's view of success.

use std::fmt;

use crate::classify::Classifier;
use crate::outcome::Outcome;

/// Takes a status of 500 and above as a failure: made by
/// [`failures_by_status`](super::BulkheadLayer::failures_by_status).
///
/// ```
/// use bulkman_core::tower::BulkheadLayer;
/// use bulkman_core::{Bulkhead, BulkheadConfig, ClockOnly};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let by_status = BulkheadLayer::new(bulkhead).failures_by_status(|status: &u16| *status);
/// # let _ = by_status;
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct ByStatus<F>(pub(super) F);

impl<T, E, F: Fn(&T) -> u16> Classifier<T, E> for ByStatus<F> {
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(response) if (self.0)(response) < 500 => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}

impl<F> fmt::Debug for ByStatus<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByStatus").finish_non_exhaustive()
    }
}
