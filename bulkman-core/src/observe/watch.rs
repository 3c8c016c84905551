//! One call that somebody listens to.

#[cfg(feature = "tracing")]
use std::time::Duration;
use std::time::Instant;

use super::CallEnd;
use crate::bulkhead::Inner;

/// A call's listeners: none, unless somebody asked when it began.
#[derive(Debug)]
pub(crate) struct Observer {
    /// That of the call's report, or zero.
    id: u64,
    watch: Option<Box<Watch>>,
}

/// Kept off the call's future, which most of the time has no use for it.
#[derive(Debug)]
struct Watch {
    began: Instant,
    running: Option<Instant>,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Observer {
    /// `id`: that of the call's report, or zero.
    #[inline]
    pub(crate) const fn new(id: u64) -> Self {
        Self { id, watch: None }
    }

    /// The call begins.
    #[inline]
    pub(crate) fn begin(&mut self, inner: &Inner) {
        if somebody_may_listen(inner) {
            self.watch = Watch::begin(inner, self.id);
        }
    }

    /// Whether somebody listens to this call.
    #[inline]
    pub(crate) const fn listens(&self) -> bool {
        self.watch.is_some()
    }

    /// The operation begins.
    #[inline]
    pub(crate) fn run(&mut self, inner: &Inner) {
        if let Some(watch) = &mut self.watch {
            watch.running = Some(inner.runtime.now());
        }
    }

    /// Makes the call's span the current one for as long as the result lives.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn enter(&self) -> Option<tracing::span::Entered<'_>> {
        self.watch.as_ref().map(|watch| watch.span.enter())
    }

    #[cfg(not(feature = "tracing"))]
    #[inline]
    pub(crate) const fn enter(&self) -> super::NoSpan {
        super::NoSpan
    }

    /// The call is over; what it held was given back before.
    #[inline]
    pub(crate) fn end(&mut self, inner: &Inner, ending: CallEnd) {
        // Asked before it is taken, so that a call without listeners writes nothing.
        if self.listens() {
            self.tell(inner, ending);
        }
    }

    #[cold]
    fn tell(&mut self, inner: &Inner, ending: CallEnd) {
        if let Some(watch) = self.watch.take() {
            watch.end(inner, ending);
        }
    }
}

/// The question that every call asks.
#[inline]
fn somebody_may_listen(inner: &Inner) -> bool {
    #[cfg(feature = "tracing")]
    if super::events::tells(tracing::Level::DEBUG) {
        return true;
    }
    #[cfg(feature = "metrics")]
    if inner.meter.is_timed() {
        return true;
    }
    let _ = inner;
    false
}

impl Watch {
    #[cold]
    fn begin(inner: &Inner, id: u64) -> Option<Box<Self>> {
        #[cfg(feature = "tracing")]
        let span = tracing::debug_span!(
            target: "bulkman::call",
            "call",
            bulkhead = inner.name.as_str(),
            id = if id == 0 { crate::call::report::next_id() } else { id },
            queued = tracing::field::Empty,
            ran = tracing::field::Empty,
            outcome = tracing::field::Empty,
            reason = tracing::field::Empty,
        );
        #[cfg(feature = "tracing")]
        let wanted = !span.is_disabled();
        #[cfg(not(feature = "tracing"))]
        let (wanted, _) = (false, id);
        #[cfg(feature = "metrics")]
        let wanted = wanted || inner.meter.is_timed();
        wanted.then(|| {
            Box::new(Self {
                began: inner.runtime.now(),
                running: None,
                #[cfg(feature = "tracing")]
                span,
            })
        })
    }

    #[cold]
    fn end(self, inner: &Inner, ending: CallEnd) {
        let now = inner.runtime.now();
        let queued = self
            .running
            .unwrap_or(now)
            .saturating_duration_since(self.began);
        let ran = self
            .running
            .map(|running| now.saturating_duration_since(running));
        #[cfg(feature = "metrics")]
        if let Some(ran) = ran {
            inner.meter.record(queued, ran);
        }
        #[cfg(feature = "tracing")]
        self.tell(queued, ran, ending);
        #[cfg(not(feature = "tracing"))]
        let _ = ending;
    }

    #[cfg(feature = "tracing")]
    fn tell(&self, queued: Duration, ran: Option<Duration>, ending: CallEnd) {
        use crate::call::outcome::Outcome;

        let outcome = match ending {
            CallEnd::Ran(Outcome::Success) => "success",
            CallEnd::Ran(Outcome::Failure) => "failure",
            CallEnd::Ran(Outcome::Ignored) => "ignored",
            CallEnd::TimedOut => "timed_out",
            CallEnd::Panicked => "panicked",
            CallEnd::Cancelled => "cancelled",
            CallEnd::Refused(reason) => {
                self.span.record("reason", reason);
                "refused"
            }
        };
        self.span.record("outcome", outcome);
        self.span.record("queued", tracing::field::debug(queued));
        if let Some(ran) = ran {
            self.span.record("ran", tracing::field::debug(ran));
        }
    }
}
