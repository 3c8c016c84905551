//! What listeners are told: a span for each call, its times, refusals and transitions.
//!
//! As a rule nobody listens, so a call asks once, when it begins. Without the features `tracing`
//! and `metrics` that question is compiled away; with them it is a load or two, and everything
//! else hides behind an [`Observer`] that holds nothing.

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
mod nobody;
pub(crate) mod span;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod watch;

#[cfg(feature = "tracing")]
pub(crate) use self::events::{fleet, refused, refused_by_circuit, transition};
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
pub(crate) use self::nobody::Observer;
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) use self::watch::Observer;

use crate::call::outcome::Outcome;

/// No span to be within.
#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub(crate) struct NoSpan;

/// How a call ended, for those who listen.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "tracing"),
    allow(dead_code, reason = "only spans tell the details")
)]
pub(crate) enum CallEnd {
    /// The operation came to its end.
    Ran(Outcome),
    /// The operation was given up when its time was over.
    TimedOut,
    /// The operation panicked.
    Panicked,
    /// The caller dropped it, waiting or running.
    Cancelled,
    /// It never began, for this reason.
    Refused(&'static str),
}
