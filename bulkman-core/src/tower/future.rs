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
