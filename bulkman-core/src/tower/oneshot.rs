//! One request to one service: readiness, then the response.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

pin_project! {
    /// Waits until the service is ready, then sends the request.
    #[project = OneshotProjection]
    pub(super) enum Oneshot<S: Service<R>, R> {
        NotReady {
            service: S,
            request: Option<R>,
        },
        Called {
            #[pin]
            response: S::Future,
        },
    }
}

impl<S: Service<R>, R> Oneshot<S, R> {
    pub(super) const fn new(service: S, request: R) -> Self {
        Self::NotReady {
            service,
            request: Some(request),
        }
    }
}

impl<S: Service<R>, R> Future for Oneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let response = match self.as_mut().project() {
                OneshotProjection::Called { response } => return response.poll(cx),
                OneshotProjection::NotReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    service.call(request.take().expect("polled after a panic"))
                }
            };
            self.set(Self::Called { response });
        }
    }
}
