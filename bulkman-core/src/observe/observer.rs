//! The observer of one call.

#[cfg(feature = "tracing")]
use std::time::Duration;
use std::time::Instant;

use super::{CallEnd, CallSpan};
use crate::bulkhead::Inner;

/// Observes one call, if tracing or metrics were enabled for it when it began.
#[derive(Debug)]
pub(crate) struct Observer {
    /// The id of the call's report; zero if there is none.
    id: u64,
    call: Option<Box<ObservedCall>>,
}

/// The data of an observed call. It is boxed to keep futures small: few calls are observed.
#[derive(Debug)]
struct ObservedCall {
    began: Instant,
    run_started: Option<Instant>,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Observer {
    /// `id`: that of the call's report; zero if there is none.
    #[inline]
    pub(crate) const fn new(id: u64) -> Self {
        Self { id, call: None }
    }

    /// Starts to observe the call, if tracing or metrics are enabled.
    #[inline]
    pub(crate) fn begin(&mut self, inner: &Inner) {
        if may_be_enabled(inner) {
            self.call = ObservedCall::begin(inner, self.id);
        }
    }

    /// Returns `true` if this call is observed.
    #[inline]
    pub(crate) const fn is_enabled(&self) -> bool {
        self.call.is_some()
    }

    /// Records the start of the operation.
    #[inline]
    pub(crate) fn run(&mut self, inner: &Inner) {
        if let Some(call) = &mut self.call {
            call.run_started = Some(inner.runtime.now());
        }
    }

    /// Enters the span of the call until the result is dropped.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn enter(&self) -> Option<tracing::span::Entered<'_>> {
        self.call.as_ref().map(|call| call.span.enter())
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    pub(crate) const fn enter(&self) -> super::NoSpan {
        super::NoSpan
    }

    /// Returns the span of the call, for code that outlives the observer.
    pub(crate) fn span(&self) -> CallSpan {
        CallSpan {
            #[cfg(feature = "tracing")]
            span: self.call.as_ref().map(|call| call.span.clone()),
        }
    }

    /// Reports the end of the call. What it held was released before.
    #[inline]
    pub(crate) fn end(&mut self, inner: &Inner, end: CallEnd) {
        // Checked before it is taken, so that a call that is not observed writes nothing.
        if self.is_enabled() {
            self.report(inner, end);
        }
    }

    #[cold]
    fn report(&mut self, inner: &Inner, end: CallEnd) {
        if let Some(call) = self.call.take() {
            call.end(inner, end);
        }
    }
}

/// Returns `true` if a subscriber or a recorder may be interested in calls.
///
/// Every call performs this check.
#[inline]
fn may_be_enabled(inner: &Inner) -> bool {
    #[cfg(feature = "tracing")]
    if super::events::enabled(tracing::Level::DEBUG) {
        return true;
    }
    #[cfg(feature = "metrics")]
    if inner.meter.is_timed() {
        return true;
    }
    let _ = inner;
    false
}

impl ObservedCall {
    #[cold]
    fn begin(inner: &Inner, id: u64) -> Option<Box<Self>> {
        #[cfg(feature = "tracing")]
        let span = tracing::debug_span!(
            target: "bulkman::call",
            "call",
            bulkhead = inner.name.as_str(),
            id = if id == 0 { super::next_call_id() } else { id },
            queued_seconds = tracing::field::Empty,
            ran_seconds = tracing::field::Empty,
            outcome = tracing::field::Empty,
            reason = tracing::field::Empty,
            // Backends of OpenTelemetry show a span with this value as failed.
            otel.status_code = tracing::field::Empty,
        );
        #[cfg(feature = "tracing")]
        let enabled = !span.is_disabled();
        #[cfg(not(feature = "tracing"))]
        let (enabled, _) = (false, id);
        #[cfg(feature = "metrics")]
        let enabled = enabled || inner.meter.is_timed();
        enabled.then(|| {
            Box::new(Self {
                began: inner.runtime.now(),
                run_started: None,
                #[cfg(feature = "tracing")]
                span,
            })
        })
    }

    #[cold]
    fn end(self, inner: &Inner, end: CallEnd) {
        let now = inner.runtime.now();
        let queued = self
            .run_started
            .unwrap_or(now)
            .saturating_duration_since(self.began);
        let ran = self
            .run_started
            .map(|started| now.saturating_duration_since(started));
        #[cfg(feature = "metrics")]
        if let Some(ran) = ran {
            inner.meter.record(queued, ran);
        }
        #[cfg(feature = "tracing")]
        self.record(queued, ran, end);
        #[cfg(not(feature = "tracing"))]
        let _ = end;
    }

    #[cfg(feature = "tracing")]
    fn record(&self, queued: Duration, ran: Option<Duration>, end: CallEnd) {
        use crate::call::outcome::Outcome;

        let outcome = match end {
            CallEnd::Completed(Outcome::Success) => "success",
            CallEnd::Completed(Outcome::Failure) => "failure",
            CallEnd::Completed(Outcome::Overloaded) => "overloaded",
            CallEnd::Completed(Outcome::Ignored) => "ignored",
            CallEnd::TimedOut => "timed_out",
            CallEnd::Panicked => "panicked",
            CallEnd::Cancelled => "cancelled",
            CallEnd::Rejected(reason) => {
                self.span.record("reason", reason);
                "rejected"
            }
        };
        self.span.record("outcome", outcome);
        self.span.record("queued_seconds", queued.as_secs_f64());
        if let Some(ran) = ran {
            self.span.record("ran_seconds", ran.as_secs_f64());
        }
        if matches!(
            end,
            CallEnd::Completed(Outcome::Failure) | CallEnd::TimedOut | CallEnd::Panicked
        ) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}
