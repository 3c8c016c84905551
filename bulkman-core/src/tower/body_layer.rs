//! The layer and the service with calls that last until the body of the response has ended.

use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::GuardedBody;
use super::future::BodyResponseFuture;
use super::service::BulkheadService;
use super::settings::{CallSettings, NoSettings};
use super::status::StatusClassifier;
use super::{BoxError, RejectionAware, ServiceError};
use crate::bulkhead::Bulkhead;
use crate::call::classifier::{Classifier, DefaultClassifier};
use crate::call::outcome::Outcome;

/// A classifier that also classifies the trailers of a body.
///
/// Every classifier is one: trailers count as a success by default.
/// [`GrpcClassifier`](super::GrpcClassifier) reads `grpc-status`.
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::Classifier;
/// use bulkman::tower::BodyClassifier;
/// use http::{HeaderMap, Response};
///
/// /// Counts a response as a failure if its trailers report one.
/// #[derive(Clone)]
/// struct ByTrailer;
///
/// impl<B, E> Classifier<Response<B>, E> for ByTrailer {
///     fn classify(&self, result: &Result<Response<B>, E>) -> Outcome {
///         if result.is_ok() { Outcome::Success } else { Outcome::Failure }
///     }
/// }
///
/// impl<B, E> BodyClassifier<Response<B>, E> for ByTrailer {
///     fn classify_trailers(trailers: &HeaderMap) -> Outcome {
///         if trailers.contains_key("x-failed") { Outcome::Failure } else { Outcome::Success }
///     }
/// }
/// ```
#[cfg(feature = "http")] // for the badge in crates that re-export it
pub trait BodyClassifier<T, E>: Classifier<T, E> {
    /// Classifies the trailers of a response after a successful head.
    #[must_use]
    fn classify_trailers(trailers: &HeaderMap) -> Outcome {
        let _ = trailers;
        Outcome::Success
    }
}

impl<T, E> BodyClassifier<T, E> for DefaultClassifier {}

impl<T, E, F: Fn(&T) -> u16> BodyClassifier<T, E> for StatusClassifier<F> {}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome> BodyClassifier<T, E> for F {}

impl<T, E: 'static, C: BodyClassifier<T, E>> BodyClassifier<T, E> for RejectionAware<C> {
    fn classify_trailers(trailers: &HeaderMap) -> Outcome {
        C::classify_trailers(trailers)
    }
}

/// A layer with calls that last until the body of the response has ended.
///
/// Created by [`hold_until_body_end`](super::BulkheadLayer::hold_until_body_end).
#[cfg(feature = "http")] // for the badge in crates that re-export it
#[derive(Clone, Debug)]
pub struct BodyLayer<C = DefaultClassifier, P = NoSettings> {
    bulkhead: Bulkhead,
    classifier: C,
    settings: P,
}

impl<C, P> BodyLayer<C, P> {
    pub(super) const fn new(bulkhead: Bulkhead, classifier: C, settings: P) -> Self {
        Self {
            bulkhead,
            classifier,
            settings,
        }
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for BodyLayer<C, P> {
    type Service = BodyService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let (bulkhead, classifier) = (self.bulkhead.clone(), self.classifier.clone());
        let settings = self.settings.clone();
        BodyService(BulkheadService::new(inner, bulkhead, classifier, settings))
    }
}

/// A service with calls that last until the body of the response has ended.
///
/// Created by [`BodyLayer`]. The body of its responses is a [`GuardedBody`].
#[cfg(feature = "http")] // for the badge in crates that re-export it
#[derive(Clone, Debug)]
pub struct BodyService<S, C = DefaultClassifier, P = NoSettings>(BulkheadService<S, C, P>);

impl<S, C, P> BodyService<S, C, P> {
    /// Returns the bulkhead.
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        self.0.bulkhead()
    }

    /// Returns a reference to the inner service.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        self.0.get_ref()
    }

    /// Returns a mutable reference to the inner service.
    #[must_use]
    pub const fn get_mut(&mut self) -> &mut S {
        self.0.get_mut()
    }

    /// Consumes the wrapper and returns the inner service.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.0.into_inner()
    }
}

impl<S, R, C, P, B> Service<R> for BodyService<S, C, P>
where
    S: Service<R, Response = Response<B>> + Clone,
    S::Error: Into<BoxError> + 'static,
    C: BodyClassifier<Response<B>, S::Error> + Clone,
    P: CallSettings<R>,
    B: Body,
{
    type Response = Response<GuardedBody<B>>;
    type Error = ServiceError;
    type Future = BodyResponseFuture<S, R, C>;

    /// Always returns ready. The future of [`call`](Self::call) waits for the permit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        BodyResponseFuture::new(self.0.start(request))
    }
}
