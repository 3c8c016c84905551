//! Observation of calls and circuits: spans, events and call durations.
//!
//! Usually no subscriber and no recorder is installed, so a call checks once, when it begins.
//! Without the features `tracing` and `metrics` this check is compiled away. With them it is one or
//! two loads, and everything else is behind an [`Observer`] that holds nothing.

mod call_id;
mod call_span;
#[cfg(feature = "tracing")]
mod events;
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
mod noop;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod observer;
mod tracing_context;

pub(crate) use self::call_id::next_call_id;
pub(crate) use self::call_span::CallSpan;
#[cfg(feature = "tracing")]
pub(crate) use self::events::{fleet, limit, rejected, rejected_by_circuit, transition};
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
pub(crate) use self::noop::Observer;
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) use self::observer::Observer;
pub(crate) use self::tracing_context::TracingContext;
use crate::call::outcome::Outcome;

/// Returned instead of an entered span without the feature `tracing`.
#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub(crate) struct NoSpan;

/// How a call ended.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "tracing"),
    allow(dead_code, reason = "only spans catch the details")
)]
pub(crate) enum CallEnd {
    /// The operation completed.
    Completed(Outcome),
    /// The operation exceeded its deadline.
    TimedOut,
    /// The operation panicked.
    Panicked,
    /// The caller dropped the call while it was queued or running.
    Cancelled,
    /// The operation was never started, for this reason.
    Rejected(&'static str),
}
