//! A service behind a bulkhead.

use std::task::{Context, Poll};

use tower_service::Service;

use super::error::{BoxError, ServiceError};
use super::oneshot::Oneshot;
use super::response_future::ResponseFuture;
use crate::bulkhead::Bulkhead;
use crate::call::CallOptions;
use crate::call::classifier::{Classifier, DefaultClassifier};
use crate::call::execute::Execute;

/// A service whose calls go through a bulkhead: made by [`BulkheadLayer`](super::BulkheadLayer).
///
/// ```
/// use bulkman::tower::BulkheadLayer;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::runtime::ClockOnly;
/// use tower_layer::Layer;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let service = BulkheadLayer::new(bulkhead).layer("any service");
/// assert_eq!(service.bulkhead().name(), "search");
/// assert_eq!(*service.get_ref(), "any service");
/// assert_eq!(service.into_inner(), "any service");
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BulkheadService<S, C = DefaultClassifier> {
    inner: S,
    bulkhead: Bulkhead,
    classifier: C,
}

impl<S, C> BulkheadService<S, C> {
    pub(super) const fn new(inner: S, bulkhead: Bulkhead, classifier: C) -> Self {
        Self {
            inner,
            bulkhead,
            classifier,
        }
    }

    /// The bulkhead.
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The service behind it.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind it, set free.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, C> Service<R> for BulkheadService<S, C>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    C: Classifier<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = ServiceError;
    type Future = ResponseFuture<S, R, C>;

    /// Always ready: the permit is waited for by the future of [`call`](Self::call).
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        // A clone, and made ready only once the permit is there: see the module's documentation.
        let operation = Oneshot::new(self.inner.clone(), request);
        let (bulkhead, classifier) = (self.bulkhead.clone(), self.classifier.clone());
        ResponseFuture::new(Execute::new(
            bulkhead,
            operation,
            classifier,
            CallOptions::NONE,
        ))
    }
}
