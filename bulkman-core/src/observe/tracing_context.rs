//! The tracing context of a caller, for the thread that runs its blocking work.

/// The span and the subscriber that were current when it was captured.
#[derive(Debug)]
pub(crate) struct TracingContext {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    #[cfg(feature = "tracing")]
    dispatch: tracing::Dispatch,
}

impl TracingContext {
    #[cfg(feature = "tracing")]
    pub(crate) fn capture() -> Self {
        Self {
            span: tracing::Span::current(),
            dispatch: tracing::dispatcher::get_default(Clone::clone),
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn in_scope<R>(self, code: impl FnOnce() -> R) -> R {
        tracing::dispatcher::with_default(&self.dispatch, || self.span.in_scope(code))
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) const fn capture() -> Self {
        Self {}
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn in_scope<R>(self, code: impl FnOnce() -> R) -> R {
        code()
    }
}
