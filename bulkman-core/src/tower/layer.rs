//! Puts services behind a bulkhead.

use tower_layer::Layer;

use super::service::BulkheadService;
use super::status::StatusClassifier;
use crate::bulkhead::Bulkhead;
use crate::call::classifier::DefaultClassifier;
use crate::call::outcome::Outcome;

/// Puts services behind one bulkhead: all services that it makes share the permits, the queue and
/// the circuit.
///
/// Cheap to clone. See the [module](super) for what a call is.
///
/// ```
/// use bulkman::tower::BulkheadLayer;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
/// use tower_layer::Layer;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let layer = BulkheadLayer::new(bulkhead.clone());
/// let (near, far) = (layer.layer("a service"), layer.layer("another"));
/// bulkhead.shutdown();
/// assert!(!near.bulkhead().is_healthy() && !far.bulkhead().is_healthy());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BulkheadLayer<C = DefaultClassifier> {
    bulkhead: Bulkhead,
    classifier: C,
}

impl BulkheadLayer {
    /// A layer whose services' errors are failures and whose responses are successes.
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let layer = BulkheadLayer::new(Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            classifier: DefaultClassifier,
        }
    }
}

impl<C> BulkheadLayer<C> {
    /// Decides by the service's result, response or error, what it says about the dependency.
    ///
    /// ```
    /// use bulkman::tower::BulkheadLayer;
    /// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// struct Answer { rows: usize }
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let layer = BulkheadLayer::new(bulkhead).classify(|result: &Result<Answer, std::io::Error>| {
    ///     match result {
    ///         Ok(answer) if answer.rows > 0 => Outcome::Success,
    ///         Ok(_) => Outcome::Ignored,
    ///         Err(_) => Outcome::Failure,
    ///     }
    /// });
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classify<T, E, F>(self, classifier: F) -> BulkheadLayer<F>
    where
        F: Fn(&Result<T, E>) -> Outcome,
    {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier,
        }
    }

    /// For HTTP: errors and responses with a status of 500 and above are failures.
    ///
    /// ```
    /// # struct Response(u16);
    /// # impl Response { fn status(&self) -> u16 { self.0 } }
    /// use bulkman::tower::BulkheadLayer;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// // With the crate `http`: `response.status().as_u16()`.
    /// let layer = BulkheadLayer::new(bulkhead).classify_status(|response: &Response| response.status());
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classify_status<T, F>(self, status: F) -> BulkheadLayer<StatusClassifier<F>>
    where
        F: Fn(&T) -> u16,
    {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier: StatusClassifier(status),
        }
    }
}

impl<S, C: Clone> Layer<S> for BulkheadLayer<C> {
    type Service = BulkheadService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::new(inner, self.bulkhead.clone(), self.classifier.clone())
    }
}
