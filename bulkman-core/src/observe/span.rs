//! The caller's tracing context, carried to the thread that does blocking work.

/// The span and the subscriber that were current where it was captured.
#[derive(Debug)]
pub(crate) struct Current {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    #[cfg(feature = "tracing")]
    dispatch: tracing::Dispatch,
}

impl Current {
    #[cfg(feature = "tracing")]
    pub(crate) fn capture() -> Self {
        Self {
            span: tracing::Span::current(),
            dispatch: tracing::dispatcher::get_default(Clone::clone),
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn within<R>(self, code: impl FnOnce() -> R) -> R {
        tracing::dispatcher::with_default(&self.dispatch, || self.span.in_scope(code))
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) const fn capture() -> Self {
        Self {}
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn within<R>(self, code: impl FnOnce() -> R) -> R {
        code()
    }
}
