//! The span of a call, for code that outlives its observer.

/// The span of a call, if it has one.
///
/// An operation may be dropped after the end of its call was recorded, such as one that was
/// rejected. What its destructor logs belongs to the call.
#[derive(Debug)]
pub(crate) struct CallSpan {
    #[cfg(feature = "tracing")]
    pub(super) span: Option<tracing::Span>,
}

impl CallSpan {
    /// Runs `code` within the span.
    pub(crate) fn in_scope<R>(&self, code: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        if let Some(span) = &self.span {
            return span.in_scope(code);
        }
        code()
    }
}
