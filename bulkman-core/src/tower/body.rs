//! A response body that holds the permit of its call.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::call::held::HeldCall;
use crate::call::outcome::Outcome;

/// Decides how a call counts, given its trailers.
pub(super) type ClassifyTrailers = fn(&HeaderMap) -> Outcome;

pin_project! {
    /// A response body that holds the permit of its call until it has ended or is dropped.
    ///
    /// Created by the services of
    /// [`hold_until_body_end`](super::BulkheadLayer::hold_until_body_end). The default value is an
    /// empty body that holds nothing.
    ///
    /// ```
    /// use bulkman::tower::GuardedBody;
    /// use http_body::Body;
    /// use http_body_util::Full;
    ///
    /// let empty: GuardedBody<Full<&[u8]>> = GuardedBody::default();
    /// assert!(empty.is_end_stream());
    /// ```
    #[cfg(feature = "http")] // for the badge in crates that re-export it
    pub struct GuardedBody<B> {
        // `None`: an empty body, or one that is being dropped. The body is dropped before the
        // permit is released.
        #[pin]
        body: Option<B>,
        // `None`: the call has ended.
        call: Option<HeldCall>,
        classify: ClassifyTrailers,
    }

    impl<B> PinnedDrop for GuardedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(call) = this.call {
                // What the body logs when it is dropped belongs to the call.
                let _span = call.observer().enter();
                this.body.set(None);
            }
        }
    }
}

impl<B: Body> GuardedBody<B> {
    pub(super) fn new(body: B, call: HeldCall, classify: ClassifyTrailers) -> Self {
        let mut guarded = Self {
            body: Some(body),
            call: Some(call),
            classify,
        };
        if guarded.body.as_ref().is_some_and(Body::is_end_stream) {
            end(&mut guarded.call, None);
        }
        guarded
    }
}

/// Ends the call. An outcome of the trailers replaces a success of the head.
fn end(call: &mut Option<HeldCall>, trailers: Option<Outcome>) {
    if let Some(call) = call.take() {
        let outcome = match (call.outcome(), trailers) {
            (Outcome::Success, Some(outcome)) => outcome,
            (head, _) => head,
        };
        call.finish(outcome);
    }
}

impl<B: Body> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _span = this.call.as_ref().map(|call| call.observer().enter());
            body.as_mut().poll_frame(cx)
        }));
        let frame = match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => {
                if let Some(call) = this.call.take() {
                    call.finish_panicked();
                }
                resume_unwind(panic)
            }
        };
        match &frame {
            None => end(this.call, None),
            Some(Err(_)) => {
                if let Some(call) = this.call.take() {
                    call.finish(Outcome::Failure);
                }
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end(this.call, Some((this.classify)(trailers)));
                } else if body.is_end_stream() {
                    // A server does not poll a body again that has ended.
                    end(this.call, None);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Default for GuardedBody<B> {
    fn default() -> Self {
        Self {
            body: None,
            call: None,
            classify: |_| Outcome::Success,
        }
    }
}

impl<B> fmt::Debug for GuardedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody")
            .field("holds_permit", &self.call.is_some())
            .finish_non_exhaustive()
    }
}
