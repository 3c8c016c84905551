//! A service behind a bulkhead.

use std::task::{Context, Poll};

use tower_service::Service;

use super::future::ResponseFuture;
use super::oneshot::Oneshot;
use super::settings::{CallSettings, NoSettings};
use super::{BoxError, RejectionAware, ServiceError};
use crate::bulkhead::Bulkhead;
use crate::call::classifier::{Classifier, DefaultClassifier};
use crate::call::execute::ExecuteOwned;

/// A service whose calls go through a bulkhead.
///
/// Created by [`BulkheadLayer`](super::BulkheadLayer).
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::tower::BulkheadLayer;
/// use bulkman::{Bulkhead, BulkheadConfig};
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
pub struct BulkheadService<S, C = DefaultClassifier, P = NoSettings> {
    inner: S,
    bulkhead: Bulkhead,
    classifier: C,
    settings: P,
}

impl<S, C, P> BulkheadService<S, C, P> {
    pub(super) const fn new(inner: S, bulkhead: Bulkhead, classifier: C, settings: P) -> Self {
        Self {
            inner,
            bulkhead,
            classifier,
            settings,
        }
    }

    /// Returns the bulkhead.
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// Returns a reference to the inner service.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # use tower_layer::Layer;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let mut service = BulkheadLayer::new(bulkhead).layer(vec!["first"]);
    /// service.get_mut().push("second");
    /// assert_eq!(service.into_inner(), ["first", "second"]);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes the wrapper and returns the inner service.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns the guarded call of a request. Nothing is held before it is polled.
    pub(super) fn start<R>(&self, request: R) -> ExecuteOwned<Oneshot<S, R>, RejectionAware<C>>
    where
        S: Service<R> + Clone,
        C: Clone,
        P: CallSettings<R>,
    {
        let call = self.settings.apply(self.bulkhead.call(), &request);
        let options = call.options();
        // A clone, which is made ready after the permit was granted: see the module documentation.
        let operation = Oneshot::new(self.inner.clone(), request);
        ExecuteOwned::new(
            self.bulkhead.clone(),
            operation,
            RejectionAware(self.classifier.clone()),
            options,
        )
    }
}

impl<S, R, C, P> Service<R> for BulkheadService<S, C, P>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError> + 'static,
    C: Classifier<S::Response, S::Error> + Clone,
    P: CallSettings<R>,
{
    type Response = S::Response;
    type Error = ServiceError;
    type Future = ResponseFuture<S, R, C>;

    /// Always returns ready. The future of [`call`](Self::call) waits for the permit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        ResponseFuture::new(self.start(request))
    }
}
