//! The future of [`BulkheadService`](super::BulkheadService).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::oneshot::Oneshot;
use super::{BoxError, RejectionAware, ServiceError};
use crate::call::classifier::Classifier;
use crate::call::execute::ExecuteOwned;

pin_project! {
    /// The response future of [`BulkheadService`](super::BulkheadService).
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`](crate::future::Execute).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S: Service<R>, R, C> {
        #[pin]
        execute: ExecuteOwned<Oneshot<S, R>, RejectionAware<C>>,
    }
}

impl<S: Service<R>, R, C> ResponseFuture<S, R, C> {
    pub(super) const fn new(execute: ExecuteOwned<Oneshot<S, R>, RejectionAware<C>>) -> Self {
        Self { execute }
    }
}

impl<S, R, C> Future for ResponseFuture<S, R, C>
where
    S: Service<R>,
    S::Error: Into<BoxError> + 'static,
    C: Classifier<S::Response, S::Error>,
{
    type Output = Result<S::Response, ServiceError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().execute.poll(cx).map_err(ServiceError::new)
    }
}

impl<S: Service<R>, R, C> fmt::Debug for ResponseFuture<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(feature = "http")]
pin_project! {
    /// The response future of [`BodyService`](super::BodyService).
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`](crate::future::Execute).
    #[cfg(feature = "http")] // for the badge in crates that re-export it
    #[must_use = "futures do nothing unless polled"]
    pub struct BodyResponseFuture<S: Service<R>, R, C> {
        #[pin]
        execute: ExecuteOwned<Oneshot<S, R>, RejectionAware<C>>,
    }
}

#[cfg(feature = "http")]
impl<S: Service<R>, R, C> BodyResponseFuture<S, R, C> {
    pub(super) const fn new(execute: ExecuteOwned<Oneshot<S, R>, RejectionAware<C>>) -> Self {
        Self { execute }
    }
}

#[cfg(feature = "http")]
impl<S, R, C, B> Future for BodyResponseFuture<S, R, C>
where
    S: Service<R, Response = http::Response<B>>,
    S::Error: Into<BoxError> + 'static,
    C: super::BodyClassifier<http::Response<B>, S::Error>,
    B: http_body::Body,
{
    type Output = Result<http::Response<super::GuardedBody<B>>, ServiceError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().execute.poll_held(cx).map(|result| {
            let (response, call) = result.map_err(ServiceError::new)?;
            Ok(response.map(|body| super::GuardedBody::new(body, call, C::classify_trailers)))
        })
    }
}

#[cfg(feature = "http")]
impl<S: Service<R>, R, C> fmt::Debug for BodyResponseFuture<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(feature = "http")]
pin_project! {
    /// The response future of [`GrpcRejectionService`](super::GrpcRejectionService).
    ///
    /// # Cancel safety
    ///
    /// As the future of the inner service.
    #[cfg(feature = "http")] // for the badge in crates that re-export it
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct GrpcRejectionFuture<F> {
        #[pin]
        pub(super) response: F,
    }
}

#[cfg(feature = "http")]
impl<F, B> Future for GrpcRejectionFuture<F>
where
    F: Future<Output = Result<http::Response<B>, ServiceError>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().response.poll(cx).map(|result| {
            result.or_else(|error| super::grpc::rejection_response(&error).ok_or(error))
        })
    }
}
