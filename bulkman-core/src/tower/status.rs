//! Classification by HTTP status.

use std::fmt;

use crate::call::classifier::Classifier;
use crate::call::outcome::Outcome;

/// A classifier that counts an HTTP status of 500 and above as a failure.
///
/// Created by [`classify_status`](super::BulkheadLayer::classify_status).
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::tower::BulkheadLayer;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let layer = BulkheadLayer::new(bulkhead).classify_status(|status: &u16| *status);
/// # let _ = layer;
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct StatusClassifier<F>(pub(super) F);

impl<T, E, F: Fn(&T) -> u16> Classifier<T, E> for StatusClassifier<F> {
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(response) if (self.0)(response) < 500 => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}

impl<F> fmt::Debug for StatusClassifier<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusClassifier").finish_non_exhaustive()
    }
}
